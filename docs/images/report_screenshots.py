"""Draw report.png, report-dark.png and report-phone.png, which lie beside this program, from the report of a data set.

    usdata phantom /tmp/raw --videos 80 && usdata build phantom --raw /tmp/raw --out /tmp/set --set split.test=0.5
    usdata audit /tmp/set && python docs/images/report_screenshots.py /tmp/set

It needs Debian's chromium; with the font Inter (Debian's fonts-inter) equal sets give the pictures that are committed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).parent


def picture(browser: Browser, report: Path, name: str, *, width: int, height: int, scheme: str = "light", section: str = "") -> None:
    """One picture of a report.

    Args:
        browser: Chromium.
        report: The page.
        name: Of the PNG, which is written beside this program.
        width: Of the window, in pixels.
        height: Of the window, in pixels.
        scheme: light or dark.
        section: Anchor to go to; "" for the first screen.
    """
    page = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
    )
    page.goto(report.resolve().as_uri())
    if section:
        page.evaluate("(section) => document.getElementById(section).scrollIntoView()", section)
        page.wait_for_function("document.querySelector('.contents [aria-current]')")
    # Playwright hides the caret by a style of its own, which the page's policy refuses: there is no caret to hide.
    page.screenshot(path=HERE / name, caret="initial")
    page.close()


def main(folder: Path) -> None:
    """Write the three pictures.

    Args:
        folder: A data set that was audited.
    """
    report = folder / "report.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), chromium_sandbox=False, args=["--disable-gpu"])
        picture(browser, report, "report.png", width=1280, height=800)
        picture(browser, report, "report-dark.png", width=1280, height=800, scheme="dark", section="shortcuts")
        picture(browser, report, "report-phone.png", width=390, height=844)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
