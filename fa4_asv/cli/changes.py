"""`fa4-asv changes`: what changed between recorded releases, from the record alone."""

from __future__ import annotations

import json

import click
from rich.console import Console

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.compare.changes import changes_between, recorded, render, render_figures, toolchain_changes
from fa4_asv.history.manifest import Manifest


@click.command()
@click.option("--flavour", type=click.Choice(["cu12", "cu13"]), default="cu13", show_default=True)
@click.option(
    "--toolchain", "policy", default="day", show_default=True, help="Toolchain policy of the series."
)
@click.option("--last", type=click.IntRange(2), default=2, show_default=True, help="How many releases.")
@click.option("--limit", type=click.IntRange(0), default=12, show_default=True, help="Rows of a table.")
@click.option("--figures", is_flag=True, help="The figures themselves, too.")
@click.option("--json", "as_json", is_flag=True, help="Everything, machine-readable.")
def changes(flavour: str, policy: str, last: int, limit: int, figures: bool, as_json: bool) -> None:
    """What changed in the compiled kernels between recorded releases.

    \b
    Examples:
      fa4-asv changes
      fa4-asv changes --last 6 --flavour cu12 --limit 30
      fa4-asv changes --last 33 --json
    """
    project = Project.find()
    manifest = Manifest.load(project.manifest)
    records = recorded(project.results, manifest, flavour, policy)[-last:]
    if not as_json:
        console = Console()
        if not console.is_terminal:
            console.width = 120  # a log is wider than the 80 columns that are guessed for it
        if figures and records:
            render_figures(records, console, limit)
        render(records, console, limit)
        return
    if len(records) < 2:
        raise Fa4AsvError(f"{len(records)} recorded release(s) of this series; a comparison needs two")
    pairs = [
        {
            "before": before.release,
            "after": after.release,
            "toolchain": toolchain_changes(before, after),
            "changes": [
                {"case": c.case, "metric": c.metric, "before": c.before, "after": c.after, "change": c.change}
                for c in changes_between(before, after)
            ],
        }
        for before, after in zip(records, records[1:], strict=False)
    ]
    click.echo(json.dumps(pairs, indent=1))
