"""A real browser for the pages that the tools write.

``MDM_SCREENSHOTS=FOLDER`` keeps pictures of them, for people to look at.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--force-device-scale-factor=1", "--window-size=1280,1000",
)  # fmt: skip


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no chromium with its chromedriver on this machine")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = selenium.Chrome(options, selenium.ChromeService(driver))
    yield chrome
    chrome.quit()


class Page:
    """What a reader sees and does."""

    def __init__(self, browser, where: Path | str) -> None:
        """``where`` is a file, or an address."""
        self.browser = browser
        browser.get(where if isinstance(where, str) else where.resolve().as_uri())

    def text(self, name: str) -> str:
        return self.browser.execute_script(f"return document.getElementById('{name}').textContent")

    def key(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def count(self, selector: str) -> int:
        return self.browser.execute_script(f"return document.querySelectorAll('{selector}').length")

    def until(self, condition, seconds: float = 10) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, seconds, poll_frequency=0.02).until(lambda _: condition())

    def keep(self, name: str) -> None:
        if kept := os.environ.get("MDM_SCREENSHOTS"):
            self.browser.save_screenshot(str(Path(kept) / f"{name}.png"))

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]
