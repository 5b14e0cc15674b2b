"""What a card said of each release: beside figures of compiled code, which cannot tell that a kernel crashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.record.formatting import counted
from fa4_asv.record.schema import CaseRecord
from fa4_asv.report import words
from fa4_asv.report.events import Step
from fa4_asv.report.machines import TIMED, arch_of_card
from fa4_asv.report.model import Key, Model, Point
from fa4_asv.report.multiples import short
from fa4_asv.report.parts import Cell, Table
from fa4_asv.report.parts import Row as TableRow
from fa4_asv.report.run_time_cells import NONE, page_of, place
from fa4_asv.report.swept import (
    BACKWARD,
    FORWARD,
    Call,
    ClockStep,
    Swept,
    css_of,
    reason_of,
    seconds_of,
    speed,
)

_FA4 = "fa4/"  # called directly; a yardstick or torch's route that fails says nothing of the release
_TITLE = "on a card"


@dataclass(frozen=True)
class Said:
    """What one card's machine recorded of one commit: of `calls` that it was asked, those that are broken, with the reason."""

    key: Key
    point: Point
    arch: str
    calls: int
    broken: Mapping[tuple[str, str], str]

    @property
    def short(self) -> str:
        return f"{len(self.broken)} of {counted(self.calls, 'call')} broken on {self.key.machine}"

    @property
    def sentences(self) -> list[str]:
        """One per reason: how many calls, which, and why."""
        reasons: dict[str, list[str]] = {}
        for (group, case), why in self.broken.items():
            reasons.setdefault(why, []).append(_named(group, case))
        return [
            f"On {self.key.machine} ({self.key.title}) {len(calls)} of {counted(self.calls, 'call')} "
            f"{'is' if len(calls) == 1 else 'are'} broken: {why} ({', '.join(calls)})."
            for why, calls in reasons.items()
        ]


@dataclass(frozen=True)
class Clocked:
    """A release on a machine that a sweep was run on: what the rule says against the one before."""

    title: str
    page: str
    sentence: str
    table: Table | None


@dataclass(frozen=True)
class Cards:
    """All that cards said, in the order of the model."""

    said: Sequence[Said]
    swept: Sequence[Swept]

    def broken(self, commit: str) -> list[Said]:
        return [one for one in self.said if one.point.commit == commit and one.broken]

    def warnings(self, commit: str) -> list[str]:
        return [sentence for one in self.broken(commit) for sentence in one.sentences]

    def broken_releases(self) -> list[Cell]:
        """Links to the releases of which calls are broken on a card, in the order of the model."""
        points = {one.point.commit: one.point for one in self.said if one.broken and one.point.release}
        ordered = sorted(points.values(), key=lambda point: (point.date, point.label))
        return [Cell(short(point.label), place(point)) for point in ordered]

    def of_step(self, step: Step) -> list[Said]:
        """What was broken of a step's newer side, on cards of its architecture with its toolchain."""
        wanted = (step.key.flavour, step.key.policy)
        return [
            one
            for one in self.broken(step.after.commit)
            if (one.key.flavour, one.key.policy) == wanted and one.arch in ("", step.arch)
        ]


def cards_of(model: Model, swept: Sequence[Swept]) -> Cards:
    found = [
        _said(series.key, point)
        for machine in model.machines
        for series in model.of_machine(machine)
        for point in series.points
    ]
    return Cards([one for one in found if one.calls], swept)


def _said(key: Key, point: Point) -> Said:
    records = {
        (group.name, case): record
        for group in TIMED
        if group.device == "cuda"
        for case, record in point.cases(group.name).items()
        if case.startswith(_FA4) and record.state in ("measured", "broken")
    }
    names = (record.words.get("card name", "") for record in records.values())
    arch = arch_of_card(next(filter(None, names), "")) or arch_of_card(key.machine)
    broken = {name: reason_of(record) for name, record in records.items() if record.state == "broken"}
    return Said(key, point, arch, len(records), broken)


