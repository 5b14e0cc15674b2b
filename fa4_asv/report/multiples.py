"""Small multiples: one panel per kernel, a call's memory or its compile time, over the releases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fa4_asv.catalog.benchmarks import GROUPS, TRACED
from fa4_asv.catalog.flavours import PLAIN, label
from fa4_asv.catalog.kernels import ARCHES, CASES
from fa4_asv.compare.policy import MASKED_TURN
from fa4_asv.report import wording
from fa4_asv.report.charts import Line, lines
from fa4_asv.report.model import Point, Series
from fa4_asv.report.parts import Chart, Panel, Row, Section, Table

FLAVOURS = ("cu13", "cu12", "plain")  # their place is their colour
# Of a kernel; loops only where they are recorded, and spills in them where there are any.
CHARTED = (
    ("codegen", "spill_bytes"),
    ("codegen", "instructions"),
    ("loops", "turn_instructions"),
    ("loops", "masked_instructions"),
    ("loops", "spills_inside"),
)
Values = list[float | None]


def colour(flavour: str) -> int:
    return FLAVOURS.index(flavour) if flavour in FLAVOURS else len(FLAVOURS)


def short(label: str) -> str:
    """A release's name on an axis: "4.0.0b36" is "b36"."""
    return "b" + label.partition("b")[2] if label.startswith("4.0.0b") else label


def axis(series: Sequence[Series]) -> list[Point]:
    """Every point that some series holds, in the order of the history; one a label."""
    points: dict[str, Point] = {}
    for each_series in series:
        for point in each_series.points:
            points.setdefault(point.label, point)
    return sorted(points.values(), key=lambda point: (point.date, point.label))


def values(series: Series, labels: Sequence[str], figure: Callable[[Point], float | None]) -> Values:
    """Of each label; None where the series has no figure."""
    points = map(series.at, labels)
    return [figure(point) if point else None for point in points]


def exact_values(series: Series, labels: Sequence[str], group: str, case: str, metric: str) -> Values:
    """The same of one exact figure."""
    column, places = series.column(group, case), series.places
    records = [column[places[label]] if label in places else None for label in labels]
    return [record.figures.get(metric) if record else None for record in records]


def kernels(series: Sequence[Series], arch: str) -> list[Section]:
    """Spills and instructions of every kernel of one architecture, and of its loops."""
    points = axis(series)
    names = [case for name, case in GROUPS["codegen"].cases if name == arch]
    known = [name for name in names if any(f"{arch}/{name}" in point.cases("codegen") for point in points)]
    parts = {
        "Forward": [name for name in known if name.startswith("fwd")],
        "Backward": [name for name in known if name.startswith("bwd") and not _helps(name)],
        "Before and after the backward": [name for name in known if _helps(name)],
    }
    return [
        Section(title, [_kernel(series, points, arch, name) for name in chosen])
        for title, chosen in parts.items()
        if chosen
    ]


def _helps(name: str) -> bool:
    return name.startswith(("bwd_pre", "bwd_post"))


def _kernel(series: Sequence[Series], points: Sequence[Point], arch: str, name: str) -> Panel:
    labels = [point.label for point in points]
    charts = []
    for group, metric in CHARTED:
        unit, title = GROUPS[group].metrics[metric]
        drawn: list[Line] = []
        lines_of = [exact_values(one, labels, group, f"{arch}/{name}", metric) for one in series]
        if group == "loops" and not _tells(metric, name, lines_of):
            continue
        for each_series, numbers in zip(series, lines_of, strict=True):
            # Most kernels of plain are cu12's: a second line over the first says nothing more.
            if each_series.key.flavour == PLAIN and Line(label("cu12"), colour("cu12"), numbers) in drawn:
                continue
            drawn.append(Line(each_series.key.title, colour(each_series.key.flavour), numbers))
        charts.append(chart(f"{title} of {name} on {arch}", title, labels, drawn, unit))
    return Panel(name, name, charts, None, wording.case_title(name), page=kernel_page(arch, name))


def kernel_page(arch: str, name: str) -> str:
    """Where a kernel's figures, events and times stand."""
    return f"kernels/{arch}-{wording.file_name(name)}.html"


