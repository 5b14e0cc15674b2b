"""What a card said of each release: beside figures of compiled code, which cannot tell that a kernel crashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.record.formatting import counted
from fa4_asv.record.schema import CaseRecord
from fa4_asv.report import wording
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
class CardReport:
    """What one card's machine recorded of one commit: the calls that ran, by group and case, and those that are broken, with
    the reason."""

    key: Key
    point: Point
    arch: str
    passed: Collection[tuple[str, str]]
    broken: Mapping[tuple[str, str], str]

    @property
    def calls(self) -> int:
        """How many it was asked."""
        return len(self.passed) + len(self.broken)

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

    reports: Sequence[CardReport]
    swept: Sequence[Swept]

    @cached_property
    def _passed(self) -> Mapping[str, set[tuple[str, str]]]:
        """By architecture the calls that some release passes."""
        passed: dict[str, set[tuple[str, str]]] = {}
        for report in self.reports:
            passed.setdefault(report.arch, set()).update(report.passed)
        return passed

    def broken(self, commit: str) -> list[CardReport]:
        return [report for report in self.reports if report.point.commit == commit and report.broken]

    def against(self, commit: str) -> list[CardReport]:
        """What speaks against a commit: its broken calls that some release passes on a card of that architecture."""
        return self._of_broken(commit, somewhere=True)

    def broken_everywhere(self, commit: str) -> list[CardReport]:
        """Its broken calls that no release passes: a known problem, and no reason to take another release."""
        return self._of_broken(commit, somewhere=False)

    def _of_broken(self, commit: str, somewhere: bool) -> list[CardReport]:
        found = []
        for report in self.broken(commit):
            passed = self._passed[report.arch]
            broken = {call: why for call, why in report.broken.items() if (call in passed) == somewhere}
            found += [replace(report, broken=broken)] if broken else []
        return found

    def warnings(self, commit: str) -> list[str]:
        return [sentence for report in self.broken(commit) for sentence in report.sentences]

    def broken_releases(self) -> list[Cell]:
        """Links to the releases of which calls are broken on a card, in the order of the model."""
        points = {
            report.point.commit: report.point
            for report in self.reports
            if report.broken and report.point.release
        }
        ordered = sorted(points.values(), key=lambda point: (point.date, point.label))
        return [Cell(short(point.label), place(point)) for point in ordered]

    def of_step(self, step: Step) -> list[CardReport]:
        """What was broken of a step's newer side, on cards of its architecture with its toolchain."""
        wanted = (step.key.flavour, step.key.policy)
        return [
            report
            for report in self.broken(step.after.commit)
            if (report.key.flavour, report.key.policy) == wanted and report.arch in ("", step.arch)
        ]


def cards_of(model: Model, swept: Sequence[Swept]) -> Cards:
    reports = [
        _card_report(series.key, point)
        for machine in model.machines
        for series in model.of_machine(machine)
        for point in series.points
    ]
    return Cards([report for report in reports if report.calls], swept)


def _card_report(key: Key, point: Point) -> CardReport:
    records = {
        (group.name, case): record
        for group in TIMED
        if group.device == "cuda"
        for case, record in point.cases(group.name).items()
        if case.startswith(_FA4) and record.state in ("measured", "broken")
    }
    names = (record.notes.get("card name", "") for record in records.values())
    arch = arch_of_card(next(filter(None, names), "")) or arch_of_card(key.machine)
    broken = {call: reason_of(record) for call, record in records.items() if record.state == "broken"}
    return CardReport(key, point, arch, records.keys() - broken.keys(), broken)


def _named(group: str, case: str) -> str:
    return f"{BACKWARD if GROUPS[group].backward else FORWARD} {case.removeprefix(_FA4)}"


# Beside other tables


