"""What pages are put together from: cells, tables, panels with charts. Data for the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True)
class Cell:
    """Text and, where given, a link (below the site's root), a class of the style sheet, words only for screen
    readers, and an anchor for links from elsewhere."""

    text: str
    href: str = ""
    css: str = ""
    spoken: str = ""
    anchor: str = ""


Row = Sequence[Cell | str]


@dataclass(frozen=True)
class Table:
    """`head` names the columns; the first cell of a row names it. `caption` stand above as the caption."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Row]
    css: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawing and what it is of; `colours` are the places of its lines in the palette, where a legend needs them."""

    title: str
    svg: Markup
    colours: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Panel:
    """Charts of one thing with the table behind them; `anchor` is its address on the page.

    `legend` names the lines in the order of their colours, where the page's own legend does not. `page` is where the
    figures stand, if they do not stand in a table here.
    """

    anchor: str
    title: str
    charts: Sequence[Chart]
    table: Table | None
    note: str = ""
    legend: Sequence[str] = ()
    page: str = ""


@dataclass(frozen=True)
class Section:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]
    note: str = ""
    tables: Sequence[Table] = field(default=())
