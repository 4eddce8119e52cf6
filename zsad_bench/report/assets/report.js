"use strict";

// The leaderboard: sorting and searching by DataTables, one choice a column from the form above it.
async function startBoard() {
  const table = document.getElementById("board");
  if (!table || !table.tBodies[0].rows.length) return;
  const source = atob(document.getElementById("datatables").textContent.trim());
  const bytes = Uint8Array.from(source, (letter) => letter.charCodeAt(0));
  const address = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
  const { default: DataTable } = await import(address);
  URL.revokeObjectURL(address);
  const board = new DataTable(table, { paging: false, info: false, order: [], ordering: { handler: false, indicators: true }, autoWidth: false, layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null } });
  const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
  sortByHeadings(board, table.tHead.rows[0].cells);
  const count = document.getElementById("board-count");
  const say = () => { count.textContent = `${board.rows({ search: "applied" }).count()} of ${board.rows().count()} rows`; };
  for (const choice of document.querySelectorAll("#board-filters select")) {
    const column = heads.indexOf(choice.dataset.column);
    choice.addEventListener("change", () => {
      const exactly = (text) => choice.value === "" || text.trim() === choice.value || (choice.dataset.column === "batch size" && text.trim().split(", ").includes(choice.value)) || (choice.dataset.column === "method" && text.trim().startsWith(`${choice.value} (`));
      board.column(column).search(choice.value === "" ? "" : exactly).draw();
    });
  }
  document.getElementById("board-search").addEventListener("input", (event) => board.search(event.target.value).draw());
  document.getElementById("board-filters").addEventListener("submit", (event) => event.preventDefault());
  board.on("draw", say);
  say();
  document.body.dataset.board = "ready";
}

// A heading sorts up, then down, then brings the first order back. DataTables has handlers of its own, but they sort in a
// timer after the event, so that whoever looks at once sees the old rows, and they do not know the space bar.
function sortByHeadings(board, headings) {
  [...headings].forEach((heading, index) => {
    const sort = () => {
      const [column, direction] = board.order()[0] || [];
      const next = column !== index ? "asc" : { asc: "desc", desc: "" }[direction];
      board.order(next ? [index, next] : []).draw();
    };
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort();
    });
  });
}

// Charts: all metrics are in the figure, the select shows one.
async function startCharts() {
  for (const choice of document.querySelectorAll("select.metric")) {
    const target = document.getElementById(choice.dataset.chart);
    const figure = JSON.parse(document.getElementById(`${choice.dataset.chart}-data`).textContent);
    const shown = () => figure.data.map((trace) => trace.meta === choice.value);
    const axis = () => `${choice.selectedOptions[0].text}, %`;
    figure.data.forEach((trace, index) => { trace.visible = shown()[index]; });
    figure.layout.yaxis.title.text = axis();
    if (window.innerWidth < 600) figure.layout.legend.font = { size: 11 };
    await Plotly.newPlot(target, figure.data, figure.layout, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
    choice.addEventListener("change", () => Plotly.update(target, { visible: shown() }, { "yaxis.title.text": axis() }));
  }
  document.body.dataset.charts = "ready";
}

function startGallery() {
  const choices = [...document.querySelectorAll("#gallery-filters select")];
  const show = () => {
    for (const figure of document.querySelectorAll(".gallery figure")) {
      figure.hidden = choices.some((choice) => choice.value && figure.dataset[choice.dataset.part] !== choice.value);
    }
  };
  for (const choice of choices) choice.addEventListener("change", show);
  if (choices.length && choices[1].options.length > 2) {
    choices[1].selectedIndex = 1;
    show();
  }
}

// On paper: no open tables, and charts as wide as the page.
const PAPER = 960;
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("article details")) details.open = false;
  for (const image of document.querySelectorAll(".figures img")) image.classList.toggle("tall", image.naturalHeight > 0.75 * image.naturalWidth);
  for (const chart of document.querySelectorAll(".chart")) Plotly.relayout(chart, { width: PAPER });
});
window.addEventListener("afterprint", () => {
  for (const chart of document.querySelectorAll(".chart")) Plotly.relayout(chart, { width: null, autosize: true });
});
startGallery();
startCharts();
startBoard();
