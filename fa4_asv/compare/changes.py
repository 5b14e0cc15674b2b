"""What changed from release to release, from the record alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.compare import policy
from fa4_asv.compare.rows import Measured, Row, changed
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.formatting import compiler_first, counted, moved, relative
from fa4_asv.record.schema import Sidecar, package_changes
from fa4_asv.record.store import all_pairs, series_of
from fa4_asv.record.tables import print_table

_HEADS = ("case", "metric", "before", "after", "change", "effect")
_ORDER = (policy.WORSE, policy.BETTER, policy.NEITHER)


def told(row: Row) -> str:
    """A change as text: of states with the reason of the later one, else in percent."""
    if row.states:
        return " -> ".join(row.states) + (f": {row.whys[1]}" if row.whys[1] else "")
    return relative(row.base or 0.0, row.head or 0.0)


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
    records = []
    for pair in all_pairs(root, machine):
        commit, *series = series_of(pair.sidecar)
        if series == [flavour, policy] and commit in order:
            records.append(Record(pair.sidecar.release, pair.sidecar, pair.result.versions))
    return sorted(records, key=lambda record: order[record.sidecar.commit])


def exact_changes(before: Record, after: Record) -> list[Row]:
    """Every metric and state of an exact group that differs and means the same on both sides, the largest first."""
    base, head = (Measured(record.sidecar.groups, record.versions) for record in (before, after))
    return sorted(changed(base, head), key=lambda row: (-row.weight, row.case, row.metric))


def changes_between(before: Record, after: Record, group: str = "codegen") -> list[Row]:
    """Those of one group."""
    return [row for row in exact_changes(before, after) if row.group == group]


def counts(changes: Iterable[Row]) -> tuple[policy.Count, policy.Count]:
    """Worse, and better."""
    effects = [(change.key, change.effect) for change in changes]
    return policy.count_of(effects, policy.WORSE), policy.count_of(effects, policy.BETTER)


def _run_cases(record: Record) -> set[tuple[str, str]]:
    groups = {name: record.sidecar.groups.get(name, {}) for name, group in GROUPS.items() if group.exact}
    return {
        (name, case)
        for name, cases in groups.items()
        for case, record in cases.items()
        if record.state != "not run"
    }


def toolchain_changes(before: Record, after: Record) -> list[str]:
    """Packages whose version differs, as "nvidia-cutlass-dsl 4.5.2 -> 4.6.0.dev0"."""
    old, new = (record.sidecar.toolchain.packages for record in (before, after))
    return moved(package_changes(old, new))


def render(records: Sequence[Record], console: Console, limit: int | None = 12, every: bool = False) -> None:
    """What changed between neighbours: a summary, then what is worse; the rest, too, with `every`. `limit` rows each."""
    if len(records) < 2:
        raise Fa4AsvError(f"{len(records)} recorded release(s) of this series; a comparison needs two")
    for before, after in zip(records, records[1:], strict=False):
        found_rows = exact_changes(before, after)
        shared = _run_cases(before) & _run_cases(after)
        worse, better = counts(found_rows)
        console.print(
            f"[bold]{escape(before.release)} -> {escape(after.release)}[/bold]: "
            f"{counted(len(found_rows), 'figure')} changed in {len({c.key for c in found_rows})} of {len(shared)} cases; "
            f"{_count(worse)} worse, {_count(better)} better"
        )
        tell_toolchain(toolchain_changes(before, after), console, every)
        rows = [
            [
                change.case,
                GROUPS[change.group].metrics[change.metric][1] if change.metric else "state",
                *("" if side is None else f"{side:,}" for side in (change.base, change.head)),
                told(change),
                change.effect,
            ]
            for change in sorted(found_rows, key=lambda row: _ORDER.index(row.effect))
            if every or change.effect == policy.WORSE
        ]
        print_table(console, _HEADS, rows, limit, numbers=range(2, 5), whole=0, more="more (--all)")
        if not every:
            neither = len(found_rows) - worse.figures - better.figures
            tell_hidden({"better": better.figures, "too small or not judged": neither}, console)


def tell_hidden(counts: Mapping[str, int], console: Console) -> None:
    """What `--all` would show, by number; nothing where that is nothing."""
    if parts := [f"{count} {name}" for name, count in counts.items() if count]:
        console.print(f"  --all shows {', '.join(parts)}")


def tell_toolchain(packages: Sequence[str], console: Console, every: bool) -> None:
    """Which packages moved: the compiler alone without `every`."""
    names = ", ".join(packages) if every else compiler_first(packages)
    console.print(f"  toolchain: {escape(names) or 'the same'}")


def _count(count: policy.Count) -> str:
    """ "4 figures of 2 cases", or "none"."""
    if not count.figures:
        return "none"
    return f"{counted(count.figures, 'figure')} of {counted(count.cases, 'case')}"


def render_figures(records: Sequence[Record], console: Console, limit: int | None = 16) -> None:
    """One table of the kernels that all `records` measured: instructions, and spills where there are any."""
    groups = [record.sidecar.groups.get("codegen", {}) for record in records]
    shared = [
        case
        for case in sorted(set.intersection(*(set(group) for group in groups)))
        if all(group[case].state == "measured" for group in groups)
    ]
    if not shared:
        return
    rows = [[*case.split("/", 1), *(_cell(group[case].figures) for group in groups)] for case in shared]
    heads = ["arch", "kernel", *(record.release for record in records)]
    console.print("SASS instructions of each kernel (and bytes spilled per thread):")
    print_table(console, heads, rows, limit, range(2, len(heads)), more="more kernels")


def _cell(figures: dict[str, int]) -> str:
    spilled = f" ({figures['spill_bytes']} B)" if figures.get("spill_bytes") else ""
    return f"{figures['instructions']:,}{spilled}" if "instructions" in figures else "?"
