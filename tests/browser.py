"""A real browser for the tests: Debian's chromium, driven by selenium, with no host to reach.

    from browser import opened
    with opened(profile=tmp_path / "profile", downloads=tmp_path) as browser:
        browser.show(tmp_path / "page.html", width=390)     # a phone; 1280 is the usual width
        browser.one("#next").click()
        browser.photograph(tmp_path / "page.png")           # the whole page
When the block ends, an error in the console or a request to anything but the file itself is an AssertionError.
A test is skipped, with the reason, where there is no chromium, no chromedriver or no selenium.
"""

import base64
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NO_HOST = ("file:", "data:", "blob:", "about:")  # addresses that leave no machine
PHONE = 390  # pixels; a page narrower than 600 is shown as a phone shows it
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # what asks for a host gets an error, at once
)


class Browser:
    """A driven window; `driver` is selenium's own, for whatever has no word here."""

    def __init__(self, driver):
        self.driver = driver
        self.console, self.requests = [], []

    def show(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Opens a file at a width, in light or dark; a narrow one as a phone does, with touch."""
        phone = width < 600
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        wished = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wished.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(Path(path).resolve().as_uri())

    def run(self, script: str, *values):
        """What `return ...` gives, run in the page."""
        return self.driver.execute_script(script, *values)

    def one(self, selector: str):
        """The first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def press(self, *keys: str) -> None:
        """Keys one after another, to whatever has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def too_wide(self) -> int:
        """Pixels by which the page is wider than the window; 0 where nobody has to scroll sideways."""
        return self.run("const root = document.documentElement; return root.scrollWidth - root.clientWidth")

    def photograph(self, path: Path, whole: bool = True) -> None:
        """A PNG of the whole page, or of what the window shows."""
        wanted = {"format": "png", "captureBeyondViewport": whole}
        path.write_bytes(base64.b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", wanted)["data"]))

    def gather(self) -> None:
        """Reads the logs: selenium gives each line once."""
        self.console += [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]
        for line in self.driver.get_log("performance"):
            told = json.loads(line["message"])["message"]
            if told["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                self.requests.append(told["params"].get("request", told["params"])["url"])

    def check(self) -> None:
        """Nothing went wrong in the page, and it asked nobody for anything."""
        self.gather()
        asked = [url for url in self.requests if not url.startswith(NO_HOST)]
        assert not self.console, f"the console of the browser shows errors: {self.console}"
        assert not asked, f"the page asks hosts: {asked}"


def _programs() -> tuple[str, str]:
    """chromium and chromedriver; skips the test where one is missing."""
    pytest.importorskip("selenium", reason="selenium is not installed: make setup")
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if None in found:
        pytest.skip("no browser here: apt-get install chromium chromium-driver")
    return found


@contextlib.contextmanager
def opened(profile: Path | None = None, downloads: Path | None = None) -> Iterator[Browser]:
    """A browser; with the same profile the next one remembers, as a person's does. Downloads appear in their folder."""
    browser, driver = _programs()
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(prefix="browser") as own:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]  # chromium refuses its sandbox to root
        for flag in [*flags, f"--user-data-dir={profile or own}"]:
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads or own)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        window = webdriver.Chrome(options=options, service=Service(driver))
        try:
            window.get("about:blank")
            window.get_log("performance")  # of the page that the browser itself opens first
            made = Browser(window)
            yield made
            made.check()
        finally:
            window.quit()
