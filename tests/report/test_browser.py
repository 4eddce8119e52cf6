"""The page in real browsers: sorting, filtering, charts, no error, no request to the outside.

A browser is used if it and its driver are there: ``chromium`` with ``chromedriver``, ``firefox`` (or ``firefox-esr``)
with ``geckodriver``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

pytest.importorskip("selenium")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service as ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.firefox.service import Service as FirefoxService
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.helpers.result_files import category, info, saved
from zsad_bench.report.write import write_report

HOSTILE = "<img src=x onerror=\"document.title='broken'\"><b>&amp;"
READY = "return document.body.dataset.board === 'ready' && document.body.dataset.charts === 'ready'"


@dataclass
class Heard:
    """What a browser said while the tests went on."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def found(*names: str) -> str | None:
    """The first of some programs that is installed."""
    return next((path for name in names if (path := shutil.which(name))), None)


def start_chromium() -> WebDriver:
    program, driver = found("chromium", "chromium-browser", "google-chrome"), found("chromedriver")
    if not (program and driver):
        pytest.skip("no chromium with chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.enable_bidi = True
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=ChromeService(driver))


def start_firefox() -> WebDriver:
    program, driver = found("firefox", "firefox-esr"), found("geckodriver")
    if not (program and driver):
        pytest.skip("no firefox with geckodriver")
    options = webdriver.FirefoxOptions()
    options.binary_location = program
    options.enable_bidi = True
    options.add_argument("-headless")
    return webdriver.Firefox(options=options, service=FirefoxService(driver))


@pytest.fixture(scope="module", params=[start_chromium, start_firefox], ids=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest) -> Iterator[tuple[WebDriver, Heard]]:
    driver, heard = request.param(), Heard()
    driver.set_page_load_timeout(120)
    driver.script.add_console_message_handler(
        lambda entry: heard.errors.append(entry.text) if entry.level in ("error", "warn", "warning") else None
    )
    driver.script.add_javascript_error_handler(lambda entry: heard.errors.append(entry.text))
    driver.network.add_event_handler("before_request", lambda event: heard.requests.append(event["request"]["url"]))
    yield driver, heard
    driver.quit()


@pytest.fixture(scope="module")
def page(browser: tuple[WebDriver, Heard], example_report: Path) -> WebDriver:
    return opened(browser[0], example_report)


def opened(driver: WebDriver, path: Path) -> WebDriver:
    driver.set_window_size(1600, 1000)
    driver.get(path.as_uri())
    WebDriverWait(driver, 90).until(lambda driver: driver.execute_script(READY))
    return driver


def column(page: WebDriver, head: str) -> list[str]:
    """Texts of a column of the leaderboard, visible rows only."""
    script = """
        const table = document.getElementById('board');
        const heads = [...table.tHead.rows[0].cells].map(cell => cell.textContent.trim());
        const cell = row => row.cells[heads.indexOf(arguments[0])].querySelector('span');
        return [...table.tBodies[0].rows].map(row => cell(row).textContent);
    """
    return page.execute_script(script, head)


def head(page: WebDriver, name: str) -> WebElement:
    (heading,) = [cell for cell in page.find_elements(By.CSS_SELECTOR, "#board thead th") if cell.text.strip() == name]
    page.execute_script("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", heading)
    return heading


def test_headings_sort_by_value_with_the_mouse_and_the_keyboard(page: WebDriver) -> None:
    name = "image AUROC"
    ranked = column(page, name)
    heading = head(page, name)
    heading.click()
    values = [float(text) for text in column(page, name)]
    assert values == sorted(values)
    assert heading.get_attribute("aria-sort") == "ascending"
    target = page.execute_script(
        "return arguments[0].matches('[tabindex]') ? arguments[0] : arguments[0].querySelector('[tabindex]')", heading
    )
    target.send_keys(Keys.ENTER)
    values = [float(text) for text in column(page, name)]
    assert values == sorted(values, reverse=True)
    assert len(values) == 6
    assert heading.get_attribute("aria-sort") == "descending"
    target.send_keys(Keys.SPACE)
    assert column(page, name) == ranked


def test_numbers_in_labels_are_sorted_as_numbers(page: WebDriver) -> None:
    heading = head(page, "rank")
    heading.click()
    assert column(page, "rank") == ["1", "1", "2", "2", "3", "4"]
    heading.click()
    heading.click()


