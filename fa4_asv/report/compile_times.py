"""Compile seconds by machine: charts over the releases, and what a difference between two of them is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from fa4_asv.record.schema import CaseRecord
from fa4_asv.report import wording
from fa4_asv.report.charts import Line
from fa4_asv.report.model import Model, Point, Series, seconds_of
from fa4_asv.report.multiples import axis, chart, colour, short, values
from fa4_asv.report.parts import Panel, Section, Table

_GROUPS = {"compile": "first call", "import": "import"}


def compile_seconds(model: Model) -> list[Section]:
    """Seconds of a first call and of the import, by machine; empty where no machine recorded any."""
    sections: list[Section] = []
    for machine in model.machines:
        for title, series in _alike(model.of_machine(machine)).items():
            for group, what in _GROUPS.items():
                panels = _panels(series, group, f"{machine}-{len(sections)}")
                if panels:
                    sections.append(Section(f"{machine}: {what}{title}", panels, _conditions(series, group)))
    return sections


def _alike(series: Sequence[Series]) -> dict[str, list[Series]]:
    """Series that differ in nothing but their flavour share charts; of the others, how they differ from the first."""
    result: dict[tuple[str, ...], list[Series]] = {}
    for each_series in series:
        key = each_series.key
        environment = key.environment.replace(f"-flavour{key.flavour}", "").replace(
            f"-toolchain{key.policy}", ""
        )
        branch = key.branch and f"branch {key.branch}"
        result.setdefault((key.history, branch, f"toolchain {key.policy}", environment), []).append(
            each_series
        )
    usual = next(iter(result), ())
    titles = {
        key: ", ".join(part for part, same in zip(key, usual, strict=True) if part != same) for key in result
    }
    return {f" ({titles[key]})" if titles[key] else "": same for key, same in result.items()}


def _conditions(series: Sequence[Series], group: str) -> str:
    """On what processor, and how far samples of one case differ."""
    records = [
        record
        for each_series in series
        for point in each_series.points
        for record in point.cases(group).values()
        if len(record.samples.get("seconds", [])) > 1
    ]
    if not records:
        return ""
    processors = dict.fromkeys(record.notes.get("cpu", "a processor without a name") for record in records)
    return (
        "Medians; behind each chart with the smallest and the largest sample. "
        f"{spreads([record.samples['seconds'] for record in records])}: a smaller difference between releases is noise. "
        f"Measured on {' and '.join(processors)}; seconds of another machine are not comparable."
    )


def _panels(series: Sequence[Series], group: str, place: str) -> list[Panel]:
    points = axis(series)
    labels = [point.label for point in points]
    panels = []
    for case in sorted({case for point in points for case in point.cases(group)}):
        lying = [
            each_series
            for each_series in series
            if any(seconds_of(point.cases(group).get(case)) for point in each_series.points)
        ]
        if not lying:
            continue
        drawn = [
            Line(
                series.key.title,
                colour(series.key.flavour),
                values(series, labels, _timed(group, case)),
            )
            for series in lying
        ]
        known = [{point.label: point.cases(group).get(case) for point in series.points} for series in lying]
        rows = [
            [short(label), *(_between(records.get(label)) for records in known)] for label in labels[::-1]
        ]
        table = Table(f"Seconds of {case}", ["release", *(line.name for line in drawn)], rows)
        svg = chart(f"Seconds of {case}", "seconds", labels, drawn, "seconds")
        panels.append(Panel(f"{place}-{case.replace('/', '-')}", case, [svg], table))
    return panels


def _timed(group: str, case: str) -> Callable[[Point], float | None]:
    """How to read the median seconds of one case from a point."""
    return lambda point: seconds_of(point.cases(group).get(case))


def _between(record: CaseRecord | None) -> str:
    """The median of a case's samples, and between which they lie."""
    samples = record.samples.get("seconds") if record else None
    if not samples:
        return wording.figure(None)
    ends = f"{wording.seconds(min(samples))} to {wording.seconds(max(samples))}"
    return f"{wording.seconds(median(samples))} ({ends})" if len(samples) > 1 else wording.seconds(samples[0])


def spreads(cases: Sequence[Sequence[float]]) -> str:
    """How far samples of one case lie apart, (largest - smallest) / median, over many cases of two samples or more, as text."""
    numbers = sorted((max(numbers) - min(numbers)) / median(numbers) for numbers in cases)
    ninth = numbers[min(len(numbers) - 1, len(numbers) * 9 // 10)]
    shares = (f"{100 * value:.0f} %" for value in (median(numbers), ninth, numbers[-1]))
    return "The spread of a case's samples is {} in the median, {} or more in one case of ten, and {} at most".format(
        *shares
    )
