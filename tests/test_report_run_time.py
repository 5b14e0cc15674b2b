"""The run-time history in the report: from an invented sweep to its pages."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from statistics import fmean

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.compare.false_alarms import rate_interval
from fa4_asv.compare.noise import noise_of, totals
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import iter_results
from fa4_asv.report import machines, run_time, run_time_cells
from fa4_asv.report.call_history import call_pages
from fa4_asv.report.cards import cards_of
from fa4_asv.report.events import timeline
from fa4_asv.report.model import load
from fa4_asv.report.on_the_clock import on_the_clock
from fa4_asv.report.run_time import swept_page
from fa4_asv.report.site import pages
from fa4_asv.report.swept import Call, Swept, by_machine, first_of, sweeps_of
from tests.support import ROOT
from tests.support.fake_record import write_pair, write_releases
from tests.support.pages import without_own_scripts
from tests.support.results import FIGURES
from tests.support.sweep_fake import BACKWARD, CALL, FORWARD, LONG, noisy, swept

CARD = "lab-h200"
OTHER = "lab-h200-2"
HOSTILE = 'AssertionError: <script>alert("x")</script> & <b>'
CRASH = CaseRecord("broken", "AcceleratorError: CUDA error: an illegal memory access (guard of fa4)")
KERNEL = "sm_90/bwd_d128_causal_varlen"
FAST, SLOW, BROKEN, LAST = 5, 6, 7, 9  # the releases in which something happens: b5 and so on
MAIN, LONGER, BACK = Call(FORWARD, CALL), Call(FORWARD, LONG), Call(BACKWARD, CALL)


def level(number: int, call: Call) -> float:
    """Log seconds: b5 is 5 % faster at the causal forward, b6 is 3 % slower at the full one."""
    if call == MAIN:
        return math.log(1e-3) + (math.log(0.95) if number >= FAST else 0.0)
    if call == LONGER:
        return math.log(2e-3) + (math.log(1.03) if number >= SLOW else 0.0)
    return math.log(4e-3)


def record(number: int, call: Call, scale: float = 1.0, card: str = "0123456789ab") -> CaseRecord:
    taken = noisy(f"{call}{number}", level(number, call) + math.log(scale), spread=0.0005)
    return swept(
        taken, {"card": card, "card name": "NVIDIA H200"}, {"cudnn": 1.2e-3 * scale, "fa2": 2e-3 * scale}
    )


def groups(number: int, scale: float = 1.0, card: str = "0123456789ab", why: str = CRASH.why):
    result = {call: record(number, call, scale, card) for call in (MAIN, LONGER, BACK)}
    if number == BROKEN:
        result[BACK] = replace(CRASH, why=why)
    return {
        name: {c.case: each for c, each in result.items() if c.group == name} for name in (FORWARD, BACKWARD)
    }


@pytest.fixture
def clock(project: Project) -> Project:
    """Nine releases on one card, and kernels: the one that crashes spills less than the one before."""
    for number, release in enumerate(write_releases(project, LAST), 1):
        spill = 0 if number >= BROKEN else 272
        kernel = CaseRecord("measured", figures={**FIGURES, "spill_bytes": spill})
        write_pair(project, release, {"codegen": {KERNEL: kernel}})
        write_pair(project, release, groups(number), machine=CARD)
    return project


def model_of(project: Project):
    return load(project, list(iter_results(project.results)))


def made(project: Project) -> dict[str, str]:
    model = model_of(project)
    return dict(pages(model, timeline(model, [])))


def only(project: Project) -> Swept:
    (result,) = sweeps_of(model_of(project))
    return result


def texts(cells) -> list[str]:
    return [cell if isinstance(cell, str) else cell.text for cell in cells]


def tables(project: Project) -> dict[str, list[list[str]]]:
    """The tables on the machine's page, by caption: the head first."""
    machine = only(project)
    parts = swept_page(machine, [machine]).parts
    every = [table for part in parts for table in (*part.tables, *part.folded)]
    return {table.caption: [list(table.head), *map(texts, table.rows)] for table in every}


