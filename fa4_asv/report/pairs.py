"""Any two releases against each other, by the one rule of `compare`: every figure that is better or worse.

Most releases leave most kernels as they were. So a case's records are sorted into classes of equal ones, and the rule is
asked once for each pair of classes. Pure data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.flavours import INSTALLED
from fa4_asv.compare.policy import WORSE, is_judged
from fa4_asv.compare.rows import Measured, Row, compare
from fa4_asv.record.schema import CaseRecord
from fa4_asv.report import wording
from fa4_asv.report.events import Timeline
from fa4_asv.report.further_calls import page_of
from fa4_asv.report.model import RELEASES, Model, Point, Series
from fa4_asv.report.multiples import kernel_page
from fa4_asv.report.plots import runs
from fa4_asv.report.swept import Call, Rows, Swept, rows_of

# The newest releases that can be compared in a browser: the number of pairs grows with the square.
MOST = 40
_KERNELS = ("codegen", "loops")  # groups whose cases are kernels; they are judged together
# The judged figures: their places in the data, titles and units.
_METRICS = {
    metric: [title, unit]
    for group in GROUPS.values()
    if group.exact
    for metric, (unit, title) in group.metrics.items()
    if is_judged(metric)
}
Figures = tuple[tuple[str, int], ...]
Signature = tuple[tuple[str, str, str, Figures, Figures], ...]


@dataclass
class CaseHistory:
    """One case, of one group or of all groups of kernels, over the points of a series.

    `classes` holds for each point which of `kinds` its records are, None where it has none.
    """

    name: str
    classes: list[int | None]
    kinds: list[Measured]
    told: dict[tuple[int, int], tuple[Row, ...]] = field(default_factory=dict)

    def between(self, before: int, after: int) -> tuple[Row, ...]:
        """The rows with an effect between two points, by their places; none where one has no record."""
        old, new = self.classes[before], self.classes[after]
        if old is None or new is None or old == new:
            return ()
        return self.of_kinds(old, new)

    def of_kinds(self, old: int, new: int) -> tuple[Row, ...]:
        if (old, new) not in self.told:
            rows = compare(self.kinds[old], self.kinds[new], exact=True)
            self.told[old, new] = tuple(row for row in rows if row.effect)
        return self.told[old, new]


@dataclass(frozen=True)
class History:
    """Every case of a series of exact figures, over its newest measured points."""

    series: Series
    points: Sequence[Point]
    cases: Sequence[CaseHistory]


def histories(model: Model, flavours: Sequence[str] = INSTALLED) -> list[History]:
    """One per flavour, over the newest releases that it has."""
    return [
        History(series, points, _cases(points))
        for series in model.exact()
        if series.key.flavour in flavours and (points := series.measured[-MOST:])
    ]


def _cases(points: Sequence[Point]) -> list[CaseHistory]:
    exact = [group.name for group in GROUPS.values() if group.exact]
    sets = [_KERNELS, *((name,) for name in exact if name not in _KERNELS)]
    found = []
    for groups in sets:
        names = dict.fromkeys(case for point in points for group in groups for case in point.cases(group))
        versions = [_versions(point, groups) for point in points] if names else []
        found += [_case(list(zip(points, versions, strict=True)), groups, case) for case in names]
    return found


def _versions(point: Point, groups: Sequence[str]) -> dict[str, str]:
    """Of the benchmarks of some groups."""
    stems = tuple(GROUPS[group].stem for group in groups if group in GROUPS)
    return {name: version for name, version in point.record.versions.items() if name.startswith(stems)}


def _case(points: Sequence[tuple[Point, dict[str, str]]], groups: Sequence[str], case: str) -> CaseHistory:
    history = CaseHistory(case, [], [])
    known: dict[tuple[Signature, tuple[tuple[str, str], ...]], int] = {}
    for point, versions in points:
        records = {
            group: {case: record}
            for group in groups
            if (record := point.cases(group).get(case)) and record.state != "not run"
        }
        if not records:
            history.classes.append(None)
            continue
        key = (
            _signature({group: each[case] for group, each in records.items()}),
            tuple(sorted(versions.items())),
        )
        if key not in known:
            known[key] = len(history.kinds)
            history.kinds.append(Measured(records, versions))
        history.classes.append(known[key])
    return history


def _signature(records: Mapping[str, CaseRecord]) -> Signature:
    return tuple(
        (
            group,
            record.state,
            record.why,
            tuple(sorted(record.figures.items())),
            tuple(sorted(record.parts.items())),
        )
        for group, record in records.items()
    )


# On the clock


@dataclass
class ClockHistory:
    """A machine's timed releases; the rule is asked for a pair of them when it is needed, of all calls at once."""

    swept: Swept
    points: Sequence[Point]
    told: dict[tuple[int, int], Rows] = field(default_factory=dict)

    def of(self, call: Call, before: int, after: int) -> Row | None:
        """None where neither side was asked."""
        pair = before, after
        if pair not in self.told:
            self.told[pair] = rows_of(self.points[before], self.points[after], self.swept.pools)
        return self.told[pair].get(call)