def _named(group: str, case: str) -> str:
    return f"{BACKWARD if GROUPS[group].backward else FORWARD} {case.removeprefix(_FA4)}"


# Beside other tables


def beside_steps(table: Table, steps: Sequence[Step], cards: Cards) -> Table:
    """A table of steps with what cards said of the newer side; as it is where they said nothing of any."""
    pages = {f"events/{step.page}": "; ".join(one.short for one in cards.of_step(step)) for step in steps}
    told = [pages.get(row[0].href, "") if isinstance(row[0], Cell) else "" for row in table.rows]
    if not any(told):
        return table
    rows = [
        [*row, Cell(text, css="worse" if text else "")] for row, text in zip(table.rows, told, strict=True)
    ]
    return replace(table, head=[*table.head, _TITLE], rows=rows)


def beside_releases(table: Table, commits: Sequence[str], cards: Cards) -> Table:
    """The table of releases with a column before its last one; `commits` are those of its rows."""
    found = [[one for one in cards.said if one.point.commit == commit] for commit in commits]
    if not any(found):
        return table
    rows = [[*row[:-1], _of_release(said), row[-1]] for row, said in zip(table.rows, found, strict=True)]
    head = [*table.head[:-1], _TITLE, table.head[-1]]
    return replace(table, head=head, rows=rows, css=f"{table.css} day")


def _of_release(said: Sequence[Said]) -> Cell:
    broken = [one for one in said if one.broken]
    if broken:
        return Cell("; ".join(one.short for one in broken), f"releases/{broken[0].point.label}.html", "worse")
    if not said:
        return Cell(NONE, spoken="not asked")
    return Cell("; ".join(f"{one.calls} calls run on {one.key.machine}" for one in said), css="same")


def broken_table(cards: Cards) -> Table | None:
    """What is broken on a card, by machine, call and reason: releases that follow one another share a row."""
    rows: list[TableRow] = []
    for key, group in groupby(cards.said, key=lambda one: one.key):
        said = list(group)
        for name in dict.fromkeys(name for one in said for name in one.broken):
            for why, group in groupby(said, key=lambda one: one.broken.get(name, "")):
                if why:
                    span = words.span([short(one.point.label) for one in group])
                    rows.append([_named(*name), f"broken, {key.machine}, {key.title}", span, why])
    return Table("What is broken on a card", ["call", "state", "releases", "message"], rows) if rows else None


# A release's own page


def clocked(cards: Cards, commit: str) -> list[Clocked]:
    """What each sweep says of a release against the one before."""
    found = [(one, step) for one in cards.swept if (step := one.step_to(commit))]
    return [_clocked(one, step) for one, step in found]


def _clocked(one: Swept, step: ClockStep) -> Clocked:
    told = step.told()
    rest = Counter(row.verdict for row in step.rows.values() if not row.effect)
    counts = ", ".join(f"{count} {name}" for name, count in rest.most_common())
    sentence = f"{len(told) or 'No'} of {counted(len(step.rows), 'call')} changed by the rule" + (
        f"; the others: {counts}." if told and counts else f": {counts}." if counts else "."
    )
    title = f"{one.key.machine}, {one.key.title}, against {step.before.label}"
    rows: list[TableRow] = [
        [
            Cell(call.title, call.page(one.key.machine)),
            *(_seconds(point, call) for point in (step.before, step.after)),
            Cell(speed(row) or NONE, css=css_of(row)),
            Cell(row.verdict, css=css_of(row)),
            _why(step.after, call) if not row.ratio else "",
        ]
        for call, row in told
    ]
    head = ["call", short(step.before.label), short(step.after.label), "change", "verdict", "reason"]
    return Clocked(
        title, page_of(one.key.machine), sentence, Table(title, head, rows, "wide") if told else None
    )


def _seconds(point: Point, call: Call) -> str:
    seconds = seconds_of(point, call)
    return words.seconds(seconds) if seconds else NONE


def _why(point: Point, call: Call) -> str:
    record: CaseRecord | None = point.cases(call.group).get(call.case)
    return record.why if record else ""