def test_filters_and_search_leave_rows_out(page: WebDriver) -> None:
    setting = Select(page.find_element(By.CSS_SELECTOR, "#board-filters select[data-column=setting]"))
    setting.select_by_visible_text("single")
    assert set(column(page, "method")) == {"clip_ad"}
    assert "2 of 6 rows" in page.find_element(By.ID, "board-count").text
    setting.select_by_visible_text("all")
    search = page.find_element(By.ID, "board-search")
    search.send_keys("musc")
    assert set(column(page, "method")) == {"musc"}
    search.clear()
    search.send_keys(" ", Keys.BACKSPACE)
    assert len(column(page, "method")) == 6


def test_charts_show_the_metric_that_is_chosen(page: WebDriver) -> None:
    choice = page.find_element(By.CSS_SELECTOR, "select.metric")
    chart = choice.get_attribute("data-chart")
    shown = "return document.getElementById(arguments[0]).data.filter(t => t.visible === true).map(t => t.meta)"
    assert set(page.execute_script(shown, chart)) == {"image_auroc"}
    Select(choice).select_by_value("pixel_aupro")
    assert set(page.execute_script(shown, chart)) == {"pixel_aupro"}
    hover = "return document.getElementById(arguments[0]).data[0].hovertemplate"
    assert "95 % interval" in page.execute_script(hover, chart)


def test_the_gallery_shows_one_category_at_a_time(page: WebDriver) -> None:
    visible = (
        "return [...document.querySelectorAll('.gallery figure')].filter(f => !f.hidden).map(f => f.dataset.category)"
    )
    assert set(page.execute_script(visible)) == {"bolt"}
    Select(page.find_element(By.CSS_SELECTOR, "#gallery-filters select[data-part=category]")).select_by_visible_text(
        "all"
    )
    assert len(page.execute_script(visible)) == 6


@pytest.mark.parametrize("width", [400, 1024, 1600])
def test_nothing_is_wider_than_the_window(page: WebDriver, width: int) -> None:
    page.browsing_context.set_viewport(page.current_window_handle, {"width": width, "height": 900})
    measure = "return document.documentElement.scrollWidth <= window.innerWidth && window.innerWidth === arguments[0]"
    WebDriverWait(page, 30).until(lambda driver: driver.execute_script(measure, width))  # charts are drawn anew
    broken = "return [...document.images].filter(image => image.complete && !image.naturalWidth).length"
    assert page.execute_script(broken) == 0


def test_everything_is_labelled(page: WebDriver) -> None:
    """What a screen reader needs: names of fields, alternative texts, one main heading, a language."""
    unnamed = "return [...document.querySelectorAll('select, input')].filter(field => !field.labels.length).length"
    assert page.execute_script(unnamed) == 0
    assert page.execute_script("return [...document.images].filter(image => !image.alt).length") == 0
    assert page.execute_script("return document.querySelectorAll('h1').length") == 1
    assert page.execute_script("return document.documentElement.lang") == "en"


def test_text_from_data_is_text(browser: tuple[WebDriver, Heard], tmp_path: Path) -> None:
    """Markup in names reaches the table, the filters and the legends of charts as the letters it is made of."""
    for number in range(2):
        job = replace(info(f"{HOSTILE}{number}", digest=str(number) * 12), dataset=HOSTILE, variant="paper")
        saved(tmp_path, job, category("bottle", 0.5), category("cable", 0.6))
    page = opened(browser[0], write_report([tmp_path], output=tmp_path / "out"))
    assert column(page, "method") == [f"{HOSTILE}{number}" for number in range(2)]
    choices = Select(page.find_element(By.CSS_SELECTOR, "#board-filters select[data-column=method]")).options
    assert [choice.text for choice in choices][1:] == [f"{HOSTILE}{number}" for number in range(2)]
    legend = "return [...document.querySelectorAll('.chart .legendtext')].map(text => text.textContent)"
    assert set(page.execute_script(legend)) == {f"{HOSTILE}{number}" for number in range(2)}
    assert "broken" not in page.title
    assert page.execute_script("return document.querySelectorAll('img[src=x]').length") == 0


def test_no_error_and_no_request_to_the_outside(browser: tuple[WebDriver, Heard]) -> None:
    """Last: looks back at everything above."""
    heard = browser[1]
    assert heard.errors == []
    assert heard.requests
    assert [address for address in heard.requests if not address.startswith(("file:", "data:", "blob:"))] == []


def test_errors_and_requests_would_be_heard(browser: tuple[WebDriver, Heard]) -> None:
    """The test above sees what it looks for."""
    driver, heard = browser
    driver.get("about:blank")
    address = "http://nowhere.invalid/x"
    driver.execute_script(
        "console.error('heard'); document.body.append(Object.assign(new Image(), {src: arguments[0]}))", address
    )
    WebDriverWait(driver, 30).until(lambda _: "heard" in heard.errors and address in heard.requests)
