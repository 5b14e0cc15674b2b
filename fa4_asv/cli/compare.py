"""`fa4-asv compare`: one verdict per figure, for two commits."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from fa4_asv.base.ending import code_of
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import visible
from fa4_asv.base.files import write_atomic
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.output import new_console, say
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import SWEEP_SETS
from fa4_asv.cli.flavours import refuse_plain_on_card
from fa4_asv.cli.toolchains import toolchain_option
from fa4_asv.compare.commits import Commit, commit_of, plan_of, refuse_without_gpu
from fa4_asv.compare.commits import Plan as Toolchains
from fa4_asv.compare.formats import as_json, exit_code, markdown, text
from fa4_asv.compare.sides import Comparison, held_against, refuse_other_suites
from fa4_asv.measure.runtime.journal import Plan
from fa4_asv.record.tables import rows_shown

# Of two commits: processes per side, one round each. Of a tree: processes per side, and rounds of each.
_ROUNDS = 5
_PROCESSES, _TREE_ROUNDS = 5, 2


def patterns(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Of --bench. Raises click's error for what is not a regular expression."""
    for pattern in value:
        try:
            re.compile(pattern)
        except re.error as error:
            raise click.BadParameter(f"{pattern!r} is not a regular expression: {error}") from None
    return value


@click.command()
@click.argument("base")
@click.argument("head", required=False)
@click.option(
    "--flavour",
    type=click.Choice(["cu12", "cu13", "plain"]),
    multiple=True,
    help="Default: cu13; give both for both.",
)
@toolchain_option
@click.option("--bench", "-b", multiple=True, metavar="REGEX", callback=patterns, help="As asv's --bench.")
@click.option("--machine", "-m", default=NOGPU, show_default=True, help="Machine name in results/.")
@click.option(
    "--environment", "-E", default="", metavar="SPEC", help="As asv's --environment, such as fa4:same."
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    help="Rounds of timed cases. Default: 5 per side; with --worktree 2 per process.",
)
@click.option(
    "--worktree",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Instead of HEAD: a checkout of flash-attention as it is now, timed on this machine's card.",
)
@click.option("--processes", type=click.IntRange(3), help="With --worktree: processes per side. Default: 5.")
@click.option(
    "--set",
    "set_name",
    type=click.Choice(list(SWEEP_SETS)),
    help="With --worktree: the set of calls. Default: history.",
)
@click.option("--no-run", is_flag=True, help="Compare only what is recorded; measure nothing.")
@click.option("--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@click.option("--limit", type=click.IntRange(0), help="Rows per table. Default: 20; with --all, all.")
@click.option(
    "--all", "every", is_flag=True, help="As text: what is better, too, what is neither, and predicted times."
)
def compare(
    base: str,
    head: str | None,
    flavour: tuple[str, ...],
    bench: tuple[str, ...],
    machine: str,
    environment: str,
    rounds: int | None,
    worktree: Path | None,
    processes: int | None,
    set_name: str | None,
    no_run: bool,
    form: str,
    output: Path | None,
    limit: int | None,
    every: bool,
) -> None:
    """Measure what is missing of two commits, then give each figure a verdict: is HEAD worse than BASE?

    BASE and HEAD are releases (fa4-v4.0.0b15 or 4.0.0b15), branches or commits. On machine nogpu figures are
    exact: the verdict is less, more or equal. On another machine they are times, measured in turns: the
    verdict is faster, slower, same or unclear. docs/verdicts.md has the rule. Where kernels of sm_90 differ,
    predicted changes of time follow, which no exit code depends on (docs/model.md).

    With --worktree the other side is a checkout with uncommitted changes. It times six calls in turns on one
    card, or the calls of the history set that --bench selects. Nothing is recorded.

    Exit code: 0 nothing is worse, 1 something is worse, 2 could not compare, 130 interrupted.

    \b
    Examples:
      fa4-asv compare fa4-v4.0.0b15 fa4-v4.0.0b20
      fa4-asv compare 4.0.0b35 4.0.0b36 --no-run --all
      fa4-asv compare main my-branch -b '^codegen' --format markdown -o pr.md
      fa4-asv compare 4.0.0b30 4.0.0b31 --flavour cu12 --no-run --format json
      fa4-asv compare 4.0.0b35 4.0.0b36 --machine my-h200 --bench '^forward.Core'
      fa4-asv compare main --worktree ../flash-attention --machine my-h200
    """
    project = Project.find()
    flavours = tuple(dict.fromkeys(flavour)) or ("cu13",)
    refuse_plain_on_card(machine, flavours)
    if worktree is not None:
        _refuse_with_worktree(head, no_run, machine)
        from fa4_asv.cli.worktree import TreeRequest, against_tree  # needs asv and uv, as measuring does

        plan = Plan(processes or _PROCESSES, rounds or _TREE_ROUNDS)
        request = TreeRequest(machine, flavours, bench, environment, set_name or "history", plan)
        comparisons = against_tree(project, base, worktree, request)
    elif head is None or processes or set_name:
        raise Fa4AsvError(
            "name HEAD, or a checkout with --worktree; --processes and --set go with --worktree"
        )
    else:
        commits = (commit_of(project, base), commit_of(project, head))
        for commit in commits if machine == NOGPU else ():
            refuse_without_gpu(project, commit)
        toolchains = plan_of(project, *commits)
        if not no_run:
            refuse_other_suites(project.results, commits, machine)
            _measure(project, commits, toolchains, (flavours, machine, bench, environment, rounds or _ROUNDS))
        comparisons = [
            held_against(project.results, commits, name, machine, toolchains, bench) for name in flavours
        ]
    _tell(comparisons, form, output, rows_shown(limit, every, 20), every)
    sys.exit(exit_code(comparisons))


def _measure(
    project: Project,
    commits: tuple[Commit, Commit],
    toolchains: Toolchains,
    asked: tuple[tuple[str, ...], str, tuple[str, ...], str, int],
) -> None:
    """What the record lacks of both commits; `asked` as comparison.Asked has it. Exit code 130 on Ctrl-C."""
    from fa4_asv.backfill.comparison import Asked, run_missing  # asv, uv: what only compares needs neither

    try:
        run_missing(project, commits, toolchains, Asked(*asked))
    except KeyboardInterrupt as interrupt:
        say("\ninterrupted: what was measured is in results/; run it again to go on", err=True)
        sys.exit(code_of(interrupt))


def _refuse_with_worktree(head: str | None, no_run: bool, machine: str) -> None:
    """Raises Fa4AsvError for what says nothing of an uncommitted tree."""
    if head is not None:
        raise Fa4AsvError(f"--worktree replaces HEAD: leave out {head!r}")
    if no_run:
        raise Fa4AsvError("an uncommitted tree is never recorded: leave out --no-run")
    if machine == NOGPU:
        raise Fa4AsvError(f"--worktree times on a card: name the machine with -m, not {NOGPU!r}")


def _tell(
    comparisons: Sequence[Comparison], form: str, output: Path | None, limit: int | None, every: bool
) -> None:
    """Print it, or write it whole to a file."""
    if form == "text" and output is None:
        text(comparisons, new_console(), limit, every)
        return
    if form == "text":
        stream = io.StringIO()
        text(comparisons, new_console(file=stream), limit, every)
        message = stream.getvalue()
    else:
        message = markdown(comparisons) if form == "markdown" else as_json(comparisons)
    if output is None:
        say(message, nl=False)
    else:
        write_atomic(output, visible(message))
