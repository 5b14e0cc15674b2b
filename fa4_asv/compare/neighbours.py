"""Along the history of one machine: which releases are faster or slower than the one before, by the rule of a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.project import Project
from fa4_asv.compare.changes import Record, recorded, tell_hidden, tell_toolchain, toolchain_changes
from fa4_asv.compare.formats import row_json, table
from fa4_asv.compare.policy import BETTER, WORSE
from fa4_asv.compare.rows import Measured, Row, compare, of_effect
from fa4_asv.compare.sweeps import Pools, pools_of, sidecars_of
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.turns import is_swept


@dataclass(frozen=True)
class Step:
    """Two neighbours in the record of a machine, and a row for each call that a sweep timed of either."""

    before: Record
    after: Record
    rows: tuple[Row, ...]

    @property
    def counts(self) -> Counter[str]:
        return Counter(row.verdict for row in self.rows)


def steps_of(
    project: Project, manifest: Manifest, machine: str, flavour: str, policy: str, last: int
) -> list[Step]:
    """The steps between the `last` releases of a machine that sweeps timed, oldest first.

    Raises Fa4AsvError where there are not two.
    """
    records = [
        record
        for record in recorded(project.results, manifest, flavour, policy, machine)
        if any(is_swept(name) and cases for name, cases in record.sidecar.groups.items())
    ][-last:]
    if len(records) < 2:
        raise Fa4AsvError(
            f"a sweep has timed {len(records)} release(s) on machine {machine!r} ({flavour}, toolchain {policy}); "
            "a comparison needs two: see `fa4-asv sweep --help`"
        )
    pools = pools_of(sidecars_of(project.results, machine))
    return [Step(*pair, rows_between(*pair, pools)) for pair in zip(records, records[1:], strict=False)]


def rows_between(before: Record, after: Record, pools: Pools) -> tuple[Row, ...]:
    base, head = (Measured(record.sidecar.groups, record.versions, pools) for record in (before, after))
    return tuple(row for row in compare(base, head, exact=False) if is_swept(row.group))


def render_steps(steps: Sequence[Step], console: Console, limit: int | None, every: bool = False) -> None:
    """Each step in a line, then what is slower; with `every` what is faster and unclear, too. `limit` rows each."""
    for step in steps:
        verdicts = ", ".join(f"{count} {name}" for name, count in step.counts.most_common())
        step_name = f"{one_line(step.before.release)} -> {one_line(step.after.release)}"
        console.print(Text(f"{step_name}: {verdicts}", style="bold"))
        tell_toolchain(toolchain_changes(step.before, step.after), console, every)
        table("Worse", of_effect(step.rows, WORSE), console, limit)
        better = of_effect(step.rows, BETTER)
        rest = [row for row in step.rows if not row.effect and row.verdict != "same"]
        if every:
            table("Better", better, console, limit)
            table("Not told; docs/verdicts.md says what to do", rest, console, limit)
        else:
            tell_hidden({"better": len(better), "not told": len(rest)}, console)


def steps_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Every row of every step, in the form of `fa4-asv compare --format json`."""
    return [
        {
            "before": step.before.release,
            "after": step.after.release,
            "toolchain": toolchain_changes(step.before, step.after),
            "counts": dict(sorted(step.counts.items())),
            "rows": [row_json(row) for row in step.rows],
        }
        for step in steps
    ]
