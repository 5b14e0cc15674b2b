"""`fa4-asv backfill`: complete the record, commit by commit, one writer."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import click

from fa4_asv.asv_glue.bases import torches_here
from fa4_asv.backfill import Attempt, Task, Wish, clear_leftovers, commits_of, estimate, minutes, missing
from fa4_asv.errors import Fa4AsvError
from fa4_asv.files import only_one
from fa4_asv.history.toolchain import FLAVOURS, Policy
from fa4_asv.machine import NOGPU
from fa4_asv.project import Project
from fa4_asv.results import read_sidecar

_BUSY = "another backfill is running in this checkout; wait for it or stop it"


@click.command()
@click.argument("ranges", nargs=-1, metavar="[RANGE]...")
@click.option("--missing", "_missing", is_flag=True, help="What results/ lacks (the default).")
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Each Nth commit only.")
@click.option("--bench", "-b", multiple=True, metavar="REGEX", help="Benchmarks, as asv's --bench.")
@click.option("--flavour", type=click.Choice(FLAVOURS), multiple=True, help="Default: cu13, then cu12.")
@click.option("--machine", "-m", default=NOGPU, show_default=True, help="Whose figures: nogpu, or this box.")
@click.option("--environment", "-E", default="", metavar="SPEC", help="asv's, such as fa4:same.")
@click.option("--retry-broken", is_flag=True, help="Cases recorded as broken, too.")
@click.option("--retries", type=click.IntRange(0), default=1, show_default=True, help="Of a failed commit.")
@click.option("--dry-run", "-n", is_flag=True, help="Only say what is missing, and how long it will take.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def backfill(
    ranges: tuple[str, ...],
    _missing: bool,
    every: int,
    bench: tuple[str, ...],
    flavour: tuple[str, ...],
    machine: str,
    environment: str,
    retry_broken: bool,
    retries: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Measure what the record lacks, commit by commit, oldest first.

    RANGE is git's (a..b), a release, a commit or a branch; none means every release. Commits of a range that
    do not touch FA4 are left out. Each commit is measured in a
    folder of its own and verified before it is moved into results/. It may be killed at any moment: the
    next start goes on with what is still missing. "Unsupported" is not missing.

    Exit code: 0 nothing is missing any more, 1 some commits failed (their logs are named), 2 it could
    not start, 130 interrupted.

    \b
    Examples:
      fa4-asv backfill --dry-run
      fa4-asv backfill fa4-v4.0.0b12..releases --flavour cu13
      fa4-asv backfill --bench '^memory' --bench '^route'
      fa4-asv backfill --bench "codegen.*'fwd_d128" main~20..main
      fa4-asv backfill --every 4 --machine my-h200
    """
    project = Project.find()
    wish = Wish(
        machine,
        Policy.from_environment().name,
        flavour or ("cu13", "cu12"),
        bench,
        retry_broken,
        torches_here(project, environment),
    )
    commits = commits_of(project, ranges, every)
    tasks = missing(project, commits, wish)
    if dry_run:
        _tell_plan(project, tasks, wish, len(commits), as_json)
        return
    (project.work / "backfill").mkdir(parents=True, exist_ok=True)
    with only_one(project.work / "backfill" / ".lock", busy=_BUSY):
        clear_leftovers(project)
        failed = _work(project, tasks, wish, environment, retries, as_json)
    sys.exit(1 if failed else 0)


def _tell_plan(project: Project, tasks: Sequence[Task], wish: Wish, commits: int, as_json: bool) -> None:
    seconds = estimate(project, tasks, wish)
    if as_json:
        click.echo(json.dumps({"seconds": seconds, "tasks": [asdict(task) for task in tasks]}, indent=1))
        return
    for task in tasks:
        click.echo(f"{task.label}: {', '.join(task.groups)}")
    about = "" if seconds is None or not tasks else f", about {minutes(seconds)} by what was recorded so far"
    click.echo(f"{len(tasks)} runs are missing over {commits} commits{about}")


def _work(
    project: Project, tasks: Sequence[Task], wish: Wish, environment: str, retries: int, as_json: bool
) -> list[str]:
    """Do all tasks; the reasons of those that failed at every attempt."""
    failed: list[str] = []
    done, begin = 0, time.monotonic()
    try:
        for number, task in enumerate(tasks, 1):
            words = _attempts(project, task, wish, environment, retries, failed)
            done += 1
            spent = time.monotonic() - begin
            left = (
                f", about {minutes(spent / done * (len(tasks) - number))} left" if number < len(tasks) else ""
            )
            click.echo(
                f"[{number}/{len(tasks)}] {task.label}: {words} ({minutes(spent)} so far{left})", err=as_json
            )
    except KeyboardInterrupt:
        click.echo(
            f"\ninterrupted: {done} of {len(tasks)} runs are in results/; run it again to go on", err=True
        )
        sys.exit(130)
    if as_json:
        click.echo(json.dumps({"runs": len(tasks), "failed": failed}, indent=1))
    elif not tasks:
        click.echo("nothing is missing")
    return failed


def _attempts(
    project: Project, task: Task, wish: Wish, environment: str, retries: int, failed: list[str]
) -> str:
    """Words for one task; its reason is added to `failed` when no attempt recorded anything."""
    for attempt in range(retries + 1):
        try:
            moved = Attempt(project, task, wish, environment).run()
        except Fa4AsvError as error:
            reason = str(error)
            click.echo(f"attempt {attempt + 1} of {retries + 1}: {reason}", err=True)
            continue
        states: dict[str, int] = {}
        for path in (path for path in moved if path.suffix == ".sidecar"):
            for group, cases in read_sidecar(path).groups.items():
                for record in cases.values() if group in task.groups else ():
                    states[record.state] = states.get(record.state, 0) + 1
        return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    failed.append(reason)
    return "failed"
