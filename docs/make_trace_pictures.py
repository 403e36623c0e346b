"""Makes images/trace-light.png, trace-dark.png and trace-phone.png, of the page of a real run.

    python docs/make_trace_pictures.py

It needs selenium and a chromium with its chromedriver.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parent / "images"
MDM = [sys.executable, "-m", "mdm"]
RUN = "run --model tiny-countdown --task countdown --limit 6 --sampler info-gain --sampler confidence --trace full"
VIEWS = {
    # width, height, whether it is a phone, and what a reader has done
    "trace-light": (1180, 860, False, "go(13)"),
    "trace-dark": (1180, 860, False, "theme(true); paint(1); go(17)"),
    "trace-phone": (390, 844, True, "go(13)"),
}


def chromium(profile: str) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "countdown"
        subprocess.run([*MDM, *RUN.split(), "--out", str(run)], check=True)
        subprocess.run([*MDM, "trace", "view", str(run)], check=True)
        browser = chromium(f"{folder}/profile")
        try:
            for name, (width, height, phone, script) in VIEWS.items():
                screen = {"width": width, "height": height, "deviceScaleFactor": 1.5 if phone else 1, "mobile": phone}
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
                browser.get((run / "trace.html").as_uri())
                browser.execute_script(script)
                browser.save_screenshot(str(IMAGES / f"{name}.png"))
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
