"""The first page: is the newest release better or worse, on what and why; and what happened before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fa4_asv.cases import ARCHES
from fa4_asv.changes import package_changes
from fa4_asv.groups import GROUPS
from fa4_asv.report import words
from fa4_asv.report.charts import Line, bars, lines
from fa4_asv.report.events import JUDGED, UNEXPLAINED, Event, Step, Timeline
from fa4_asv.report.model import Model, Point, Series
from fa4_asv.report.multiples import axis, colour, short, values
from fa4_asv.report.parts import Cell, Chart, Panel, Row, Table

_JUDGED_GROUPS = ("codegen", "memory", "growth", "route")


@dataclass(frozen=True)
class Headline:
    """The newest release against the one before it."""

    label: str
    before: str
    verdict: str
    sentences: Sequence[str]
    table: Table
    packages: Sequence[str]
    why: str


def headline(model: Model, timeline: Timeline) -> Headline | None:
    """None where fewer than two releases are recorded."""
    series = [one for one in model.exact() if len(one.measured) > 1]
    if not series:
        return None
    newest = max((one.measured[-1] for one in series), key=lambda point: point.date)
    series = [one for one in series if one.measured[-1].label == newest.label]
    before = max((one.measured[-2] for one in series), key=lambda point: point.date)
    steps = timeline.of(newest.label)
    steps = [step for step in steps if step.key in {one.key for one in series}]
    return Headline(
        newest.label,
        before.label,
        verdict(steps),
        _sentences(steps),
        _table(series, steps),
        list(dict.fromkeys(package for step in steps for package in step.packages)) or _moved(series),
        why(steps),
    )


def verdict(steps: Sequence[Step]) -> str:
    """ "better", "worse", "mixed" or "no relevant change", by the changes of 1 % or more."""
    relevant = [event for step in steps for event in step.events if event.relevant]
    up = any(event.better for event in relevant)
    down = any(event.better is False for event in relevant)
    return "mixed" if up and down else "better" if up else "worse" if down else "no relevant change"


def _moved(series: Sequence[Series]) -> list[str]:
    from_to = [
        (one.measured[-2].record.sidecar.toolchain, one.measured[-1].record.sidecar.toolchain)
        for one in series
    ]
    found = [words.packages(package_changes(old.packages, new.packages)) for old, new in from_to]
    return list(dict.fromkeys(text for texts in found for text in texts))


def _sentences(steps: Sequence[Step]) -> list[str]:
    """One a direction: how many kernels, and the largest change."""
    found = []
    for better, lead in ((True, "Better"), (False, "Worse")):
        events = [(step, e) for step in steps for e in step.events if e.relevant and e.better is better]
        if events:
            step, top = max(events, key=lambda pair: pair[1].weight)
            cases = {(s.arch, e.kernel) for s, e in events}
            more = words.change(top.change)
            kernels = "kernel or call" if len(cases) == 1 else "kernels or calls"
            found.append(
                f"{lead}: {len(cases)} {kernels}; most of all {top.kernel} on {step.arch}, {step.key.title}: "
                f"{more}{top.percent}."
            )
    return found


def why(steps: Sequence[Step]) -> str:
    """The causes of all changes, in one line."""
    counts: dict[str, int] = {}
    for step in steps:
        for cause, count in step.causes:
            counts[cause] = counts.get(cause, 0) + count
    told = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{cause} ({count} figures)" for cause, count in told) or "nothing changed"


def _table(series: Sequence[Series], steps: Sequence[Step]) -> Table:
    columns = [(arch, one) for arch in ARCHES for one in series]
    rows: list[Row] = []
    for name in _JUDGED_GROUPS:
        for metric, (_, title) in GROUPS[name].metrics.items():
            if metric in JUDGED:
                cells = [_cell(arch, one, name, metric, steps) for arch, one in columns]
                if any(cell.text != "–" for cell in cells):
                    rows.append([title, *cells])
    head = ["less is better", *(f"{arch}, {one.key.title}" for arch, one in columns)]
    return Table("Figures that changed, by architecture and CUDA flavour", head, rows, "summary")


def _cell(arch: str, series: Series, group: str, metric: str, steps: Sequence[Step]) -> Cell:
    cases = {
        case
        for case, record in series.measured[-1].cases(group).items()
        if words.arch_of(group, case) == arch and metric in record.figures
    }
    cases &= series.measured[-2].cases(group).keys()
    if not cases:
        return Cell("–", spoken="not recorded")
    step = next((one for one in steps if one.key == series.key and one.arch == arch), None)
    up, down = (step.of(metric, better) if step else [] for better in (True, False))
    if step is None or not up + down:
        return Cell(f"all {len(cases)} same", css="same")
    told = [
        f"{len(found)} of {len(cases)} {word}{found[0].percent}"
        for found, word in ((up, "better"), (down, "worse"))
        if found
    ]
    css = "better" if not down else "worse" if not up else "mixed"
    return Cell(", ".join(told), f"events/{step.page}", css)


def history(model: Model, timeline: Timeline) -> list[Panel]:
    """Charts of the whole history: what each release moved, and totals over the kernels that all of it shares."""
    series = model.exact()
    points = axis(series)
    return [*(_moves(points, one, timeline) for one in series), *_totals(series, points)]


def _moves(points: Sequence[Point], series: Series, timeline: Timeline) -> Panel:
    labels = [point.label for point in points]
    counts: dict[str, list[int]] = {label: [0, 0] for label in labels}
    for step in timeline.steps:
        if step.key == series.key and step.after.label in counts:
            for better in (True, False):
                counts[step.after.label][not better] += len(
                    {e.change.case for e in step.events if e.relevant and e.better is better}
                )
    up = [float(counts[label][0]) for label in labels]
    down = [-float(counts[label][1]) for label in labels]
    short_labels = [short(label) for label in labels]
    title = f"Kernels and calls that changed by 1 % or more, {series.key.title}"
    most = sorted(labels, key=lambda label: -sum(counts[label]))[:3]
    spoken = f"{title}. Most in {', '.join(short(label) for label in most if sum(counts[label]))}"
    svg = bars(short_labels, [Line("better", 0, up), Line("worse", 1, down)], spoken, (420, 150))
    rows = [[short(label), str(counts[label][0]), str(counts[label][1])] for label in labels]
    table = Table(title, ["release", "better", "worse"], rows)
    return Panel(f"moves-{series.key.flavour}", title, [Chart("", svg)], table)


def _totals(series: Sequence[Series], points: Sequence[Point]) -> list[Panel]:
    labels = [point.label for point in points]
    panels = []
    for arch in ARCHES:
        for metric, title in (("spill_bytes", "Bytes spilled a thread"), ("instructions", "Instructions")):
            drawn = [
                Line(one.key.title, colour(one.key.flavour), _sum(one, labels, arch, metric))
                for one in series
            ]
            drawn = [line for line in drawn if any(value is not None for value in line.values)]
            if not drawn:
                continue
            whole = f"{title}, all kernels of {arch} together"
            svg = lines([short(x) for x in labels], drawn, whole, words.figure, (420, 150), tips=True)
            rows = [
                [short(x), *(words.figure(line.values[at]) for line in drawn)] for at, x in enumerate(labels)
            ]
            table = Table(whole, ["release", *(line.name for line in drawn)], rows)
            panels.append(Panel(f"total-{arch}-{metric}", whole, [Chart("", svg)], table))
    return panels


def _sum(series: Series, labels: Sequence[str], arch: str, metric: str) -> list[float | None]:
    """Over the kernels that every point of the series measured, so that a sum never grows by a new kernel."""
    measured = [
        {case for case, record in point.cases("codegen").items() if metric in record.figures}
        for point in series.measured
        if point.cases("codegen")
    ]
    shared = {
        case for case in (set.intersection(*measured) if measured else set()) if case.startswith(f"{arch}/")
    }
    if not shared:
        return [None] * len(labels)

    def total(point: Point) -> float | None:
        cases = point.cases("codegen")
        return (
            sum(cases[case].figures[metric] for case in shared)
            if shared <= cases.keys() and point.measures
            else None
        )

    return values(series, labels, total)


def largest(timeline: Timeline, limit: int = 12) -> Table:
    """The releases' steps with the largest changes, one row each; a commit's change is in its release's."""
    releases = [step for step in timeline.steps if step.after.release]
    chosen = sorted(releases, key=lambda step: (-step.weight, step.page))
    return steps_table([step for step in chosen if step.weight][:limit], "The largest changes")


def steps_table(steps: Sequence[Step], caption: str) -> Table:
    rows: list[Row] = []
    for step in steps:
        relevant = [event for event in step.events if event.relevant]
        rows.append(
            [
                Cell(_named(step), f"events/{step.page}", css="message" if step.after.subject else ""),
                step.key.title,
                step.arch,
                str(step.kernels),
                *(_top(relevant, better) for better in (True, False)),
                "; ".join(step.packages) or "the same",
                ", ".join(cause for cause, _ in step.causes) or UNEXPLAINED,
            ]
        )
    head = [
        "release or commit",
        "flavour",
        "arch",
        "changed",
        "largest gain",
        "largest loss",
        "toolchain moved",
        "cause",
    ]
    return Table(caption, head, rows, "wide")


def _named(step: Step) -> str:
    subject = step.after.subject
    return f"{short(step.after.label)} {subject}" if subject else short(step.after.label)


def _top(events: Sequence[Event], better: bool) -> Cell | str:
    found = [event for event in events if event.better is better]
    if not found:
        return "–"
    top = max(found, key=lambda one: one.weight)
    return Cell(f"{top.kernel}: {words.change(top.change)}{top.percent}", css="better" if better else "worse")
