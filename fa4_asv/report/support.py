"""The support map: which feature compiles on which architecture in which release, and the messages where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fa4_asv.catalog.benchmarks import TORCHES
from fa4_asv.catalog.kernels import ARCHES, CASES
from fa4_asv.record.schema import CaseRecord
from fa4_asv.report import wording
from fa4_asv.report.model import Point, Series
from fa4_asv.report.multiples import axis, short
from fa4_asv.report.parts import Cell, Row, Table
from fa4_asv.report.route_table import Grid, Pair, grids, pair_of

STATES = {
    "measured": "supported",
    "unsupported": "unsupported",
    "broken": "broken",
    "not run": "not recorded",
}
FEATURES = [name for name, case in CASES.items() if case.role == "main"]


@dataclass(frozen=True)
class Map:
    """One architecture's table, and the reasons that were given."""

    arch: str
    table: Table
    messages: Table | None


def maps(series: Sequence[Series]) -> list[Map]:
    """One an architecture; a cell speaks for all flavours, and says so where they differ."""
    points = axis(series)
    labels = [point.label for point in points]
    return [_map(arch, series, labels) for arch in ARCHES if labels]


def _map(arch: str, series: Sequence[Series], labels: Sequence[str]) -> Map:
    at = {
        each_series.key.title: {point.label: point for point in each_series.measured}
        for each_series in series
    }
    messages: dict[tuple[str, str], dict[str, list[str]]] = {}
    by_feature: dict[str, list[Cell]] = {}
    for name in FEATURES:
        cells = by_feature.setdefault(name, [])
        for label in labels:
            records = {title: _record(known.get(label), f"{arch}/{name}") for title, known in at.items()}
            for title, record in records.items():
                if record and record.why and record.state in ("unsupported", "broken"):
                    where = messages.setdefault((f"{record.state}, {title}", record.why), {})
                    where.setdefault(name, []).append(short(label))
            cells.append(_cell({title: record.state for title, record in records.items() if record}))
    # A column for neighbours of which the same is said, the newest first: hundreds of releases differ a few times.
    columns = zip(map(short, labels), zip(*by_feature.values(), strict=True), strict=True)
    spans = list(wording.runs(columns))[::-1]
    rows: list[Row] = [
        [Cell(wording.case_title(name)), *(column[at] for _, column in spans)]
        for at, name in enumerate(by_feature)
    ]
    head = ["feature", *(releases for releases, _ in spans)]
    table = Table(f"What compiles for {arch}, by release, the newest first", head, rows, "map")
    reasons: list[Row] = [
        [wording.case_title(name), state, wording.span(labels), why]
        for (state, why), where in messages.items()
        for name, labels in where.items()
    ]
    reasons += _lacking(arch, series)
    told = (
        Table(f"FA4's messages on {arch}", ["feature", "state", "releases", "message"], reasons)
        if reasons
        else None
    )
    return Map(arch, table, told)


def _lacking(arch: str, series: Sequence[Series]) -> list[Row]:
    """Releases that a flavour does not have, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for each_series in series:
        for point in each_series.points:
            if not point.measures:
                why = next((r.why for case, r in point.cases("codegen").items() if case.startswith(arch)), "")
                reasons.setdefault((each_series.key.title, why), []).append(short(point.label))
    return [
        ["every feature", f"unsupported, {title}", wording.span(names), why]
        for (title, why), names in reasons.items()
    ]


def _record(point: Point | None, case: str) -> CaseRecord | None:
    record = point.cases("codegen").get(case) if point else None
    return record if record and record.state != "not run" else None


def _cell(states: dict[str, str]) -> Cell:
    if not states:
        return Cell("", spoken="not recorded", css="unknown")
    if len(set(states.values())) == 1:
        state = next(iter(states.values()))
        return Cell("", spoken=STATES[state], css=state)
    return Cell(
        "", spoken="; ".join(f"{title}: {STATES[state]}" for title, state in states.items()), css="partly"
    )


def routes(series: Sequence[Series]) -> list[Grid]:
    """Which torch drives which release, from the same records as everything else."""
    pairs = [
        pair
        for each_series in series
        for point in each_series.points
        for torch in TORCHES
        for arch in ARCHES
        if (pair := pair_of(point.label, each_series.key.flavour, point.cases("route"), torch, arch))
    ]
    order = {point.label: index for index, point in enumerate(axis(series))}
    return grids(sorted(pairs, key=lambda pair: order[pair.release]))


def route_tables(series: Sequence[Series]) -> list[tuple[Table, Table | None]]:
    """Each grid as a table, the newest release first, and the reasons below it."""
    tables = []
    for grid in routes(series):
        rows: list[Row] = [
            [short(release), *(_verdict(pair) for pair in pairs)] for release, pairs in reversed(grid.rows)
        ]
        table = Table(
            f"FA4 through SDPA, {grid.title}", ["FA4", *(f"torch {name}" for name in grid.torches)], rows
        )
        reasons = Table("Messages", ["message", "where"], grid.reasons) if grid.reasons else None
        tables.append((table, reasons))
    return tables


def _verdict(pair: Pair | None) -> Cell:
    if pair is None:
        return Cell("–", spoken="not recorded")
    css = {"yes": "better", "no": "worse", "broken": "worse"}.get(pair.drives, "mixed")
    return Cell(pair.verdict, css=css)
