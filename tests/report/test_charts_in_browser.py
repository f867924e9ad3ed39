"""Charts in a real browser: what mouse, keyboard and the controls do."""

import json
import math
import re

import numpy as np
import pytest
from browser import OVERFLOW, both_pages, load, media, needs_browser, resize
from page import EVIL, QUOTES
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

pytestmark = needs_browser
EXPLORE = "for (const button of document.querySelectorAll('.explore[aria-pressed=false]')) button.click()"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with both_pages(tmp_path_factory.mktemp("charts")) as opened:
        yield opened


@pytest.fixture
def page(browser):
    driver, root = browser
    return load(driver, (root / "report.html").as_uri())


@pytest.fixture
def comparison(browser):
    driver, root = browser
    return load(driver, (root / "comparison.html").as_uri())


def recorded(root, regime, key="train/accuracy"):
    """What the records of landscape hold, a dictionary of seeds to dictionaries of steps, accuracies in per cent."""
    found = {}
    for path in sorted(root.glob(f"results/landscape/{regime}-*/seed-*/metrics.jsonl")):
        rows = map(json.loads, path.read_text().splitlines())
        found[int(path.parent.name.removeprefix("seed-"))] = {row["step"]: 100 * row[key] for row in rows if key in row}
    return found


class Chart:
    """A chart of the page, and what is in its first panel."""

    def __init__(self, driver, anchor):
        self.driver = driver
        self.figure = driver.find_element(By.ID, anchor)
        if not self.figure.find_elements(By.CSS_SELECTOR, ".chart"):
            self.figure.find_element(By.CSS_SELECTOR, ".explore").click()
        self.plot = self.figure.find_element(By.CSS_SELECTOR, ".plot")

    def all(self, selector):
        return self.figure.find_elements(By.CSS_SELECTOR, selector)

    def lines(self):
        """The colours of the means that are drawn in the first panel."""
        return [line.get_attribute("stroke") for line in self.plot.find_elements(By.CSS_SELECTOR, ".mean")]

    def ticks(self):
        """Of the vertical axis of the first panel the values and where they stand."""
        texts = self.plot.find_elements(By.CSS_SELECTOR, "text[text-anchor=end]")
        return [(float(text.text.replace(",", "")), float(text.get_attribute("y"))) for text in texts]

    def press(self, *keys):
        for key in keys:
            self.plot.send_keys(key)
        return self.plot.get_attribute("aria-valuetext")

    def point(self, x, y):
        """Move the mouse so far from the left and the top of the first panel, in shares of its size."""
        size = self.plot.size
        self.driver.execute_script("arguments[0].scrollIntoView({ block: 'center' })", self.plot)
        across, down = (x - 0.5) * size["width"], (y - 0.5) * size["height"]
        ActionChains(self.driver, duration=0).move_to_element_with_offset(self.plot, across, down).perform()
        return self.figure.find_element(By.CSS_SELECTOR, ".readout").text


def numbers(text):
    return [float(number.replace(",", "")) for number in re.findall(r"-?[\d,]*\.?\d+(?:e-?\d+)?", text)]


# --- pointing --------------------------------------------------------------------------------------------------------


def test_the_page_opens_with_a_chart_that_tells_value_and_seed_under_the_pointer(page, browser):
    chart = Chart(page, "regimes-figure")
    assert not page.find_element(By.CSS_SELECTOR, "#regimes-figure .card").is_displayed()
    said = chart.point(0.55, 0.1).splitlines()
    step = int(numbers(said[0])[0])
    assert re.fullmatch(r"step \d+", said[0]) and 30 <= step <= 70
    none, bn = (recorded(browser[1], regime) for regime in ("none", "bn"))
    for line, label, of in ((said[1], "Standard", none), (said[2], "Standard + BatchNorm", bn)):
        mean = np.mean([values[step] for values in of.values()])
        assert line.startswith(f"{label}: ") and line.endswith("mean of 2 seeds")
        assert numbers(line)[0] == pytest.approx(mean, rel=1e-3)
    best = max(bn, key=lambda seed: bn[seed][step])  # as near to the upper edge as a seed comes
    here = re.fullmatch(r"Here: seed (\d) of Standard \+ BatchNorm: (.+)", said[3])
    assert here and int(here[1]) == best and float(here[2]) == pytest.approx(bn[best][step], rel=5e-3)
    low = chart.point(0.55, 0.85).splitlines()[-1]
    worst = min(none, key=lambda seed: none[seed][step])
    assert low.startswith(f"Here: seed {worst} of Standard: ")