def beside_steps(table: Table, steps: Sequence[Step], cards: Cards) -> Table:
    """A table of steps with what cards said of the newer side; as it is where they said nothing of any."""
    pages = {
        f"events/{step.page}": "; ".join(report.short for report in cards.of_step(step)) for step in steps
    }
    texts = [pages.get(row[0].href, "") if isinstance(row[0], Cell) else "" for row in table.rows]
    if not any(texts):
        return table
    rows = [
        [*row, Cell(text, css="worse" if text else "")] for row, text in zip(table.rows, texts, strict=True)
    ]
    return replace(table, head=[*table.head, _TITLE], rows=rows)


def beside_releases(table: Table, commits: Sequence[str], cards: Cards) -> Table:
    """The table of releases with a column before its last one; `commits` are those of its rows."""
    reports = [[report for report in cards.reports if report.point.commit == commit] for commit in commits]
    if not any(reports):
        return table
    rows = [
        [*row[:-1], _of_release(said_reports), row[-1]]
        for row, said_reports in zip(table.rows, reports, strict=True)
    ]
    head = [*table.head[:-1], _TITLE, table.head[-1]]
    return replace(table, head=head, rows=rows, css=f"{table.css} day")


def _of_release(reports: Sequence[CardReport]) -> Cell:
    broken = [report for report in reports if report.broken]
    if broken:
        return Cell(
            "; ".join(report.short for report in broken), f"releases/{broken[0].point.label}.html", "worse"
        )
    if not reports:
        return Cell(NONE, spoken="not asked")
    return Cell(
        "; ".join(f"{report.calls} calls run on {report.key.machine}" for report in reports), css="same"
    )


def broken_table(cards: Cards) -> Table | None:
    """What is broken on a card, by machine, call and reason: releases that follow one another among those asked share a row."""
    rows: list[TableRow] = []
    for key, group in groupby(cards.reports, key=lambda report: report.key):
        reports = list(group)
        for call in dict.fromkeys(call for report in reports for call in report.broken):
            asked = [report for report in reports if call in report.broken or call in report.passed]
            for why, group in groupby(asked, key=lambda report: report.broken.get(call, "")):
                if why:
                    span = wording.span([short(report.point.label) for report in group])
                    rows.append([_named(*call), f"broken, {key.machine}, {key.title}", span, why])
    return Table("What is broken on a card", ["call", "state", "releases", "message"], rows) if rows else None


# A release's own page


def clocked(cards: Cards, commit: str) -> list[Clocked]:
    """What each sweep says of a release against the one before."""
    pairs = [(swept, step) for swept in cards.swept if (step := swept.step_to(commit))]
    return [_clocked(swept, step) for swept, step in pairs]


def _clocked(swept: Swept, step: ClockStep) -> Clocked:
    told = step.told()
    rest = Counter(row.verdict for row in step.rows.values() if not row.effect)
    others = ", ".join(f"{count} {name}" for name, count in rest.most_common())
    sentence = f"{len(told) or 'None'} of {counted(len(step.rows), 'call')} changed by the rule" + (
        f"; the others: {others}." if told and others else f": {others}." if others else "."
    )
    title = f"{swept.key.machine}, {swept.key.title}, against {step.before.label}"
    rows: list[TableRow] = [
        [
            Cell(call.title, call.page(swept.key.machine)),
            *(_seconds(point, call) for point in (step.before, step.after)),
            Cell(speed(row) or NONE, css=css_of(row)),
            Cell(row.verdict, css=css_of(row)),
            _why(step.after, call) if not row.ratio else "",
        ]
        for call, row in told
    ]
    head = ["call", short(step.before.label), short(step.after.label), "change", "verdict", "reason"]
    return Clocked(
        title, page_of(swept.key.machine), sentence, Table(title, head, rows, "wide") if told else None
    )


def _seconds(point: Point, call: Call) -> str:
    seconds = seconds_of(point, call)
    return wording.seconds(seconds) if seconds else NONE


def _why(point: Point, call: Call) -> str:
    record: CaseRecord | None = point.cases(call.group).get(call.case)
    return record.why if record else ""
