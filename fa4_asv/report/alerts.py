"""What an alert says of a release that is worse than the one before it: a table, the causes, where its page is. Pure data.

The words are Markdown for an issue on GitHub; what comes from others is escaped here, and disarmed by whoever posts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fa4_asv.base.escape import code
from fa4_asv.catalog.flavours import INSTALLED
from fa4_asv.compare.policy import WORSE
from fa4_asv.record.formatting import counted
from fa4_asv.record.tables import markdown_head, markdown_row
from fa4_asv.report import wording
from fa4_asv.report.events import Event, Step, Timeline
from fa4_asv.report.model import Model
from fa4_asv.report.swept import ClockStep, Swept, speed

_ROWS = 25  # of the table; the page has all
_HEADS = ("kernel or call", "where", "figure", "before", "after", "change", "cause")


@dataclass(frozen=True)
class Alert:
    """A release that is worse: `page` is that of the release, below the report."""

    version: str
    title: str
    body: str
    page: str


def alerts(model: Model, timeline: Timeline, swept: Sequence[Swept], last: int) -> list[Alert]:
    """One for each of the `last` releases that is worse, oldest first."""
    return [alert for version in model.versions[-last:] if (alert := alert_of(timeline, swept, version))]


def alert_of(timeline: Timeline, swept: Sequence[Swept], version: str) -> Alert | None:
    """None where no figure under a flavour that is installed, and no call of a sweep, is worse than in the release before."""
    steps = [
        step
        for step in timeline.of(version)
        if step.after.release and step.key.policy == "day" and step.key.flavour in INSTALLED
    ]
    timed = [(each, step) for each in swept for step in each.steps if step.after.label == version]
    rows = [*(row for each, step in timed for row in _slower(each, step)), *_worse(steps)]
    if not rows:
        return None
    before = [*(step.before.label for step in steps), *(step.before.label for _, step in timed)][0]
    lines = [
        f"{counted(len(rows), 'figure')} of {version} are worse than in {before}, by the rule of `fa4-asv compare`.",
        "",
        *markdown_head(_HEADS),
        *(markdown_row(map(code, row)) for row in rows[:_ROWS]),
    ]
    if len(rows) > _ROWS:
        lines += ["", f"And {len(rows) - _ROWS} more."]
    moved = list(dict.fromkeys(package for step in steps for package in step.packages))
    lines += ["", f"Packages that moved: {code('; '.join(moved), 1000) if moved else 'none'}."]
    title = f"{version} is worse than {before}"
    return Alert(version, title, "\n".join(lines), f"releases/{version}.html")


def _worse(steps: Sequence[Step]) -> list[list[str]]:
    events = [(step, event) for step in steps for event in step.events if event.effect == WORSE]
    events.sort(key=lambda pair: pair[1].weight, reverse=True)
    return [_row(step, event) for step, event in events]


def _row(step: Step, event: Event) -> list[str]:
    change, unit = event.change, wording.unit_of(event.change.group, event.change.metric)
    where = f"{step.arch}, {step.key.flavour}"
    if change.states:
        return [event.kernel, where, "state", *change.states, "–", event.cause]
    sides = [wording.figure(side, unit) for side in (change.base, change.head)]
    percent = wording.percent(change.base or 0.0, change.head or 0.0)
    return [
        event.kernel,
        where,
        wording.metric_title(change.group, change.metric),
        *sides,
        percent,
        event.cause,
    ]


def _slower(swept: Swept, step: ClockStep) -> list[list[str]]:
    where = f"{swept.key.machine}, {swept.key.flavour}"
    return [
        [
            call.title,
            where,
            "time",
            *(wording.seconds(side) if side else "–" for side in (row.base, row.head)),
            speed(row) or row.verdict,
            "–",
        ]
        for call, row in step.told()
        if row.effect == WORSE
    ]
