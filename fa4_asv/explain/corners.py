"""Why kernels changed between two commits: the four corners of source and toolchain, and a verdict each.

The corners at base and head come from the record where they stand in it; the two cross pairs are compiled
(`pairs`), for the kernels that changed only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import without_colours
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS, Case, key_of
from fa4_asv.catalog.metrics import METRICS
from fa4_asv.compare.rows import case_changes
from fa4_asv.explain.opcodes import by_role
from fa4_asv.explain.pairs import Workshop
from fa4_asv.history import repository
from fa4_asv.history.source import Source
from fa4_asv.history.toolchain import Lock, Policy
from fa4_asv.record.explanation import MACHINE, Explanation, Side, Verdict, decide
from fa4_asv.record.formatting import counted
from fa4_asv.record.schema import CaseRecord, Records
from fa4_asv.record.store import series_sidecars

Tell = Callable[[str], None]
CODEGEN = GROUPS["codegen"]


@dataclass(frozen=True)
class Corner:
    """A source and the toolchain of its day."""

    source: Source
    lock: Lock

    @property
    def name(self) -> str:
        return name_of(self.source)

    @property
    def side(self) -> Side:
        source, lock = self.source, self.lock
        return Side(source.commit, source.release, lock.digest, dict(sorted(lock.packages.items())))


@dataclass(frozen=True)
class Corners:
    """Records of the kernels that changed: all four corners by key ("sm_100/fwd_d128_full")."""

    base: Records
    head: Records
    source: Records
    toolchain: Records


def name_of(source: Source) -> str:
    """The release, or the start of the commit's hash."""
    return source.release or source.commit[:10]


def corner(project: Project, source: Source, flavour: str) -> Corner:
    """`source` with the toolchain of its day. Raises UnsupportedFlavour, Fa4AsvError."""
    return Corner(source, source.lock(project, flavour, Policy("day")))


def selected(bench: Sequence[str], arches: Sequence[str]) -> list[Case]:
    """The codegen cases that asv's patterns select, on `arches` (none: all). Raises Fa4AsvError on none."""
    for pattern in bench:
        try:
            re.compile(pattern)
        except re.error as error:
            raise Fa4AsvError(f"--bench {pattern!r} is not a regular expression: {error}") from None
    cases = [case for case in CODEGEN.selected(bench) if not arches or case[0] in arches]
    if not cases:
        raise Fa4AsvError(
            f"no kernel is selected by --bench {' '.join(map(repr, bench))}; patterns match names such as "
            "codegen.Kernels.track_spill_bytes('sm_100', 'fwd_d128_full')"
        )
    return cases


def corners(shop: Workshop, base: Corner, head: Corner, cases: Sequence[Case], tell: Tell) -> Corners:
    """All four corners of those of `cases` that changed."""
    old, new = (_day(shop, side, cases, tell) for side in (base, head))
    changed = [
        case for case in cases if case_changes(CODEGEN, key_of(case), old[key_of(case)], new[key_of(case)])
    ]
    keys = [key_of(case) for case in changed]
    tell(
        f"{len(changed)} of {counted(len(cases), 'kernel')} changed from {base.name} to {head.name} ({shop.flavour})"
    )

    def cross(source: Corner, toolchain: Corner, what: str) -> Records:
        if changed:
            tell(
                f"{what}: {source.name} compiled with the toolchain of {toolchain.name}, {counted(len(keys), 'kernel')}"
            )
        return shop.records(source.source, toolchain.lock.packages, changed)

    return Corners(
        {key: old[key] for key in keys},
        {key: new[key] for key in keys},
        cross(head, base, "new source, old toolchain"),
        cross(base, head, "old source, new toolchain"),
    )


def _day(shop: Workshop, side: Corner, cases: Sequence[Case], tell: Tell) -> Records:
    """Records of one side from `results/`, what is missing there compiled."""
    recorded: Records = {}
    folder = shop.project.results / MACHINE
    for sidecar in series_sidecars(folder, side.source.commit, shop.flavour, "day"):
        if sidecar.toolchain.digest == side.lock.digest:
            recorded |= sidecar.groups.get(CODEGEN.name, {})
    have = {key: record for key, record in recorded.items() if record.state != "not run"}
    lacking = [case for case in cases if key_of(case) not in have]
    if lacking:
        tell(
            f"{side.name} lacks {counted(len(lacking), 'kernel')} in the record ({shop.flavour}): compiled aside"
        )
        have |= shop.records(side.source, side.lock.packages, lacking)
    chosen = [have[key_of(case)] for case in cases]
    if all(record.state == "broken" for record in chosen):
        raise Fa4AsvError(f"no kernel of {side.name} compiles ({shop.flavour}): {chosen[0].why}")
    return have


def explanation(project: Project, flavour: str, base: Corner, head: Corner, corners: Corners) -> Explanation:
    """Verdicts and opcodes of `corners`; culprits are named elsewhere."""
    cases: dict[str, dict[str, Verdict[int]]] = {}
    states: dict[str, Verdict[str]] = {}
    opcodes = {}
    for key, old in corners.base.items():
        new, by_source, by_toolchain = corners.head[key], corners.source[key], corners.toolchain[key]
        if old.state != new.state:
            states[key] = _states(old, new, by_source, by_toolchain)
            continue
        cases[key] = {
            row.metric: _figures(row.metric, old, new, by_source, by_toolchain)
            for row in case_changes(CODEGEN, key, old, new)
        }
        was, now = by_role(old.opcodes), by_role(new.opcodes)
        opcodes[key] = {role: (was[role], now[role]) for role in was if was[role] or now[role]}
    return Explanation(
        flavour,
        base.side,
        head.side,
        tuple(repository.changed_files(project, base.source.commit, head.source.commit)),
        cases,
        states,
        opcodes,
    )


def _figures(
    metric: str, old: CaseRecord, new: CaseRecord, source: CaseRecord, toolchain: CaseRecord
) -> Verdict[int]:
    corner_s, corner_t = source.figures.get(metric), toolchain.figures.get(metric)
    before, after = old.figures[metric], new.figures[metric]
    why = _missing(("new source with old toolchain", source), ("old source with new toolchain", toolchain))
    return Verdict(before, after, corner_s, corner_t, decide(before, after, corner_s, corner_t), why)


def _states(old: CaseRecord, new: CaseRecord, source: CaseRecord, toolchain: CaseRecord) -> Verdict[str]:
    # A cross pair that breaks in other words than a broken side does says nothing of the change.
    sides = (old.state, new.state)
    known = {without_colours(record.why) for record in (old, new) if record.state == "broken"}
    crossed = [
        r.state if r.state != "broken" or without_colours(r.why) in known else None
        for r in (source, toolchain)
    ]
    message = "; ".join(
        dict.fromkeys(f"{r.state}: {without_colours(r.why)}" for r in (old, new, source, toolchain) if r.why)
    )
    return Verdict(*sides, crossed[0], crossed[1], decide(*sides, crossed[0], crossed[1]), message)


def _missing(*pairs: tuple[str, CaseRecord]) -> str:
    """What stood in the way of a cross pair, "" where both were measured."""
    return "; ".join(f"{what}: {r.state}: {r.why}" for what, r in pairs if r.state != "measured")


def leading(explanation: Explanation, cause: str) -> dict[str, str]:
    """Case -> the first of METRICS (spills first) that `cause` moved: the figure its culprit is sought by."""
    return {
        case: next(metric for metric in METRICS if metric in metrics and metrics[metric].cause == cause)
        for case, metrics in explanation.cases.items()
        if any(verdict.cause == cause for verdict in metrics.values())
    }