def _tells(metric: str, name: str, lines_of: Sequence[Values]) -> bool:
    """Whether loops have something to show: of turns the one that stands for the kernel, of spills any."""
    windowed = CASES[name].call.shape.window is not None
    masked = metric == MASKED_TURN
    if metric == "spills_inside" or (windowed and masked):
        return any(value for line in lines_of for value in line)
    return not masked and any(value is not None for line in lines_of for value in line)


def chart(of: str, title: str, labels: Sequence[str], drawn: Sequence[Line], unit: str) -> Chart:
    def form(value: float) -> str:
        return wording.figure(value, unit if unit in ("bytes", "seconds") else "")

    spoken = "; ".join(filter(None, (spoken_line(line, labels, form) for line in drawn)))
    svg = lines([short(label) for label in labels], drawn, f"{of}. {spoken}", form)
    return Chart(title, svg)


def spoken_line(
    line: Line, labels: Sequence[str], form: Callable[[float], str], extremes: bool = True
) -> str:
    """A line as text: where it starts, where it ends, and (`extremes`) between which figures it lies; of marks where."""
    known = [(label, value) for label, value in zip(labels, line.values, strict=True) if value is not None]
    if line.marks:
        return f"{line.name} in {', '.join(short(label) for label, _ in known)}"
    if not known:
        return ""
    low, high = min(value for _, value in known), max(value for _, value in known)
    ends = f"{form(known[0][1])} in {short(known[0][0])}, {form(known[-1][1])} in {short(known[-1][0])}"
    return f"{line.name}: {ends}" + (f", between {form(low)} and {form(high)}" if extremes else "")


def memory(series: Sequence[Series]) -> list[Section]:
    """Peak memory; calls whose figures agree in every release share a panel."""
    series = [
        each_series for each_series in series if any(point.cases("memory") for point in each_series.points)
    ]
    points = axis(series)
    labels = [point.label for point in points]
    same: dict[tuple[tuple[float | None, ...], ...], list[str]] = {}
    for arch, name in GROUPS["memory"].cases:
        case = f"{arch}/{name}"
        if any(case in point.cases("memory") for point in points):
            rows = tuple(
                tuple(exact_values(each_series, labels, "memory", case, "peak_bytes"))
                for each_series in series
            )
            same.setdefault(rows, []).append(case)
    panels: dict[str, list[Panel]] = {"Forward": [], "Backward": []}
    for rows, cases in same.items():
        drawn = [
            Line(each_series.key.title, colour(each_series.key.flavour), list(figures))
            for each_series, figures in zip(series, rows, strict=True)
        ]
        kind = "Backward" if wording.kernel_of("memory", cases[0]).startswith("bwd") else "Forward"
        panels[kind].append(_memory_panel(cases, labels, drawn))
    return [Section(title, found_panels) for title, found_panels in panels.items() if found_panels]


def _spans(labels: Sequence[str], drawn: Sequence[Line]) -> list[Row]:
    """A row for each run of releases whose figures of all lines are the same, the newest first."""
    figures = zip(map(short, labels), zip(*(line.values for line in drawn), strict=True), strict=True)
    return [
        [releases, *(wording.figure(value, "bytes") for value in same)]
        for releases, same in list(wording.runs(figures))[::-1]
    ]


def _memory_panel(cases: Sequence[str], labels: Sequence[str], drawn: Sequence[Line]) -> Panel:
    names = list(dict.fromkeys(wording.kernel_of("memory", case) for case in cases))
    arches = [arch for arch in ARCHES if any(case.startswith(f"{arch}/") for case in cases)]
    backward, shape = TRACED[names[0]]
    title = f"{'backward' if backward else 'forward'}, {wording.shape_title(shape)}"
    head = ["releases", *(f"peak memory, {line.name}" for line in drawn)]
    table = Table(f"Peak memory of {title}", head, _spans(labels, drawn))
    sizes = [f"{TRACED[name][1].batch} × {TRACED[name][1].seq_len:,}" for name in names]
    note = f"{' and '.join(arches)}; sequences × tokens: {', '.join(sizes)}"
    drawing = chart(
        f"Peak memory of {title} on {' and '.join(arches)}", "peak memory", labels, drawn, "bytes"
    )
    return Panel(f"{arches[0]}-{names[0]}", title, [drawing], table, note)
