"""What people come for, walked in a real browser from a file: five questions, each answered in three clicks at most."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import Watched, violations, watched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LAPTOP = {"width": 1440, "height": 900}
FIRST_PAGE, ANY_PAGE = 700_000, 1_000_000  # bytes
MOST_CLICKS = 3
KERNEL = "kernels/sm_100-bwd_d256_causal.html"


@dataclass
class Reader:
    """Somebody at the first page who counts clicks; choosing from a picker and typing into a field count as one."""

    seen: Watched
    report: Path
    clicks: int = 0

    def opens(self, name: str) -> None:
        self.seen.page.goto(f"{self.report.as_uri()}/{name}")
        self.ready()

    def ready(self) -> None:
        """Every chart of the page is drawn."""
        charts = self.seen.page.locator("[data-chart]")
        for at in range(charts.count()):
            charts.nth(at).locator("canvas").wait_for()

    def click(self, what: Locator) -> None:
        self.clicks += 1
        what.click()

    def choose(self, what: Locator, value: str) -> None:
        self.clicks += 1
        what.select_option(label=value)

    def types(self, what: Locator, text: str) -> None:
        self.clicks += 1
        what.fill(text)

    def text(self, selector: str) -> str:
        return self.seen.page.locator(selector).inner_text()


@pytest.fixture
def reader(chromium: Browser, real_report: Path) -> Iterator[Reader]:
    context = chromium.new_context(offline=True, viewport=DESKTOP)
    opened = Reader(watched(context), real_report)
    opened.seen.page.set_default_timeout(60_000)
    opened.opens("index.html")
    yield opened
    assert opened.seen.errors == []
    assert opened.clicks <= MOST_CLICKS
    context.close()


def newest(report: Path) -> str:
    """The newest release, as pages call it."""
    releases = json.loads((report / "data" / "releases.json").read_text(encoding="utf-8"))["releases"]
    return str(releases[-1]["version"])


def short(version: str) -> str:
    return version.removeprefix("4.0.0")


def test_what_to_install_on_an_h100(reader):
    told = reader.text("#install-sm_90")
    assert told.startswith("H100, H200 (Hopper): b")
    assert "pip install 'flash-attn-4" in told and "avoid" in told
    assert "measured on h200-sxm" in told


def test_is_b36_worse_than_b30_for_blackwells_backward_at_head_dim_256(reader):
    page = reader.seen.page
    reader.choose(page.get_by_label("Release", exact=True), "b36")
    reader.choose(page.get_by_label("Compare with"), "b30")
    page.locator("#newest .result table").wait_for()
    reader.types(
        page.get_by_label("Only kernels and calls with these words"), "bwd_d256_causal sm_100 cu13 spill"
    )
    cells = page.locator("#newest .result tbody tr").first.locator("td").all_inner_texts()
    assert float(cells[3]) > float(cells[4]) and cells[5].startswith("−"), "it spills less than b30"
    assert page.locator("#newest .result tbody tr td.worse").count() == 0
    assert page.url.endswith("#a=b36&b=b30")


def test_when_did_the_spill_of_2729_come_and_go_and_why(reader):
    page = reader.seen.page
    reader.types(page.get_by_role("searchbox").first, "#2729")
    reader.click(page.locator(".found a").first)
    page.locator("h1", has_text="fwd_d128_full on sm_100").wait_for()
    rows = page.locator("table.events tbody tr", has_text="flash-attention#2729").all_inner_texts()
    (came,) = (row for row in rows if "b20" in row and "cu13" in row)
    (went,) = (row for row in rows if "b31" in row and "cu13" in row)
    assert "spill" in came and "toolchain" in came and "nvidia-cutlass-dsl" in came
    assert re.search(r"spill[^;]* → 0\b", went) and "source" in went


def test_what_did_the_causal_forward_gain_on_hopper_and_when(reader):
    told = reader.text("#history ~ .chart .told")
    (gain,) = re.findall(r"b33 2026-09-30, cu13: ([\d.]+)\xa0ms → ([\d.]+)\xa0ms", told)
    assert float(gain[0]) > float(gain[1])


def test_which_torch_drives_b36(reader):
    page = reader.seen.page
    reader.types(page.get_by_role("searchbox").first, "pytorch")
    reader.click(page.locator(".found a", has_text="PyTorch").first)
    page.locator("h1", has_text="Route through PyTorch").wait_for()
    row = page.locator("tbody tr", has=page.get_by_role("rowheader", name="b36", exact=True)).first
    heads = page.locator("thead tr").first.locator("th").all_inner_texts()
    cells = row.locator("td").all_inner_texts()
    known = {
        head: cell for head, cell in zip(heads[1:], cells, strict=True) if cell.startswith(("yes", "no"))
    }
    assert known, "a verdict for each torch that was asked"


def test_the_state_of_a_chart_stands_in_the_address_and_comes_back(reader):
    page = reader.seen.page
    reader.choose(page.get_by_label("Kernel or call"), "bwd_d256_causal on sm_100")
    reader.choose(page.get_by_label("Metric", exact=True), "code size, bytes")
    page.locator('[data-ready="text_bytes"]').wait_for()
    reader.click(page.get_by_role("button", name="cu13", exact=True))
    address = page.url
    assert "m=text_bytes" in address and "f=cu12" in address
    page.goto("about:blank")
    page.goto(address)
    page.locator('[data-ready="text_bytes"]').wait_for()
    assert (
        page.get_by_label("Kernel or call").evaluate("each => each.selectedOptions[0].text")
        == "bwd_d256_causal on sm_100"
    )
    assert page.get_by_role("button", name="cu13", exact=True).get_attribute("aria-pressed") == "false"


def test_a_zoom_is_kept_and_undone(reader):
    reader.opens(f"{KERNEL}#z=b20..b31")
    page = reader.seen.page
    marks = page.locator(".marks a:visible")
    inside = marks.all_inner_texts()
    page.get_by_role("button", name="All releases").click()
    assert len(marks.all_inner_texts()) > len(inside) > 0
    assert "z=" not in page.url


def test_the_keyboard_reaches_pickers_points_and_events(reader):
    reader.opens(KERNEL)
    page = reader.seen.page
    area = page.get_by_role("slider")
    area.focus()
    page.keyboard.press("End")
    newest_words = area.get_attribute("aria-valuetext")
    assert newest_words.startswith(short(newest(reader.report))) and "compiler" in newest_words
    page.keyboard.press("ArrowLeft")
    assert area.get_attribute("aria-valuetext") != newest_words
    assert page.locator(".tip").is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.marks') !== null")
    page.get_by_label("Metric", exact=True).focus()
    before = page.locator("[data-ready]").get_attribute("data-ready")
    page.keyboard.press("ArrowDown")
    page.locator(f'[data-ready]:not([data-ready="{before}"])').wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Metric"


def test_without_scripts_the_tables_stand(chromium, real_report):
    context = chromium.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{real_report.as_uri()}/{KERNEL}")
    assert "The chart needs JavaScript" in page.locator("noscript").first.inner_text()
    assert page.locator("table.events tbody tr").count() > 5
    assert page.get_by_role("cell", name="10,820").count() >= 1
    page.goto(f"{real_report.as_uri()}/index.html")
    assert page.locator("#install-sm_90 code").count() == 1
    context.close()


def pages_with_charts(report: Path) -> list[str]:
    call = sorted(path.relative_to(report).as_posix() for path in report.glob("run-time/*/*.html"))[-1]
    return ["index.html", "index.html#a=b36&b=b30", KERNEL, call, "standing.html", "history.html"]


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(DESKTOP, "light", id="wide-light"),
        pytest.param(PHONE, "dark", id="narrow-dark"),
        pytest.param(DESKTOP, "dark", id="wide-dark", marks=pytest.mark.nightly),
        pytest.param(PHONE, "light", id="narrow-light", marks=pytest.mark.nightly),
    ],
)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(chromium, real_report, npm, scheme, size):
    axe = (npm / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    context = chromium.new_context(offline=True, viewport=size, color_scheme=scheme)
    reader = Reader(watched(context), real_report)
    for name in pages_with_charts(real_report):
        reader.seen.page.goto("about:blank")
        reader.opens(name)
        if "#" in name:
            reader.seen.page.locator("#newest .result table").wait_for()
        assert violations(reader.seen.page, axe) == [], name
        wide = reader.seen.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size["width"], f"{name} is {wide} px wide"
    assert reader.seen.errors == []
    context.close()


def test_lines_and_marks_can_be_told_from_the_background(chromium, real_report):
    """WCAG asks 3:1 of graphics: every colour of the palette against the page and the panels, in both schemes."""
    for scheme in ("light", "dark"):
        context = chromium.new_context(offline=True, color_scheme=scheme)
        page = context.new_page()
        page.goto(f"{real_report.as_uri()}/reading.html")
        names = [f"--c{number}" for number in range(6)] + [
            "--better",
            "--worse",
            "--mixed",
            "--edge",
            "--dim",
        ]
        read = "names => names.map(name => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
        background, soft, *colours = page.evaluate(read, ["--bg", "--soft", *names])
        for name, colour in zip(names, colours, strict=True):
            for behind in (background, soft):
                assert contrast(colour, behind) >= 3, (scheme, name, behind)
        context.close()


def contrast(text: str, background: str) -> float:
    """WCAG's ratio of two colours written as "#rgb" or "#rrggbb"."""
    low, high = sorted(map(luminance, (text, background)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * each for each in digits) if len(digits) == 3 else digits
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_is_that_of_the_standard():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777", "#fff") == pytest.approx(4.48, abs=0.01)


def test_one_screen_and_a_half_answer_what_people_come_for(chromium, real_report):
    """At 1440 by 900: each part begins there, and the chart is seen whole. What is folded counts as seen."""
    context = chromium.new_context(offline=True, viewport=LAPTOP)
    reader = Reader(watched(context), real_report)
    reader.opens("index.html")
    for part in ("#install-sm_90", "#install-sm_100", "#newest", "#clock", ".area"):
        box = reader.seen.page.locator(part).bounding_box()
        assert box["y"] + box["height"] <= 1.5 * LAPTOP["height"], f"{part} ends below: {box}"
    assert reader.seen.page.locator(".standing li").nth(4).bounding_box()["y"] <= 1.5 * LAPTOP["height"]
    context.close()


def test_the_first_page_is_small_and_no_page_is_large(reader):
    """Everything that the first page asks for until it can be used."""
    asked = {url.partition("#")[0] for url in reader.seen.requests if url.startswith("file:")}
    sizes = {url: Path(url.removeprefix("file://")).stat().st_size for url in asked}
    assert sum(sizes.values()) < FIRST_PAGE, sizes
    large = [path.name for path in reader.report.rglob("*.html") if path.stat().st_size > ANY_PAGE]
    assert large == []
