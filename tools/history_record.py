"""What docs/history.md speaks of, read from the record: releases of sweeps, codegen and causes, and how they are named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog.kernels import CASES
from fa4_asv.catalog.shapes import CLASSES, SHAPES, SdpaShape, class_of
from fa4_asv.compare.along import Pool
from fa4_asv.compare.changes import Record, recorded
from fa4_asv.compare.neighbours import rows_between
from fa4_asv.compare.rows import Row
from fa4_asv.compare.sweeps import CallKey, Pools, name_of, pools_of
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.explanation import Explanation, read_explanation
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.tables import markdown_head, markdown_row
from fa4_asv.record.turns import origin_of

MACHINE, SECOND, OLDER = "h200-sxm", "h200-sxm-2", "h100-sxm"
FLAVOUR, PLAIN, ARCH = "cu13", "cu12", "sm_90"  # plain libraries; on a card torch's own CUDA counts
FIRST, LAST, STALE = "4.0.0b7", "4.0.0b36", "4.0.0b18"
LARGE = 0.02  # a change that has a row of its own
FORWARD, BACKWARD = "forward-history", "backward-history"
Call = tuple[str, str]  # group, case
Release = str


@dataclass(frozen=True)
class Swept:
    """The releases of the page that sweeps timed on one machine, oldest first, and the noise of each call."""

    records: Mapping[Release, Record]
    pools: Pools

    def rows(self, before: Release, after: Release) -> dict[Call, Row]:
        result = rows_between(self.records[before], self.records[after], self.pools)
        return {(row.group, row.case): row for row in result}

    def case(self, release: Release, call: Call) -> CaseRecord:
        return self.records[release].sidecar.groups[call[0]][call[1]]

    def level(self, release: Release, call: Call) -> float:
        """Log seconds, effects of rounds removed; NaN where none were taken."""
        levels = self.pool(call).levels.get(name_of(self.records[release].sidecar))
        return fmean(levels) if levels else math.nan

    def pool(self, call: Call) -> Pool:
        """Of the sweep that timed the newest release."""
        return self.pools[CallKey(*call, origin_of(self.case(LAST, call)))]

    @property
    def steps(self) -> list[tuple[Release, Release]]:
        return list(pairwise(self.records))

    @property
    def calls(self) -> list[Call]:
        groups = self.records[LAST].sidecar.groups
        return sorted(((name, case) for name in (FORWARD, BACKWARD) for case in groups[name]), key=in_order)


@dataclass(frozen=True)
class History:
    """All that the page is made from. `plain`: the plain libraries in the sweep of `first`, from the oldest release on; `codegen`:
    the exact record by release; `causes`: of two neighbours."""

    first: Swept
    plain: Swept
    second: Swept
    codegen: Mapping[Release, Record]
    causes: Mapping[tuple[Release, Release], Explanation]
    older: Mapping[Release, Record]

    def code(self, release: Release, kernel: str) -> CaseRecord:
        return self.codegen[release].sidecar.groups["codegen"][f"{ARCH}/{kernel}"]

    def loops(self, release: Release, key: str) -> CaseRecord:
        """Of a main kernel ("sm_90/fwd_d128_full"). Raises Fa4AsvError where they are not recorded."""
        return loops_of(self.codegen[release], key)

    @staticmethod
    def has_loops(key: str) -> bool:
        return CASES[key.partition("/")[2]].role == "main"


def loops_of(record: Record, key: str) -> CaseRecord:
    """The loops of a main kernel ("sm_90/fwd_d128_full"). Raises Fa4AsvError where they are not recorded."""
    result = record.sidecar.groups.get("loops", {}).get(key)
    if result is None:
        what = f"{record.release} {key} under {record.sidecar.toolchain.flavour}"
        raise Fa4AsvError(f"results/ has no loops of {what}: fa4-asv backfill --bench '^codegen.Loops'")
    return result


def in_order(call: Call) -> tuple[bool, int, int, str]:
    size = shape_of(call)
    return call[0] == BACKWARD, CLASSES.index(class_of(size)), size.head_dim, size.name


def shape_of(call: Call) -> SdpaShape:
    return SHAPES[call[1].partition("/")[2]]


def load(project: Project) -> History:
    manifest = Manifest.load(project.manifest)
    order = [release.version for release in manifest.releases]
    known = set(order[: order.index(LAST) + 1])

    def of(machine: str, flavour: str = FLAVOUR) -> dict[Release, Record]:
        result = recorded(project.results, manifest, flavour, machine=machine)
        return {each.release: each for each in result if each.release in known}

    def swept(machine: str) -> list[Swept]:
        """Of each flavour, with the noise of the history set's calls there; other sets have their own page."""
        flavours = [
            {
                name: _of_history_set(each)
                for name, each in of(machine, flavour).items()
                if FORWARD in each.sidecar.groups
            }
            for flavour in (FLAVOUR, PLAIN)
        ]
        pools = pools_of(each.sidecar for records in flavours for each in records.values())
        return [Swept(records, pools) for records in flavours]

    files = map(read_explanation, sorted((project.results / "nogpu").glob(f"*-{FLAVOUR}.cause")))
    causes = {(each.base.release, each.head.release): each for each in files}
    return History(*swept(MACHINE), swept(SECOND)[0], of("nogpu"), causes, of(OLDER))


def _of_history_set(record: Record) -> Record:
    groups = {name: record.sidecar.groups[name] for name in (FORWARD, BACKWARD)}
    return replace(record, sidecar=replace(record.sidecar, groups=groups))


def percent(share: float) -> str:
    return f"{share * 100:+.1f} %"


def interval(row: Row) -> str:
    assert row.low is not None and row.high is not None
    return f"{(row.low - 1) * 100:+.2f} to {(row.high - 1) * 100:+.2f} %"


def short(release: Release) -> str:
    return release.removeprefix("4.0.0")


def direction(call: Call) -> str:
    return call[0].partition("-")[0]


def named(call: Call) -> str:
    return f"`{shape_of(call).name}`"


def change(row: Row) -> float:
    assert row.ratio is not None
    return row.ratio - 1


def told(row: Row) -> bool:
    return row.verdict in ("faster", "slower")


def table(head: str, rows: Sequence[Sequence[str]], right: int = 99) -> list[str]:
    """Columns from the `right`-th on are figures."""
    titles = head.split(" | ")
    return [*markdown_head(titles, range(right, len(titles))), *map(markdown_row, rows)]
