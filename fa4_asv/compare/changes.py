"""What changed from release to release, from the record alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.compare import policy
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.formatting import counted
from fa4_asv.record.schema import CaseRecord, Sidecar
from fa4_asv.record.store import all_pairs, series_of

# Of what is often nothing, a ratio says little below this: 0 to 8 bytes is less than 8 to 480.
_LITTLE = {"spill_bytes": 64.0, "local_loads": 16.0, "local_stores": 16.0}


def weight(before: float | None, after: float | None, metric: str = "") -> float:
    """How far apart two figures are, the same for either direction; a state, which has none, is above all."""
    if before is None or after is None:
        return float("inf")
    low, high = (value + _LITTLE.get(metric, 0.0) for value in sorted((before, after)))
    return high / low if low else 1e6 + high


@dataclass(frozen=True)
class Change:
    """One metric of one case that differs between two releases, or (metric "state") its state does.

    `states` are those of the case before and after, `words` the reason of the later one where they differ.
    """

    before_release: str
    release: str
    case: str
    metric: str
    before: int | None
    after: int | None
    words: str = ""
    group: str = "codegen"
    states: tuple[str, str] = ("measured", "measured")

    @property
    def effect(self) -> str:
        """Worse, better or neither, as the policy says."""
        if self.before is None or self.after is None:
            return policy.effect_of_states(*self.states)
        return policy.effect_of_figures(self.metric, self.before, self.after)

    @property
    def key(self) -> tuple[str, str]:
        """What changed: a kernel or a call of an architecture."""
        return self.group, self.case

    @property
    def weight(self) -> float:
        """How far apart the two sides are; the same for either direction, states above figures."""
        return weight(self.before, self.after, self.metric)

    @property
    def change(self) -> str:
        """Percent, or words where a percentage says nothing."""
        if self.before is None or self.after is None:
            return " -> ".join(self.states) + (f": {self.words}" if self.words else "")
        if self.before == 0:
            return "new"
        if self.after == 0:
            return "gone"
        return f"{self.after / self.before - 1:+.1%}"


@dataclass(frozen=True)
class Record:
    """One release's sidecar, and the versions of its benchmarks as asv keeps them."""

    release: str
    sidecar: Sidecar
    versions: Mapping[str, str] = field(default_factory=dict)


def recorded(
    root: Path, manifest: Manifest, flavour: str, policy: str = "day", machine: str = NOGPU
) -> list[Record]:
    """The releases in `root` (a results folder) of one series of a machine, oldest first.

    Raises Fa4AsvError naming a file that cannot be read.
    """
    order = {release.commit: index for index, release in enumerate(manifest.releases)}
    found = []
    for pair in all_pairs(root, machine):
        commit, *series = series_of(pair.sidecar)
        if series == [flavour, policy] and commit in order:
            found.append(Record(pair.sidecar.release, pair.sidecar, pair.result.versions))
    return sorted(found, key=lambda record: order[record.sidecar.commit])


def changes_between(before: Record, after: Record, group: str = "codegen") -> list[Change]:
    """Every metric and state of an exact group that differs, the largest first."""
    old, new = before.sidecar.groups.get(group, {}), after.sidecar.groups.get(group, {})
    found: list[Change] = []
    for case in sorted(old.keys() & new.keys()):
        found += case_changes(before.release, after.release, case, old[case], new[case], group)
    return _largest_first(one for one in found if _means_the_same(before, after, one))


def exact_changes(before: Record, after: Record) -> list[Change]:
    """The same of all exact groups together."""
    groups = [group.name for group in GROUPS.values() if group.exact]
    return _largest_first(change for name in groups for change in changes_between(before, after, name))


def _largest_first(changes: Iterable[Change]) -> list[Change]:
    return sorted(changes, key=lambda change: (-change.weight, change.case, change.metric))


def _means_the_same(before: Record, after: Record, change: Change) -> bool:
    if change.metric == "state":
        return True
    return is_comparable(before.versions, after.versions, GROUPS[change.group].benchmark(change.metric))


def is_comparable(before: Mapping[str, str], after: Mapping[str, str], benchmark: str) -> bool:
    """Whether both sides measured with the same version of a benchmark; an unknown version is no difference."""
    versions = {side[benchmark] for side in (before, after) if side.get(benchmark)}
    return len(versions) < 2


def counts(changes: Iterable[Change]) -> tuple[policy.Count, policy.Count]:
    """Worse, and better."""
    effects = [(change.key, change.effect) for change in changes]
    return policy.count_of(effects, policy.WORSE), policy.count_of(effects, policy.BETTER)


