"""What the report's pages say of an invented record: totals, ranks, routes, compile seconds, branches."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS, SAMPLES, key_of
from fa4_asv.catalog.flavours import AS_CU12
from fa4_asv.compare.rows import Row, weight
from fa4_asv.history.commits import Commit, add_commits
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import iter_results
from fa4_asv.report.compile_times import compile_seconds
from fa4_asv.report.events import _cause, timeline
from fa4_asv.report.model import Model, load
from fa4_asv.report.overview import headline, largest
from fa4_asv.report.site import pages
from fa4_asv.report.totals import history
from tests.support.fake_record import Groups, write_pair, write_releases
from tests.support.results import FIGURES

MEASURED = CaseRecord("measured", figures=FIGURES)
REFUSED = CaseRecord("unsupported", "no head_dim 256")
FIRST, SECOND = "sm_100/fwd_d128_full", "sm_100/fwd_d256_full"


def model_of(project: Project) -> Model:
    return load(project, list(iter_results(project.results)))


def site_of(project: Project) -> dict[str, str]:
    model = model_of(project)
    return dict(pages(model, timeline(model, [])))


def kernels(**records: CaseRecord) -> Groups:
    return {"codegen": {name.replace("__", "/"): record for name, record in records.items()}}


def spilling(spill: int) -> CaseRecord:
    return replace(MEASURED, figures={**FIGURES, "spill_bytes": spill})


def test_totals_of_both_flavours_are_over_the_same_kernels_or_absent(project):
    before, after = write_releases(project, 2)
    old, new = {FIRST: spilling(8), SECOND: REFUSED}, {FIRST: spilling(16), SECOND: spilling(100)}
    for release, flavour, cases in (
        (before, "cu13", new),
        (before, "cu12", old),
        (after, "cu13", new),
        (after, "cu12", new),
    ):
        write_pair(project, release, {"codegen": cases}, flavour=flavour)
    model = model_of(project)
    (panel,) = (
        panel for panel in history(model, timeline(model, [])) if panel.anchor == "total-sm_100-spill_bytes"
    )
    assert panel.title == "Bytes spilled per thread, 2 kernels of sm_100 together"
    assert panel.table.head == ["release", "cu13", "cu12 (torch on CUDA 12)"]
    assert panel.table.rows == [["b2", "116", "116"], ["b1", "116", "–"]]


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ((0, 8, "spill_bytes"), (8, 480, "spill_bytes")),
        ((0, 48, "spill_bytes"), (72, 568, "spill_bytes")),
        ((0, 3, "local_loads"), (21, 163, "local_loads")),
        ((100, 120, "instructions"), (1000, 1300, "instructions")),
        ((8, 480, "spill_bytes"), (None, None, "state")),
        ((8, 480, "spill_bytes"), (0, 13, "broken")),
    ],
)
def test_little_beside_nothing_is_no_large_change(less, more):
    assert weight(*less) < weight(*more)
    (before, after, metric) = less
    assert weight(before, after, metric) == weight(after, before, metric)


def test_what_moved_most_tells_a_release_once_an_architecture(project):
    b1, b2, b3 = write_releases(project, 3)
    for flavour, spill in (("cu13", 480), ("cu12", 1216)):
        write_pair(project, b1, kernels(sm_100__fwd_d128_full=spilling(8)), flavour=flavour)
        write_pair(project, b2, kernels(sm_100__fwd_d128_full=spilling(16)), flavour=flavour)
        write_pair(project, b3, kernels(sm_100__fwd_d128_full=spilling(spill)), flavour=flavour)
    rows = largest(timeline(model_of(project), [])).rows
    assert [(row[0].text, row[1]) for row in rows] == [
        ("b3", "cu12 (torch on CUDA 12)"),
        ("b2", "cu12 (torch on CUDA 12)"),
    ]


def route(**broken: int) -> Groups:
    figures = {
        f"{torch.replace('_', '.')[1:]}/sm_90": {"broken": count, "checks": 21}
        for torch, count in broken.items()
    }
    notes = {"forward_full": "ValueError: too many values", "forward_causal": "ValueError: too many values"}
    return {
        "route": {
            case: CaseRecord("measured", figures=result, notes=notes if result["broken"] else {})
            for case, result in figures.items()
        }
    }


def test_what_torch_cannot_drive_is_told_though_nothing_changed(project):
    before, after = write_releases(project, 2)
    for release in (before, after):
        write_pair(project, release, route(t2_13_0=13, t2_15_0=0))
    model = model_of(project)
    top = headline(model, timeline(model, []))
    assert top.verdict == "no relevant change"
    assert top.sentences == [
        "Does PyTorch's scaled_dot_product_attention drive it? torch 2.15.0: yes; torch 2.13.0: no (13 of 21)."
    ]
    (row,) = (row for row in top.table.rows if row[0] == "broken checks")
    assert (row[1].text, row[1].css) == ("torch 2.13.0: no (13 of 21); torch 2.15.0: yes", "same")
    write_pair(project, after, route(t2_13_0=0, t2_15_0=0))
    model = model_of(project)
    (row,) = (row for row in headline(model, timeline(model, [])).table.rows if row[0] == "broken checks")
    assert row[1].text == "torch 2.13.0: yes, before: no (13 of 21); torch 2.15.0: yes"
    assert row[1].css == "better"


def test_a_torch_that_only_one_flavour_was_asked_about_is_told_with_it(project):
    before, after = write_releases(project, 2)
    for release in (before, after):
        write_pair(project, release, route(t2_13_0=0, t2_15_0=0))
        write_pair(project, release, route(t2_13_0=13), flavour="cu12")
    model = model_of(project)
    (sentence,) = headline(model, timeline(model, [])).sentences
    assert sentence.endswith(
        "torch 2.15.0: yes under cu13; torch 2.13.0: yes under cu13, no (13 of 21) under cu12."
    )


def test_a_newest_release_that_is_recorded_in_part_takes_no_total_away(project):
    before, after = write_releases(project, 2)
    write_pair(project, before, kernels(sm_100__fwd_d128_full=spilling(8), sm_100__fwd_d256_full=spilling(9)))
    write_pair(project, after, kernels(sm_100__fwd_d128_full=spilling(8)) | route(t2_13_0=0))
    model = model_of(project)
    panels = {panel.anchor: panel for panel in history(model, timeline(model, []))}
    assert panels["total-sm_100-spill_bytes"].table.rows == [["b2", "–"], ["b1", "17"]]


def calls(*seconds: float) -> Groups:
    notes = {"cpu": "A Processor, 1 of 2 cores"}
    record = CaseRecord("measured", samples={"seconds": list(seconds)}, notes=notes)
    return {"compile": {key_of(case): record for case in GROUPS["compile"].cases}}


def test_compile_seconds_show_between_what_their_samples_lie_and_each_series_once(project):
    (entry,) = write_releases(project, 1)
    samples = [2.0, 2.1, 2.2, 2.2, 2.3, 2.42]
    assert len(samples) == SAMPLES
    for flavour, policy in (("cu13", "day"), ("cu12", "day"), ("cu13", "nvidia-cutlass-dsl==4.7.1")):
        write_pair(project, entry, calls(*samples), flavour=flavour, policy=policy, machine="box")
    usual, other = compile_seconds(model_of(project))
    assert usual.title == "box: first call"
    assert other.title == "box: first call (toolchain nvidia-cutlass-dsl==4.7.1)"
    anchors = [panel.anchor for section in (usual, other) for panel in section.panels]
    assert len(anchors) == len(set(anchors))
    assert "samples is 19 % in the median" in usual.note and "on A Processor, 1 of 2 cores;" in usual.note
    panel = usual.panels[0]
    seconds = "2.2\xa0s (2\xa0s to 2.42\xa0s)"
    assert panel.table.rows == [["b1", seconds, seconds]]
    assert len(re.findall(r'class="dots"', panel.charts[0].svg)) == 2, "a dot a flavour"


def test_a_branch_is_a_line_of_its_own(project):
    """Its commits lie between main's by date, and are neighbours of none."""
    releases = write_releases(project, 3)
    for release, instructions in zip(releases, (900, 2000, 901), strict=True):
        figures = {**FIGURES, "instructions": instructions}
        write_pair(project, release, kernels(sm_100__fwd_d128_full=replace(MEASURED, figures=figures)))
    write_releases(project, 0)
    day = "2026-05-05T12:00:00Z"
    names = ("main", "faster", "main")
    add_commits(
        project.upstream,
        [
            Commit(r.commit, day, name, "x", at)
            for at, (r, name) in enumerate(zip(releases, names, strict=True))
        ],
    )
    model = model_of(project)
    assert {line.key.title: len(line.points) for line in model.series} == {
        "cu13": 2,
        "cu13, branch faster": 1,
    }
    (step,) = timeline(model, []).steps
    assert [(event.change.base, event.change.head) for event in step.events] == [(900, 901)]


