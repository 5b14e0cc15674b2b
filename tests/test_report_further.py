"""Pages of the calls beyond the core: newest figures, what changed when, what is refused; sets on a card with GB/s; PyTorch."""

from __future__ import annotations

import pytest

from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import REFUSED
from fa4_asv.catalog.metrics import LOOP_METRICS, METRICS, OF_ALL_LOOPS
from fa4_asv.catalog.shapes import SHAPES, serving_on_card, shapes_on_card
from fa4_asv.catalog.traffic import bytes_moved
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import iter_results
from fa4_asv.report import further_calls, on_request, site
from fa4_asv.report.events import timeline
from fa4_asv.report.further_calls import page_of, pages
from fa4_asv.report.model import load
from fa4_asv.report.parts import Cell
from tests.support.fake_record import write_pair, write_releases
from tests.support.sweep_fake import noisy, swept

DECODE, SPLIT = "decode_d128_gqa4_causal_page16", "decode_d128_gqa4_causal_split4"
REFUSAL = "AssertionError: SplitKV not supported on SM 9.0 <b>"


def kernel(instructions: int, turn: int | None = 475) -> CaseRecord:
    figures = {**dict.fromkeys(METRICS, 0), "instructions": instructions, "registers": 168}
    if turn is None:
        return CaseRecord("measured", figures=figures, kernel="K", notes={OF_ALL_LOOPS: "no loop waits"})
    return CaseRecord(
        "measured", figures={**figures, **dict.fromkeys(LOOP_METRICS, 0), "turn_instructions": turn}
    )


def texts(page) -> dict[str, list[list[str]]]:
    """Rows of each table by its caption."""
    return {
        table.caption: [[cell.text if isinstance(cell, Cell) else cell for cell in row] for row in table.rows]
        for _, tables in page.parts
        for table in tables
    }


@pytest.fixture
def model(project: Project):
    """Three releases; the second has no figures of the group; the third's decode has fewer instructions."""
    releases = write_releases(project, 3)
    for release, count in ((releases[0], 4000), (releases[2], 3582)):
        groups = {
            "serving": {
                f"sm_90/{DECODE}": kernel(count),
                f"sm_90/{SPLIT}": CaseRecord("unsupported", why=REFUSAL),
                "sm_90/chunk_d128_gqa4_causal_page16": CaseRecord("not run", why="not selected"),
                f"sm_100/{DECODE}": kernel(900, None),
            },
            "serving-memory": {
                f"sm_90/{DECODE}": CaseRecord(
                    "measured", figures={"peak_bytes": 3 << 20, "extra_bytes": 1 << 20}
                )
            },
            "route-varlen": {
                "2.13.0/sm_90": CaseRecord(
                    "measured",
                    figures={"broken": 2, "refused": 1, "checks": 19},
                    notes={
                        "forward_full": "ValueError: too many",
                        "lse": "needs forward_full",
                        "block_table": f"{REFUSED}no pages on SM 90",
                    },
                ),
                "2.9.0/sm_90": CaseRecord("unsupported", why="of no table"),
            },
        }
        write_pair(project, release, groups)
    write_pair(project, releases[1], {"codegen": {"sm_90/fwd_d128_full": kernel(1)}})
    return load(project, list(iter_results(project.results)))


def test_a_group_has_a_page_with_the_newest_release_that_has_it(model):
    index, serving, ways = pages(model)
    assert (index.name, serving.name, ways.name) == (
        "calls.html",
        "calls-serving.html",
        "calls-beyond-sdpa.html",
    )
    assert [row[0].href for _, (table,) in index.parts for row in table.rows] == [serving.name, ways.name]
    tables = texts(serving)
    newest = model.releases[2].version
    assert tables[f"Kernels of {newest} on sm_90, cu13"] == [[DECODE, "475", "0", "3,582", "0", "168"]]
    assert tables[f"Kernels of {newest} on sm_100, cu13"] == [[DECODE, "–", "–", "900", "0", "168"]]
    assert tables[f"Traced memory of {newest} on sm_90, cu13"] == [[DECODE, "3.0", "1.0"]]


def test_changes_name_the_releases_that_have_each_value(model):
    first, last = (model.releases[at].version.removeprefix("4.0.0") for at in (0, 2))
    tables = texts(pages(model)[1])
    assert tables["What changed on sm_90, cu13"] == [
        [DECODE, "instructions", f"{first}: 4,000; {last}: 3,582"]
    ]
    assert "What changed on sm_100, cu13" not in tables
    assert tables["Not measured on sm_90, cu13"] == [
        [SPLIT, "unsupported", f"{first} to {last} (2)", REFUSAL]
    ]


def test_pytorchs_ways_are_told_by_their_own_words(model):
    rows = texts(pages(model)[2])["Packed sequences, cu13"]
    first, last = (model.releases[at].version.removeprefix("4.0.0") for at in (0, 2))
    assert rows == [
        [
            "torch 2.13.0",
            "sm_90",
            f"{first} to {last} (2)",
            "2",
            "1",
            f"forward_full: ValueError: too many; block_table: {REFUSED}no pages on SM 90",
        ]
    ]


