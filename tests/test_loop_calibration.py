"""The rules that tools/loop_calibration.py compares, and how it counts; on pairs made by hand."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.compare.policy import BETTER, NEITHER, UNCHANGED, WORSE, overall
from fa4_asv.compare.rows import Measured, compare
from fa4_asv.record.schema import CaseRecord
from tests.support import ROOT
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
UNKNOWN = CaseRecord("unsupported", why="loops: an indirect branch")


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return tool("loop_calibration")


def turn(instructions: int, spills: int = 0, masked: int = 600, products: int = 8) -> CaseRecord:
    figures = {"turn_instructions": instructions, "masked_instructions": masked, "spills_inside": spills}
    return CaseRecord("measured", figures=figures, parts={"HGMMA.64x128x16": products})


def pair(
    tools,
    old: CaseRecord,
    new: CaseRecord,
    call=DENSE,
    clock=BETTER,
    change=-0.05,
    release="4.0.0b20",
    **figures: int,
):
    """Loops `old` and `new` of a call's main kernel; `figures` are those of the new kernel as a whole."""
    (kernel,) = (name for name in tools.kernels_of(call))
    key = f"sm_90/{kernel}"
    records = CaseRecord("measured", figures=FIGURES), CaseRecord("measured", figures={**FIGURES, **figures})
    sides = [
        Measured({"codegen": {key: record}, "loops": {key: loops}})
        for record, loops in zip(records, (old, new), strict=True)
    ]
    return tools.Pair(release, call, (records,), tuple(compare(*sides, exact=True)), clock, change)


def test_a_turn_counts_from_the_threshold_on_and_swapping_the_sides_inverts_it(tools):
    old, new = turn(500), turn(510)
    assert tools.by_policy(pair(tools, old, new), 0.02) == WORSE
    assert tools.by_policy(pair(tools, new, old), 0.02) == BETTER
    assert tools.by_policy(pair(tools, old, new), 0.0201) == NEITHER
    assert tools.by_policy(pair(tools, new, old), 0.0201) == NEITHER
    assert tools.by_policy(pair(tools, old, old), 0.0) == NEITHER


def test_turns_that_do_other_work_are_not_compared(tools):
    assert tools.by_policy(pair(tools, turn(389), turn(420, products=9), instructions=2000), 0.02) == NEITHER


def test_where_loops_are_not_understood_the_whole_kernel_speaks(tools):
    assert tools.by_policy(pair(tools, turn(500), UNKNOWN), 0.02) == NEITHER
    assert tools.by_policy(pair(tools, UNKNOWN, turn(400), instructions=1010), 0.02) == WORSE
    assert tools.by_policy(pair(tools, turn(500), turn(500), instructions=1010), 0.02) == NEITHER


def test_a_spilled_access_in_a_loop_counts_from_one_on_and_against_fewer_instructions_nothing_is_said(tools):
    clean, spilled = turn(500), turn(500, spills=1)
    assert tools.by_policy(pair(tools, clean, spilled), 0.02) == WORSE
    assert tools.by_policy(pair(tools, spilled, clean), 0.02) == BETTER
    assert tools.by_policy(pair(tools, clean, turn(400, spills=1)), 0.02) == NEITHER


def test_of_a_window_the_masked_turn_counts(tools):
    old, new = turn(580), turn(474)
    assert tools.by_policy(pair(tools, old, new), 0.02) == BETTER
    assert tools.by_policy(pair(tools, old, new, call=WINDOW), 0.02) == NEITHER
    assert tools.by_policy(pair(tools, old, turn(580, masked=700), call=WINDOW), 0.02) == WORSE
    assert tools.by_policy(pair(tools, old, turn(580, masked=700)), 0.02) == NEITHER


def test_the_tool_and_the_policy_agree_at_the_policys_threshold(tools):
    for new in (turn(509), turn(510), turn(491), turn(490), turn(500, spills=3), turn(900, products=4)):
        compared = pair(tools, turn(500), new, instructions=5000)
        by_rows = overall(row.effect for row in compared.rows)
        assert (tools.by_policy(compared, 0.02) or UNCHANGED) == by_rows