def test_the_colours_of_a_terminal_are_no_words(project):
    (entry,) = write_releases(project, 1)
    output = "broken \x1b[1mError Code:\x1b[0m [92m- it[0m, of a[0] and b[12]"
    write_pair(project, entry, kernels(sm_100__fwd_d128_full=CaseRecord("broken", output)))
    assert "broken Error Code: - it, of a[0] and b[12]" in site_of(project)["support.html"]


def test_an_event_shows_the_toolchain_of_both_sides(project):
    before, after = write_releases(project, 2)
    write_pair(project, before, kernels(sm_100__fwd_d128_full=spilling(8)), compiler="4.7.1")
    write_pair(project, after, kernels(sm_100__fwd_d128_full=spilling(80)), compiler="4.8.0")
    page = site_of(project)["events/4.0.0b2-cu13-sm_100.html"]
    assert re.search(r'nvidia-cutlass-dsl<td>4\.7\.1<td class="mixed">4\.8\.0<', page)


def test_what_plain_shares_with_cu12_is_told_once(project):
    """A step of plain tells only its own changes; a release's page and a kernel's chart only its own kernels."""
    before, after = write_releases(project, 2)
    shared = {flavour: AS_CU12 if flavour == "plain" else "" for flavour in ("cu12", "plain")}
    for flavour, own in (("cu12", (0, 0)), ("plain", (0, 112))):
        for release, spill, common in ((before, own[0], 8), (after, own[1], 480)):
            same = replace(spilling(common), why=shared[flavour])
            cases = kernels(sm_100__fwd_d128_full=spilling(spill), sm_100__fwd_d256_full=same)
            write_pair(project, release, cases, flavour=flavour)
    steps = timeline(model_of(project), []).steps
    told = {step.key.flavour: [event.kernel for event in step.events] for step in steps}
    assert told == {"cu12": ["fwd_d256_full"], "plain": ["fwd_d128_full"]}
    site = site_of(project)
    assert "codegen, plain (torch of the day); 1 other as cu12" in site[f"releases/{after.version}.html"]
    charts = re.split(r'<section class="panel"', site["kernels-sm_100.html"])[1:]
    with_plain = [
        re.search(r'id="(\w+)"', chart)[1] for chart in charts if "plain (torch of the day)" in chart
    ]
    assert with_plain == ["fwd_d128_full"]


