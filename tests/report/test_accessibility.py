"""Axe, the checker of accessibility, finds nothing on either page, with all that can be opened open."""

from importlib.resources import files

import pytest
from browser import both_pages, dark, load, media, needs_browser

pytestmark = needs_browser
OPEN = """
for (const fold of document.querySelectorAll('details')) fold.open = true;
for (const button of document.querySelectorAll('.explore[aria-pressed=false]')) button.click();
"""
RUN = "const done = arguments[arguments.length - 1]; axe.run().then(done, (error) => done({ error: String(error) }))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with both_pages(tmp_path_factory.mktemp("axe")) as opened:
        yield opened


def found(driver):
    """What axe finds: of each rule that is broken its name, and where; and how many rules were kept."""
    driver.execute_script((files("axe_playwright_python") / "axe.min.js").read_text())
    driver.set_script_timeout(120)
    result = driver.execute_async_script(RUN)
    assert "error" not in result, result
    broken = [(rule["id"], [node["target"] for node in rule["nodes"]][:3]) for rule in result["violations"]]
    return broken, {rule["id"] for rule in result["passes"]}


@pytest.mark.parametrize("page", ["report.html", "comparison.html"])
@pytest.mark.parametrize("features", [{"features": []}, dark()], ids=["light", "dark"])
def test_axe_finds_nothing(browser, page, features):
    driver, root = browser
    with media(driver, **features):
        load(driver, (root / page).as_uri())
        driver.execute_script(OPEN)
        broken, kept = found(driver)
    assert broken == []
    assert {"color-contrast", "button-name", "aria-input-field-name", "label", "heading-order", "region"} <= kept


def test_axe_would_find_something(browser):
    driver, root = browser
    load(driver, (root / "report.html").as_uri())
    driver.execute_script("document.querySelector('.explore').removeAttribute('aria-label')")
    driver.execute_script("document.querySelector('.explore').replaceChildren()")
    assert [rule for rule, _ in found(driver)[0]] == ["button-name"]
