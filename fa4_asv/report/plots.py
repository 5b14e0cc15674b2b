"""What the interactive charts draw: the metrics of a kernel or a call over all releases, and numbered events. Pure data.

The x axis of every plot is `Model.versions`: a value's place in a line is its release's place in that list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from fa4_asv.catalog.benchmarks import BY_TORCH, GROUPS, TRACED
from fa4_asv.catalog.flavours import PLAIN
from fa4_asv.catalog.kernels import CASES
from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.compare.policy import is_judged
from fa4_asv.record.threads import Thread
from fa4_asv.record.turns import YARDSTICKS
from fa4_asv.report import wording
from fa4_asv.report.events import OF_KERNELS, SOURCE, Step, Timeline
from fa4_asv.report.events import Event as Changed
from fa4_asv.report.model import RELEASES, Model, Point, Series, seconds_of
from fa4_asv.report.multiples import colour, exact_values, kernel_page, short, values
from fa4_asv.report.run_time_cells import NAMES, origins_of
from fa4_asv.report.swept import BACKWARD, FORWARD, Call, ClockStep, Swept, beside
from fa4_asv.report.swept import seconds_of as turn_seconds

Values = list[float | None]
SECONDS, RATE, AGAINST, BEHIND = "seconds", "tflops", "against", "behind"
_RATE_UNIT, _TIMES = "TFLOP/s", "times"
STATE = "state"  # what changed where no figure did


@dataclass(frozen=True)
class Curve:
    """One line of a plot: `colour` is its place in the palette."""

    name: str
    title: str
    colour: int
    values: Values


@dataclass(frozen=True)
class Metric:
    """One choice of a plot's metric picker; `less` is whether less is better (None: it is not judged).

    A metric with `operations` has no curves of its own: they are these operations over the seconds of the metric `of`.
    """

    name: str
    title: str
    unit: str
    less: bool | None
    curves: Sequence[Curve]
    of: str = ""
    operations: int = 0


@dataclass(frozen=True)
class Moved:
    """One figure that changed; `text` is the change in words where it was no number."""

    metric: str
    before: float | None
    after: float | None
    effect: str
    text: str = ""


@dataclass(frozen=True)
class Row:
    """What one flavour's, or one card's, figures did in a release: `curve` is its line, `page` says more."""

    curve: str
    title: str
    page: str
    moved: Sequence[Moved]
    causes: Sequence[str]
    why: str = ""
    threads: Sequence[Thread] = ()


@dataclass(frozen=True)
class Event:
    """A release that changed a kernel or a call; `number` counts them, the oldest is 1; `at` is its place on the x axis."""

    number: int
    at: int
    rows: Sequence[Row]


@dataclass(frozen=True)
class Plot:
    """All that a chart can show of one kernel or call, and where its page and its data are."""

    key: str
    kind: str
    title: str
    note: str
    page: str
    data: str
    metrics: Sequence[Metric]
    events: Sequence[Event]

    @property
    def first(self) -> str:
        """The metric to show first: that which changed in most events, else the first of all."""
        names = [metric.name for metric in self.metrics]
        counts = Counter(
            moved.metric
            for event in self.events
            for row in event.rows
            for moved in row.moved
            if moved.metric in names
        )
        return max(names, key=lambda name: (counts[name], -names.index(name)), default="")


def data_of(page: str) -> str:
    """The script file with the data of a page's chart."""
    return f"data/{page.removesuffix('.html')}.js"


# Kernels


def kernels_of(model: Model, arch: str) -> list[str]:
    """The kernels of an architecture that some release was asked for, in the order of the catalog."""
    return [name for name in CASES if f"{arch}/{name}" in model.kernels]


def kernel_plot(model: Model, timeline: Timeline, swept: Sequence[Swept], arch: str, name: str) -> Plot:
    metrics = [
        *_exact(model, arch, name),
        *_memory(model, arch, name),
        *_compile(model, arch, name),
        *(_clock(model, each, call) for each, call in calls_of_kernel(swept, arch, name)),
    ]
    page = kernel_page(arch, name)
    events = numbered(_kernel_rows(model, timeline, f"{arch}/{name}"), model)
    return Plot(
        f"{arch}/{name}",
        arch,
        f"{name} on {arch}",
        wording.case_title(name),
        page,
        data_of(page),
        metrics,
        events,
    )


def _exact(model: Model, arch: str, name: str) -> list[Metric]:
    """Every figure of every exact group that has the kernel as a case."""
    key = f"{arch}/{name}"
    found: list[Metric] = []
    for group in GROUPS.values():
        series = [each for each in model.exact() if each.has(group.name, key)]
        if series and group.exact and group.name not in ("memory", "growth", *BY_TORCH):
            for metric, (unit, title) in group.metrics.items():
                curves = _exact_curves(series, model.versions, group.name, key, metric)
                judged = True if is_judged(metric) else None
                found += [Metric(metric, title, unit, judged, curves)] if curves else []
    return found