def test_when_run_time_changed_is_one_row_per_release_that_changed_it(clock):
    result = tables(clock)
    head, *rows = result["forward, against the one before"]
    assert head == ["", "date", "d128 causal", "d128 full", "nvidia-cutlass-dsl"]
    assert [row[0] for row in rows] == ["b6", "b5", "the other 6"]
    assert rows[0][2:4] == ["·", "+3.0\xa0%"] and rows[1][2:4] == ["−5.0\xa0%", "·"]
    _, *rows = result["backward, against the one before"]
    assert [(row[0], row[2]) for row in rows] == [("b8", "working"), ("b7", "broken"), ("the other 6", "·")]
    head, *rows = result["Every release: calls by verdict"]
    assert len(rows) == LAST - 1
    assert dict(zip(head, rows[-4 + 0], strict=True))["faster"] == "1"


def test_of_many_releases_the_pages_of_a_machine_show_the_newest_and_lead_to_the_others(clock, monkeypatch):
    """A row or a table per release of hundreds would make a page of megabytes."""
    monkeypatch.setattr(run_time, "MOST_ROWS", 2)
    monkeypatch.setattr(run_time_cells, "MOST_ROWS", 2)
    monkeypatch.setattr(machines, "_PER_PAGE", 4)
    result = tables(clock)
    _, *rows = result["Every release: calls by verdict, the newest 2 of 8"]
    assert [row[0] for row in rows] == ["b9", "b8"]
    _, *rows = result["forward, every release: time over that of b9, the newest 2 of 9"]
    assert [row[0] for row in rows] == ["b9", "b8", "seen from"]
    _, *rows = result["forward, against the one before"]
    assert [row[0] for row in rows] == ["b6", "b5", "the other 6"]
    site = made(clock)
    found = [f"machines/{CARD}.html", f"machines/{CARD}/older-4.html", f"machines/{CARD}/older-8.html"]
    assert [name for name in site if name.startswith("machines/")] == found
    assert f'<a href="machines/{CARD}/older-4.html">' in site[found[0]].replace('href="../', 'href="')
    assert f'<a href="../../machines/{CARD}/older-8.html">' in site[found[1]]
    titles = [re.findall(r"<(?:h2|summary)>(4\.0\.0b\d+), ", site[name]) for name in found]
    assert [len(each) for each in titles] == [4, 4, 1]
    assert ["<h2>4.0.0b" in site[name] for name in found] == [True, False, False], "the others are folded"
    assert [title for each in titles for title in each] == [
        f"4.0.0b{number}" for number in range(LAST, 0, -1)
    ]


def test_what_it_costs_to_stay_behind_is_the_geometric_mean_of_what_both_have(clock):
    head, *rows = tables(clock)["forward, releases: time over that of b9"]
    assert head == ["", "d128 causal", "d128 full", "all"]
    by_name = {row[0]: row[1:] for row in rows}
    assert list(by_name) == ["b6 to b9", "b5", "b1 to b4", "seen from"]
    machine = only(clock)
    levels = [
        [math.log(machine.behind(point, call)) for point in machine.points[:4]] for call in (MAIN, LONGER)
    ]
    means = [fmean(levels[0]), fmean(levels[1]), fmean(levels[0] + levels[1])]
    assert by_name["b1 to b4"] == [f"{math.exp(mean):.3f}" for mean in means]
    causal, full, both = map(float, by_name["b1 to b4"])
    assert causal == pytest.approx(1 / 0.95, abs=0.002) and full == pytest.approx(1 / 1.03, abs=0.002)
    assert both == pytest.approx(math.sqrt(causal * full), abs=0.002)
    _, *rows = tables(clock)["backward, releases: time over that of b9"]
    assert [row[1] for row in rows if row[0] == "b7"] == ["broken"]


def test_noise_and_false_alarms_stand_beside_each_call(clock):
    calls = noise_of(clock, CARD)
    alarms, pairs = totals(calls)
    _, *rows = tables(clock)["Noise by the length of a call"]
    assert rows[-1][0] == "all" and rows[-1][5] == f"{alarms} of {pairs}"
    low, high = (f"{edge * 100:.1f}\xa0%" for edge in rate_interval(alarms, pairs))
    assert rows[-1][7] == f"{low} to {high}" and low != high
    _, *rows = tables(clock)["Every call in 4.0.0b9"]
    seen = {row[0]: row[7] for row in rows}
    for call in calls:
        title = f"{call.key.group.partition('-')[0]} {call.key.case.removeprefix('fa4/')}"
        assert seen[title] == f"{call.visible * 100:.1f}\xa0%"


