"""An audit of the record: draws from it, makes each anew, compares, and stops in time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fa4_asv.backfill.anew import Records
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.project import Project
from fa4_asv.catalog.kernels import KERNEL_GROUPS
from fa4_asv.history.repository import NO_HISTORY, has_history, tree_of
from fa4_asv.integrity.acceptance import without_packages
from fa4_asv.integrity.audit import EXACT, KERNELS, PER_DRAW, Draw, Draws, Finding, chance, compared
from fa4_asv.record.explanation import Explanation, read_explanation
from fa4_asv.record.schema import Sidecar
from fa4_asv.record.store import Pair, all_pairs, sidecar_path

MINUTE = 60.0
_IN_TIME = 20  # kernels per draw where the time is short: fewer environments for as many kernels
_WORTH_A_FILE = 5  # kernels: for fewer no further environment is built when the time is nearly over


class Maker(Protocol):
    """What makes cases anew."""

    def records(self, side: Sidecar, cases: Mapping[str, tuple[str, ...]]) -> Records:
        """Raises Fa4AsvError where it cannot."""


@dataclass(frozen=True)
class Limit:
    """When an audit ends: after so many kernels, or when a few more would take longer than `minutes` in all."""

    kernels: int = 0
    minutes: float = 0.0


@dataclass(frozen=True)
class Checked:
    """What became of one draw: how many cases by group, what differs; or `why` they could not be made anew."""

    draw: Draw
    counts: Mapping[str, int]
    findings: tuple[Finding, ...] = ()
    why: str = ""
    seconds: float = 0.0


@dataclass
class Audit:
    """One audit of the files of machine `nogpu` whose commits are in the history here."""

    pairs: list[Pair]
    absent: int
    unsupported: list[Pair]
    causes: Mapping[Path, Explanation]
    draws: Draws
    checked: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, project: Project, seed: int, torch: str) -> Audit:
        """Raises Fa4AsvError where the record or the history cannot be read, or nothing can be made anew."""
        if not has_history(project):
            raise Fa4AsvError(NO_HISTORY)
        pairs = list(all_pairs(project.results, NOGPU))
        commits = {pair.sidecar.commit for pair in pairs}
        present = {commit for commit in commits if _is_here(project, commit)}
        here = [pair for pair in pairs if pair.sidecar.commit in present]
        packed = [pair for pair in here if pair.sidecar.toolchain.packages]
        if not packed:
            raise Fa4AsvError("no recorded file is of a commit that is here; run `fa4-asv history sync`")
        causes = {path: read_explanation(path) for path in sorted((project.results / NOGPU).glob("*.cause"))}
        unsupported = [pair for pair in here if not pair.sidecar.toolchain.packages]
        return cls(packed, len(pairs) - len(here), unsupported, causes, Draws(packed, seed, (torch,)))

    def flavours(self, project: Project) -> list[Finding]:
        """What is wrong with the files that say of a whole flavour that its commit does not have it."""
        return [
            Finding(sidecar_path(pair.path), "all", pair.sidecar.toolchain.flavour, what)
            for pair in self.unsupported
            for what in without_packages(pair, project)
        ]

    def run(
        self, maker: Maker, limit: Limit, tell: Callable[[Draw], None] = lambda _: None
    ) -> Iterator[Checked]:
        """Each draw, checked."""
        begin, number = time.monotonic(), 0
        while draw := self._next(limit, time.monotonic() - begin, number):
            tell(draw)
            started, number = time.monotonic(), number + 1
            checked = self._check(maker, draw)
            self.checked.update(checked.counts)
            yield Checked(
                checked.draw, checked.counts, checked.findings, checked.why, time.monotonic() - started
            )

    def _next(self, limit: Limit, spent: float, number: int) -> Draw | None:
        """At least one; then as many kernels as the limit allows."""
        if limit.kernels:
            left = limit.kernels - self.checked[KERNELS]
            return self.draws.next(min(PER_DRAW, left)) if left > 0 else None
        if not number:
            return self.draws.next(_IN_TIME)
        # A draw costs a third for its environment and processes, two thirds for its kernels.
        share = (limit.minutes * MINUTE - spent) / (spent / number)
        kernels = min(_IN_TIME, int(_IN_TIME * (1.5 * share - 0.5)))
        return self.draws.next(kernels) if kernels >= _WORTH_A_FILE else None

    def _check(self, maker: Maker, draw: Draw) -> Checked:
        try:
            anew = maker.records(draw.pair.sidecar, draw.cases)
        except Fa4AsvError as error:
            return Checked(draw, {}, why=str(error))
        broken = _nothing_works(draw, anew)
        if broken:
            return Checked(draw, {}, why=broken)
        findings = [
            finding
            for group, cases in draw.cases.items()
            for case in cases
            for finding in compared(draw.pair, self.causes, group, case, anew[group][case])
        ]
        return Checked(draw, draw.counts(), tuple(findings))

    def chances(self) -> dict[str, float]:
        """By group: with which chance so many cases hold one of 1 % wrong ones."""
        return {group: chance(self.checked[group], self.draws.population[group]) for group in EXACT}


def _is_here(project: Project, commit: str) -> bool:
    try:
        tree_of(project, commit)
    except Fa4AsvError:
        return False
    return True


def _nothing_works(draw: Draw, anew: Records) -> str:
    """Why every kernel is broken here that is recorded as measured, "" where one is not: then the fault is this machine's."""
    recorded = draw.pair.sidecar.groups
    made = [
        anew[group][case]
        for group in KERNEL_GROUPS
        for case in draw.cases.get(group, ())
        if recorded[group][case].state != "broken"
    ]
    return made[0].why if len(made) > 1 and all(record.state == "broken" for record in made) else ""
