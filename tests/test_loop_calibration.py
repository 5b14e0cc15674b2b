"""The rules that tools/loop_calibration.py compares, and how it counts; on pairs made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4_asv.compare.policy import BETTER, NEITHER, WORSE
from fa4_asv.measure.kernels.loops import KernelLoops
from fa4_asv.record.schema import CaseRecord
from tests.support import ROOT
from tests.support.loops import loops, turn
from tests.support.tools import tool

DENSE = ("forward-history", "fa4/b4_s8192_h16_d128_causal")
WINDOW = ("forward-history", "fa4/b4_s8192_h16_d128_w128")
FIGURES = {
    "spill_bytes": 0,
    "local_loads": 0,
    "local_stores": 0,
    "instructions": 1000,
    "text_bytes": 16000,
    "registers": 168,
}


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return tool("loop_calibration")


def pair(
    tools, old: KernelLoops, new: KernelLoops, call=DENSE, clock=BETTER, change=-0.05, release="4.0.0b20"
):
    record = CaseRecord("measured", figures=FIGURES)
    return tools.Pair(release, call, ((record, record),), (old, new), clock, change)


def test_a_turn_counts_from_the_threshold_on_and_swapping_the_sides_inverts_it(tools):
    old, new = loops(turn(500)), loops(turn(510))
    assert tools.by_loops(pair(tools, old, new), 0.02) == WORSE
    assert tools.by_loops(pair(tools, new, old), 0.02) == BETTER
    assert tools.by_loops(pair(tools, old, new), 0.0201) == NEITHER
    assert tools.by_loops(pair(tools, new, old), 0.0201) == NEITHER
    assert tools.by_loops(pair(tools, old, old), 0.0) == NEITHER


def test_turns_that_do_other_work_are_not_compared(tools):
    assert tools.by_loops(pair(tools, loops(turn(389)), loops(turn(420, products=9))), 0.02) == NEITHER


def test_loops_that_are_not_understood_say_nothing(tools):
    unknown = KernelLoops(why="an indirect branch")
    assert tools.by_loops(pair(tools, loops(turn(500)), unknown), 0.02) == NEITHER
    assert tools.by_loops(pair(tools, unknown, loops(turn(400))), 0.02) == NEITHER


def test_a_spilled_access_in_a_loop_counts_from_one_on_and_against_fewer_instructions_nothing_is_said(tools):
    clean, spilled = loops(turn(500)), loops(turn(500, spills=1))
    assert tools.by_loops(pair(tools, clean, spilled), 0.02) == WORSE
    assert tools.by_loops(pair(tools, spilled, clean), 0.02) == BETTER
    assert tools.by_loops(pair(tools, clean, loops(turn(400, spills=1))), 0.02) == NEITHER


def test_of_a_window_the_masked_turn_counts(tools):
    old = loops(turn(600, masked=True), turn(580))
    new = loops(turn(600, masked=True), turn(474))
    assert tools.by_loops(pair(tools, old, new), 0.02) == BETTER
    assert tools.by_loops(pair(tools, old, new, call=WINDOW), 0.02) == NEITHER


def test_todays_rule_is_that_of_the_policy(tools):
    one = pair(tools, loops(turn(500)), loops(turn(500)))
    record = one.records[0][0]

    def judged(**figures: int) -> str:
        return tools.by_policy(
            replace(one, records=((record, replace(record, figures={**FIGURES, **figures})),))
        )

    assert judged(instructions=1010) == WORSE
    assert judged(instructions=1009) == NEITHER
    assert judged(instructions=900, local_loads=4) == NEITHER, "one better, one worse"
    assert judged(registers=255, text_bytes=20000) == NEITHER, "not judged"


def test_agreement_counts_each_pair_once(tools):
    told = [
        (BETTER, BETTER),
        (WORSE, WORSE),
        (BETTER, WORSE),
        (WORSE, NEITHER),
        (NEITHER, BETTER),
        (NEITHER, NEITHER),
    ]
    found = tools.agreement(told)
    assert found == tools.Agreement(agree=2, disagree=1, silent=1, alarms=1, quiet=1)
    assert found.score == 0
    assert found.cells == ("2", "1", "1", "67 %", "75 %", "1 of 2")
    assert tools.Agreement().cells == ("0", "0", "0", "–", "–", "0 of 0")


def test_the_threshold_is_the_smallest_with_the_best_score(tools):
    told = pair(tools, loops(turn(500)), loops(turn(480)))
    same = pair(tools, loops(turn(500)), loops(turn(491)), clock=NEITHER)
    assert tools.chosen([told]) == tools.SMALLEST[0]
    assert tools.chosen([told, same]) == 0.02, "1.8 % of instructions moved no time here"


def test_a_half_is_judged_by_the_threshold_of_the_other(tools):
    """Even betas want 2 %; the odd one's 1 % step is then passed over."""
    even = [
        pair(tools, loops(turn(500)), loops(turn(480)), release="4.0.0b20"),
        pair(tools, loops(turn(500)), loops(turn(491)), clock=NEITHER, release="4.0.0b20"),
    ]
    odd = [pair(tools, loops(turn(500)), loops(turn(495)), release="4.0.0b31")]
    lines = [line for line in tools.halves([*even, *odd]) if line.startswith("| loops |")]
    assert [line.split(" | ")[1:6] for line in lines] == [
        ["even betas", "0.5%", "1", "0", "0"],
        ["even betas, 2% or more", "0.5%", "1", "0", "0"],
        ["odd betas", "2.0%", "0", "0", "1"],
        ["odd betas, 2% or more", "2.0%", "0", "0", "1"],
    ]


def test_a_disassembly_is_kept_by_its_digest_and_read_once(tools, tmp_path):
    cubins = tool("loop_cubins").Cubins(tmp_path)
    assert not cubins.has("abc")
    (tmp_path / "abc.sass").write_text(".text.kernel:\n        /*0000*/                   EXIT ;\n")
    assert cubins.has("abc")
    assert cubins.loops("abc") is cubins.loops("abc")
    assert "no loop" in cubins.loops("abc").why