def plots_of(project, machine: str):
    """The charts of a machine's calls, by the call's title."""
    model = model_of(project)
    series = by_machine(sweeps_of(model))[machine]
    result = timeline(model, [])
    return {page.title: page.plot for page in call_pages(model, series, result)}


def test_a_calls_page_has_every_release_newest_first_with_its_verdict(clock):
    site = made(clock)
    page = site[f"run-time/{CARD}/forward-{MAIN.name}.html"]
    rows = {
        name: line
        for line in page.splitlines()
        for name in re.findall(r'<th scope="row"><a [^>]*>(b\d+)</a><td>', line)
    }
    names = list(rows)
    assert names.index("b9") < names.index("b5") < names.index("b1")
    assert 'class="better"><a href="../../releases/4.0.0b5.html">b5: faster −5.0\xa0%</a>' in page
    plot = plots_of(clock, CARD)[f"forward {MAIN.name}"]
    assert [(event.number, event.at + 1, event.rows[0].moved[0].effect) for event in plot.events] == [
        (1, 5, "better")
    ]
    back = site[f"run-time/{CARD}/backward-{BACK.name}.html"]
    assert "illegal memory access" in back
    # At this step the kernels changed, too: the mark leads to what did.
    assert 'href="../../events/4.0.0b7-cu13-sm_90.html">b7: newly broken</a>' in back
    rate = 4 * 4 * 16 * (8192 * 8193 // 2) * 128
    shown = float(re.search(r"<td>([\d.]+)\xa0µs<", rows["b5"]).group(1)) * 1e-6
    assert f"<td>{rate / shown / 1e12:,.0f}<" in rows["b5"]


def test_a_chart_has_a_line_for_each_yardstick_that_was_timed_beside_the_call(clock):
    """On the first card both were; on the second neither."""
    for number, release in enumerate(model_of(clock).releases, 1):
        alone = swept(noisy(f"{number}", 0.0, spread=0.0005), {"card": "0123456789ab"}, {})
        write_pair(clock, release, {FORWARD: {MAIN.case: alone}}, machine=OTHER)
    curves = [
        [curve.title for curve in plots_of(clock, machine)[f"forward {MAIN.name}"].metrics[0].curves]
        for machine in (CARD, OTHER)
    ]
    assert curves == [["FA4", "cuDNN", "FA2"], ["FA4"]]
    assert "cuDNN</li>" not in made(clock)[f"run-time-{OTHER}.html"]


def test_the_first_page_says_what_the_clock_says(clock):
    result = on_the_clock(only(clock))
    assert (result.machine, result.newest.text, result.verdict) == (CARD, "b9", "no change told")
    assert [cell.text for cell, _ in result.recent] == ["b8", "b7", "b6"]
    assert result.recent[2][1] == f"1 slower (forward {LONGER.name} +3.0\xa0%)"
    assert any(
        "as fast as cuDNN" in sentence and "as fast as FA2" in sentence for sentence in result.sentences
    )
    text = made(clock)["index.html"]
    assert f'On the clock: <a href="run-time-{CARD}.html">{CARD}</a>' in text


def test_a_release_whose_kernels_look_better_says_that_it_crashes(clock):
    """Wherever the release counts as better: its page, the event's, the lists of both, the support map, the first page."""
    model = model_of(clock)
    (step,) = (each for each in timeline(model, []).steps if each.after.label == "4.0.0b7")
    assert [event.effect for event in step.events] == ["better"]
    site = made(clock)
    output = f"1 of 3 calls is broken: AcceleratorError: CUDA error: an illegal memory access (backward {BACK.name})"
    assert output in site["releases/4.0.0b7.html"] and output in site["events/4.0.0b7-cu13-sm_90.html"]
    assert "is broken" not in site["releases/4.0.0b6.html"]
    for name in ("index.html", "events.html", "releases.html"):
        assert site[name].count(f"1 of 3 calls broken on {CARD}") == 1, name
    assert f"3 calls run on {CARD}" in site["releases.html"]
    assert f'<th scope="row">backward {BACK.name}<td>broken, {CARD}, cu13<td>b7<' in site["support.html"]
    assert (
        'Calls of these releases are broken on a card; their pages say which: <a href="releases/4.0.0b7.html">b7</a>.'
        in site["index.html"]
    )


def test_a_step_of_another_architecture_or_flavour_is_not_blamed(clock):
    model = model_of(clock)
    cards = cards_of(model, [])
    (step,) = (each for each in timeline(model, []).steps if each.after.label == "4.0.0b7")
    assert len(cards.of_step(step)) == 1
    assert cards.of_step(replace(step, arch="sm_100")) == []
    assert cards.of_step(replace(step, key=replace(step.key, flavour="cu12"))) == []


def test_another_card_is_compared_by_the_yardstick_and_never_by_seconds(clock):
    """The newest release again on a card that takes twice as long for everything: neither slower nor on one line."""
    newest = model_of(clock).releases[-1]
    write_pair(clock, newest, groups(LAST, 2.0, "ba9876543210"), machine=CARD)
    machine = only(clock)
    assert machine.behind(machine.points[0], LONGER) == pytest.approx(1 / 1.03, abs=0.01)
    page = made(clock)[f"run-time/{CARD}/forward-{LONGER.name}.html"]
    seconds, *_ = plots_of(clock, CARD)[f"forward {LONGER.name}"].metrics
    lines = {curve.title: sum(value is not None for value in curve.values) for curve in seconds.curves}
    assert (lines["FA4"], lines["FA4, sweep 2"]) == (8, 1), (
        "eight releases on the first card, one on the second"
    )
    assert '<th scope="col">card</th>' in page and "ba987654" in page
    assert 'class="worse">b9' not in page
    (glance,) = (g for g in swept_page(machine, [machine]).glances if g.title.text == LONGER.title)
    assert "b9" not in glance.chart.svg


def test_two_machines_stand_beside_each_other_as_ratios_only(clock):
    for number, release in enumerate(model_of(clock).releases, 1):
        if number % 2 or number == 8:
            write_pair(clock, release, groups(number, 2.0), machine=OTHER)
    result = sweeps_of(model_of(clock))
    assert list(by_machine(result)) == [CARD, OTHER]
    assert first_of(result).key.machine == CARD, "of the same newest release the machine with more of them"
    (part,) = (
        part for part in swept_page(result[0], result).parts if part.title.startswith("Other machines")
    )
    yardsticks, agreement = part.tables
    for row in map(texts, yardsticks.rows):
        assert row[1] == row[2] and row[3] == row[4], "twice the seconds of everything: the same ratios"
    assert {"none"} == {texts(row)[-1] for row in agreement.rows}
    assert not re.search(
        r"\d\xa0(ms|µs|s)\b", str([texts(row) for table in part.tables for row in table.rows])
    )


def test_foreign_words_are_text_and_never_markup(clock):
    machine = "box-h200"
    for number, release in enumerate(model_of(clock).releases, 1):
        write_pair(clock, release, groups(number, why=HOSTILE), machine=machine)
    site = made(clock)
    for name, text in site.items():
        assert "<script" not in without_own_scripts(text), name
    page = site[f"run-time/{machine}/backward-{BACK.name}.html"]
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in page


def test_a_machine_whose_name_is_markup_is_refused_before_any_page(clock):
    write_pair(clock, model_of(clock).releases[0], groups(1), machine='box-h200 "><script>alert(1)')
    with pytest.raises(Fa4AsvError, match="with markup or control characters"):
        made(clock)


def test_the_order_of_the_files_does_not_enter(clock):
    files = list(iter_results(clock.results))
    first, second = (load(clock, order) for order in (files, files[::-1]))
    assert dict(pages(first, timeline(first, []))) == dict(pages(second, timeline(second, [])))


def test_one_release_alone_has_a_page_without_verdicts(project):
    (release,) = write_releases(project, 1)
    write_pair(project, release, groups(1), machine=CARD)
    site = made(project)
    assert "No release before it was timed here." in site["index.html"]
    assert "the first" in site[f"run-time/{CARD}/forward-{MAIN.name}.html"]


def test_no_page_of_the_committed_report_is_over_a_megabyte():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "html" / "report").rglob("*.html")}
    assert {name: size for name, size in sizes.items() if size > 1_000_000} == {}
    assert any(name.startswith("run-time-") for name in sizes)
