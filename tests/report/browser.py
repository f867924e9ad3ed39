"""A real browser: Debian's Chromium, without a window."""

import shutil
from contextlib import contextmanager

import pytest
from page import write_page, write_records, write_two
from selenium import webdriver

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium or no chromedriver on PATH (Debian: chromium chromium-driver)"
)
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
_SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@contextmanager
def chromium(profile):
    """A driver of a browser that keeps its files in this folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def both_pages(root):
    """A browser, and the folder with the page of one folder of records and the one that compares two."""
    write_records(root / "results")
    write_page(root / "results", root / "report.html")
    write_two(root / "two", root / "comparison.html")
    with chromium(root / "profile") as driver:
        yield driver, root


def load(driver, address, width=1280):
    """The page, loaded anew, as wide as a desktop."""
    resize(driver, width)
    driver.get("about:blank")
    driver.get(address)
    return driver


def resize(driver, width):
    size = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@contextmanager
def media(driver, **media):
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    yield
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def dark():
    return {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}


@contextmanager
def without_scripts(driver):
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