def test_where_nothing_is_recorded_there_is_no_page(project):
    (release,) = write_releases(project, 1)
    write_pair(project, release, {"codegen": {"sm_90/fwd_d128_full": kernel(1)}})
    assert pages(load(project, list(iter_results(project.results)))) == []


def test_links_to_calls_lead_to_their_page():
    assert page_of("serving") == page_of("serving-memory") == "calls-serving.html"
    assert page_of("route-flex") == "calls-beyond-sdpa.html"
    assert page_of("route") == page_of("codegen") == page_of("memory") == ""
    assert {further_calls.page_of(name) for name in further_calls.BEYOND} >= {"calls-mla.html"}


# On a card.

PAGED = "b32_s1_h32kv8_d128_causal_varlen_k8192_page16_used"
SECONDS = 1e-3


@pytest.fixture
def on_card(project: Project):
    (release,) = write_releases(project, 1)
    taken = noisy("a", 0.0, spread=0.0)
    taken = [type(turn)(SECONDS, turn.process, turn.round) for turn in taken]
    decode = swept(taken, yardsticks={"copy": SECONDS * 0.8})
    dense = swept(taken, yardsticks={"copy": SECONDS * 0.5, "cudnn": SECONDS * 2})
    sink = next(each.name for each in shapes_on_card() if each.features.sink)
    host = CaseRecord("measured", samples={"seconds": [20e-6, 22e-6, 21e-6]})
    groups = {
        "forward-serving": {
            f"fa4/{PAGED}": decode,
            f"fa4/{serving_on_card()[0].name}": dense,
            f"fa4/{serving_on_card()[-1].name}": CaseRecord("broken", why="out is off"),
        },
        "backward-shapes": {f"fa4/{sink}": swept(taken)},
        "decode-host": {f"eager/{PAGED}": host, f"graph/{PAGED}": CaseRecord("broken", why="not recorded")},
    }
    write_pair(project, release, groups, machine="h100-box")
    return load(project, list(iter_results(project.results))), release.version


def test_bytes_per_second_and_the_share_of_a_copy(on_card):
    model, version = on_card
    (page,) = [page for page in pages(model) if page.name == "calls/h100-box.html"]
    tables = texts(page)
    serving = tables[f"Forward, {version}, cu13"]
    rates = {row[0]: row[1:] for row in serving}
    assert rates[PAGED][0] == "1 ms" and rates[PAGED][3] == "80\N{NO-BREAK SPACE}%"
    assert rates[PAGED][2] == f"{bytes_moved(SHAPES[PAGED]) / SECONDS / 1e9:,.0f}"
    dense = serving_on_card()[0]
    tflops = dense.flops(backward=False) / SECONDS / 1e12
    assert rates[dense.name][1] == f"{tflops:.2g}" and rates[dense.name][4] == f"{tflops / 2:.2g}"
    assert rates[dense.name][5] == "–", "no FA2 beside it"
    assert serving[-1][1] == "broken: out is off"
    (backward,) = tables[f"Backward, {version}, cu13"]
    assert backward[3:5] == ["–", "–"], "nobody counted a backward's bytes"
    assert tables[f"Host, {version}, cu13"] == [[PAGED, "21 us", "broken: not recorded"]]


def test_times_of_several_releases_stand_in_one_table_the_newest_first(project):
    taken = [type(turn)(SECONDS, turn.process, turn.round) for turn in noisy("a", 0.0, spread=0.0)]
    for release, record in zip(
        write_releases(project, 3), (CaseRecord("broken", "off"), None, swept(taken)), strict=True
    ):
        if record:
            cases = {f"fa4/{PAGED}": record, f"fa4/{serving_on_card()[0].name}": CaseRecord("not run", "no")}
            write_pair(project, release, {"forward-serving": cases}, machine="h100-box")
    (page,) = [
        page for page in pages(load(project, list(iter_results(project.results)))) if "h100" in page.name
    ]
    (table,) = [table for _, tables in page.parts for table in tables if "by release" in table.caption]
    assert table.head == ["call", "b3", "b1"]
    assert texts(page)[table.caption] == [[PAGED, "1 ms", "broken"]]


def test_the_whole_report_is_made_of_such_a_record(on_card):
    """Every page that is linked is there, and the machine's own page leaves the new groups to theirs or shows them."""
    model, _ = on_card
    made = dict(site.pages(model, timeline(model, [])))
    assert {"calls.html", "calls/h100-box.html", "machines/h100-box.html"} <= made.keys()
    assert 'href="../index.html"' in made["calls/h100-box.html"]
    assert 'href="calls/h100-box.html"' in made["calls.html"]


def test_the_page_says_what_its_figures_are():
    assert "a copy on the same card that moves as many bytes" in on_request.LEAD
