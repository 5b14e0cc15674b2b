"""What changed from release to release, from the record alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.metrics import METRICS
from fa4_asv.history.manifest import Manifest
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
    """One metric of one case that differs between two releases, or a state that does."""

    before_release: str
    release: str
    case: str
    metric: str
    before: int | None
    after: int | None
    words: str = ""
    group: str = "codegen"

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
            return self.words
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
    return sorted(found, key=lambda change: (-change.weight, change.case, change.metric))


def case_changes(
    was: str, now: str, case: str, old: CaseRecord, new: CaseRecord, group: str = "codegen"
) -> list[Change]:
    """Every metric of one case that differs between two releases, or its state; nothing where one did not run."""
    if "not run" in (old.state, new.state):
        return []
    if old.state != new.state:
        words = f"{old.state} -> {new.state}" + (f": {new.why}" if new.why else "")
        return [Change(was, now, case, "state", None, None, words, group)]
    return [
        Change(was, now, case, metric, old.figures[metric], new.figures[metric], "", group)
        for metric in GROUPS[group].metrics
        if metric in old.figures.keys() & new.figures.keys() and old.figures[metric] != new.figures[metric]
    ]


def _run_cases(record: Record) -> set[str]:
    cases = record.sidecar.groups.get("codegen", {})
    return {case for case, found in cases.items() if found.state != "not run"}


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
        found = changes_between(before, after)
        shared = _run_cases(before) & _run_cases(after)
        console.print(f"[bold]{escape(before.release)} -> {escape(after.release)}[/bold]: ", end="")
        console.print(
            f"{len(found)} figures changed in {len({c.case for c in found})} of {len(shared)} kernels"
        )
        packages = toolchain_changes(before, after)
        console.print(f"  toolchain: {escape(', '.join(packages)) if packages else 'the same'}")
        if not found:
            continue
        table = Table("arch", "kernel", "metric", "before", "after", "change")
        table.columns[1].no_wrap = True  # a case's name is what a person types next
        for column in table.columns[3:]:
            column.justify = "right"
        for change in found[:limit]:
            arch, _, case = change.case.partition("/")
            title = METRICS[change.metric][1] if change.metric in METRICS else change.metric
            sides = ["" if side is None else f"{side:,}" for side in (change.before, change.after)]
            table.add_row(escape(arch), escape(case), title, *sides, escape(change.change))
        console.print(table)
        if len(found) > limit:
            console.print(f"  and {len(found) - limit} more (--limit)")


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
