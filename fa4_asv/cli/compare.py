"""`fa4-asv compare`: one verdict a figure, of two commits."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from fa4_asv.base.files import write_atomic
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.project import Project
from fa4_asv.compare.commits import commit_of, plan_of, refuse_without_gpu
from fa4_asv.compare.formats import as_json, exit_code, markdown, text
from fa4_asv.compare.sides import Comparison, held_against, refuse_other_suites

_LOG_WIDTH = 120  # a log is wider than the 80 columns that are guessed for it


def patterns(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Of --bench. Raises click's error for what is no regular expression."""
    for pattern in value:
        try:
            re.compile(pattern)
        except re.error as error:
            raise click.BadParameter(f"{pattern!r} is no regular expression: {error}") from None
    return value


@click.command()
@click.argument("base")
@click.argument("head")
@click.option(
    "--flavour", type=click.Choice(["cu12", "cu13"]), multiple=True, help="Default: cu13; give both for both."
)
@click.option("--bench", "-b", multiple=True, metavar="REGEX", callback=patterns, help="As asv's --bench.")
@click.option("--machine", "-m", default=NOGPU, show_default=True, help="Whose figures: nogpu, or this box.")
@click.option("--environment", "-E", default="", metavar="SPEC", help="asv's, such as fa4:same.")
@click.option(
    "--rounds", type=click.IntRange(1), default=5, show_default=True, help="A side, of timed cases."
)
@click.option("--no-run", is_flag=True, help="Only what is recorded; measure nothing.")
@click.option("--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A file instead.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Rows of a text table.")
def compare(
    base: str,
    head: str,
    flavour: tuple[str, ...],
    bench: tuple[str, ...],
    machine: str,
    environment: str,
    rounds: int,
    no_run: bool,
    form: str,
    output: Path | None,
    limit: int,
) -> None:
    """Measure what is missing of two commits, then say of each figure whether HEAD is worse than BASE.

    BASE and HEAD are releases (fa4-v4.0.0b15 or 4.0.0b15), branches or commits. On machine nogpu figures are
    exact and compared exactly (less, more, equal); on a machine with a name they are times, measured in turns
    and told as faster, slower, same or unclear. docs/verdicts.md is the rule.

    Exit code: 0 nothing is worse, 1 something is worse, 2 could not compare, 130 interrupted.

    \b
    Examples:
      fa4-asv compare fa4-v4.0.0b15 fa4-v4.0.0b20
      fa4-asv compare main my-branch --bench '^codegen' --format markdown -o comment.md
      fa4-asv compare 4.0.0b30 4.0.0b31 --flavour cu12 --flavour cu13 --no-run --format json
      fa4-asv compare 4.0.0b35 4.0.0b36 --machine my-h200 --bench '^forward.Core'
    """
    project = Project.find()
    commits = (commit_of(project, base), commit_of(project, head))
    for commit in commits if machine == NOGPU else ():
        refuse_without_gpu(project, commit)
    plan = plan_of(project, *commits)
    flavours = tuple(dict.fromkeys(flavour)) or ("cu13",)
    if not no_run:
        from fa4_asv.backfill.comparison import (  # asv, uv: what only compares needs neither
            Asked,
            run_missing,
        )

        refuse_other_suites(project, commits, machine)
        try:
            run_missing(project, commits, plan, Asked(flavours, machine, bench, environment, rounds))
        except KeyboardInterrupt:
            click.echo("\ninterrupted: what was measured is in results/; run it again to go on", err=True)
            sys.exit(130)
    found = [held_against(project, commits, each, machine, plan, bench) for each in flavours]
    _tell(found, form, output, limit)
    sys.exit(exit_code(found))


def _tell(found: Sequence[Comparison], form: str, output: Path | None, limit: int) -> None:
    """Print it, or write it whole to a file."""
    if form == "text" and output is None:
        console = Console()
        if not console.is_terminal:
            console.width = _LOG_WIDTH
        text(found, console, limit)
        return
    if form == "text":
        stream = io.StringIO()
        text(found, Console(file=stream, width=_LOG_WIDTH), limit)
        words = stream.getvalue()
    else:
        words = markdown(found) if form == "markdown" else as_json(found)
    if output is None:
        click.echo(words, nl=False)
    else:
        write_atomic(output, words)