def _exact_curves(
    series: Sequence[Series], labels: Sequence[str], group: str, case: str, metric: str
) -> list[Curve]:
    return _curves([(each, exact_values(each, labels, group, case, metric)) for each in series])


def _curves(found: Sequence[tuple[Series, Values]]) -> list[Curve]:
    """A line per flavour; none of `plain` where it is cu12's."""
    curves = [
        Curve(each.key.flavour, each.key.title, colour(each.key.flavour), numbers) for each, numbers in found
    ]
    cu12 = [curve.values for curve in curves if curve.name == "cu12"]
    return [
        curve
        for curve in curves
        if any(value is not None for value in curve.values)
        and not (curve.name == PLAIN and curve.values in cu12)
    ]


def _memory(model: Model, arch: str, name: str) -> list[Metric]:
    """The peak of a call that compiles the kernel, at the most tokens that are traced."""
    case = CASES[name]
    if case.role != "main" or case.call.shape.variant:
        return []
    alike = [
        (shape.tokens, traced)
        for traced, (backward, shape) in TRACED.items()
        if backward == case.call.backward and _dims(shape) == _dims(case.call.shape)
    ]
    if not alike:
        return []
    traced = max(alike)[1]
    curves = _exact_curves(model.exact(), model.versions, "memory", f"{arch}/{traced}", "peak_bytes")
    title = f"peak memory of {traced.partition('_')[2]}"
    return [Metric("peak_bytes", title, "bytes", True, curves)] if curves else []


def _dims(shape: SdpaShape) -> tuple[int, int, int]:
    return shape.head_dim, shape.head_dim_v, shape.num_heads // shape.kv_heads


def _compile(model: Model, arch: str, name: str) -> list[Metric]:
    """Seconds of the first call, by the machine that took them."""
    case, found = f"{arch}/{name}", []
    for machine in model.machines:
        series = [
            each
            for each in model.of_machine(machine)
            if (each.key.history, each.key.policy) == (RELEASES, "day")
        ]
        seconds = [
            (each, values(each, model.versions, lambda point: seconds_of(point.cases("compile").get(case))))
            for each in series
        ]
        curves = _curves(seconds)
        if curves:
            found.append(
                Metric(f"compile@{machine}", f"first call (compiles) on {machine}", "seconds", True, curves)
            )
    return found


@cache
def kernel_of_call(call: Call) -> str:
    """The main kernel that a call compiles; "" where none of the catalog is like it."""
    return next((name for name in CASES if _is_like(name, call)), "")


def _is_like(name: str, call: Call) -> bool:
    case, shape = CASES[name], call.shape
    if shape is None or case.role != "main" or not case.call.return_lse or shape.dtype != "bf16":
        return False
    own = case.call.shape
    return (case.call.backward, *_dims(own), own.causal, own.window is None, own.variant) == (
        call.direction == BACKWARD,
        *_dims(shape),
        shape.causal,
        shape.window is None,
        shape.variant,
    )


def calls_of_kernel(swept: Sequence[Swept], arch: str, name: str) -> list[tuple[Swept, Call]]:
    """The calls that sweeps timed on cards of an architecture and that compile a kernel."""
    return [
        (each, call)
        for each in swept
        if each.arch == arch and each.key.history == RELEASES
        for call in each.calls
        if kernel_of_call(call) == name
    ]


def _kernel_rows(model: Model, timeline: Timeline, key: str) -> list[tuple[str, Row]]:
    """What each step did to a kernel, by release."""
    return [
        (step.after.label, _row(model, step, events))
        for step, events in timeline.of_kernel(key)
        if step.after.release and step.key.policy == "day"
    ]


def _row(model: Model, step: Step, events: Sequence[Changed]) -> Row:
    moved = [
        Moved(
            event.change.metric or STATE,
            event.change.base,
            event.change.head,
            event.effect,
            wording.change(event.change) if event.change.states else "",
        )
        for event in sorted(events, key=lambda event: event.weight, reverse=True)
    ]
    causes = list(dict.fromkeys(event.cause for event in events))
    cases = {event.change.case for event in events}
    threads = threads_of(model, step, events)
    return Row(
        step.key.flavour,
        step.key.title,
        f"events/{step.page}",
        moved,
        causes,
        reason(step, cases, causes),
        threads,
    )


