"""The predicted time of tools/loop_model.py: its terms counted by hand, and coefficients that were put in and come out."""

from __future__ import annotations

import pytest

from fa4_asv.catalog.shapes import shape
from fa4_asv.measure.kernels.flow import NotUnderstood
from fa4_asv.measure.kernels.loops import KernelLoops
from tests.support import ROOT
from tests.support.loops import loops, turn
from tests.support.tools import tool

SM = 132 * 1.7e9


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return tool("loop_model")


def test_terms_of_a_full_forward_are_those_counted_by_hand(tools):
    """64 exp2 of which 2 are the rows' own: 124 keys per turn; 8 products of 64x128x16 are 512 cycles."""
    one = shape(2, 4, 1024, 128)
    turns = 2 * 4 * 1024 * 1024 / (64 * 124)
    found = tools.terms(loops(turn(500)), one)
    assert found == pytest.approx((turns * 512 / SM, turns * 500 / SM, 2 * 4 * 1024 / 128 / SM))


def test_masked_blocks_take_the_masked_turn_and_a_kernel_without_one_takes_its_own(tools):
    one = shape(1, 1, 1024, 128, causal=True)
    masked = 8 * 2 * 128 / 124  # 8 tiles of two warp groups
    turns = 1024 * 1025 / 2 / (64 * 124)
    two = tools.terms(loops(turn(600, masked=True), turn(500)), one)
    assert two[1] == pytest.approx(((turns - masked) * 500 + masked * 600) / SM)
    assert tools.terms(loops(turn(500)), one)[1] == pytest.approx(turns * 500 / SM)


def test_of_a_window_of_one_block_every_turn_is_masked(tools):
    one = shape(1, 1, 1024, 128, window=128)
    found = tools.terms(loops(turn(600, masked=True), turn(500)), one)
    turns = (1024 * 129 - 129 * 128 / 2) / (64 * 124)
    assert found[1] == pytest.approx(turns * 600 / SM)


def test_loops_that_are_not_understood_have_no_time(tools):
    with pytest.raises(NotUnderstood, match="a table is missing"):
        tools.terms(KernelLoops(why="a table is missing"), shape(1, 1, 1024, 128))


def test_coefficients_that_were_put_in_come_out(tools):
    true = (0.9, 0.7, 2.0)
    found = [(1.0, 0.5, 0.1), (2.0, 1.5, 0.1), (1.0, 2.0, 0.3), (4.0, 1.0, 0.2)]
    rows = [(row, tools.predicted(true, row)) for row in found]
    assert tools.fitted(rows) == pytest.approx(true)


def test_too_few_rows_are_refused(tools):
    with pytest.raises(ValueError, match="too few different rows"):
        tools.fitted([((1.0, 1.0, 1.0), 3.0)] * 5)


def test_errors_are_means_of_absolute_differences_and_signs_are_counted(tools):
    call = ("forward-history", "fa4/x")
    steps = [
        tools.Step("4.0.0b20", call, clock=-0.04, model=-0.03, told=True),
        tools.Step("4.0.0b20", call, clock=0.02, model=-0.01, told=True),
        tools.Step("4.0.0b20", call, clock=0.0, model=0.0, told=False),
    ]
    assert tools.errors(steps[:2]) == (pytest.approx(0.02), pytest.approx(0.03), 1)
    rows = tools.judged("b36", steps)
    assert [row[1:3] for row in rows] == [("2 % or more", "2"), ("all", "3")]
    assert rows[0][-1] == "1 of 2" and rows[1][-1] == "–"
