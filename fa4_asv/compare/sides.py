"""Which records of two commits stand against each other: same machine, flavour, toolchain policy and suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.compare.commits import Commit, Plan
from fa4_asv.compare.policy import BETTER, WORSE
from fa4_asv.compare.prediction import CARD, Predictions, can_predict, predictions_of
from fa4_asv.compare.rows import Measured, Row, compare, of_effect
from fa4_asv.compare.sweeps import Pools, pools_of, sidecars_of
from fa4_asv.record.schema import SUITE, Sidecar, package_changes
from fa4_asv.record.store import all_pairs, iter_results, sidecar_path, sound_pairs
from fa4_asv.record.turns import is_of_a_sweep, is_swept

# What a worker says when its process did not even start: FA4 could not be imported.
_NO_START = "the process ended with exit code"


@dataclass(frozen=True)
class Side:
    """One commit and what is recorded of it; `python` is asv's label of the interpreter."""

    commit: Commit
    sidecar: Sidecar
    measured: Measured
    python: str


@dataclass(frozen=True)
class Comparison:
    """Two sides under one flavour on one machine, and the rows between them; `rule` of their toolchains.

    `predicted` are times where no card is at hand: shown, never judged.
    """

    base: Side
    head: Side
    flavour: str
    machine: str
    rule: str
    rows: tuple[Row, ...]
    predicted: Predictions | None = None

    @property
    def worse(self) -> list[Row]:
        return of_effect(self.rows, WORSE)

    @property
    def better(self) -> list[Row]:
        return of_effect(self.rows, BETTER)

    @property
    def counts(self) -> Counter[str]:
        """How many rows have each verdict."""
        return Counter(row.verdict for row in self.rows)

    @property
    def packages(self) -> dict[str, tuple[str, str]]:
        """Packages of the toolchains whose version differs: base's, head's."""
        return package_changes(self.base.sidecar.toolchain.packages, self.head.sidecar.toolchain.packages)


def held_against(
    results: Path,
    commits: tuple[Commit, Commit],
    flavour: str,
    machine: str,
    plan: Plan,
    bench: Sequence[str] = (),
) -> Comparison:
    """Compare what is recorded below `results`, under the first of the plan's policies that both sides have.

    Raises Fa4AsvError, one line, where the record does not allow a comparison.
    """
    recorded = [_recorded(results, commit, flavour, machine) for commit in commits]
    sides = _pair(recorded, plan)
    if sides is None:
        raise Fa4AsvError(_nothing_common(results, commits, recorded, flavour, machine, plan))
    base, head = sides
    for side in sides:
        refuse_unusable(side, bench)
    pools = _pools(results, machine, sides)
    measured = [replace(side.measured, pools=pools) for side in sides]
    rows = compare(measured[0], measured[1], machine == NOGPU, bench)
    if not rows:
        raise Fa4AsvError(
            f"no figure of {base.commit.ref!r} or {head.commit.ref!r} is selected; try another --bench"
        )
    predicted = _predicted(results, commits, flavour, plan, sides) if _shows_kernels(rows) else None
    return Comparison(base, head, flavour, machine, plan.why, tuple(rows), predicted)


def _shows_kernels(rows: Sequence[Row]) -> bool:
    return any(row.group in ("codegen", "loops") for row in rows)


def _predicted(
    results: Path,
    commits: tuple[Commit, Commit],
    flavour: str,
    plan: Plan,
    sides: tuple[Side, Side],
) -> Predictions | None:
    """What a model says of their times; what the card itself says, where it timed both, stands beside it."""
    base, head = (side.measured.groups for side in sides)
    if not can_predict(flavour, base, head):
        return None
    clocked = _pair([_recorded(results, commit, flavour, CARD) for commit in commits], plan)
    rows: list[Row] = []
    if clocked:
        pools = _pools(results, CARD, clocked)
        old, new = (replace(side.measured, pools=pools) for side in clocked)
        rows = [row for row in compare(old, new, exact=False) if is_swept(row.group)]
    return predictions_of(results, base, head, {row.key: row for row in rows if row.metric == "seconds"})


def _pools(results: Path, machine: str, sides: Sequence[Side]) -> Pools:
    """The noise of each call from all that is recorded of the machine; nothing where no sweep timed the sides."""
    groups = [group for side in sides for group in side.measured.groups.values()]
    if not any(is_of_a_sweep(record) for group in groups for record in group.values()):
        return {}
    return pools_of(sidecars_of(results, machine))