def threads_of(model: Model, step: Step, events: Iterable[Changed]) -> list[Thread]:
    """The known threads that came or went with some changes of a step, and those of its explanation."""
    found = [
        thread
        for thread in model.threads
        if any(
            thread.begins_or_ends(_group(event), event.change.case, step.key.flavour, step.after.label)
            for event in events
        )
    ]
    known = {thread.url for thread in found}
    kept = step.explanation.threads if step.explanation else ()
    cases = {case for each in (step.explanation.culprits if step.explanation else ()) for case in each.cases}
    if cases & {event.change.case for event in events}:
        found += [Thread(_thread_name(url), url, "") for url in kept if url not in known]
    return found


def _group(event: Changed) -> str:
    """A thread names the kernel's own figures; where its loops are known, they are judged in their place."""
    return "codegen" if event.change.group in OF_KERNELS else event.change.group


def _thread_name(url: str) -> str:
    parts = url.rstrip("/").split("/")
    return f"{parts[-3]}#{parts[-1]}" if len(parts) > 3 and parts[-1].isdigit() else url


def reason(step: Step, cases: Iterable[str], causes: Sequence[str]) -> str:
    """What moved, in one sentence: the culprits that are named, else the packages; "" where the source is all that is known."""
    named = [
        f"{each.name} {each.before} → {each.after}"
        if each.kind == "package"
        else f"commit {each.commit[:8]} {each.subject}"
        for each in (step.explanation.culprits if step.explanation else ())
        if set(each.cases) & set(cases)
    ]
    return "; ".join(named or ([] if set(causes) == {SOURCE} else step.first_package))


def numbered(rows: Iterable[tuple[str, Row]], model: Model) -> list[Event]:
    """Rows by release, numbered from the oldest."""
    by_release: dict[str, list[Row]] = {}
    for label, row in rows:
        by_release.setdefault(label, []).append(row)
    order = [label for label in model.versions if label in by_release]
    return [
        Event(number, model.versions.index(label), by_release[label]) for number, label in enumerate(order, 1)
    ]


# Calls


def call_plot(
    model: Model, timeline: Timeline, series: Sequence[Swept], call: Call, link: Callable[..., str]
) -> Plot:
    """A call on one machine: of its series those over the releases. `link` gives the page of what a step changed."""
    machine = series[0].key.machine
    over = [each for each in series if call in each.calls and each.key.history == RELEASES]
    metrics: list[Metric] = []
    for each in over:
        more = f", {each.key.title}" if len(over) > 1 else ""
        seconds = _clock(model, each, call)
        metrics += [
            replace(seconds, name=SECONDS + more, title="time" + more),
            *_rates(call, more),
            *_against(model, each, call, more),
            *_relative(model, each, call, more),
        ]
    page = call.page(machine)
    rows = [
        (step.after.label, _clock_row(each, step, call, timeline, link(each, step, timeline)))
        for each in over
        for step in each.steps
        if call in step.rows and step.rows[call].effect
    ]
    events = numbered(rows, model)
    title = f"{call.title} on {machine}"
    return Plot(
        f"{machine}/{call.title}", machine, title, call.description, page, data_of(page), metrics, events
    )


def _clock(model: Model, swept: Swept, call: Call) -> Metric:
    """Seconds: a line per sweep and card, for seconds of two are never on one line; yardsticks of the first."""
    labels = {point.commit: point.label for point in swept.points}
    curves = []
    for number, points in enumerate(sorted(origins_of(swept, call).values(), key=len, reverse=True)):
        known = {labels[point.commit]: turn_seconds(point, call) for point in points}
        name = "FA4" if not number else f"FA4, sweep {number + 1}"
        curves.append(Curve(name, name, 0 if not number else 3, [known.get(v) for v in model.versions]))
        if not number:
            curves += _yardsticks(model, points, call, known)
    title = f"time of {call.title} on {swept.key.machine}"
    return Metric(f"{SECONDS}@{swept.key.machine} {call.title}", title, "seconds", True, curves)


def _yardsticks(
    model: Model, points: Sequence[Point], call: Call, known: dict[str, float | None]
) -> list[Curve]:
    curves = []
    for at, name in enumerate(YARDSTICKS):
        ratios = {point.label: beside(point, call, name) for point in points}
        drawn: Values = []
        for version in model.versions:
            seconds, ratio = known.get(version), ratios.get(version)
            drawn.append(seconds * ratio if seconds and ratio else None)
        if any(drawn):
            curves.append(Curve(name, NAMES[name], (1, 4)[at], drawn))
    return curves


def _rates(call: Call, more: str) -> list[Metric]:
    shape = call.shape
    if shape is None:
        return []
    operations = shape.flops(call.direction == BACKWARD)
    return [Metric(RATE + more, "TFLOP/s" + more, _RATE_UNIT, False, [], SECONDS + more, operations)]