def test_a_readout_goes_away_with_the_mouse(page):
    chart = Chart(page, "regimes-figure")
    assert chart.point(0.5, 0.5)
    ActionChains(page, duration=0).move_to_element(page.find_element(By.TAG_NAME, "h1")).perform()
    assert not chart.figure.find_element(By.CSS_SELECTOR, ".readout").is_displayed()


def test_a_panel_answers_to_the_keyboard(page, browser):
    chart = Chart(page, "regimes-figure")
    page.execute_script("arguments[0].focus()", chart.plot)
    scrolled = page.execute_script("return scrollY")
    assert chart.plot.get_attribute("aria-valuetext").startswith("step 100; ")
    assert chart.press(Keys.ARROW_LEFT).startswith("step 90; ")
    assert chart.press(Keys.HOME).startswith("step 10; ")
    assert chart.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).startswith("step 30; ")
    assert chart.press(Keys.END, Keys.ARROW_RIGHT).startswith("step 100; ")
    assert chart.plot.get_attribute("aria-valuenow") == chart.plot.get_attribute("aria-valuemax") == "100"
    everything = [
        (recorded(browser[1], regime), label)
        for regime, label in (("none", "Standard"), ("bn", "Standard + BatchNorm"))
    ]
    order = sorted((of[seed][100], f"seed {seed} of {label}") for of, label in everything for seed in of)
    for value, named in [*order, order[0]]:
        said = chart.press(Keys.ARROW_UP).split("; ")[1]
        assert said.startswith(f"{named}: ") and float(said.split(": ")[1]) == pytest.approx(value, rel=5e-3)
    assert order[-1][1] in chart.press(Keys.ARROW_DOWN)
    assert page.execute_script("return scrollY") == scrolled


# --- controls --------------------------------------------------------------------------------------------------------


def test_regimes_are_taken_away_and_brought_back(page):
    chart = Chart(page, "regimes-figure")
    none, bn = chart.all(".tools button")
    assert (none.text, bn.text) == ("Standard", "Standard + BatchNorm") and chart.lines() == ["#D55E00", "#0072B2"]
    none.click()
    assert (none.get_attribute("aria-pressed"), chart.lines()) == ("false", ["#0072B2"])
    assert "Standard:" not in chart.point(0.5, 0.5)
    none.send_keys(Keys.SPACE)
    assert (none.get_attribute("aria-pressed"), chart.lines()) == ("true", ["#D55E00", "#0072B2"])
    none.click(), bn.click()
    assert chart.lines() == [] and chart.point(0.5, 0.5) == ""


def test_the_axis_is_made_logarithmic(page):
    chart = Chart(page, "regimes-figure")
    values, places = zip(*chart.ticks(), strict=True)
    assert values == (0, 25, 50, 75, 100)
    np.testing.assert_allclose(np.diff(places), np.diff(places)[0], atol=0.2)
    chart.all(".tools input[type=checkbox]")[0].click()
    values, places = zip(*chart.ticks(), strict=True)
    assert min(values) > 0
    slopes = np.diff(places) / np.diff([math.log10(value) for value in values])
    np.testing.assert_allclose(slopes, slopes[0], rtol=0.01)


def test_figures_with_a_logarithmic_axis_begin_with_it_and_a_cosine_keeps_its_own(page):
    chart = Chart(page, "figure-landscape-ics")
    assert chart.all(".tools input[type=checkbox]")[0].is_selected()
    panels = {panel.find_element(By.CSS_SELECTOR, ".title").text: panel for panel in chart.all(".panel")}
    cosine = next(panel for title, panel in panels.items() if title.startswith("cos(G, G′)"))
    norm = next(panel for title, panel in panels.items() if title.startswith("‖G − G′‖, layer"))
    accuracy = panels["training accuracy (%)"]
    for panel, even in ((accuracy, True), (cosine, True), (norm, False)):
        ticks = [float(tick.text) for tick in panel.find_elements(By.CSS_SELECTOR, "text[text-anchor=end]")]
        apart = np.diff(ticks)
        assert len(ticks) > 1 and (len(ticks) == 2 or np.allclose(apart, apart[0]) == even)


