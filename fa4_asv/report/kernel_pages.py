"""A kernel's page: its events, its figures under each toolchain, its times, its cause files. Data for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from fa4_asv.base.machine import NOGPU
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.flavours import AS_CU12, PLAIN
from fa4_asv.catalog.kernels import CASES
from fa4_asv.catalog.shapes import SHAPES
from fa4_asv.compare.policy import WORSE
from fa4_asv.record.schema import CaseRecord
from fa4_asv.report import wording
from fa4_asv.report.events import Timeline
from fa4_asv.report.machines import tflops
from fa4_asv.report.model import RELEASES, Model, Point, Series
from fa4_asv.report.multiples import kernel_page, short
from fa4_asv.report.parts import Cell, Table
from fa4_asv.report.parts import Row as TableRow
from fa4_asv.report.plots import STATE, Moved, Plot, calls_of_kernel, kernel_plot
from fa4_asv.report.plots import Row as EventRow
from fa4_asv.report.run_time_cells import NAMES, NONE, state_of, times
from fa4_asv.report.swept import BACKWARD, Swept, beside, seconds_of

_KERNELS = [name for name in ("codegen", "loops") if name in GROUPS]
_METRICS = {name: told for group in _KERNELS for name, told in GROUPS[group].metrics.items()}


@dataclass(frozen=True)
class KernelPage:
    """One kernel on one architecture."""

    plot: Plot
    arch: str
    events: Table | None
    figures: Sequence[Table]
    others: Table | None
    times: Table | None
    causes: Sequence[Cell]
    related: Sequence[Cell]


def kernel_pages(
    model: Model, timeline: Timeline, swept: Sequence[Swept], kernels: Sequence[tuple[str, str]]
) -> list[KernelPage]:
    """One for each architecture and kernel given."""
    return [_page(model, timeline, swept, arch, name) for arch, name in kernels]


def _page(model: Model, timeline: Timeline, swept: Sequence[Swept], arch: str, name: str) -> KernelPage:
    plot = kernel_plot(model, timeline, swept, arch, name)
    figures = _all_figures(model, f"{arch}/{name}")
    return KernelPage(
        plot,
        arch,
        events_table(plot, model.versions),
        figures,
        _other_toolchains(model, f"{arch}/{name}"),
        _times(swept, arch, name),
        _cause_files(timeline, f"{arch}/{name}"),
        _related(model, arch, name),
    )


# Events


def events_table(plot: Plot, versions: Sequence[str]) -> Table | None:
    """A row for each event and flavour, the newest first; None where nothing changed."""
    rows: list[TableRow] = [
        [
            Cell(str(event.number)),
            Cell(short(versions[event.at]), f"releases/{versions[event.at]}.html"),
            row.title,
            Cell("; ".join(_moved(plot, moved) for moved in row.moved), row.page, _css(row)),
            ", ".join(row.causes),
            Cell(row.why, css="prose"),
            *_thread_cells(row),
        ]
        for event in reversed(plot.events)
        for row in event.rows
    ]
    head = ["number", "release", "flavour", "what changed", "cause", "what moved", "public thread"]
    return Table("Events, newest first", head, rows, "wide events") if rows else None


def _thread_cells(row: EventRow) -> list[Cell]:
    if not row.threads:
        return [Cell("")]
    first = row.threads[0]
    return [Cell(first.thread, first.url, spoken=first.line)]


def _moved(plot: Plot, moved: Moved) -> str:
    if moved.text or moved.before is None or moved.after is None:
        return moved.text or moved.metric
    title, unit = _named(plot, moved.metric)
    change = wording.percent(moved.before, moved.after)
    what = " bytes" if unit == "bytes" and max(moved.before, moved.after) < 1 << 20 else ""
    return (
        f"{title} {wording.figure(moved.before, unit)} → {wording.figure(moved.after, unit)}{what} ({change})"
    )


def _named(plot: Plot, name: str) -> tuple[str, str]:
    metric = next((each for each in plot.metrics if each.name == name), None)
    return (metric.title, metric.unit) if metric else (name if name != STATE else "state", "")


def _css(row: EventRow) -> str:
    effects = {moved.effect for moved in row.moved}
    return "mixed" if len(effects) > 1 else next(iter(effects), "")


# Figures


def _all_figures(model: Model, key: str) -> list[Table]:
    """A table per flavour; those of flavours with the same figures in every release stand once."""
    found: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    tables: dict[tuple[tuple[str, ...], ...], Table] = {}
    for series in model.exact():
        table = _figures(series, key)
        if table:
            rows = tuple(tuple(map(str, row)) for row in table.rows)
            found.setdefault(rows, []).append(series.key.title)
            tables.setdefault(rows, table)
    return [
        replace(table, caption=f"Figures, {' and '.join(found[rows])}, newest first")
        for rows, table in tables.items()
    ]


def _figures(series: Series, key: str) -> Table | None:
    """Neighbouring releases with the same figures share a row, newest first; None where they are cu12's."""
    points = [(point, record) for point in series.points if (record := point.cases("codegen").get(key))]
    if not points or (series.key.flavour == PLAIN and all(r.why == AS_CU12 for _, r in points)):
        return None
    shown = _shown([point for point, _ in points], key)
    rows: list[TableRow] = []
    for _, span in groupby(points, key=lambda pair: (_known(pair[0], key, shown), pair[1].state)):
        rows.append(_figures_row(list(span), key, shown))
    head = ["releases", wording.COMPILER, *(wording.head(*_METRICS[name]) for name in shown), "state"]
    return Table("", head, rows[::-1], "wide")


