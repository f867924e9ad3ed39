"""The page in a real browser."""

import re

import pytest
from browser import OVERFLOW, chromium, dark, load, media, needs_browser, resize, without_scripts
from page import write_page, write_records
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

pytestmark = needs_browser
VISIBLE = "return [...document.querySelectorAll('tbody[data-verdict]')].filter(e => e.offsetHeight).map(e => e.id)"
LUMINANCES = """
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return luminance(colour);
  }
};
return [...document.querySelectorAll(arguments[0])].filter(e => e.offsetHeight)
  .map(e => [luminance(getComputedStyle(e).color), ground(e)]);
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    write_records(root / "results")
    _, verdicts, _ = write_page(root / "results", root / "report.html")
    with chromium(root / "profile") as driver:
        yield driver, (root / "report.html").as_uri(), verdicts


@pytest.fixture
def page(browser):
    return load(*browser[:2])


def choose(driver, name, text):
    Select(driver.find_element(By.NAME, name)).select_by_value(text)
    return driver.execute_script(VISIBLE)


def contrasts(driver, selector):
    pairs = driver.execute_script(LUMINANCES, selector)
    assert pairs
    return [(max(pair) + 0.05) / (min(pair) + 0.05) for pair in pairs]


def test_nothing_is_complained_about_and_nothing_is_asked_for(page):
    assert page.get_log("browser") == []
    asked = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in asked if not name.startswith("data:")] == []
    assert page.execute_script("return typeof alert === 'function' && !document.querySelector('main img')")


def test_filters_show_the_claims_that_fit_and_count_them(page, browser):
    verdicts = browser[2]
    everything = [f"claim-{verdict.claim.id}" for verdict in verdicts]
    count = page.find_element(By.ID, "count")
    assert page.execute_script(VISIBLE) == everything
    assert count.text == f"{len(verdicts)} of {len(verdicts)} claims"
    for outcome in ("supported", "contradicted", "inconclusive", "not measured"):
        fitting = [f"claim-{verdict.claim.id}" for verdict in verdicts if verdict.verdict == outcome]
        assert choose(page, "verdict", outcome) == fitting
        assert count.text == f"{len(fitting)} of {len(verdicts)} claims"
    choose(page, "verdict", "inconclusive")
    both = [v for v in verdicts if v.verdict == "inconclusive" and "Brock et al. 2021" in v.claim.papers]
    assert choose(page, "paper", "Brock et al. 2021") == [f"claim-{v.claim.id}" for v in both] and both
    page.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    page.execute_script("return new Promise(done => setTimeout(done, 20))")
    assert page.execute_script(VISIBLE) == everything
    # An inference from a paper is filed with the paper.
    cohen = [v.claim.id for v in verdicts if any("Cohen" in paper for paper in v.claim.papers)]
    assert choose(page, "paper", "Cohen et al. 2021") == [f"claim-{id}" for id in cohen]


def test_a_row_opens_and_closes_from_the_keyboard(page):
    details = page.find_element(By.CSS_SELECTOR, "#claim-3 details")
    summary = details.find_element(By.TAG_NAME, "summary")
    page.execute_script("document.querySelector('#claim-2 summary').focus()")
    page.switch_to.active_element.send_keys(Keys.TAB)
    assert page.switch_to.active_element == summary
    for key, opened in ((Keys.ENTER, True), (Keys.SPACE, False), (Keys.SPACE, True)):
        summary.send_keys(key)
        assert (details.get_attribute("open") is not None) == opened
    assert details.find_element(By.CSS_SELECTOR, "svg.dots").size["height"] > 30
    assert "ratio" in details.text


def test_all_details_open_at_once(page):
    button = page.find_element(By.NAME, "all")
    closed = "return document.querySelectorAll('#claims details:not([open])').length"
    button.click()
    assert (button.get_attribute("aria-pressed"), page.execute_script(closed)) == ("true", 0)
    button.click()
    assert page.execute_script(closed) > 20


def test_a_link_shows_what_is_folded_or_filtered_away(page, browser):
    choose(page, "verdict", "not measured")
    page.execute_script("location.hash = 'claim-3'; return new Promise(done => setTimeout(done, 50))")
    assert page.find_element(By.CSS_SELECTOR, "#claim-3 details").get_attribute("open")
    assert len(page.execute_script(VISIBLE)) == len(browser[2])
    page.execute_script("location.hash = 'runs-landscape'; return new Promise(done => setTimeout(done, 50))")
    assert page.find_element(By.CSS_SELECTOR, "#runs-landscape table").is_displayed()


@pytest.mark.parametrize("width", [1280, 360])
def test_every_figure_is_drawn(page, width):
    resize(page, width)
    boxes = page.execute_script(
        "return [...document.querySelectorAll('.card:not([hidden]) > svg')].map(e => [e.getBoundingClientRect().width, "
        "e.getBoundingClientRect().height, e.getBBox().width, e.getBBox().height])"
    )
    assert len(boxes) > 5 and all(min(box) > 100 for box in boxes)
    clipped = "[...document.querySelectorAll('figure [clip-path]')]"
    missing = f"return {clipped}.filter(e => !document.querySelector(e.getAttribute('clip-path').slice(4, -1))).length"
    assert page.execute_script(f"return {clipped}.length") > 10 and page.execute_script(missing) == 0


@pytest.mark.parametrize("width", [360, 700, 1280])
def test_the_page_never_scrolls_sideways(page, width):
    resize(page, width)
    assert page.execute_script(OVERFLOW) == 0
    page.execute_script("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert page.execute_script(OVERFLOW) == 0


def test_on_paper_everything_is_shown(page):
    with media(page, media="print"):
        assert not page.find_element(By.ID, "filters").is_displayed()
        assert page.execute_script("return document.querySelector('#claim-3 .full').offsetHeight") > 100
        assert page.execute_script("return document.querySelector('#runs-landscape table').offsetHeight") > 50
        cards = page.execute_script(
            "return [...document.querySelectorAll('.card, .scroll')].map(e => getComputedStyle(e).overflowX)"
        )
        assert set(cards) == {"visible"}
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert page.execute_script("return document.querySelectorAll('details:not([open])').length") == 0
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert page.execute_script("return document.querySelectorAll('details[open]').length") == 0


@pytest.mark.parametrize("features", [{"features": []}, dark()], ids=["light", "dark"])
def test_text_stands_out_in_light_and_dark(page, features):
    page.execute_script("for (const fold of document.querySelectorAll('details')) fold.open = true")
    with media(page, **features):
        (text, ground), *_ = page.execute_script(LUMINANCES, "body")
        assert (text > ground) == bool(features["features"])
        selectors = "h1, h2, h3, p, li, dt, dd, a, code, td, th, summary, figcaption, .quiet, .verdict, .flag, output"
        assert min(contrasts(page, selectors)) > 4.5
        cards = page.execute_script(LUMINANCES, ".card")
        assert all(ground > 0.9 for _, ground in cards)  # figures are made for white paper


def test_without_scripts_all_is_there(browser):
    driver, address, verdicts = browser
    with without_scripts(driver):
        load(driver, address)
        claims = driver.find_elements(By.CSS_SELECTOR, "tbody[data-verdict]")
        assert len(claims) == len(verdicts) and all(claim.is_displayed() for claim in claims)
        assert not driver.find_element(By.ID, "filters").is_displayed()
        details = driver.find_element(By.CSS_SELECTOR, "#claim-1 details")
        details.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
        assert re.search(r"Mean over 6 seeds", details.text)
        drawn = driver.find_elements(By.CSS_SELECTOR, "figure .card > svg")
        assert len(drawn) > 5 and all(svg.size["height"] > 100 for svg in drawn)
        assert not driver.find_elements(By.CSS_SELECTOR, ".chart, .explore")
