"""Tables for a terminal and for Markdown: the only place that knows how long and how safe they are."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text


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

    `numbers` are columns that are aligned to the right; `whole` is never wrapped, as a name that a person types next.
    """
    if not rows or limit == 0:
        return
    columns = [
        Column(Text(head), justify="right" if at in numbers else "left", no_wrap=at == whole)
        for at, head in enumerate(heads)
    ]
    table = Table(*columns, **style)
    for row in rows[:limit]:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    console.print(table)
    if limit is not None and len(rows) > limit:
        console.print(f"  and {len(rows) - limit} {more}")


def markdown_row(cells: Iterable[str]) -> str:
    """A row of a Markdown table; the cells are Markdown already."""
    return f"| {' | '.join(cells)} |"


def markdown_head(heads: Sequence[str], numbers: Container[int] = ()) -> list[str]:
    """The first two lines of a Markdown table; the columns in `numbers` are aligned to the right."""
    rules = ["---:" if at in numbers else "---" for at in range(len(heads))]
    return [markdown_row(heads), markdown_row(rules)]
