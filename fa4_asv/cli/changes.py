"""`fa4-asv changes`: what changed between recorded releases, from the record alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.output import new_console, say_json
from fa4_asv.base.project import Project
from fa4_asv.cli.flavours import refuse_plain_on_card
from fa4_asv.compare.changes import (
    Record,
    counts,
    exact_changes,
    recorded,
    render,
    render_figures,
    told,
    toolchain_changes,
)
from fa4_asv.compare.neighbours import Step, render_steps, steps_json, steps_of
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.tables import rows_shown


@click.command()
@click.option("--flavour", type=click.Choice(["cu12", "cu13", "plain"]), default="cu13", show_default=True)
@click.option(
    "--toolchain", "policy", default="day", show_default=True, help="Toolchain policy of the series."
)
@click.option("--last", type=click.IntRange(2), default=2, show_default=True, help="Number of releases.")
@click.option("--limit", type=click.IntRange(0), help="Rows per table. Default: 12; with --all, all.")
@click.option(
    "--all", "every", is_flag=True, help="What is better, too, and what is too small or not judged."
)
@click.option("--figures", is_flag=True, help="Show the figures, too.")
@click.option("--json", "as_json", is_flag=True, help="Everything, machine-readable.")
@click.option("--machine", "-m", default=NOGPU, show_default=True, help="nogpu, or a machine with a sweep.")
def changes(
    flavour: str,
    policy: str,
    last: int,
    limit: int | None,
    every: bool,
    figures: bool,
    as_json: bool,
    machine: str,
) -> None:
    """What changed between recorded releases: figures that need no GPU, or the run time on a machine.

    With --machine, each release that a sweep timed there is compared with the one before: faster, slower,
    same or unclear. docs/verdicts.md has the rule.

    \b
    Examples:
      fa4-asv changes
      fa4-asv changes --machine h200-sxm --last 30
      fa4-asv changes --last 6 --flavour cu12 --all
      fa4-asv changes --last 33 --json
    """
    limit = rows_shown(limit, every, 12)
    project = Project.find()
    refuse_plain_on_card(machine, [flavour])
    manifest = Manifest.load(project.manifest)
    if machine != NOGPU:
        _on_the_clock(steps_of(project, manifest, machine, flavour, policy, last), limit, every, as_json)
        return
    records = recorded(project.results, manifest, flavour, policy)[-last:]
    if not as_json:
        console = new_console()
        if figures and records:
            render_figures(records, console, limit)
        render(records, console, limit, every)
        return
    if len(records) < 2:
        raise Fa4AsvError(f"{len(records)} recorded release(s) of this series; a comparison needs two")
    pairs = [_json(before, after) for before, after in zip(records, records[1:], strict=False)]
    say_json(pairs)


def _json(before: Record, after: Record) -> dict[str, Any]:
    """Every change between two neighbours; `worse` and `better` count figures, as `fa4-asv compare` does."""
    rows = exact_changes(before, after)
    worse, better = counts(rows)
    return {
        "before": before.release,
        "after": after.release,
        "toolchain": toolchain_changes(before, after),
        "worse": worse.figures,
        "better": better.figures,
        "changes": [
            {
                "group": change.group,
                "case": change.case,
                "metric": change.metric or "state",
                "before": change.base,
                "after": change.head,
                "change": told(change),
                "effect": change.effect,
            }
            for change in rows
        ],
    }


def _on_the_clock(steps: Sequence[Step], limit: int | None, every: bool, as_json: bool) -> None:
    if as_json:
        say_json(steps_json(steps))
    else:
        render_steps(steps, new_console(), limit, every)
