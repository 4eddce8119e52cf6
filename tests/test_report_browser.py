"""The page in a real browser: sorting, filtering, charts, no error, no request to the outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("selenium")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver (Debian: chromium, chromium-driver)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--window-size=1600,1000",
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(browser: webdriver.Chrome, example_report: Path) -> webdriver.Chrome:
    browser.get(example_report.as_uri())
    ready = "return document.body.dataset.board === 'ready' && document.body.dataset.charts === 'ready'"
    WebDriverWait(browser, 90).until(lambda driver: driver.execute_script(ready))
    return browser


def column(page: webdriver.Chrome, head: str) -> list[str]:
    """Texts of a column of the leaderboard, visible rows only."""
    script = """
        const table = document.getElementById('board');
        const heads = [...table.tHead.rows[0].cells].map(cell => cell.textContent.trim());
        const cell = row => row.cells[heads.indexOf(arguments[0])].querySelector('span');
        return [...table.tBodies[0].rows].map(row => cell(row).textContent);
    """
    return page.execute_script(script, head)


def head(page: webdriver.Chrome, name: str):
    (found,) = [cell for cell in page.find_elements(By.CSS_SELECTOR, "#board thead th") if cell.text.strip() == name]
    return found


def test_headings_sort_by_value_with_the_mouse_and_the_keyboard(page: webdriver.Chrome) -> None:
    name = "image AUROC"
    heading = head(page, name)
    page.execute_script("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", heading)
    heading.click()
    values = [float(text) for text in column(page, name)]
    assert values == sorted(values)
    target = page.execute_script(
        "return arguments[0].matches('[tabindex]') ? arguments[0] : arguments[0].querySelector('[tabindex]')", heading
    )
    target.send_keys(Keys.ENTER)
    values = [float(text) for text in column(page, name)]
    assert values == sorted(values, reverse=True)
    assert len(values) == 6


def test_filters_and_search_leave_rows_out(page: webdriver.Chrome) -> None:
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


def test_charts_show_the_metric_that_is_chosen(page: webdriver.Chrome) -> None:
    choice = page.find_element(By.CSS_SELECTOR, "select.metric")
    chart = choice.get_attribute("data-chart")
    shown = "return document.getElementById(arguments[0]).data.filter(t => t.visible === true).map(t => t.meta)"
    assert set(page.execute_script(shown, chart)) == {"image_auroc"}
    Select(choice).select_by_value("pixel_aupro")
    assert set(page.execute_script(shown, chart)) == {"pixel_aupro"}
    hover = "return document.getElementById(arguments[0]).data[0].hovertemplate"
    assert "95 % interval" in page.execute_script(hover, chart)


def test_the_gallery_shows_one_category_at_a_time(page: webdriver.Chrome) -> None:
    visible = (
        "return [...document.querySelectorAll('.gallery figure')].filter(f => !f.hidden).map(f => f.dataset.category)"
    )
    assert set(page.execute_script(visible)) == {"bolt"}
    Select(page.find_element(By.CSS_SELECTOR, "#gallery-filters select[data-part=category]")).select_by_visible_text(
        "all"
    )
    assert len(page.execute_script(visible)) == 6


@pytest.mark.parametrize("width", [400, 1024, 1600])
def test_nothing_is_wider_than_the_window(page: webdriver.Chrome, width: int) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    measure = "return document.documentElement.scrollWidth"
    WebDriverWait(page, 30).until(lambda driver: driver.execute_script(measure) <= width)  # charts are drawn anew
    broken = "return [...document.images].filter(image => image.complete && !image.naturalWidth).length"
    assert page.execute_script(broken) == 0


def test_everything_is_labelled(page: webdriver.Chrome) -> None:
    """What a screen reader needs: names of fields, alternative texts, one main heading, a language."""
    unnamed = "return [...document.querySelectorAll('select, input')].filter(field => !field.labels.length).length"
    assert page.execute_script(unnamed) == 0
    assert page.execute_script("return [...document.images].filter(image => !image.alt).length") == 0
    assert page.execute_script("return document.querySelectorAll('h1').length") == 1
    assert page.execute_script("return document.documentElement.lang") == "en"


def test_no_error_and_no_request_to_the_outside(page: webdriver.Chrome) -> None:
    """Last: looks back at everything above."""
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    addresses = []
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            addresses.append(message["params"]["request"]["url"])
    assert addresses
    assert [address for address in addresses if not address.startswith(("file:", "data:", "blob:"))] == []
