"""Run-time results: seconds, TFLOP/s and percent of peak beside the yardsticks, and the errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from fa4_asv.catalog.benchmarks import GROUPS, Group
from fa4_asv.catalog.metrics import TIMES_OWN_ERROR
from fa4_asv.catalog.shapes import SHAPES, TOKENS, SdpaShape
from fa4_asv.record.schema import CaseRecord
from fa4_asv.report import wording
from fa4_asv.report.charts import Line, lines
from fa4_asv.report.model import Model, Point, Series, seconds_of
from fa4_asv.report.multiples import short
from fa4_asv.report.parts import Chart, Panel, Row, Table

# Dense bf16 and fp16 TFLOP/s of NVIDIA's data sheets (half of what they state with sparsity), by a word of the
# machine's name. H100 and H200 are the SXM cards.
PEAKS = {"gb200": 2500.0, "b200": 2250.0, "h200": 989.5, "h100": 989.5}
_SLOWER_HOPPER = ("pcie", "nvl")  # cards of the same names with other peaks; GB200's "NVL72" is none of them
_ARCHES = {"h100": "sm_90", "h200": "sm_90", "b100": "sm_100", "b200": "sm_100"}
_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
TIMED = [group for group in GROUPS.values() if group.timed]
OTHERS = [group for group in GROUPS.values() if group.device and not group.timed]


_PER_PAGE = 100  # releases, of 5 KB each


@dataclass(frozen=True)
class Measured:
    """One release of a series of a machine: its tables, and charts over the length of the sequence.

    `newest`: of its series; the others are folded.
    """

    title: str
    release: str
    newest: bool
    panels: Sequence[Panel]
    tables: Sequence[Table]
    others: Sequence[Table]


@dataclass(frozen=True)
class Machine:
    """A machine with run-time results."""

    name: str
    peak: float | None
    measured: Sequence[Measured]
    best: str  # one line for the first page

    @property
    def pages(self) -> list[tuple[str, Sequence[Measured]]]:
        """The name of each of its pages, and what stands there, the newest first."""
        parts = range(0, len(self.measured), _PER_PAGE)
        names = [f"machines/{self.name}.html", *(f"machines/{self.name}/older-{at}.html" for at in parts[1:])]
        return [(name, self.measured[at : at + _PER_PAGE]) for name, at in zip(names, parts, strict=True)]


def machines(model: Model) -> list[Machine]:
    """Every machine that ran attention, sorted by name."""
    found_machines = []
    for name in model.machines:
        peak = peak_of(name)
        series = [series for series in model.of_machine(name) if any(_ran(point) for point in series.points)]
        if series:
            measured = [
                _measured(each_series, point, peak, newest=point is points[-1])
                for each_series in series
                for points in [[point for point in each_series.points if _ran(point)]]
                for point in points[::-1]
            ]
            found_machines.append(Machine(name, peak, measured, _best(series, peak)))
    return found_machines


def peak_of(machine: str) -> float | None:
    """TFLOP/s of the card that the machine's name tells, None where it tells none."""
    name = machine.lower()
    card = next((word for word in PEAKS if word in name), "")
    if card in ("h100", "h200") and any(word in name for word in _SLOWER_HOPPER):
        return None
    return PEAKS.get(card)


def arch_of_card(name: str) -> str:
    """The architecture that a card's or a machine's name tells, "" where it tells none."""
    return next((arch for word, arch in _ARCHES.items() if word in name.lower()), "")


def tflops(seconds: float, shape: SdpaShape, backward: bool) -> float:
    return shape.flops(backward) / seconds / 1e12


def _timed(point: Point) -> list[Group]:
    return [group for group in TIMED if point.cases(group.name)]


def _ran(point: Point) -> bool:
    return any(point.cases(group.name) for group in (*TIMED, *OTHERS))


def _best(series: Sequence[Series], peak: float | None) -> str:
    """FA4's fastest case of the newest commit."""
    point = max((each_series.points[-1] for each_series in series), key=lambda each: each.date)
    rates = []
    for group in _timed(point):
        for case in point.cases(group.name):
            backend, _, name = case.partition("/")
            seconds = seconds_of(point.cases(group.name)[case])
            if backend == "fa4" and seconds and name in SHAPES:
                direction = "backward" if group.backward else "forward"
                rates.append((tflops(seconds, SHAPES[name], group.backward), f"{direction} {name}"))
    if not rates:
        return f"{point.label}: no time of FA4"
    rate, what = max(rates)
    share = f", {rate / peak:.0%} of the card's peak" if peak else ""
    return f"{point.label}: up to {rate:,.0f} TFLOP/s{share} ({what})"


def _measured(series: Series, point: Point, peak: float | None, newest: bool) -> Measured:
    directions = {"forward": False, "backward": True}
    panels: list[Panel] = []
    tables = []
    for direction, backward in directions.items():
        groups = [group for group in _timed(point) if group.backward is backward]
        cases = {case: record for group in groups for case, record in point.cases(group.name).items()}
        if cases:
            tables.append(_table(f"{direction}, {point.label}", cases, backward, peak))
            panels += _panels(direction, cases, backward, point.label)
    others = [_others(group, point) for group in OTHERS if point.cases(group.name)]
    return Measured(f"{point.label}, {series.key.title}", point.label, newest, panels, tables, others)


