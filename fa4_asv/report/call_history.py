"""One call of the run-time history: its charts, the steps that are marked on them, every commit with its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fa4_asv.compare.along import CONFIDENCE, SEEN
from fa4_asv.compare.rows import Row
from fa4_asv.record.turns import YARDSTICKS
from fa4_asv.report import wording
from fa4_asv.report.charts import Line, lines
from fa4_asv.report.events import Timeline
from fa4_asv.report.kernel_pages import events_table
from fa4_asv.report.machines import tflops
from fa4_asv.report.model import Model, Point
from fa4_asv.report.multiples import kernel_page, short, spoken_line
from fa4_asv.report.parts import Cell, Chart, Table
from fa4_asv.report.parts import Row as TableRow
from fa4_asv.report.plots import Plot, call_plot, kernel_of_call, kernels_of
from fa4_asv.report.predicted import Predicted, predicted_steps
from fa4_asv.report.run_time_cells import NAMES, NONE, named, origins_of, place, state_cell, state_of, times
from fa4_asv.report.swept import (
    BACKWARD,
    FASTER,
    SLOWER,
    Call,
    ClockStep,
    Swept,
    beside,
    case_of,
    css_of,
    seconds_of,
    speed,
)

# The names in the legend; a name's place is its colour.
KEYS = (
    "FA4",
    NAMES["cudnn"],
    "faster than the release before",
    "slower than the release before",
    NAMES["fa2"],
)


@dataclass(frozen=True)
class Glance:
    """A call's small chart on the page of its machine; `title` leads to its own page."""

    title: Cell
    chart: Chart
    note: str


@dataclass(frozen=True)
class CallPart:
    """A call under one flavour: the releases that changed it as links, every commit, the newest first."""

    title: str
    lead: str
    marks: Sequence[Cell]
    table: Table


@dataclass(frozen=True)
class CallPage:
    """A call on a machine."""

    name: str
    machine: str
    title: str
    description: str
    parts: Sequence[CallPart]
    plot: Plot
    events: Table | None
    related: Sequence[Cell]


def call_pages(model: Model, series: Sequence[Swept], timeline: Timeline) -> list[CallPage]:
    """One per call of one machine, over all of its series."""
    calls = {call: None for swept in series for call in swept.calls}
    predicted = [predicted_steps(model, swept) for swept in series]
    return [
        _call_page(model, series, predicted, call, timeline)
        for call in sorted(calls, key=lambda call: call.turn)
    ]


def _call_page(
    model: Model, series: Sequence[Swept], predicted: Sequence[Predicted], call: Call, timeline: Timeline
) -> CallPage:
    machine, plot = series[0].key.machine, call_plot(model, timeline, series, call, event_of)
    return CallPage(
        call.page(machine),
        machine,
        call.title,
        call.description,
        [
            _call_part(swept, foreseen, call, timeline)
            for swept, foreseen in zip(series, predicted, strict=True)
            if call in swept.calls
        ],
        plot,
        events_table(plot, model.versions),
        _related(model, series[0].arch, call),
    )


def _related(model: Model, arch: str, call: Call) -> list[Cell]:
    """The kernel that the call compiles, where it is recorded."""
    name = kernel_of_call(call)
    known = name in kernels_of(model, arch)
    return [Cell(f"Its kernel: {name} on {arch}", kernel_page(arch, name))] if known else []


def keys_of(charts: Iterable[Chart]) -> list[str]:
    """The legend of `charts`: KEYS, with "" in the place of what none of them draws."""
    drawn = {colour for chart in charts for colour in chart.colours}
    return [name if colour in drawn else "" for colour, name in enumerate(KEYS)]


# Charts


def glances(swept: Swept) -> list[Glance]:
    found_glances = []
    for call in swept.calls:
        origins = origins_of(swept, call)
        if origins:
            points = _spanned(swept, call, max(origins.values(), key=len))
            chart = _chart(swept, call, points, ("cudnn",), (300, 130))
            noise = swept.noise_of(call)
            seen = f"; seen from {wording.share(noise.visible, 1)}" if noise and noise.freedom else ""
            found_glances.append(
                Glance(Cell(call.title, call.page(swept.key.machine)), chart, call.description + seen)
            )
    return found_glances


def _spanned(swept: Swept, call: Call, timed: Sequence[Point]) -> list[Point]:
    """The points of one card, and those without a time between them, where the line has a gap."""
    first, last = swept.points.index(timed[0]), swept.points.index(timed[-1])
    return [
        point for point in swept.points[first : last + 1] if point in timed or not seconds_of(point, call)
    ]