def _shown(points: Sequence[Point], key: str) -> list[str]:
    """The figures of compiled code; of its loops those that some point has."""
    known = {name for point in points for group in _KERNELS for name in _record(point, group, key)}
    return [name for name in _METRICS if name in GROUPS["codegen"].metrics or name in known]


def _record(point: Point, group: str, key: str) -> Mapping[str, int]:
    record = point.cases(group).get(key)
    return record.figures if record else {}


def _known(point: Point, key: str, shown: Sequence[str]) -> tuple[int | None, ...]:
    figures = {**_record(point, "loops", key), **_record(point, "codegen", key)}
    return tuple(figures.get(name) for name in shown)


def _figures_row(span: Sequence[tuple[Point, CaseRecord]], key: str, shown: Sequence[str]) -> TableRow:
    labels = [short(point.label) for point, _ in span]
    first = Cell(wording.span(labels), f"releases/{span[0][0].label}.html")
    return [first, _compilers([point for point, _ in span]), *_cells(*span[-1], key, shown)]


def _cells(point: Point, record: CaseRecord, key: str, shown: Sequence[str]) -> list[Cell | str]:
    figures = [wording.figure(value) for value in _known(point, key, shown)]
    state = record.state if record.state == "measured" else f"{record.state}: {record.why}"
    return [*figures, Cell(state, css="prose" if record.state == "measured" else "prose worse")]


def _compilers(points: Sequence[Point]) -> str:
    found = dict.fromkeys(
        point.record.sidecar.toolchain.packages.get(wording.COMPILER, NONE) for point in points
    )
    names = list(found)
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _other_toolchains(model: Model, key: str) -> Table | None:
    """Releases compiled with another compiler than that of their day; compilers and flavours that agree share a row."""
    shown = _shown([point for series in model.series for point in series.points], key)
    found: dict[tuple[str, tuple[str, ...]], list[tuple[str, str]]] = {}
    cells: dict[tuple[str, tuple[str, ...]], list[Cell | str]] = {}
    for series in model.series:
        if series.key.machine == NOGPU and series.key.history == RELEASES and series.key.policy != "day":
            for point in series.points:
                record = point.cases("codegen").get(key)
                if record and record.state != "not run":
                    told = _cells(point, record, key, shown)
                    same = point.label, tuple(map(str, told))
                    found.setdefault(same, []).append((_compilers([point]), series.key.flavour))
                    cells[same] = told
    rows: list[TableRow] = [
        [
            Cell(short(label), f"releases/{label}.html"),
            ", ".join(sorted({compiler for compiler, _ in names})),
            ", ".join(dict.fromkeys(flavour for _, flavour in names)),
            *cells[label, told],
        ]
        for (label, told), names in found.items()
    ]
    head = [
        "release",
        wording.COMPILER,
        "flavour",
        *(wording.head(*_METRICS[name]) for name in shown),
        "state",
    ]
    return Table("With other compilers", head, rows, "wide") if rows else None


# Times


def _times(swept: Sequence[Swept], arch: str, name: str) -> Table | None:
    rows: list[TableRow] = []
    for each, call in calls_of_kernel(swept, arch, name):
        seconds, shape = seconds_of(each.newest, call), SHAPES.get(call.name)
        rate = tflops(seconds, shape, call.direction == BACKWARD) if seconds and shape else None
        row = each.steps[-1].rows.get(call) if each.steps else None
        rows.append(
            [
                Cell(call.title, call.page(each.key.machine)),
                each.key.machine,
                each.key.title,
                short(each.newest.label),
                wording.seconds(seconds) if seconds else state_of(each.newest, call),
                wording.rate(rate),
                *(times(beside(each.newest, call, yardstick)) for yardstick in NAMES),
                Cell(row.verdict if row else NONE, css="worse" if row and row.effect == WORSE else ""),
            ]
        )
    head = ["call", "machine", "flavour", "release", "time", "TFLOP/s"]
    head += [*(f"against {each}" for each in NAMES.values()), "against the release before"]
    return Table("Calls that compile this kernel, timed on a card", head, rows, "wide") if rows else None


# Links


def _cause_files(timeline: Timeline, key: str) -> list[Cell]:
    """The event behind each cause file that names the kernel, the newest first."""
    found = []
    for step in reversed(timeline.steps):
        told = step.explanation
        if told and step.arch == key.partition("/")[0] and (key in told.cases or key in told.states):
            what = f"{short(step.before.label)} to {short(step.after.label)}, {step.key.title}"
            found.append(Cell(f"{what}: {told.file_name}", f"events/{step.page}"))
    return found


def _related(model: Model, arch: str, name: str) -> list[Cell]:
    """The kernels of the same call, the same kernel on the other architectures, the pages of all."""
    cells = [Cell(f"All kernels on {arch}", f"kernels-{arch}.html#{name}")]
    asked = model.kernels
    call = CASES[name].call.name
    cells += [
        Cell(other, kernel_page(arch, other))
        for other, case in CASES.items()
        if case.call.name == call and other != name and f"{arch}/{other}" in asked
    ]
    others = sorted({case.partition("/")[0] for case in asked} - {arch})
    cells += [
        Cell(f"{name} on {other}", kernel_page(other, name)) for other in others if f"{other}/{name}" in asked
    ]
    return cells