def _against(model: Model, swept: Swept, call: Call, more: str) -> list[Metric]:
    """Time of each yardstick over FA4's in the same round: above 1 FA4 is faster."""
    points = {point.label: point for point in swept.points}
    curves = []
    for at, name in enumerate(YARDSTICKS):
        drawn = [beside(points[v], call, name) if v in points else None for v in model.versions]
        if any(drawn):
            curves.append(Curve(name, f"against {NAMES[name]}", (1, 4)[at], drawn))
    title = "times as fast as cuDNN and FA2"
    return [Metric(AGAINST + more, title + more, _TIMES, False, curves)] if curves else []


def _relative(model: Model, swept: Swept, call: Call, more: str) -> list[Metric]:
    """Time over the newest release's by the rule, effects of rounds removed; of two cards by a yardstick."""
    points = {point.label: point for point in swept.points}
    drawn = [swept.behind(points[v], call) if v in points else None for v in model.versions]
    newest = short(swept.newest.label)
    curve = Curve("FA4", "FA4", 0, drawn)
    return (
        [Metric(f"{BEHIND}{more}", f"time over that of {newest}{more}", _TIMES, True, [curve])]
        if any(drawn)
        else []
    )


def _clock_row(swept: Swept, step: ClockStep, call: Call, timeline: Timeline, page: str) -> Row:
    """With what the figures of the call's kernel did in the same step: no proof of a cause, but where to look."""
    row = step.rows[call]
    text = "" if row.base and row.head else f"{row.verdict}{f': {row.message}' if row.message else ''}"
    moved = Moved(SECONDS, row.base, row.head, row.effect, text)
    return Row("FA4", swept.key.title, page, [moved], [], _beside(swept, step, call, timeline))


def _beside(swept: Swept, step: ClockStep, call: Call, timeline: Timeline) -> str:
    name = kernel_of_call(call)
    if not name:
        return ""
    wanted = swept.key.flavour, swept.key.policy, swept.arch
    for each in timeline.between(step.before.commit, step.after.commit):
        if (each.key.flavour, each.key.policy, each.arch) == wanted:
            events = [event for event in each.events if event.kernel == name and event.effect]
            if events:
                causes = list(dict.fromkeys(event.cause for event in events))
                why = reason(each, {f"{swept.arch}/{name}"}, causes)
                return f"its kernel changed, too ({', '.join(causes)}{f': {why}' if why else ''})"
    return "no judged figure of its kernel changed"


# As JSON


def runs(numbers: Sequence[float | int | None]) -> list[list[float | int | None]]:
    """[[0, 8], [5, 112]]: from place 0 on 8, from place 5 on 112. Figures of compiled code change seldom."""
    return [[at, value] for at, value in enumerate(numbers) if at == 0 or value != numbers[at - 1]]


def plot_json(plot: Plot) -> dict[str, Any]:
    """As docs/report-data.md says."""
    return {
        "key": plot.key,
        "title": plot.title,
        "note": plot.note,
        "page": plot.page,
        "first": plot.first,
        "metrics": [_metric_json(metric) for metric in plot.metrics],
        "events": [_event_json(event) for event in plot.events],
    }


def _metric_json(metric: Metric) -> dict[str, Any]:
    named = {"name": metric.name, "title": metric.title, "unit": metric.unit, "less": metric.less}
    if metric.operations:
        return {**named, "of": metric.of, "operations": metric.operations}
    return {**named, "curves": [_curve_json(curve) for curve in metric.curves]}


def _curve_json(curve: Curve) -> dict[str, Any]:
    """With `runs` of equal values, or all `values` where there are few equal ones."""
    numbers = [_rounded(value) for value in curve.values]
    equal = runs(numbers)
    drawn = {"runs": equal} if 2 * len(equal) < len(numbers) else {"values": numbers}
    return {"name": curve.name, "title": curve.title, "colour": curve.colour, **drawn}


def _rounded(value: float | None) -> float | int | None:
    """Counts as they are; a clock's figures to five digits, which is finer than any of them is known."""
    if value is None or float(value).is_integer():
        return None if value is None else int(value)
    return float(f"{value:.5g}")


def _event_json(event: Event) -> dict[str, Any]:
    return {
        "number": event.number,
        "at": event.at,
        "rows": [
            {
                "curve": row.curve,
                "title": row.title,
                "page": row.page,
                "causes": list(row.causes),
                "why": row.why,
                "threads": [[thread.thread, thread.url] for thread in row.threads],
                "moved": [
                    [
                        moved.metric,
                        _rounded(moved.before),
                        _rounded(moved.after),
                        moved.effect,
                        moved.text,
                    ]
                    for moved in row.moved
                ],
            }
            for row in event.rows
        ],
    }


def direction_of(name: str) -> str:
    """Of a kernel."""
    return BACKWARD if CASES[name].call.backward else FORWARD
