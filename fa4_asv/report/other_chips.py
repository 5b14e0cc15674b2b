"""*Install this* for chips whose kernels are a group on request: a line each. Pure data.

The rule is that of docs/report.md, "Install this": the newest release of which no recorded kernel is broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fa4_asv.catalog.flavours import INSTALLED
from fa4_asv.record.formatting import counted
from fa4_asv.record.schema import CaseRecord
from fa4_asv.report.further_calls import page_of
from fa4_asv.report.model import Model, Point, Series
from fa4_asv.report.multiples import short
from fa4_asv.report.parts import Cell

CHIPS = {
    "ultra": "B300 (Blackwell Ultra, sm_103)",
    "consumer": "RTX 50 and RTX PRO (Blackwell, sm_120)",
}


@dataclass(frozen=True)
class Chip:
    """What to install, what its kernels are, and releases with broken kernels, the newest first ("" for none)."""

    name: str
    release: Cell
    facts: Cell
    avoid: str


def chips(model: Model) -> list[Chip]:
    """One per kind of chip that has a release to recommend."""
    return [chip for group, name in CHIPS.items() if (chip := _chip(model, group, name))]


def _chip(model: Model, group: str, name: str) -> Chip | None:
    for flavour in reversed(INSTALLED):  # cu13 first
        for series in model.exact():
            if series.key.flavour != flavour:
                continue
            recorded = _recorded(series, group)
            sound = [point for point in recorded if not _broken(point.cases(group))]
            if sound:
                return _advised(name, group, flavour, sound[0], recorded)
    return None


def _recorded(series: Series, group: str) -> list[Point]:
    """The releases of which the group is recorded, the newest first."""
    return [
        point
        for point in reversed(series.measured)
        if any(record.state == "measured" for record in point.cases(group).values())
    ]


def _broken(cases: Mapping[str, CaseRecord]) -> int:
    return sum(record.state == "broken" for record in cases.values())


def _advised(name: str, group: str, flavour: str, point: Point, recorded: list[Point]) -> Chip:
    cases = point.cases(group)
    measured = [record for record in cases.values() if record.state == "measured"]
    refused = sum(record.state == "unsupported" for record in cases.values())
    spills = sum(record.figures.get("spills_inside", 0) for record in measured)
    compile_ = "compiles" if len(measured) == 1 else "compile"
    text = f"{flavour}; {counted(len(measured), 'kernel')} {compile_}, FA4 refuses {refused}"
    text += f"; {spills:,} spilled accesses inside loops; no card of this kind is in the record"
    broken = [
        f"{short(each.label)} ({number})" for each in recorded if (number := _broken(each.cases(group)))
    ]
    return Chip(
        name,
        Cell(short(point.label), f"releases/{point.label}.html"),
        Cell(text, page_of(group)),
        ", ".join(broken),
    )