def _chart(
    swept: Swept, call: Call, points: Sequence[Point], yardsticks: Sequence[str], size: tuple[int, int]
) -> Chart:
    """Seconds over the points of one card; faster and slower steps are marked."""
    figures = [seconds_of(point, call) for point in points]
    drawn = [Line("FA4", 0, figures)]
    for name in yardsticks:
        ratios = [beside(point, call, name) for point in points]
        known = [
            seconds and ratio and seconds * ratio for seconds, ratio in zip(figures, ratios, strict=True)
        ]
        if any(known):
            drawn.append(Line(NAMES[name], KEYS.index(NAMES[name]), known))
    for verdict, colour in ((FASTER, 2), (SLOWER, 3)):
        marked = [
            figure if _verdict_at(swept, point, call) == verdict else None
            for point, figure in zip(points, figures, strict=True)
        ]
        if any(marked):
            drawn.append(Line(verdict, colour, marked, marks=True))
    newest, labels = short(points[-1].label), [point.label for point in points]
    told = [spoken_line(line, labels, wording.seconds, extremes=False) for line in drawn]
    spoken = f"{call.title}, seconds, {short(points[0].label)} to {newest}. {'; '.join(filter(None, told))}"
    svg = lines(list(map(short, labels)), drawn, spoken, wording.seconds, size)
    return Chart("seconds", svg, frozenset(line.colour for line in drawn))


def _verdict_at(swept: Swept, point: Point, call: Call) -> str:
    step = swept.step_to(point.commit)
    row = step.rows.get(call) if step else None
    return row.verdict if row else ""


# A call


def _call_part(swept: Swept, predicted: Predicted, call: Call, timeline: Timeline) -> CallPart:
    origins = origins_of(swept, call)
    marks = []
    for step in reversed(swept.steps):
        row = step.rows.get(call)
        if row and row.effect:
            message = f"{short(step.after.label)}: {row.verdict} {speed(row)}".rstrip()
            marks.append(Cell(message, event_of(swept, step, timeline), css_of(row)))
    lead = _call_lead(swept, call, len(origins))
    return CallPart(swept.key.title, lead, marks, _history(swept, predicted, call, timeline))


def _call_lead(swept: Swept, call: Call, origins: int) -> str:
    noise = swept.noise_of(call)
    several = " It was timed by several sweeps or cards. Each has its own line; their releases are compared as ratios to a yardstick."
    end = several if origins > 1 else ""
    if noise is None or not noise.freedom:
        return f"No release has two processes, so the noise is unknown.{end}"
    return (
        f"Two processes of a release differ by {wording.share(noise.spread, 2)} (one standard deviation), so a change of "
        f"{wording.share(noise.visible, 1)} is detected in {wording.share(SEEN, 0)} of cases. False alarms: {noise.alarms} of {noise.pairs}.{end}"
    )


def event_of(swept: Swept, step: ClockStep, timeline: Timeline) -> str:
    """The page of what changed in the kernels at the same step, else that of the release."""
    wanted = swept.key.flavour, swept.key.policy, swept.arch
    for found_step in timeline.between(step.before.commit, step.after.commit):
        if (found_step.key.flavour, found_step.key.policy, found_step.arch) == wanted:
            return f"events/{found_step.page}"
    return place(step.after)


def _history(swept: Swept, predicted: Predicted, call: Call, timeline: Timeline) -> Table:
    """Every commit, the newest first; beside the change of its time the predicted one, where the model speaks of the series."""
    cards = len(origins_of(swept, call)) > 1
    rows: list[TableRow] = []
    for point in reversed(swept.points):
        step = swept.step_to(point.commit)
        row = step.rows.get(call) if step else None
        seconds, record = seconds_of(point, call), case_of(point, call)
        rate = tflops(seconds, call.shape, call.direction == BACKWARD) if seconds and call.shape else None
        rows.append(
            [
                named(point),
                wording.day(point.date),
                wording.seconds(seconds) if seconds else state_cell(state_of(point, call)),
                wording.rate(rate),
                *_verdict_cells(swept, step, row, timeline),
                *([predicted.get((point.label, call), NONE)] if predicted else []),
                *(times(beside(point, call, name)) for name in YARDSTICKS),
                *([record.notes.get("card", NONE)[:8] if record and seconds else NONE] if cards else []),
                Cell(_why(row, record.why if record else ""), css="prose"),
            ]
        )
    head = ["", "date", "seconds", "TFLOP/s", "change", f"{CONFIDENCE * 100:g}\xa0% interval", "verdict"]
    head += ["predicted"] if predicted else []
    head += [*(f"against {name}" for name in NAMES.values()), *(["card"] if cards else []), "reason"]
    return Table(f"{call.title}, {swept.key.title}: every release, newest first", head, rows, "wide dated")


def _verdict_cells(swept: Swept, step: ClockStep | None, row: Row | None, timeline: Timeline) -> list[Cell]:
    if row is None or step is None:
        return [Cell(NONE), Cell(NONE), Cell("the first" if step is None else "not run", css="same")]
    interval = NONE
    if row.low is not None and row.high is not None:
        interval = f"{wording.percent(1.0, row.low)} to {wording.percent(1.0, row.high)}"
    css = css_of(row)
    href = event_of(swept, step, timeline) if row.effect else ""
    return [Cell(speed(row) or NONE, css=css), Cell(interval), Cell(row.verdict, href, css)]


def _why(row: Row | None, why: str) -> str:
    """Why there is no time; else why the rule cannot tell, where the interval beside it does not say so already."""
    if why or row is None or row.verdict not in ("unclear", "not comparable"):
        return why
    return "" if row.reason == "wide-interval" else row.message.partition(";")[0]
