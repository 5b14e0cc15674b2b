"""The report in a real browser, from file:// with the network off; asv's own site, served here, its libraries too."""

from __future__ import annotations

import functools
import http.server
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import asv
import pytest

from fa4_asv.asv_plugin.publisher import EDITS, edit_pages
from fa4_asv.base.project import Project
from fa4_asv.record.store import sidecar_path
from tests.support.browser import Watched, violations, watched
from tests.support.publishing import path_of, publish

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Route

SHORT = ("index.html", "support.html", "reading.html", "route.html")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# Where asv's page asks for a library, and the file of the npm package that is the answer.
LIBRARIES = {
    "jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    "jquery.flot.min.js": "flot/jquery.flot.js",
    "jquery.flot.time.min.js": "flot/jquery.flot.time.js",
    "jquery.flot.selection.min.js": "flot/jquery.flot.selection.js",
    "jquery.flot.categories.min.js": "flot/jquery.flot.categories.js",
    "jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    "stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    "md5.min.js": "blueimp-md5/js/md5.min.js",
    "bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    "bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
}


@pytest.fixture
def offline(chromium: Browser) -> Iterator[Watched]:
    context = chromium.new_context(offline=True, viewport=DESKTOP)
    yield watched(context)
    context.close()


def names(report: Path) -> list[str]:
    return sorted(path.relative_to(report).as_posix() for path in report.rglob("*.html"))


def drawn(report: Path, of_a_folder: int = 5) -> list[str]:
    """Every page at the top, and of a folder's, which one template makes, some by lot: their number grows with the record."""
    folders: dict[str, list[str]] = {}
    for name in names(report):
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    lot = random.Random(1)
    return folders.pop("") + [
        name for pages in folders.values() for name in lot.sample(pages, min(of_a_folder, len(pages)))
    ]


def kinds(report: Path) -> list[str]:
    """One page of every kind: of the two architectures one, of releases, events, machines and calls the last."""
    pages = names(report)
    chosen = [name for name in pages if "/" not in name and name != "kernels-sm_90.html"]
    for folder in ("releases", "events", "machines", "run-time", "kernels"):
        chosen += [name for name in pages if name.startswith(f"{folder}/")][-1:]
    return chosen


def phone_pages(report: Path) -> list[str]:
    """One page of every kind, and every page with a warning: a card's messages are long words without spaces."""
    warned = [
        name for name in names(report) if "headline warning" in (report / name).read_text(encoding="utf-8")
    ]
    return list(dict.fromkeys([*kinds(report), *warned]))


def test_pages_of_every_kind_open_from_a_file_with_the_network_off(real_report, offline):
    """No error, no warning, nothing missing, nothing asked from elsewhere; one heading of the first level."""
    here = real_report.as_uri()
    for name in drawn(real_report):
        offline.page.goto(f"{here}/{name}")
        assert offline.page.locator("h1").count() == 1, name
        assert offline.page.title().endswith("FlashAttention-4, release by release"), name
    assert offline.errors == []
    assert not [url for url in offline.requests if not url.startswith((here, "data:"))]
    assert len([url for url in offline.requests if url.endswith("style.css")]) >= 1


