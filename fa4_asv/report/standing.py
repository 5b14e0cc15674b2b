"""Standing regressions: what is worse in the newest release than it once was, since when, and why. Pure data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

from fa4_asv.compare.policy import WORSE
from fa4_asv.compare.rows import Row
from fa4_asv.record.formatting import counted
from fa4_asv.report import wording
from fa4_asv.report.events import UNEXPLAINED, Timeline
from fa4_asv.report.further_calls import page_of
from fa4_asv.report.model import Point
from fa4_asv.report.multiples import kernel_page, short
from fa4_asv.report.pairs import CaseHistory, ClockHistory, History
from fa4_asv.report.parts import Cell, Table
from fa4_asv.report.parts import Row as TableRow
from fa4_asv.report.swept import Call, speed

_TIMES_SHOWN, _SHOWN = 3, 5
TIME = "time"
_KERNELS = ("codegen", "loops")
_OTHERS = {"route": "route.html", "memory": "memory.html", "growth": "memory.html"}


@dataclass(frozen=True)
class Standing:
    """One figure, or one call's time, of the newest release that is worse than in `best`, its best release, by the rule.

    No release since recovered. `since` is the release that made it worse by most, `earliest` the first that may have: those
    between have no record of the case. `where` is an architecture or a machine.
    """

    where: str
    series: str
    what: str
    name: str
    page: str
    best: Point
    since: Point
    earliest: Point
    row: Row
    cause: str
    event: str

    @property
    def came(self) -> str:
        """The release in which it became worse, or the releases of which one did."""
        names = dict.fromkeys(short(point.label) for point in (self.earliest, self.since))
        return " to ".join(names)

    @property
    def weight(self) -> float:
        """How far it is from its best; a state has no ratio and stands as twice."""
        return 2.0 if self.row.states else self.row.weight


def standing(found: Sequence[History], clocks: Sequence[ClockHistory], timeline: Timeline) -> list[Standing]:
    """All of them, times first, then the largest change first."""
    timed = [each for clock in clocks for each in _of_clock(clock)]
    exact = [
        each for history in found for case in history.cases for each in _of_case(history, case, timeline)
    ]
    return [*sorted(timed, key=_turn), *sorted(exact, key=_turn)]


def _turn(each: Standing) -> tuple[bool, float, str, str]:
    return each.what.startswith("local"), -min(each.weight, 100.0), each.name, each.series


def _of_case(history: History, case: CaseHistory, timeline: Timeline) -> list[Standing]:
    newest = len(history.points) - 1
    worse = [(at, row) for at in range(newest) for row in case.between(at, newest) if row.effect == WORSE]
    found = []
    for key in dict.fromkeys((row.group, row.metric) for _, row in worse):
        own = [(at, row) for at, row in worse if (row.group, row.metric) == key]
        # The best is the least; of several equal ones the latest.
        best, row = min(own, key=lambda pair: (pair[1].base if pair[1].base is not None else 0.0, -pair[0]))
        recorded = [at for at, kind in enumerate(case.classes) if at >= best and kind is not None]
        between = reversed(recorded[1:-1])
        since = _since(recorded, (_is_worse(case.between(best, at), key) for at in between))
        before, came = max(
            pairwise(recorded[since - 1 :]), key=lambda step: (_step(case, step[0], step[1], key), step)
        )
        found.append(_standing(history, case, row, (best, before + 1, came), timeline))
    return found


def _since(recorded: Sequence[int], are_worse: Iterable[bool]) -> int:
    """Which of the recorded points is the first from which on all are worse than the best, which is the first of them.

    `are_worse` says it of those between the best and the newest, from the newest back.
    """
    return len(recorded) - 1 - sum(1 for _ in takewhile(bool, are_worse))


def _step(case: CaseHistory, before: int, after: int, key: tuple[str, str]) -> float:
    """How much worse a figure became between two points: 0 where it did not."""
    rows = [row for row in case.between(before, after) if (row.group, row.metric) == key]
    return max((row.weight for row in rows if row.effect == WORSE), default=0.0)


def _is_worse(rows: Sequence[Row], key: tuple[str, str]) -> bool:
    return any(row.effect == WORSE and (row.group, row.metric) == key for row in rows)


def _standing(
    history: History, case: CaseHistory, row: Row, places: tuple[int, int, int], timeline: Timeline
) -> Standing:
    best, earliest, since = (history.points[at] for at in places)
    arch, name = wording.arch_of(row.group, row.case), wording.kernel_of(row.group, row.case)
    cause, event = _cause(history, since, row, timeline)
    page = (
        kernel_page(arch, name)
        if row.group in _KERNELS
        else _OTHERS.get(row.group, page_of(row.group) or "releases.html")
    )
    key = history.series.key
    what = wording.metric_title(row.group, row.metric)
    name = f"torch {name}" if row.group == "route" else name
    return Standing(arch, key.flavour, what, name, page, best, since, earliest, row, cause, event)


def _cause(history: History, since: Point, row: Row, timeline: Timeline) -> tuple[str, str]:
    """Of the step in which it became worse: its cause and the page of the step."""
    arch = wording.arch_of(row.group, row.case)
    for step in timeline.of(since.label):
        if step.key == history.series.key and step.arch == arch:
            causes = [
                event.cause
                for event in step.events
                if (event.change.key, event.change.metric) == (row.key, row.metric)
            ]
            return (causes or [UNEXPLAINED])[0], f"events/{step.page}"
    return UNEXPLAINED, f"releases/{since.label}.html"


def _of_clock(clock: ClockHistory) -> list[Standing]:
    """Calls that are slower in the newest release than in their fastest."""
    newest, found = len(clock.points) - 1, []
    for call in clock.swept.calls:
        worse = [
            (at, row)
            for at in range(newest)
            if (row := clock.of(call, at, newest)) and row.effect == WORSE and row.ratio
        ]
        if worse:
            best, row = max(worse, key=lambda pair: pair[1].ratio or 0.0)
            # Releases in which the call was timed; where one was not, nothing is known of it.
            timed = [best] + [at for at in range(best + 1, newest + 1) if _is_timed(clock, call, best, at)]
            since = _since(timed, (_is_slower(clock, call, best, at) for at in reversed(timed[1:-1])))
            found.append(_slower(clock, call, row, (best, timed[since - 1] + 1, timed[since])))
    return found


def _is_timed(clock: ClockHistory, call: Call, before: int, after: int) -> bool:
    row = clock.of(call, before, after)
    return row is not None and row.ratio is not None


def _is_slower(clock: ClockHistory, call: Call, before: int, after: int) -> bool:
    row = clock.of(call, before, after)
    return row is not None and row.effect == WORSE


def _slower(clock: ClockHistory, call: Call, row: Row, places: tuple[int, int, int]) -> Standing:
    best, earliest, since = (clock.points[at] for at in places)
    machine, page = clock.swept.key.machine, call.page(clock.swept.key.machine)
    return Standing(
        machine,
        clock.swept.key.flavour,
        TIME,
        call.title,
        page,
        best,
        since,
        earliest,
        row,
        "see the call's events",
        page,
    )


# As tables


def all_table(found: Sequence[Standing]) -> Table | None:
    """Each in a row."""
    rows = [_row(each, each.name) for each in found]
    return Table("Every standing regression", _HEAD, rows, "wide") if rows else None


def short_table(found: Sequence[Standing]) -> Table | None:
    """The largest: those of one release and figure share a row, which names the largest of them."""
    groups: dict[tuple[str, ...], list[Standing]] = {}
    for each in found:
        groups.setdefault((each.what, each.came, each.name if _is_route(each) else each.where), []).append(
            each
        )
    timed = [same for same in groups.values() if same[0].what == TIME]
    exact = [same for same in groups.values() if same[0].what != TIME]
    rows = [_short_row(same) for same in [*timed[:_TIMES_SHOWN], *exact[:_SHOWN]]]
    return Table("The largest, with those that came with them", _HEAD, rows, "wide") if rows else None


def _is_route(each: Standing) -> bool:
    return each.row.group == "route"


def _short_row(same: Sequence[Standing]) -> TableRow:
    first, others = same[0], len({each.name for each in same}) - 1
    name = first.name + (f" and {counted(others, 'other')}" if others else "")
    cells = _row(first, name)
    joined = (", ".join(sorted({getattr(each, field) for each in same})) for field in ("where", "series"))
    return [cells[0], *joined, *cells[3:]]


_HEAD = ["kernel or call", "where", "flavour", "figure", "at its best", "now", "worse since", "cause"]


def _row(each: Standing, name: str) -> TableRow:
    unit = each.row.unit
    was, now = (wording.figure(side, unit) for side in (each.row.base, each.row.head))
    if each.row.states:
        was, now = each.row.states
        change = ""
    else:
        change = (
            speed(each.row) if unit == "seconds" else wording.percent(each.row.base or 0, each.row.head or 0)
        )
    return [
        Cell(name, each.page),
        each.where,
        each.series,
        each.what,
        f"{was} ({short(each.best.label)})",
        Cell(f"{now} ({change})" if change else now, css="worse"),
        Cell(each.came, f"releases/{each.since.label}.html"),
        Cell(each.cause, each.event),
    ]


def value_of(found: Sequence[Standing]) -> list[dict[str, Any]]:
    """As docs/report-data.md says."""
    return [
        {
            "where": each.where,
            "flavour": each.series,
            "figure": each.row.metric or "state",
            "name": each.name,
            "best": {"release": each.best.label, "value": each.row.base},
            "now": each.row.head,
            "since": each.since.label,
            "earliest": each.earliest.label,
            "cause": each.cause,
            "page": each.page,
        }
        for each in found
    ]
