"""Charts: SVG from pygal, coloured by the page's style sheet, the same bytes for the same figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import pygal
from markupsafe import Markup
from pygal.etree import etree

Values = Sequence[float | None]
_DOTTED = 60  # points; a longer line says more without dots
_NO_DOT = 0
_MARK = 3.6  # radius of a mark
_TOOLTIPS = "plot tooltip-overlay"
_LABELS = 6  # of the x axis
_SVG = "{http://www.w3.org/2000/svg}"
_LONG = re.compile(r"(\.\d)\d+")
_STROKE = re.compile(r"(M[0-9.]+ [0-9.]+ L)([0-9. ]+)")
_COORDINATES = {"d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "transform"}


@dataclass(frozen=True)
class Line:
    """One line: its name, its place in the palette (a flavour keeps its colour), None where there is no figure.

    `marks`: large dots with a text instead of a line.
    """

    name: str
    colour: int
    values: Values
    marks: bool = False


def lines(
    labels: Sequence[str],
    drawn: Sequence[Line],
    spoken: str,
    form: Callable[[float], str],
    size: tuple[int, int] = (300, 120),
    tips: bool = False,
    zero: bool = False,
) -> Markup:
    """A line chart over `labels`; `spoken` is what a screen reader says; `form` writes a figure of the y axis.

    `tips` gives every point a dot with a text, `zero` starts the y axis there.
    """
    chart = pygal.Line(**_options(labels, size), show_dots=len(labels) <= _DOTTED, allow_interruptions=True)
    known = [value for line in drawn for value in line.values if value is not None]
    low, high = _span([*known, 0.0] if zero else known)
    chart.range = (low, high)
    marks = (low, (low + high) / 2, high) if any(known) else (low,)
    chart.y_labels = [{"value": value, "label": form(value)} for value in marks]
    for colour in range(1 + max((line.colour for line in drawn), default=0)):
        line = next((line for line in drawn if line.colour == colour), Line("", colour, [None] * len(labels)))
        if line.marks or tips or _has_alone(line.values):
            points = [_point(line, at, labels, form, tips) for at in range(len(labels))]
            chart.add(line.name, points, **({"stroke": False, "show_dots": True} if line.marks else {}))
        else:
            chart.add(line.name, line.values, show_dots=False)
    return _svg(chart, spoken)


def bars(
    labels: Sequence[str], drawn: Sequence[Line], spoken: str, size: tuple[int, int] = (640, 180)
) -> Markup:
    """Stacked bars; values below zero hang from it."""
    chart = pygal.StackedBar(**_options(labels, size))
    chart.value_formatter = _count
    ends = [[value for line in drawn for value in line.values if value is not None], [0.0]]
    low, high = min(map(min, ends)), max(map(max, ends))
    chart.y_labels = sorted({low, 0.0, high or 1.0})
    for line in drawn:
        chart.add(line.name, [_point(line, at, labels, _count, True) for at in range(len(labels))])
    return _svg(chart, spoken)


def _options(labels: Sequence[str], size: tuple[int, int]) -> dict[str, object]:
    every = max(1, -(-len(labels) // _LABELS))
    shown = list(labels[::-1][::every])  # the newest always
    return {
        "js": (),
        "css": (),
        "width": size[0],
        "height": size[1],
        "margin": 4,
        "margin_right": 14,
        "spacing": 4,
        "show_legend": False,
        "x_labels": list(labels),
        "x_labels_major": shown,
        "show_minor_x_labels": False,
        "dots_size": 1.8,
        "no_prefix": True,
        "truncate_label": -1,
        "no_data_text": "no data",
    }


def _count(value: float) -> str:
    return f"{abs(value):,.0f}"


def _point(line: Line, at: int, labels: Sequence[str], form: Callable[[float], str], tips: bool) -> object:
    """A value; with a dot only where it has words to show or stands alone, so that no line would show it."""
    value = line.values[at]
    if value is None:
        return None
    if line.marks:
        tooltip = f"{labels[at]}, {line.name}: {form(value)}"
        return {"value": value, "tooltip": tooltip, "node": {"r": _MARK}}
    if tips:
        return {"value": value, "tooltip": f"{labels[at]}, {line.name}: {form(value)}"}
    return value if _is_alone(line.values, at) else {"value": value, "node": {"r": _NO_DOT}}


def _has_alone(values: Values) -> bool:
    return any(value is not None and _is_alone(values, at) for at, value in enumerate(values))


def _is_alone(values: Values, at: int) -> bool:
    """Whether a value has no neighbour that a line could lead to."""
    return all(other is None for other in (*values[max(at - 1, 0) : at], *values[at + 1 : at + 2]))


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Of the y axis: at least a tenth of the largest value, so that a change of 0.1 % does not fill the chart."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low < high / 2:
        return 0.0, high
    room = max(0.1 * high - (high - low), 0.1 * (high - low)) / 2
    return max(0.0, low - room), high + room or 1.0


def _svg(chart: pygal.Line, spoken: str) -> Markup:
    etree.to_etree()  # lxml, where it happens to be installed, would write other bytes
    root = chart.render_tree()
    for parent in list(root.iter()):
        for child in list(parent):
            if _dropped(parent, child):
                parent.remove(child)
    for node in root.iter():
        node.attrib.pop("style", None)  # the pages' policy allows no style but that of the sheet
        for name in _COORDINATES & node.attrib.keys():
            node.set(name, _STROKE.sub(_without_level_points, _LONG.sub(r"\1", node.get(name) or "")))
    root.attrib.pop("id", None)
    root.set("role", "img")
    root.set("aria-label", spoken)
    text = ElementTree.tostring(root, encoding="unicode")
    return Markup(text.replace("svg:", "").replace("ns0:", ""))  # noqa: S704 - the serializer has escaped it


def _without_level_points(stroke: re.Match[str]) -> str:
    """A stroke without the points inside a level stretch: over hundreds of releases they are most of a page."""
    start, numbers = stroke[1], stroke[2].split()
    before, points = start[1:-2].split()[1], list(zip(numbers[::2], numbers[1::2], strict=True))
    heights = [before, *(y for _, y in points), ""]
    kept = [f"{x} {y}" for at, (x, y) in enumerate(points) if not heights[at] == y == heights[at + 2]]
    return start + " ".join(kept)


def _dropped(parent: ElementTree.Element, child: ElementTree.Element) -> bool:
    """What the report does not want: scripts, styles, today's date, tooltips without text, empty groups."""
    if not isinstance(child.tag, str):
        return True  # a comment; one holds the date
    tag = child.tag.removeprefix(_SVG)
    if tag in ("defs", "desc"):
        return True
    if tag == "title":
        return parent.get("class") != "dots"
    if tag == "rect":
        return child.get("class") == "background"
    if tag == "g" and child.get("class") == _TOOLTIPS:
        return True  # the frame that pygal's script, which is not here, would move
    if tag == "g":
        if any(element.get("r") == str(_NO_DOT) for element in child):
            return True
        return not any(
            element.tag.removeprefix(_SVG) not in ("g", "desc")
            for element in child.iter()
            if isinstance(element.tag, str)
        )
    return False