def test_a_slider_goes_through_the_steps_of_distributions(page, browser):
    chart = Chart(page, "figure-landscape-ridges")
    slider, now = chart.all("input[type=range]")[0], chart.all(".tools output")[0]
    data = json.loads(chart.figure.find_element(By.CSS_SELECTOR, "script").get_attribute("textContent"))
    assert now.text == str(data["steps"][-1])
    [path] = browser[1].glob("results/landscape/bn-*/seed-0/probes/shift")
    for key, step in (
        (Keys.HOME, data["steps"][0]),
        (Keys.ARROW_RIGHT, data["steps"][1]),
        (Keys.END, data["steps"][-1]),
    ):
        slider.send_keys(key)
        assert now.text == str(step) and slider.get_attribute("aria-valuetext") == f"step {step}"
        with np.load(path / f"step-{step:08d}.npz") as arrays:
            counts, edges = arrays["histogram_counts_preactivation"], arrays["histogram_edges_preactivation"]
        depth = int(chart.figure.find_element(By.CSS_SELECTOR, ".title").text.removeprefix("density, layer ")) - 1
        density = counts[depth] / counts[depth].sum() / np.diff(edges[depth])
        [place, *_], *_, bn = [numbers(line.partition(": ")[2] or line) for line in chart.point(0.5, 0.5).splitlines()]
        centres = (edges[depth][1:] + edges[depth][:-1]) / 2
        assert bn[0] == pytest.approx(density[np.abs(centres - place).argmin()], rel=2e-3)


# --- all charts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [360, 800, 1280])
@pytest.mark.parametrize("name", ["report.html", "comparison.html"])
def test_charts_fit_the_page(browser, name, width):
    driver, root = browser
    load(driver, (root / name).as_uri(), width)
    driver.execute_script(EXPLORE)
    assert driver.execute_script(OVERFLOW) == 0
    boxes = driver.execute_script(
        "return [...document.querySelectorAll('.plot svg')].map(e => [e.clientWidth, e.clientHeight])"
    )
    assert len(boxes) >= 2 and all(min(box) > 100 for box in boxes)
    resize(driver, 320)
    driver.execute_script("return new Promise(done => setTimeout(done, 50))")
    assert driver.execute_script(OVERFLOW) == 0
    assert driver.get_log("browser") == []


def test_what_records_say_is_text_in_charts_too(page):
    page.execute_script(EXPLORE)
    notes = [note.text for note in page.find_elements(By.CSS_SELECTOR, ".chart .note")]
    assert any(QUOTES in note for note in notes)
    assert page.execute_script("return document.querySelectorAll('.chart img, .chart script').length") == 0
    names = [button.get_attribute("aria-label") for button in page.find_elements(By.CSS_SELECTOR, ".explore")]
    assert len(names) > 5 and all(name.startswith("Explore the numbers: ") for name in names)


def test_a_drawing_comes_back_and_is_what_is_printed(page):
    figure = page.find_element(By.ID, "figure-landscape-accuracy")
    card, button = (figure.find_element(By.CSS_SELECTOR, name) for name in (".card", ".explore"))
    assert card.is_displayed() and not figure.find_elements(By.CSS_SELECTOR, ".chart")
    button.click()
    chart = figure.find_element(By.CSS_SELECTOR, ".chart")
    assert chart.is_displayed() and not card.is_displayed()
    with media(page, media="print"):
        assert card.is_displayed() and not chart.is_displayed() and not button.is_displayed()
        assert page.find_element(By.CSS_SELECTOR, "#regimes-figure .card").size["height"] > 100
    button.click()
    assert card.is_displayed() and not chart.is_displayed()


# --- the comparison --------------------------------------------------------------------------------------------------


def test_two_sides_have_a_chart_each_and_verdicts_that_are_filtered(comparison):
    asked = comparison.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert comparison.get_log("browser") == [] and asked == []
    for side, last in (("a", 100), ("b", 150)):
        chart = Chart(comparison, f"regimes-{side}-figure")
        comparison.execute_script("arguments[0].focus()", chart.plot)
        assert chart.plot.get_attribute("aria-valuetext").startswith(f"step {last}; ")
    visible = "return [...document.querySelectorAll('#claims tbody')].filter(e => e.offsetHeight).map(e => e.id)"
    assert comparison.execute_script(visible) == ["claim-1", "claim-4"]
    Select(comparison.find_element(By.NAME, "relation")).select_by_value("contradicts")
    assert comparison.execute_script(visible) == ["claim-1"]
    assert comparison.find_element(By.ID, "count").text == "1 of 2 claims"
    assert EVIL in comparison.find_element(By.ID, "claim-1").text