def _pair(sides: Sequence[Sequence[Side]], plan: Plan) -> tuple[Side, Side] | None:
    """Base and head under the same policy and Python, the newest Python first."""
    for policy in plan.policies:
        for base in sorted(sides[0], key=lambda side: side.python, reverse=True):
            for head in sides[1]:
                names = {side.sidecar.toolchain.policy for side in (base, head)}
                digests = {side.sidecar.toolchain.digest for side in (base, head)}
                if names != {policy} or base.python != head.python:
                    continue
                if not plan.same or policy != "day" or len(digests) == 1:
                    return base, head
    return None


def _recorded(results: Path, commit: Commit, flavour: str, machine: str) -> list[Side]:
    """Everything recorded of a commit under a flavour on a machine, one entry per policy and Python."""
    sides = []
    for pair in all_pairs(results, machine, lambda path: path.name.startswith(commit.hash[:8])):
        path, result, sidecar = pair.path, pair.result, pair.sidecar
        if sidecar.commit != commit.hash or sidecar.toolchain.flavour != flavour:
            continue
        _same_suite(path, sidecar)
        measured = Measured(sidecar.groups, result.versions)
        sides.append(Side(commit, sidecar, measured, result.python))
    return sides


def refuse_other_suites(results: Path, commits: tuple[Commit, Commit], machine: str) -> None:
    """Raises Fa4AsvError before anything is measured that could not be compared. Damaged files are no matter:
    they are measured again."""
    names = tuple(commit.hash[:8] for commit in commits)
    for pair in sound_pairs(results, machine, lambda path: path.name.startswith(names)):
        _same_suite(pair.path, pair.sidecar)


def _same_suite(path: Path, sidecar: Sidecar) -> None:
    if sidecar.suite != SUITE:
        raise Fa4AsvError(
            f"{sidecar_path(path).name} was written by suite {sidecar.suite!r}, this is suite {SUITE!r}: "
            "figures of different suites are not comparable; delete the pair and it is measured again"
        )


def refuse_unusable(side: Side, bench: Sequence[str]) -> None:
    """Raises Fa4AsvError where nothing of this FA4 runs: that is no verdict on figures."""
    chosen = [
        record
        for name, records in side.measured.groups.items()
        if name in GROUPS
        for case, record in records.items()
        if record.state != "not run" and GROUPS[name].selected_metrics(tuple(case.split("/")), bench)
    ]
    broken = [record for record in chosen if record.state == "broken"]
    if not broken or len(broken) < len(chosen):
        return
    message, count = Counter(record.why for record in broken).most_common(1)[0]
    named = f"{side.commit.ref!r} ({side.commit.hash[:10]})"
    if all(record.why.startswith(_NO_START) for record in broken):
        reason = message.removeprefix(_NO_START).partition(": ")[2] or message
        raise Fa4AsvError(f"{named} does not import, so there is nothing to compare: {reason}")
    if count > 1:
        raise Fa4AsvError(
            f"nothing of {named} works on this machine, so there is nothing to compare: "
            f"all {len(broken)} cases are broken, most with: {message}"
        )


def _nothing_common(
    results: Path,
    commits: tuple[Commit, Commit],
    recorded: Sequence[Sequence[Side]],
    flavour: str,
    machine: str,
    plan: Plan,
) -> str:
    """Why no pair was found, in one line."""
    if all(recorded):
        held = [
            f"{commit.ref!r} under {', '.join(sorted({s.sidecar.toolchain.policy for s in sides}))}"
            for commit, sides in zip(commits, recorded, strict=True)
        ]
        return (
            f"no toolchain and Python common to both on {machine} ({flavour}): {'; '.join(held)}; "
            f"asked for {' or '.join(plan.policies)}; run without --no-run"
        )
    homes = [_machines(results, commit, flavour) for commit in commits]
    held = [
        f"{commit.ref!r} is on {', '.join(names) or 'none'}"
        for commit, names in zip(commits, homes, strict=True)
    ]
    common = sorted(set(homes[0]) & set(homes[1]))
    where = "" if machine == NOGPU else ", on that machine"
    advice = f"try --machine {common[0]}" if common else f"run without --no-run{where}"
    return f"machine {machine!r} does not hold both sides ({flavour}): {'; '.join(held)}; {advice}"


def _machines(results: Path, commit: Commit, flavour: str) -> list[str]:
    names = {
        path.parent.name
        for path in iter_results(results)
        if path.name.startswith(commit.hash[:8]) and f"flavour{flavour}" in path.name
    }
    return sorted(names)