@pytest.mark.parametrize("of", ["short pages", pytest.param("every kind", marks=pytest.mark.nightly)])
def test_axe_finds_nothing_serious_in_light_or_dark(real_report, offline, npm, of):
    """The pages with charts, which are the largest: test_report_tasks.py."""
    axe = (npm / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    colours = ("color-contrast", "link-in-text-block")
    for name in kinds(real_report) if of == "every kind" else SHORT:
        offline.page.goto(f"{real_report.as_uri()}/{name}")
        # Colours come from one style sheet; to compare them costs seconds on the long pages.
        rules = {rule: {"enabled": name in SHORT} for rule in colours}
        assert violations(offline.page, axe, rules=rules) == [], name
    for name in SHORT:
        offline.page.emulate_media(color_scheme="dark")
        offline.page.goto(f"{real_report.as_uri()}/{name}")
        assert violations(offline.page, axe, runOnly=list(colours)) == [], name


def test_axe_would_have_found_something(real_report, offline, npm):
    axe = (npm / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    offline.page.goto(f"{real_report.as_uri()}/reading.html")
    # Through the document's own objects: the page's policy refuses an inline style.
    offline.page.evaluate("document.body.style.color = '#bbb'")
    offline.page.evaluate("document.documentElement.removeAttribute('lang')")
    assert {violation.partition(" ")[0] for violation in violations(offline.page, axe)} >= {
        "color-contrast",
        "html-has-lang",
    }


def test_a_keyboard_is_enough(real_report, offline):
    """The skip link comes first and leads to the content; a table opens and scrolls."""
    page = offline.page
    page.goto(f"{real_report.as_uri()}/memory.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "scroll"


def test_pictures_of_both_schemes_and_a_phone(real_report, chromium, tmp_path):
    """Nothing is wider than the phone; dark is dark."""
    shades = {}
    for name, scheme, size in (
        ("light", "light", DESKTOP),
        ("dark", "dark", DESKTOP),
        ("phone", "light", PHONE),
    ):
        context = chromium.new_context(offline=True, viewport=size, color_scheme=scheme)
        seen = watched(context)
        for page in phone_pages(real_report) if name == "phone" else ["index.html"]:
            seen.page.goto(f"{real_report.as_uri()}/{page}")
            wide = seen.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= size["width"], f"{page} is {wide} px wide on a {name}"
        seen.page.goto(f"{real_report.as_uri()}/index.html")
        shades[name] = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        seen.page.screenshot(path=tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 20_000
        assert seen.errors == []
        context.close()
    assert shades["light"] == shades["phone"] == "rgb(255, 255, 255)" != shades["dark"]


@pytest.fixture
def served(recorded) -> Iterator[tuple[Path, str]]:
    """asv's site of a small record, with the report below it: its folder and its address."""
    # asv's page asks for a graph of every benchmark that is listed, recorded or not.
    path = recorded.results / "benchmarks.json"
    listed = json.loads(path.read_text(encoding="utf-8"))
    of_kernels = {
        name: entry
        for name, entry in listed.items()
        if name == "version" or name.startswith("codegen.Kernels.")
    }
    path.write_text(json.dumps(of_kernels), encoding="utf-8")
    another_machine(recorded)
    assert publish() == 0
    handler = functools.partial(Quiet, directory=str(recorded.html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield recorded.html, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def another_machine(project: Project) -> None:
    """One release once more, by a machine that has an `arch` as asv knows it."""
    box = project.results / "box"
    box.mkdir()
    (box / "machine.json").write_text('{"machine": "box", "arch": "x86_64", "version": 1}')
    path = path_of(project, 2)
    result = json.loads(path.read_text(encoding="utf-8"))
    result["params"] |= {"machine": "box", "arch": "x86_64"}
    (box / path.name).write_text(json.dumps(result), encoding="utf-8")
    side = sidecar_path(path)
    (box / side.name).write_text(side.read_text(encoding="utf-8").replace('"nogpu"', '"box"'))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_asvs_own_site_works_and_leads_to_the_report_and_back(served, chromium, npm):
    """Its libraries come from the npm registry's packages; what else it asks elsewhere is refused."""
    html, address = served
    context = chromium.new_context(viewport=DESKTOP)

    def answer(route: Route) -> None:
        url = route.request.url
        library = LIBRARIES.get(url.rpartition("/")[2])
        if url.startswith(address) and url.rstrip("/") in (address, f"{address}/index.html"):
            # The hashes are those of the CDN's own builds; the packages' are the same code, built otherwise.
            text = (html / "index.html").read_text(encoding="utf-8").replace("integrity=", "data-integrity=")
            route.fulfill(body=text, content_type="text/html")
        elif url.startswith(address):
            route.continue_()
        elif library:
            route.fulfill(path=npm / library, headers={"Access-Control-Allow-Origin": "*"})
        else:
            route.abort()

    context.route("**/*", answer)
    seen = watched(context)
    seen.page.goto(f"{address}/index.html")
    seen.page.locator("#summarygrid-display a").first.wait_for()
    assert "codegen.Kernels.track_instructions" in seen.page.content()
    prefix = json.loads((html / "index.json").read_text())["show_commit_url"]
    seen.page.get_by_role("link", name="Report", exact=True).click()
    assert seen.page.locator("h1").inner_text() == "FlashAttention-4, release by release"
    seen.page.get_by_role("link", name="The same record in asv's own pages").click()
    seen.page.locator("#summarygrid-display a").first.wait_for()
    for commit in json.loads((html / "index.json").read_text())["revision_to_hash"].values():
        seen.page.goto(f"{address}/{prefix}{commit[:8]}")
        assert seen.page.locator(f"[id='{commit[:8]}']").count() == 1
    the_plot_can_be_read(seen, address, html)
    # Leaving a page ends what it was still asking for; that is no error.
    assert [
        error for error in seen.errors if not error.startswith(("log", "info", "warning", "failed"))
    ] == []
    assert [url for url in seen.missing if not url.endswith("/favicon.ico")] == []
    context.close()


def the_plot_can_be_read(seen: Watched, address: str, html: Path) -> None:
    """Names of releases are short and apart from each other, the legend is below the plot and its overview."""
    seen.page.goto(f"{address}/index.html#codegen.Kernels.track_registers")
    seen.page.locator("#fa4-legend td.legendLabel").first.wait_for()
    tags = json.loads((html / "index.json").read_text())["tags"]
    assert sorted(tags) == ["b10", "b3", "b4"]
    boxes = [seen.page.locator("#main-graph").get_by_text(tag, exact=True).bounding_box() for tag in tags]
    for number, box in enumerate(boxes):
        assert box and box["y"] >= 50, "not below asv's bar"
        assert not any(before and overlap(box, before) for before in boxes[:number])
    plot, legend = (seen.page.locator(name).bounding_box() for name in ("#overview", "#fa4-legend"))
    assert plot and legend and legend["y"] >= plot["y"] + plot["height"]
    assert seen.page.locator("#main-graph .legend").count() == 0
    names = seen.page.locator("#fa4-legend td.legendLabel").all_inner_texts()
    assert len(set(names)) == len(names) > 2, "two lines have one name"
    assert {name.partition(";")[0] for name in names} == {"arch-sm_90", "arch-sm_100"}
    headings = [
        text.strip()
        for text in seen.page.locator("#graphdisplay-navigation .panel-heading").all_inner_texts()
    ]
    assert {"arch", "arch of the machine"} <= set(headings) and len(set(headings)) == len(headings)


def overlap(a: FloatRect, b: FloatRect) -> bool:
    beside = abs(a["x"] - b["x"]) >= min(a["width"], b["width"])
    return not beside and abs(a["y"] - b["y"]) < min(a["height"], b["height"])


def test_asvs_own_site_from_a_file_says_what_it_needs_and_where_the_report_is(tmp_path, offline):
    """No library can be had, and nothing else is shown: not asv's page of errors, which does not name the report."""
    for name in EDITS:
        (tmp_path / name).write_bytes((Path(asv.__file__).parent / "www" / name).read_bytes())
    edit_pages(tmp_path)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("<h1>the report</h1>")
    offline.page.goto((tmp_path / "index.html").as_uri())
    shown = offline.page.locator("body").inner_text()
    assert shown.strip() == (
        "asv's own pages need a server (asv preview) and the network, where their libraries are. "
        "The report holds the same figures and needs neither."
    )
    offline.page.get_by_role("link", name="The report").click()
    assert offline.page.locator("h1").inner_text() == "the report"
