"""Tables for a terminal and for Markdown: the only place that knows how long and how safe they are."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

_WRAPPED = 16  # a column that wraps is read down to this many characters
_FEW = 3  # rows of which a column that says the same says nothing


def rows_shown(limit: int | None, every: bool, usual: int) -> int | None:
    """Rows per table: what was asked for, else all with --all, else `usual`. None is no limit."""
    return limit if limit is not None or every else usual


def print_table(
    console: Console,
    heads: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    limit: int | None = None,
    numbers: Container[int] = (),
    whole: int | None = None,
    more: str = "more (--limit)",
    **style: Any,
) -> None:
    """Up to `limit` rows, and how many more there are; nothing where there are none. Cells are text, never markup.

    `numbers` are columns that are aligned to the right; `whole` is never wrapped, as a name that a person types next. What
    does not fit into the console leaves the table and is named below it: see `fitting`.
    """
    if not rows or limit == 0:
        return
    shown, notes = fitting(heads, rows[:limit], console.width, whole, numbers)
    columns = [
        Column(
            Text(heads[at]),
            justify="right" if at in numbers else "left",
            no_wrap=at == whole,
            overflow="fold",
        )
        for at in shown
    ]
    table = Table(*columns, **style)
    for row in rows[:limit]:
        cells = (row[at] for at in shown)
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))
    console.print(table)
    for note in notes:
        console.print(Text(f"  {note}"))
    if limit is not None and len(rows) > limit:
        console.print(f"  and {len(rows) - limit} {more}")


def fitting(
    heads: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    width: int,
    whole: int | None = None,
    numbers: Container[int] = (),
) -> tuple[list[int], list[str]]:
    """The columns that fit into `width` characters, and notes on the others.

    Empty columns and those that say the same in every row go first: of few rows only where not all columns fit. Then
    columns go from the right. The first column and `whole` stay.
    """
    shown = list(range(len(heads)))
    notes: list[str] = []
    if len(rows) < _FEW and _needed(heads, rows, shown, whole, numbers) <= width:
        return shown, notes
    never_left_out = {0, whole}
    same = {
        at: str(rows[0][at])
        for at in shown
        if at not in never_left_out and len({str(row[at]) for row in rows}) == 1
    }
    shown = [at for at in shown if at not in same]
    notes += [f"{heads[at]}: {value}" for at, value in same.items() if value and heads[at]]
    empty = [heads[at] for at, value in same.items() if not value and heads[at]]
    notes += [f"nothing under {', '.join(empty)}"] if empty else []
    left: list[str] = []
    while _needed(heads, rows, shown, whole, numbers) > width and set(shown) - never_left_out:
        last = max(set(shown) - never_left_out)
        shown.remove(last)
        left.insert(0, heads[last])
    notes += [f"left out at {width} columns: {', '.join(left)}"] if left else []
    return shown, notes


def _needed(
    heads: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    shown: Sequence[int],
    whole: int | None,
    numbers: Container[int],
) -> int:
    """Characters that the columns need with their borders; words wrap, numbers and names do not."""
    total = 1
    for at in shown:
        longest = max(len(str(cell)) for cell in (heads[at], *(row[at] for row in rows)))
        wraps = at != whole and at not in numbers
        total += 3 + (min(longest, _WRAPPED) if wraps else longest)
    return total


def markdown_row(cells: Iterable[str]) -> str:
    """A row of a Markdown table; the cells are Markdown already."""
    return f"| {' | '.join(cells)} |"


def markdown_head(heads: Sequence[str], numbers: Container[int] = ()) -> list[str]:
    """The first two lines of a Markdown table; the columns in `numbers` are aligned to the right."""
    rules = ["---:" if at in numbers else "---" for at in range(len(heads))]
    return [markdown_row(heads), markdown_row(rules)]