def case_changes(
    was: str, now: str, case: str, old: CaseRecord, new: CaseRecord, group: str = "codegen"
) -> list[Change]:
    """Every metric of one case that differs between two releases, or its state; nothing where one did not run."""
    if "not run" in (old.state, new.state):
        return []
    if old.state != new.state:
        return [Change(was, now, case, "state", None, None, new.why, group, (old.state, new.state))]
    return [
        Change(was, now, case, metric, old.figures[metric], new.figures[metric], "", group)
        for metric in GROUPS[group].metrics
        if metric in old.figures.keys() & new.figures.keys() and old.figures[metric] != new.figures[metric]
    ]


def _run_cases(record: Record) -> set[tuple[str, str]]:
    groups = {name: record.sidecar.groups.get(name, {}) for name, group in GROUPS.items() if group.exact}
    return {
        (name, case)
        for name, cases in groups.items()
        for case, found in cases.items()
        if found.state != "not run"
    }


def toolchain_changes(before: Record, after: Record) -> list[str]:
    """Packages whose version differs, as "nvidia-cutlass-dsl 4.5.2 -> 4.6.0.dev0"."""
    moved = package_changes(before.sidecar.toolchain.packages, after.sidecar.toolchain.packages)
    return [f"{name} {old or '-'} -> {new or '-'}" for name, (old, new) in moved.items()]


def package_changes(old: dict[str, str], new: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Packages whose version differs: both versions, "" on a side that lacks the package."""
    return {
        name: (old.get(name, ""), new.get(name, ""))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def render(records: Sequence[Record], console: Console, limit: int = 12) -> None:
    """Tables of what changed between neighbours, `limit` rows each."""
    if len(records) < 2:
        raise Fa4AsvError(f"{len(records)} recorded release(s) of this series; a comparison needs two")
    for before, after in zip(records, records[1:], strict=False):
        found = exact_changes(before, after)
        shared = _run_cases(before) & _run_cases(after)
        worse, better = counts(found)
        console.print(f"[bold]{escape(before.release)} -> {escape(after.release)}[/bold]: ", end="")
        console.print(
            f"{counted(len(found), 'figure')} changed in {len({c.key for c in found})} of {len(shared)} cases; "
            f"{_count(worse)} worse, {_count(better)} better"
        )
        packages = toolchain_changes(before, after)
        console.print(f"  toolchain: {escape(', '.join(packages)) if packages else 'the same'}")
        if not found:
            continue
        table = Table("case", "metric", "before", "after", "change", "effect")
        table.columns[0].no_wrap = True  # a case's name is what a person types next
        for column in table.columns[2:5]:
            column.justify = "right"
        for change in found[:limit]:
            metrics = GROUPS[change.group].metrics
            title = metrics[change.metric][1] if change.metric in metrics else change.metric
            sides = ["" if side is None else f"{side:,}" for side in (change.before, change.after)]
            table.add_row(escape(change.case), title, *sides, escape(change.change), change.effect)
        console.print(table)
        if len(found) > limit:
            console.print(f"  and {len(found) - limit} more (--limit)")


def _count(found: policy.Count) -> str:
    """ "4 figures of 2 cases", or "none"."""
    if not found.figures:
        return "none"
    return f"{counted(found.figures, 'figure')} of {counted(found.cases, 'case')}"


def render_figures(records: Sequence[Record], console: Console, limit: int = 16) -> None:
    """One table of the kernels that all `records` measured: instructions, and spills where there are any."""
    groups = [record.sidecar.groups.get("codegen", {}) for record in records]
    shared = [
        case
        for case in sorted(set.intersection(*(set(group) for group in groups)))
        if all(group[case].state == "measured" for group in groups)
    ]
    if not shared:
        return
    table = Table("arch", "kernel", *(escape(record.release) for record in records))
    for column in table.columns[2:]:
        column.justify = "right"
    for case in shared[:limit]:
        arch, _, kernel = case.partition("/")
        table.add_row(arch, escape(kernel), *(_cell(group[case].figures) for group in groups))
    console.print("SASS instructions of each kernel (and bytes spilled per thread):")
    console.print(table)
    if len(shared) > limit:
        console.print(f"  and {len(shared) - limit} more kernels")


def _cell(figures: dict[str, int]) -> str:
    spilled = f" ({figures['spill_bytes']} B)" if figures.get("spill_bytes") else ""
    return f"{figures['instructions']:,}{spilled}" if "instructions" in figures else "?"
