"""How soon the dashboard's page can be read, and pictures of it.

    python benchmarks/page.py FOLDER [--loads 5] [--pictures docs/assets]

FOLDER is the output of a session. A dashboard shows it on the loopback to Chromium, which starts each load with empty
caches. Printed are the medians over the loads: the first paint, the first numbers and the first chart, ms since the
request, and what was transferred until then.
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

_PICTURES: tuple[tuple[str, int, int, Literal["light", "dark"]], ...] = (
    ("dashboard", 1440, 1010, "light"),
    ("dashboard-phone", 390, 844, "dark"),
)
"""Name, width and height in pixels, and colours."""
_MARKS = """() => {
    const paint = performance.getEntriesByType('paint').map((entry) => entry.startTime);
    const loaded = performance.getEntriesByType('resource');
    return {paint: Math.min(...paint), kB: loaded.reduce((sum, one) => sum + one.transferSize, 0) / 1000};
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--pictures", type=Path, help="folder in which pictures of the page are written")
    given = parser.parse_args()
    line = [sys.executable, "-m", "xas_agent", "view", str(given.folder), "--bind", "127.0.0.1:0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        assert server.stdout
        address = found[0] if (found := re.search(r"http://[^\s?]+", server.stdout.readline())) else ""
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            _report([_load(browser, address) for _ in range(given.loads)])
            if given.pictures:
                for name, width, height, colours in _PICTURES:
                    _draw(browser, address, given.pictures / f"{name}.webp", (width, height), colours)
        finally:
            browser.close()
            server.terminate()


def _load(browser: Browser, address: str) -> dict[str, float]:
    """Load the page once; return the times, ms."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(address, wait_until="commit")
    page.locator("#fact-frame", has_text=re.compile(r"\d")).wait_for()
    numbers = page.evaluate("performance.now()")
    page.locator("#series-chart[data-drawn] canvas").first.wait_for()
    chart = page.evaluate("performance.now()")
    marks = page.evaluate(_MARKS)
    context.close()
    return {"first paint": marks["paint"], "first numbers": numbers, "first chart": chart, "kB": marks["kB"]}


def _report(loads: list[dict[str, float]]) -> None:
    for name in loads[0]:
        unit = "" if name == "kB" else " ms"
        label = "transferred, kB" if name == "kB" else name
        print(f"{label:16} {median(load[name] for load in loads):6.0f}{unit}")


def _draw(
    browser: Browser, address: str, file: Path, size: tuple[int, int], colours: Literal["light", "dark"]
) -> None:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=colours, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(address)
    for chart in page.locator("#series-chart, #map-chart, #spectra-chart").all():
        chart.scroll_into_view_if_needed()
        chart.locator("canvas").first.wait_for()
    page.evaluate("scrollTo(0, 0)")
    Image.open(io.BytesIO(page.screenshot())).save(file, quality=82, method=6)
    context.close()


if __name__ == "__main__":
    main()
