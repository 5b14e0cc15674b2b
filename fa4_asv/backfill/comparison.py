"""Measure what a comparison lacks, with the backfill's machinery: each commit in a staged folder, one writer.

Exact figures are measured commit by commit; times of both commits in turns, so that what drifts meanwhile
(clocks, temperature, neighbours) meets both sides alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fa4_asv.asv_plugin.base_environments import torches_here
from fa4_asv.backfill.estimates import estimate
from fa4_asv.backfill.tasks import Attempt, BackfillRequest, Interleaving, Task, alone, missing
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import read_json
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.output import say
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.compare.commits import TOOLCHAIN_VARIABLE, Commit, Plan
from fa4_asv.history.repository import NO_HISTORY, has_history
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Policy, UnsupportedFlavour

# Each round of it is six processes already.
_IMPORT, _IMPORT_ROUNDS = "import", 2


@dataclass(frozen=True)
class Asked:
    """What a comparison was asked for; `environment` is asv's -E."""

    flavours: tuple[str, ...]
    machine: str
    bench: tuple[str, ...]
    environment: str
    rounds: int


def run_missing(project: Project, commits: tuple[Commit, Commit], plan: Plan, asked: Asked) -> None:
    """Measure what `results/` lacks of both commits. Raises Fa4AsvError; what was measured stays."""
    for flavour in asked.flavours:
        policy = _policy(project, commits, plan, flavour)
        torches = torches_here(project, asked.environment)
        request = BackfillRequest(asked.machine, policy, (flavour,), asked.bench, torches=torches)
        tasks = missing(project, list(dict.fromkeys(commit.hash for commit in commits)), request)
        if asked.machine != NOGPU:
            tasks = _asked_for(tasks, asked)
        if not tasks:
            continue
        if not has_history(project):
            raise Fa4AsvError(NO_HISTORY)
        with alone(project, "or use --no-run"), _under(policy, commits[1]):
            if asked.machine == NOGPU:
                _one_by_one(project, tasks, request, asked)
            else:
                _known_here(asked.machine)
                _in_turns(project, commits, tasks, request, asked)


def _policy(project: Project, commits: tuple[Commit, Commit], plan: Plan, flavour: str) -> str:
    """The policy under which both are measured: "day" wherever it gives what the plan demands."""
    if not plan.same:
        return plan.policies[0]
    try:
        digests = {
            lay_source(project, commit.hash).lock(project, flavour, Policy("day")).digest
            for commit in commits
        }
    except UnsupportedFlavour:
        return plan.policies[0]
    return plan.policies[0] if len(digests) == 1 else plan.policies[-1]


@contextmanager
def _under(policy: str, head: Commit) -> Iterator[None]:
    """Tell the asv that is started which toolchain policy to use."""
    before = os.environ.get(TOOLCHAIN_VARIABLE)
    if policy == f"as-{head.hash[:8]}":
        os.environ[TOOLCHAIN_VARIABLE] = f"as:{head.hash}"
    try:
        yield
    finally:
        if before is not None:
            os.environ[TOOLCHAIN_VARIABLE] = before
        else:
            os.environ.pop(TOOLCHAIN_VARIABLE, None)


def _one_by_one(project: Project, tasks: Sequence[Task], request: BackfillRequest, asked: Asked) -> None:
    # It knows whole groups only.
    about = "" if request.bench else estimate(project.results, tasks, request).describe(request.machine)
    for number, task in enumerate(tasks, 1):
        message = f"measuring {task.label} ({number} of {len(tasks)}{about}): {', '.join(task.groups)}"
        say(message, err=True)
        Attempt(project, task, request, asked.environment).run()


def _asked_for(tasks: Sequence[Task], asked: Asked) -> list[Task]:
    """Timed cases take hours in all: without --bench only what one side already has is completed."""
    if asked.bench or not tasks:
        return list(tasks)
    lacking = set(GROUPS) if len(tasks) > 1 else set()
    for task in tasks:
        lacking &= set(task.groups)
    known = set(GROUPS) - lacking
    kept_tasks = [replace(task, groups=tuple(g for g in task.groups if g in known)) for task in tasks]
    return [task for task in kept_tasks if task.groups]


def _known_here(machine: str) -> None:
    """Times belong to the machine that asv knows under this name. Raises Fa4AsvError."""
    path = Path("~/.asv-machine.json").expanduser()
    try:
        known = read_json(path)
    except Fa4AsvError:
        known = {}
    if machine not in known:
        raise Fa4AsvError(
            f"this machine is not {machine!r}, and times are only comparable on one machine; "
            f"run `asv machine --yes --machine {machine}` if it is, or use --no-run"
        )


def _in_turns(
    project: Project,
    commits: tuple[Commit, Commit],
    tasks: Sequence[Task],
    request: BackfillRequest,
    asked: Asked,
) -> None:
    """Both commits anew, also where one is recorded: times of different days share nothing."""
    lacking = {group for task in tasks for group in task.groups}
    imported = (_IMPORT,) if _IMPORT in lacking else ()
    timed = tuple(name for name in GROUPS if name in lacking and name != _IMPORT)
    for groups, rounds in ((imported, _IMPORT_ROUNDS), (timed, asked.rounds)):
        if not groups:
            continue
        environment = next((task.environment for task in tasks if task.environment), "")
        name = f"{commits[0].name}-{commits[1].name}"
        task = Task(commits[1].hash, name, tasks[0].flavour, groups, environment)
        say(f"measuring {task.label} in turns, {rounds} rounds: {', '.join(groups)}", err=True)
        turns = Interleaving(tuple(commit.hash for commit in commits), rounds)
        Attempt(project, task, request, asked.environment, turns).run()
