"""Tables of a terminal: what does not fit leaves the table and is named below it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fa4_asv.record.tables import fitting, print_table

HEADS = ("case", "figure", "machine", "before", "after", "note", "reason")
ROWS = [
    ["sm_100/bwd_d256_causal_deterministic", "spill", "nogpu", "600", "88", "", "exact"],
    ["sm_90/fwd_d64_full", "instructions", "nogpu", "1,000", "900", "", "a reason of many words that wraps"],
]
NUMBERS = (3, 4)


def printed(width: int) -> str:
    out = io.StringIO()
    print_table(Console(file=out, width=width), HEADS, ROWS, numbers=NUMBERS, whole=0)
    return out.getvalue()


def test_what_fits_is_shown_whole():
    assert fitting(HEADS, ROWS, 200, 0, NUMBERS) == (list(range(7)), [])


def test_of_many_rows_a_column_that_says_the_same_leaves_though_it_fits():
    rows = [[str(row), "nogpu", ""] for row in range(3)]
    assert fitting(("case", "machine", "note"), rows, 200) == ([0], ["machine: nogpu", "nothing under note"])


def test_constants_and_empty_columns_go_first_and_are_named():
    shown, notes = fitting(HEADS, ROWS, 100, 0, NUMBERS)
    assert [HEADS[at] for at in shown] == ["case", "figure", "before", "after", "reason"]
    assert notes == ["machine: nogpu", "nothing under note"]


def test_then_columns_from_the_right_but_never_the_name():
    shown, notes = fitting(HEADS, ROWS, 80, 0, NUMBERS)
    assert [HEADS[at] for at in shown] == ["case", "figure", "before", "after"]
    assert notes[-1] == "left out at 80 columns: reason"
    shown, notes = fitting(HEADS, ROWS, 10, 0, NUMBERS)
    assert shown == [0] and notes[-1].endswith("figure, before, after, reason")


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_line_is_wider_than_the_console_and_numbers_stay_whole(width):
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    assert "sm_100/bwd_d256_causal_deterministic" in text and "1,000" in text
