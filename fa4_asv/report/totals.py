"""The whole history in a few charts: how many kernels each release moved, and totals over one set of kernels."""

from __future__ import annotations

from collections.abc import Sequence

from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.compare.policy import BETTER, WORSE
from fa4_asv.record.formatting import counted
from fa4_asv.report import wording
from fa4_asv.report.charts import Line, bars, lines
from fa4_asv.report.events import Timeline
from fa4_asv.report.model import Model, Point, Series
from fa4_asv.report.multiples import axis, colour, short, values
from fa4_asv.report.parts import Chart, Panel, Table


def history(model: Model, timeline: Timeline) -> list[Panel]:
    """Its charts, with the tables behind them."""
    series = model.exact()
    points = axis(series)
    return [*(_moves(points, each_series, timeline) for each_series in series), *_totals(series, points)]


def _moves(points: Sequence[Point], series: Series, timeline: Timeline) -> Panel:
    labels = [point.label for point in points]
    counts: dict[str, list[int]] = {label: [0, 0] for label in labels}
    for step in timeline.steps:
        if step.key == series.key and step.after.label in counts:
            for at, effect in enumerate((BETTER, WORSE)):
                counts[step.after.label][at] += step.count(effect).cases
    up = [float(counts[label][0]) for label in labels]
    down = [-float(counts[label][1]) for label in labels]
    short_labels = [short(label) for label in labels]
    title = f"Kernels and calls better or worse than one release before, {series.key.title}"
    most = sorted(labels, key=lambda label: -sum(counts[label]))[:3]
    spoken = f"{title}. Most in {', '.join(short(label) for label in most if sum(counts[label]))}"
    svg = bars(short_labels, [Line("better", 0, up), Line("worse", 1, down)], spoken, (420, 150))
    compared = {after.label for _, after in series.pairs()}
    rows = [
        [short(label), *(map(str, counts[label]) if label in compared else ("–", "–"))]
        for label in labels[::-1]
    ]
    table = Table(title, ["release", "better", "worse"], rows)
    return Panel(f"moves-{series.key.flavour}", title, [Chart("", svg)], table)


def _totals(series: Sequence[Series], points: Sequence[Point]) -> list[Panel]:
    labels = [point.label for point in points]
    panels = []
    for arch in ARCHES:
        cases = _everywhere(series, arch)
        for metric, title in (("spill_bytes", "Bytes spilled per thread"), ("instructions", "Instructions")):
            drawn = [
                Line(
                    each_series.key.title,
                    colour(each_series.key.flavour),
                    _sum(each_series, labels, cases, metric),
                )
                for each_series in series
            ]
            drawn = [line for line in drawn if any(value is not None for value in line.values)]
            if not drawn:
                continue
            whole = f"{title}, {counted(len(cases), 'kernel')} of {arch} together"
            svg = lines([short(x) for x in labels], drawn, whole, wording.figure, (420, 150), tips=True)
            rows = [
                [short(x), *(wording.figure(line.values[at]) for line in drawn)]
                for at, x in reversed(list(enumerate(labels)))
            ]
            table = Table(whole, ["release", *(line.name for line in drawn)], rows)
            panels.append(Panel(f"total-{arch}-{metric}", whole, [Chart("", svg)], table))
    return panels


def _everywhere(series: Sequence[Series], arch: str) -> set[str]:
    """The kernels of the fullest point of every series: one set, so that flavours can be compared."""

    def kernels(point: Point) -> set[str]:
        records = point.cases("codegen").items()
        return {
            case for case, record in records if record.state == "measured" and case.startswith(f"{arch}/")
        }

    # Not the newest one: it may be recorded in part.
    fullest = [max(map(kernels, each_series.points), key=len) for each_series in series if each_series.points]
    return set.intersection(*fullest) if fullest else set()


def _sum(series: Series, labels: Sequence[str], cases: set[str], metric: str) -> list[float | None]:
    """Over `cases`; None where one of them was not measured, so that a sum never grows by a new kernel."""

    def total(point: Point) -> float | None:
        figures = [point.figure("codegen", case, metric) for case in cases]
        known = [figure for figure in figures if figure is not None]
        return sum(known) if known and len(known) == len(cases) else None

    return values(series, labels, total)