def _others(group: Group, point: Point) -> Table:
    """What is no time: errors, bytes, checks, as medians; cases that the card is not made for are counted."""
    rows: list[Row] = []
    cases = sorted(point.cases(group.name).items())
    for case, record in cases:
        if record.state in ("measured", "broken"):
            samples = [record.samples.get(metric) for metric in group.metrics]
            units = [unit for unit, _ in group.metrics.values()]
            shown = [
                wording.figure(median(s) if s else None, unit) for s, unit in zip(samples, units, strict=True)
            ]
            notes = "; ".join(f"{name}: {text}" for name, text in record.notes.items())
            rows.append([case, *shown, record.why or record.state, notes])
    left = len(cases) - len(rows)
    title = f"{group.name}, {len(rows)} cases" + (f"; {left} more unsupported or not run" if left else "")
    head = [
        "case",
        *(title if title == unit else f"{title}, {unit}" for unit, title in group.metrics.values()),
        "state",
        "message",
    ]
    return Table(title, head, rows, "wide")


def _table(title: str, cases: dict[str, CaseRecord], backward: bool, peak: float | None) -> Table:
    rows: list[Row] = []
    for case, record in cases.items():
        backend, _, name = case.partition("/")
        seconds = seconds_of(record)
        shape = SHAPES.get(name)
        rate = tflops(seconds, shape, backward) if seconds and shape else None
        rows.append(
            [
                name,
                backend,
                wording.seconds(seconds) if seconds else record.state,
                wording.rate(rate),
                f"{rate / peak:.0%}" if rate and peak else "–",
                _worst(record) or "–",
                record.why or record.notes.get("notes", ""),
            ]
        )
    rows.sort(key=lambda row: (_length(str(row[0])), str(row[0]), row[1] != "fa4", str(row[1])))
    head = ["shape", "backend", "seconds", "TFLOP/s", "of peak", "error / allowed", "notes"]
    return Table(title, head, rows, "wide")


def _worst(record: CaseRecord) -> str:
    """The largest error as a share of what the guard allows, and of what: "0.25 (dq hard)".

    The record has multiples of MATH's own error; what the guard allows for rounding is not recorded. So the share is an
    upper bound, and of a case that passed with more than 1 it is known that it is at most 1.
    """
    errors = {
        key.removeprefix("error "): text for key, text in record.notes.items() if key.startswith("error ")
    }
    numbers = {key: float(text) for key, text in errors.items() if _NUMBER.fullmatch(text)}
    if not numbers:
        return ""
    worst = max(numbers, key=lambda key: (numbers[key], key))
    share = numbers[worst] / TIMES_OWN_ERROR
    passed = share > 1 and record.state == "measured"
    return f"{'at most 1' if passed else f'{share:.2g}'} ({worst})"


def _length(name: str) -> tuple[int, int, int]:
    shape = SHAPES.get(name)
    return (shape.head_dim, shape.causal, shape.seq_len) if shape else (0, 0, 0)


def _family(shape: SdpaShape) -> str:
    return (
        f"{wording.shape_title(shape)}, {shape.tokens // 1024}k tokens"
        if shape.tokens == TOKENS
        else wording.shape_title(shape)
    )


def _panels(direction: str, cases: dict[str, CaseRecord], backward: bool, label: str) -> list[Panel]:
    """TFLOP/s over the length of the sequence, for families of three lengths and more."""
    families: dict[str, dict[str, dict[int, float]]] = {}
    for case, record in cases.items():
        backend, _, name = case.partition("/")
        seconds, shape = seconds_of(record), SHAPES.get(name)
        if seconds and shape:
            rates = families.setdefault(_family(shape), {}).setdefault(backend, {})
            rates[shape.seq_len] = tflops(seconds, shape, backward)
    panels: list[Panel] = []
    for family, backends in families.items():
        lengths = sorted({length for rates in backends.values() for length in rates})
        if len(lengths) < 3:
            continue
        order = sorted(backends, key=lambda name: (name != "fa4", name))
        drawn = [Line(name, at, [backends[name].get(x) for x in lengths]) for at, name in enumerate(order)]
        axis = [f"{x // 1024}k" if x >= 1024 else str(x) for x in lengths]
        title = f"{direction}, {family}"
        spoken = f"TFLOP/s of {title} in {short(label)}: " + "; ".join(
            f"{name} {', '.join(f'{backends[name][x]:.0f} at {x}' for x in lengths if x in backends[name])}"
            for name in order
        )
        svg = lines(axis, drawn, spoken, lambda value: f"{value:,.0f}", (300, 140), tips=True, zero=True)
        rows: list[Row] = [
            [str(x), *(f"{backends[n][x]:,.0f}" if x in backends[n] else "–" for n in order)] for x in lengths
        ]
        table = Table(f"TFLOP/s, {title}", ["tokens per sequence", *order], rows)
        anchor = f"{direction}-{len(panels)}"
        panels.append(Panel(anchor, title, [Chart("TFLOP/s", svg)], table, legend=order))
    return panels
