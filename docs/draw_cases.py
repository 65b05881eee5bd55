"""Draw the picture of the cases in docs/how-to/read-a-report.md from the page of a comparison.

    python docs/draw_cases.py runs/first/report.html docs/how-to/cases.png

It needs Chromium and the extra `browser`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def draw_cases(page_path: Path, target: Path) -> None:
    """Write a PNG of the viewer and the first cases."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto(page_path.absolute().as_uri())
        page.wait_for_selector("#viewer[data-ready]")
        box = page.locator("#viewer").bounding_box()
        if box is None:
            raise SystemExit(f"{page_path}: expected a page with interactive cases.")
        clip = {"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"] + 420}
        page.screenshot(path=target, full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    draw_cases(Path(sys.argv[1]), Path(sys.argv[2]))
