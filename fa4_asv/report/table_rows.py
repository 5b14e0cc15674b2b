"""Cells and rows of tables as HTML. In Python: a macro of a template takes five times as long, and pages have 200,000 cells."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2.utils import url_quote
from markupsafe import Markup, escape

from fa4_asv.report.parts import Cell, Row

_NAMES = 'th scope="row"'


def linked(cell: Cell, root: str) -> Markup:
    """The text of a cell with its link, and what only screen readers say. `root` leads from the page to the report's folder."""
    spoken = f'<span class="vh">{escape(cell.spoken)}</span>' if cell.spoken else ""
    text = str(escape(cell.text)) + (" " if spoken and (cell.text or cell.href) else "") + spoken
    if cell.href:
        href = cell.href if "://" in cell.href else root + url_quote(cell.href)
        text = f'<a href="{escape(href)}">{text}</a>'
    return Markup(text)  # noqa: S704 - every part is escaped


def table_rows(rows: Sequence[Row], root: str) -> Markup:
    """The rows of a table's body; the first cell of each names it."""
    return Markup("\n".join([_row(row, root) for row in rows]))  # noqa: S704 - as above


def _row(row: Row, root: str) -> str:
    first, anchor = row[0], "" if isinstance(row[0], str) else row[0].anchor
    told = [_cell(cell, root, "td") for cell in row[1:]]
    name = f' id="{escape(anchor)}"' if anchor else ""
    target = f'<span id="{escape(anchor[:8])}"></span>' if anchor else ""
    return f"<tr{name}>{_cell(first, root, _NAMES, target)}{''.join(told)}</tr>"


def _cell(cell: Cell | str, root: str, tag: str, end: str = "") -> str:
    """Without its end tag, which HTML implies before the next cell and at the end of a row: a tenth of a page's bytes."""
    if isinstance(cell, str):
        return f"<{tag}>{escape(cell)}{end}"
    css = f' class="{escape(cell.css)}"' if cell.css else ""
    return f"<{tag}{css}>{linked(cell, root)}{end}"