def test_the_rule_before_loops_is_that_of_whole_kernels(tools):
    def judged(**figures: int) -> str:
        return tools.by_whole_kernels(pair(tools, turn(500), turn(500), **figures))

    assert judged(instructions=1010) == WORSE
    assert judged(instructions=1009) == NEITHER
    assert judged(instructions=900, local_loads=4) == NEITHER, "one better, one worse"
    assert judged(registers=255, text_bytes=20000) == NEITHER, "not judged"


def test_a_release_without_loops_is_named_with_what_to_do(tools):
    record = tool("history_record")
    chain = SimpleNamespace(flavour="cu12")
    lacking = SimpleNamespace(release="4.0.0b7", sidecar=SimpleNamespace(groups={}, toolchain=chain))
    with pytest.raises(Fa4AsvError, match="no loops of 4.0.0b7 sm_90/x under cu12: fa4-asv backfill"):
        record.loops_of(lacking, "sm_90/x")
    with pytest.raises(Fa4AsvError, match="no loops of 4.0.0b7"):
        record.History(None, None, None, {"4.0.0b7": lacking}, {}, {}).loops("4.0.0b7", "sm_90/x")


@pytest.mark.slow
def test_the_page_holds_the_tables_that_the_script_makes(tools):
    """Where one differs: `python tools/loop_calibration.py --write`, then read the text again."""
    try:
        made = tools.tables(Project(ROOT))
    except Fa4AsvError as error:
        pytest.skip(str(error))
    page = (ROOT / tools.PAGE).read_text(encoding="utf-8")
    result = dict(re.findall(r"<!-- (\w+) -->\n(.*?)\n<!-- end -->", page, re.S))
    assert result == made


def test_the_rule_at_the_policys_threshold_is_in_the_page(tools):
    """What a rule has to show on the half that chose nothing: 90 % of agreement, 60 % of the large changes."""
    page = (ROOT / tools.PAGE).read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page.splitlines()
        if line[:8] == "| loops "
    ]
    large = [row for row in rows if row[1] in ("even betas, 2 % or more", "odd betas, 2 % or more")]
    assert len(large) == 2
    for row in large:
        assert row[6] == "100 %" and int(row[7].split()[0]) >= 60, row


def test_agreement_counts_each_pair_once(tools):
    told = [
        (BETTER, BETTER),
        (WORSE, WORSE),
        (BETTER, WORSE),
        (WORSE, NEITHER),
        (NEITHER, BETTER),
        (NEITHER, NEITHER),
    ]
    result = tools.agreement(told)
    assert result == tools.Agreement(agree=2, disagree=1, silent=1, alarms=1, quiet=1)
    assert result.score == 0
    assert result.cells == ("2", "1", "1", "67 %", "75 %", "1 of 2")
    assert tools.Agreement().cells == ("0", "0", "0", "–", "–", "0 of 0")


def test_the_threshold_is_the_smallest_with_the_best_score(tools):
    told = pair(tools, turn(500), turn(480))
    same = pair(tools, turn(500), turn(491), clock=NEITHER)
    assert tools.chosen([told]) == tools.SMALLEST[0]
    assert tools.chosen([told, same]) == 0.02, "1.8 % of instructions moved no time here"


def test_a_half_is_judged_by_the_threshold_of_the_other(tools):
    """Even betas want 2 %; the odd one's 1 % step is then passed over."""
    even = [
        pair(tools, turn(500), turn(480), release="4.0.0b20"),
        pair(tools, turn(500), turn(491), clock=NEITHER, release="4.0.0b20"),
    ]
    odd = [pair(tools, turn(500), turn(495), release="4.0.0b31")]
    lines = [line for line in tools.halves([*even, *odd]) if line.startswith("| loops |")]
    assert [line.split(" | ")[1:6] for line in lines] == [
        ["even betas", "0.5 %", "1", "0", "0"],
        ["even betas, 2 % or more", "0.5 %", "1", "0", "0"],
        ["odd betas", "2 %", "0", "0", "1"],
        ["odd betas, 2 % or more", "2 %", "0", "0", "1"],
    ]


def test_a_disassembly_is_kept_by_its_digest_and_read_once(tools, tmp_path):
    cubins = tool("loop_cubins").Cubins(tmp_path)
    assert not cubins.has("abc")
    (tmp_path / "abc.sass").write_text(".text.kernel:\n        /*0000*/                   EXIT ;\n")
    assert cubins.has("abc")
    assert cubins.loops("abc") is cubins.loops("abc")
    assert "no loop" in cubins.loops("abc").why
