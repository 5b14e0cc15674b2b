"""Parts that the pages of the run-time history share: names, places, cells."""

from __future__ import annotations

import math

from fa4_asv.compare.policy import effect_of_ratio, effect_of_states
from fa4_asv.record.turns import Origin, origin_of
from fa4_asv.report import wording
from fa4_asv.report.model import Point
from fa4_asv.report.multiples import short
from fa4_asv.report.parts import Cell
from fa4_asv.report.swept import Call, Swept, case_of, seconds_of

NAMES = {"cudnn": "cuDNN", "fa2": "FA2"}
NONE = "–"


def page_of(machine: str) -> str:
    return f"run-time-{machine}.html"


def place(point: Point) -> str:
    """Where a release or a commit upstream stands."""
    return (
        f"releases/{point.release.version}.html" if point.release else wording.upstream_commit(point.commit)
    )


def named(point: Point) -> Cell:
    return Cell(
        short(point.label), place(point), css="message" if point.subject else "", spoken=point.subject
    )


def origins_of(swept: Swept, call: Call) -> dict[Origin, list[Point]]:
    """The points of each sweep and card that timed a call."""
    points: dict[Origin, list[Point]] = {}
    for point in swept.points:
        record = case_of(point, call)
        if record and seconds_of(point, call):
            points.setdefault(origin_of(record), []).append(point)
    return points


def state_of(point: Point, call: Call) -> str:
    record = case_of(point, call)
    return record.state if record else "not run"


def state_cell(state: str) -> Cell:
    """Coloured as the change from a call that runs."""
    return Cell(state, css=effect_of_states("measured", state) or "same")


def times(ratio: float | None) -> Cell:
    """A yardstick's time over FA4's."""
    if ratio is None:
        return Cell(NONE, spoken="not timed")
    return Cell(f"{ratio:.2f}", css=effect_of_ratio(-math.log(ratio)) or "same")


# Of hundreds of releases a page with a row for each would take megabytes; the pages of the calls have every release.
MOST_ROWS = 60


def newest_of(title: str, count: int) -> str:
    """The caption of a table that shows the newest of `count` rows."""
    return title if count <= MOST_ROWS else f"{title}, the newest {MOST_ROWS} of {count}"
