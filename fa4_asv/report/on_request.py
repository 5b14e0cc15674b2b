"""What a card was asked by the sets `serving` and `shapes`, and what a decode costs the host: tables of a machine's page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from fa4_asv.catalog.benchmarks import GROUPS, LAUNCHES, SWEEP_SETS
from fa4_asv.catalog.shapes import SHAPES
from fa4_asv.catalog.traffic import bytes_moved
from fa4_asv.record.formatting import in_seconds
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.turns import COPY, YARDSTICKS
from fa4_asv.report import wording
from fa4_asv.report.model import Model, Point, Series, seconds_of
from fa4_asv.report.multiples import short
from fa4_asv.report.parts import Cell, Row, Table

LEAD = (
    "Seconds on a card, after the guard passed. GB/s are the bytes that a call must move, each once, by its seconds; the share is that of a "
    "copy on the same card that moves as many bytes, timed in the same rounds. A call that memory binds nears 100 %."
)
_TITLES = {"serving": "Serving", "shapes": "Shapes"}
_DASH = "–"
Part = tuple[str, Sequence[Table]]


def parts_of(model: Model, machine: str) -> list[Part]:
    """Headings and tables: for each set and direction the newest release that has it, and times of all that have it, if there are
    several; then the host's cost of a decode."""
    found: list[Part] = []
    for name, title in _TITLES.items():
        tables = [
            table
            for series in model.of_machine(machine)
            for group in SWEEP_SETS[name]
            for table in _of_group(series, group)
        ]
        found += [(title, tables)] if tables else []
    hosts = [table for series in model.of_machine(machine) for table in _hosts(series)]
    return [*found, *([("A decode's cost for the host", hosts)] if hosts else [])]


def _of_group(series: Series, group: str) -> Iterator[Table]:
    asked = [(point, records) for point in reversed(series.points) if (records := _records(point, group))]
    if not asked:
        return
    newest, records = asked[0]
    direction = "Backward" if GROUPS[group].backward else "Forward"
    head = [
        "call",
        "time",
        "TFLOP/s",
        "GB/s",
        "share of a copy",
        *(f"{name}, TFLOP/s" for name in YARDSTICKS),
    ]
    rows = [_row(group, shape, record) for shape, record in records.items()]
    yield Table(f"{direction}, {newest.label}, {series.key.title}", head, rows, "wide")
    if len(asked) > 1:
        yield _by_release(f"{direction}, time by release, {series.key.title}", asked, group)


def _by_release(title: str, asked: Sequence[tuple[Point, Mapping[str, CaseRecord]]], group: str) -> Table:
    """A row per call, a column per release, the newest first; why a call has no time stands in the table before or in Support."""
    rows: list[Row] = [
        [shape, *(_time(records.get(shape)) for _, records in asked)]
        for _, shape in GROUPS[group].cases
        if any(shape in records for _, records in asked)
    ]
    return Table(title, ["call", *(short(point.label) for point, _ in asked)], rows, "wide")


def _time(record: CaseRecord | None) -> Cell | str:
    if record and record.state != "measured":
        return Cell(record.state, css="worse" if record.state == "broken" else "")
    seconds = seconds_of(record)
    return in_seconds(seconds) if seconds else _DASH


def _records(point: Point, group: str) -> dict[str, CaseRecord]:
    """The record of each shape in the order of the table; none of what did not run."""
    found = {shape: point.cases(group).get(f"fa4/{shape}") for _, shape in GROUPS[group].cases}
    return {shape: record for shape, record in found.items() if record and record.state != "not run"}


def _row(group: str, shape: str, record: CaseRecord) -> Row:
    seconds = seconds_of(record)
    if record.state != "measured" or not seconds:
        css = "worse" if record.state == "broken" else ""
        return [shape, Cell(f"{record.state}: {record.why}", css=css), *[_DASH] * (3 + len(YARDSTICKS))]
    return [
        shape,
        in_seconds(seconds),
        _rate(group, shape, seconds),
        *_memory(group, shape, record, seconds),
        *(_rate(group, shape, _beside(record, name)) for name in YARDSTICKS),
    ]


def _rate(group: str, shape: str, seconds: float | None) -> str:
    flops = SHAPES[shape].flops(GROUPS[group].backward)
    return wording.rate(flops / seconds / 1e12 if seconds else None)


def _memory(group: str, shape: str, record: CaseRecord, seconds: float) -> tuple[str, str]:
    """GB/s and the share of the copy's, where a sweep timed one beside."""
    copied = _beside(record, COPY)
    if GROUPS[group].backward or copied is None:
        return _DASH, _DASH
    return f"{bytes_moved(SHAPES[shape]) / seconds / 1e9:,.0f}", wording.share(copied / seconds, 0)


def _beside(record: CaseRecord, name: str) -> float | None:
    """The median of what stood beside in every round."""
    values = record.samples.get(name)
    return median(values) if values else None


def _hosts(series: Series) -> Iterator[Table]:
    group = "decode-host"
    newest = next((point for point in reversed(series.points) if point.cases(group)), None)
    if newest is None:
        return
    rows: list[Row] = []
    for shape in dict.fromkeys(case[1] for case in GROUPS[group].cases):
        records = [newest.cases(group).get(f"{launch}/{shape}") for launch in LAUNCHES]
        if any(record and record.state != "not run" for record in records):
            rows.append([shape, *map(_host, records)])
    head = ["call", "as a call, per decode", "as a CUDA graph, per decode"]
    yield Table(f"Host, {newest.label}, {series.key.title}", head, rows)


def _host(record: CaseRecord | None) -> Cell | str:
    if record is None or record.state == "not run":
        return _DASH
    seconds = seconds_of(record)
    if record.state != "measured" or not seconds:
        return Cell(f"{record.state}: {record.why}", css="worse" if record.state == "broken" else "")
    return in_seconds(seconds)
