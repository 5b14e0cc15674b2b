"""The report's first page in a browser: bytes until it can be used, seconds until its chart is drawn, the largest page.

    python -m tools.suite_benchmarks first_page                          # html/report
    python -m tools.suite_benchmarks first_page --report FOLDER --bytes 1500000 --seconds 2

Opens index.html from a file in headless Chromium, the network off, a new context each time, and waits for the chart; it can be
used then: pickers, search and events are there before. Seconds are the wall clock's from the navigation on, the median of the
openings after a first one that starts the browser. Exit code 1 where an aim is missed. Needs playwright and Chromium, as
the tests in a browser do.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # of the tests' requirements
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]
LARGEST_PAGE = 1_000_000  # bytes of HTML
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Milliseconds from the navigation on until two frames after the canvas is there: it has been painted then.
_DRAWN = """() => new Promise((done) => {
  const look = () => document.querySelector("[data-chart] canvas")
    ? requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))) : requestAnimationFrame(look);
  look();
})"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", type=Path, default=ROOT / "html" / "report")
    parser.add_argument("--bytes", type=int, default=700_000, help="of all that the first page loads")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--times", type=int, default=7)


def main(options: argparse.Namespace) -> int:
    """Measure, print; 1 where an aim is missed."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        sys.exit("no Chromium here; install it, as `apt-get install chromium`")
    report = options.report.resolve()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        opened = [first_page(browser, report) for _ in range(options.times + 1)]
        browser.close()
    loaded = sum(file.stat().st_size for file in opened[0][1])
    seconds = median(each[0] for each in opened[1:])
    largest = max(report.rglob("*.html"), key=lambda file: file.stat().st_size)
    print(f"first page: {loaded:,} bytes in {len(opened[0][1])} files (at most {options.bytes:,})")
    for file in sorted(opened[0][1], key=lambda file: -file.stat().st_size):
        print(f"  {file.stat().st_size:>9,}  {file.relative_to(report)}")
    each = ", ".join(f"{one:.2f}" for one, _ in opened[1:])
    print(f"usable after {seconds:.2f} s (at most {options.seconds:g}): {each}; the first {opened[0][0]:.2f}")
    print(
        f"largest page: {largest.stat().st_size:,} bytes (at most {LARGEST_PAGE:,}), {largest.relative_to(report)}"
    )
    aims = (loaded <= options.bytes, seconds <= options.seconds, largest.stat().st_size <= LARGEST_PAGE)
    return int(not all(aims))


def first_page(browser: Browser, report: Path) -> tuple[float, set[Path]]:
    """Seconds until the chart is drawn, and the files that were loaded."""
    context = browser.new_context(offline=True, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((report / "index.html").as_uri())
    seconds = page.evaluate(_DRAWN) / 1000
    context.close()
    return seconds, {Path(url.removeprefix("file://")) for url in asked if url.startswith("file:")}
