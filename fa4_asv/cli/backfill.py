"""`fa4-asv backfill`: complete the record, commit by commit, one writer."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from fa4_asv.asv_plugin.base_environments import torches_here
from fa4_asv.backfill.cluster.drive import Drive
from fa4_asv.backfill.cluster.record_gate import RecordGate, Site, package
from fa4_asv.backfill.estimates import estimate, minutes
from fa4_asv.backfill.tasks import (
    TASK_TIMEOUT,
    Attempt,
    BackfillRequest,
    Task,
    TaskOutcome,
    alone,
    commits_of,
    missing,
)
from fa4_asv.base.ending import code_of
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.output import say, say_json
from fa4_asv.base.project import Project
from fa4_asv.base.side_by_side import cores
from fa4_asv.catalog.flavours import FLAVOURS, PLAIN
from fa4_asv.cli.flavours import refuse_plain_on_card
from fa4_asv.cli.toolchains import toolchain_option
from fa4_asv.history.toolchain import Policy
from fa4_asv.record.store import read_sidecar

_NODE_WORK = "~/.cache/fa4_asv"  # of whoever runs the node's Ray


@click.command()
@click.argument("ranges", nargs=-1, metavar="[RANGE]...")
@click.option("--missing", "_missing", is_flag=True, help="What results/ lacks (the default).")
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Each Nth commit only.")
@click.option("--bench", "-b", multiple=True, metavar="REGEX", help="Select benchmarks, as asv's --bench.")
@click.option(
    "--flavour",
    type=click.Choice(tuple(FLAVOURS)),
    multiple=True,
    help="Default: cu13, then cu12, then plain (kernels only).",
)
@click.option("--machine", "-m", default=NOGPU, show_default=True, help="Machine name in results/.")
@click.option(
    "--environment", "-E", default="", metavar="SPEC", help="As asv's --environment, such as fa4:same."
)
@toolchain_option
@click.option("--retry-broken", is_flag=True, help="Measure cases recorded as broken again.")
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="How often to retry a failed commit.",
)
@click.option(
    "--ray", "address", default="", metavar="ADDRESS", help="On a Ray cluster: auto, HOST:PORT, or local."
)
@click.option(
    "--cores", type=click.IntRange(1), default=1, show_default=True, help="With --ray: cores per run."
)
@click.option(
    "--gpu", default="", metavar="TYPE", help="With --ray: one whole card for each run, such as H100."
)
@click.option("--shared", is_flag=True, help="With --ray: every node sees this checkout under this path.")
@click.option(
    "--node-work", default="", metavar="DIR", help="With --ray: a node's own folder for what it installs."
)
@click.option(
    "--wheels", default="", metavar="DIR", help="With --ray: install from this folder, not a network."
)
@click.option(
    "--dry-run", "-n", is_flag=True, help="Print what is missing and how long it takes; measure nothing."
)
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
    address: str,
    **nodes: Any,
) -> None:
    """Measure what the record lacks, one commit at a time, oldest first.

    RANGE is git's (a..b), a release (4.0.0b36 or fa4-v4.0.0b36), a commit or a branch; none means every
    release. Commits of a range that do not touch FA4 are left out. Each commit is measured in a temporary
    checkout, verified, and moved into results/. You can kill the command at any time: the next start
    measures what is still missing. An unsupported case is not missing.

    With --ray, the nodes of a cluster measure; the results are verified and recorded here
    (docs/cluster.md).

    Exit code: 0 nothing is missing any more, 1 some commits failed (their logs are named), 2 it could
    not start, 130 interrupted.

    \b
    Examples:
      fa4-asv backfill --dry-run
      fa4-asv backfill fa4-v4.0.0b12..releases --flavour cu13
      fa4-asv backfill --bench '^memory' --bench '^route'
      fa4-asv backfill --bench "codegen.*'fwd_d128" main~20..main
      fa4-asv backfill --every 4 --machine my-h200
      fa4-asv backfill --ray local
      fa4-asv backfill --ray auto --gpu H100 --machine lab-h100 \\
          --bench '^(forward|backward)'
    """
    project = Project.find()
    refuse_plain_on_card(machine, flavour)
    request = BackfillRequest(
        machine,
        Policy.from_environment().name,
        flavour or (("cu13", "cu12", PLAIN) if machine == NOGPU else ("cu13", "cu12")),
        bench,
        retry_broken,
        torches_here(project, environment),
    )
    commits = commits_of(project, ranges, every)
    tasks = missing(project, commits, request)
    if dry_run:
        _tell_plan(project, tasks, request, len(commits), as_json)
        return
    with alone(project):
        if address and tasks:
            site = Site(nodes["cores"], nodes["gpu"], nodes["node_work"], nodes["wheels"])
            ended = _on_cluster(project, tasks, request, environment, retries, address, nodes["shared"], site)
        else:
            ended = _one_by_one(project, tasks, request, environment, retries)
        with closing(ended):
            failed = _tell(ended, tasks, as_json)
    sys.exit(1 if failed else 0)


def _tell_plan(
    project: Project, tasks: Sequence[Task], request: BackfillRequest, commits: int, as_json: bool
) -> None:
    expected = estimate(project.results, tasks, request)
    if as_json:
        say_json({**asdict(expected), "tasks": [asdict(task) for task in tasks]})
        return
    for task in tasks:
        say(f"{task.label}: {', '.join(task.groups)}")
    about = expected.describe(request.machine)
    say(f"{len(tasks)} runs are missing over {commits} commits{about}")


def _one_by_one(
    project: Project, tasks: Sequence[Task], request: BackfillRequest, environment: str, retries: int
) -> Generator[TaskOutcome, None, None]:
    for task in tasks:
        for attempt in range(retries + 1):
            try:
                moved = Attempt(project, task, request, environment).run()
            except Fa4AsvError as error:
                reason = str(error)
                _say(f"attempt {attempt + 1} of {retries + 1}: {reason}")
                continue
            yield TaskOutcome(task, moved)
            break
        else:
            yield TaskOutcome(task, why=reason)


def _on_cluster(
    project: Project,
    tasks: Sequence[Task],
    request: BackfillRequest,
    environment: str,
    retries: int,
    address: str,
    shared: bool,
    site: Site,
) -> Generator[TaskOutcome, None, None]:
    """Raises Fa4AsvError where there is no Ray, no such cluster, or a clock would measure on a shared machine."""
    if request.machine != NOGPU and not site.gpu:
        raise Fa4AsvError(
            f"machine {request.machine!r} is for times, and runs without a card share their node with others: "
            "name the card with --gpu, or run it without --ray on that machine"
        )
    if site.gpu and request.machine == NOGPU:
        raise Fa4AsvError(
            "--gpu without --machine: results of a card are recorded under the name of its kind"
        )
    try:
        from fa4_asv.backfill.cluster.ray_pool import LOCAL, RayPool
    except ImportError as error:
        raise Fa4AsvError(f"--ray needs Ray: pip install 'fa4_asv[cluster]' ({error})") from None
    sent = address != LOCAL and not shared
    if sent and not site.work:
        site = replace(site, work=_NODE_WORK)  # Ray removes a package, and what was installed beside it
    gate = RecordGate(project, request, environment, site, TASK_TIMEOUT)
    # Ray prints what it has to say to stdout, whoever reads that.
    with (
        redirect_stdout(sys.stderr),
        tempfile.TemporaryDirectory(dir=project.work, prefix="package-") as scratch,
    ):
        if sent:
            sources = package(project, Path(scratch) / "checkout")
            pool = RayPool(address, site.cores, site.gpu, package=sources)
        else:
            pool = RayPool(address, site.cores, site.gpu, folder=str(project.root), local_cores=cores())
        yield from Drive(pool, gate.order, gate.keep, retries, TASK_TIMEOUT, _say).run(tasks)


def _say(message: str) -> None:
    say(message, err=True)


def _tell(results: Iterator[TaskOutcome], tasks: Sequence[Task], as_json: bool) -> list[str]:
    """Tell of each task as it ends; the reasons of those that failed at every attempt."""
    failed: list[str] = []
    done, begin = 0, time.monotonic()
    out = sys.stderr if as_json else sys.stdout
    try:
        for done, ended in enumerate(results, 1):
            if ended.why:
                failed.append(ended.why)
            spent, left = time.monotonic() - begin, len(tasks) - done
            about = f", about {minutes(spent / done * left)} left" if left else ""
            message = _states(ended) + (f" on {ended.host}" if ended.host else "")
            line = f"[{done}/{len(tasks)}] {ended.task.label}: {message} ({minutes(spent)} so far{about})"
            say(line, file=out)
    except KeyboardInterrupt as interrupt:
        recorded = done - len(failed)
        _say(f"\ninterrupted: {recorded} of {len(tasks)} runs are in results/; run it again to go on")
        sys.exit(code_of(interrupt))
    if as_json:
        say_json({"runs": len(tasks), "failed": failed})
    elif not tasks:
        say("nothing is missing")
    return failed


def _states(ended: TaskOutcome) -> str:
    """How many cases of the groups asked for are measured, unsupported, ...; "failed" without a record."""
    if ended.why:
        return "failed"
    states = Counter(
        record.state
        for path in ended.moved
        if path.suffix == ".sidecar"
        for group, cases in read_sidecar(path).groups.items()
        if group in ended.task.groups
        for record in cases.values()
    )
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