def clock_histories(swept: Sequence[Swept]) -> list[ClockHistory]:
    """One per series of releases of a machine."""
    return [ClockHistory(each, each.points[-MOST:]) for each in swept if each.key.history == RELEASES]


# As JSON


def pairs_value(
    model: Model, found: Sequence[History], clocks: Sequence[ClockHistory], steps: Sequence[Any]
) -> dict[str, Any]:
    """What the first page needs to compare any two releases; docs/report-data.md describes it."""
    versions = model.versions[-MOST:]
    return {
        "versions": versions,
        "metrics": list(_METRICS.values()),
        "flavours": [_flavour_json(each, versions) for each in found],
        "clocks": [_clock_json(each, versions) for each in clocks],
        "steps": [[versions.index(label), *rest] for label, *rest in steps if label in versions],
    }


def steps_value(timeline: Timeline) -> list[list[Any]]:
    """What each step of a release did: [release, flavour, architecture, causes, packages that moved, page, weight]."""
    return [
        [
            step.after.label,
            step.key.flavour,
            step.arch,
            ", ".join(cause for cause, _ in step.causes),
            "; ".join(step.first_package),
            f"events/{step.page}",
            round(min(step.weight, 100.0), 2),
        ]
        for step in timeline.steps
        if step.after.release and step.key.policy == "day" and step.key.flavour in INSTALLED and step.weight
    ]


def _flavour_json(history: History, versions: Sequence[str]) -> dict[str, Any]:
    places = {point.label: at for at, point in enumerate(history.points)}
    return {
        "name": history.series.key.flavour,
        "title": history.series.key.title,
        "has": [int(version in places) for version in versions],
        # A case that the rule never calls better or worse has nothing to look up.
        "cases": [told for case in history.cases if (told := _case_json(case, places, versions))[-1]],
    }


def _case_json(case: CaseHistory, places: Mapping[str, int], versions: Sequence[str]) -> list[Any]:
    """Of a pair of kinds only which figures are worse (1, 2, ...: their places in `metrics`) and which are better (-1, -2, ...)."""
    classes = [case.classes[places[version]] if version in places else None for version in versions]
    pairs = [
        [old, new, *map(_row_json, rows)]
        for old in range(len(case.kinds))
        for new in range(len(case.kinds))
        if old < new and (rows := case.of_kinds(old, new))
    ]
    return [*_place(case), runs(classes), [_figures_of(kind) for kind in case.kinds], pairs]


def _figures_of(kind: Measured) -> list[int | None]:
    known = {
        metric: value
        for records in kind.groups.values()
        for record in records.values()
        for metric, value in record.figures.items()
    }
    values = [known.get(metric) for metric in _METRICS]
    while values and values[-1] is None:
        values.pop()
    return values


def _place(case: CaseHistory) -> tuple[str, str, str]:
    """Architecture, name and page of a case."""
    group = next(iter(case.kinds[0].groups)) if case.kinds else "codegen"
    arch, name = wording.arch_of(group, case.name), wording.kernel_of(group, case.name)
    if group in _KERNELS:
        return arch, name, kernel_page(arch, name)
    if group == "route":
        return arch, f"through torch {name}", "route.html"
    return arch, f"{group} of {name}", page_of(group) or "memory.html"


def _row_json(row: Row) -> int | str:
    """The place of the metric, counted from 1, negative where it is better; of a state the words."""
    sign = 1 if row.effect == WORSE else -1
    if not row.metric:
        return f"{'+' if sign > 0 else '-'}{' → '.join(row.states or ('', row.verdict))}"
    return sign * (1 + list(_METRICS).index(row.metric))


def _clock_json(history: ClockHistory, versions: Sequence[str]) -> dict[str, Any]:
    calls, machine = history.swept.calls, history.swept.key.machine
    places = [(at, versions.index(p.label)) for at, p in enumerate(history.points) if p.label in versions]
    pairs = []
    for after, head in places:
        for before, base in places[: places.index((after, head))]:
            rows = {call: row for call in calls if (row := history.of(call, before, after))}
            told = [_clock_row(calls.index(call), row) for call, row in rows.items() if row.effect]
            pairs.append([base, head, len(rows), told])
    return {
        "machine": machine,
        "title": history.swept.key.title,
        "calls": [[call.title, call.page(machine)] for call in calls],
        "pairs": pairs,
    }


def _clock_row(call: int, row: Row) -> list[Any]:
    sign = 1 if row.effect == WORSE else -1
    return [sign * (1 + call), round(row.ratio, 4) if row.ratio else row.verdict]