def looped(turn: int, inside: int, masked: int = 600) -> CaseRecord:
    figures = {"turn_instructions": turn, "masked_instructions": masked, "spills_inside": inside}
    figures |= {"spills_outside": 0, "slots_per_100_products": 1000}
    return CaseRecord("measured", figures=figures, parts={"UTCHMMA": 32, "exp2": 105})


def test_kernel_pages_show_turns_and_the_spills_in_them_and_that_no_time_is_predicted_on_blackwell(project):
    before, after = write_releases(project, 2)
    names = ("fwd_d128_full", "fwd_d128_causal", "fwd_d128_window")
    kernels_of = {f"sm_100/{name}": MEASURED for name in names}
    for release, spills in ((before, 38), (after, 0)):
        loops = {f"sm_100/{name}": looped(582, spills * (name == names[0])) for name in names}
        write_pair(project, release, {"codegen": kernels_of, "loops": loops})
    site = site_of(project)
    panels = re.split(r'<section class="panel" id="', site["kernels-sm_100.html"])[1:]
    full, causal, window = ({panel.partition('"')[0]: panel for panel in panels}[name] for name in names)
    assert "instructions per turn" in full and "spilled accesses inside loops" in full
    assert "instructions per turn" in causal and "spilled accesses inside loops" not in causal
    assert "instructions per masked turn" in window and "instructions per masked turn" not in causal
    assert "No time is predicted for Blackwell" in site["kernels-sm_100.html"]
    assert "No time is predicted" not in site["kernels-sm_90.html"]


def test_a_page_without_loops_has_no_chart_of_them(project):
    (entry,) = write_releases(project, 1)
    write_pair(project, entry, kernels(sm_100__fwd_d128_full=MEASURED))
    assert "instructions per turn" not in site_of(project)["kernels-sm_100.html"].partition("<section")[2]


@pytest.mark.parametrize(
    ("causes", "files", "expected"),
    [
        (("source", "source"), ("a.py",), "source"),
        (("toolchain", "toolchain"), ("a.py",), "toolchain"),
        (("source", "toolchain"), ("a.py",), "not yet explained"),
        (("unknown",), ("a.py",), "not yet explained"),
        ((), ("a.py",), "not yet explained"),
        ((), (), "toolchain"),
    ],
)
def test_loops_have_the_cause_of_their_kernel_where_one_explains_all_of_it(causes, files, expected):
    verdicts = {str(number): SimpleNamespace(cause=cause) for number, cause in enumerate(causes)}
    explanation = SimpleNamespace(cases={FIRST: verdicts}, files=files, states={})
    change = Row("loops", FIRST, "turn_instructions", "more", "exact")
    old, new = (
        SimpleNamespace(
            record=SimpleNamespace(sidecar=SimpleNamespace(toolchain=SimpleNamespace(packages=p)))
        )
        for p in ({"a": "1"}, {"a": "2"})
    )
    assert _cause(old, new, change, explanation) == expected
