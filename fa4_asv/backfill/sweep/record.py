"""From a sweep's journals into `results/`: plain `asv run` of each commit reads what the sweep has finished."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from fa4_asv.backfill.sweep.engine import Call
from fa4_asv.backfill.sweep.plan import Target
from fa4_asv.backfill.tasks import Attempt, BackfillRequest, Task, current_sidecars, machine_record
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import MACHINE_VARIABLE
from fa4_asv.base.project import Project
from fa4_asv.measure.runtime import journal
from fa4_asv.measure.runtime.collect import SWEEP_ONLY
from fa4_asv.record.schema import CaseRecord


def unrecorded(
    project: Project, machine: str, targets: Sequence[Target], calls: Sequence[Call]
) -> dict[Target, list[Call]]:
    """What the journals of any card hold finished and `results/` does not hold, or holds otherwise."""
    recorded = _recorded(project, machine)
    result: dict[Target, list[Call]] = {}
    for target in targets:
        journals = journal.of_cards(journal.sweeps_folder(project.work, machine), target.subject.file)
        for call in calls:
            record = journal.newest_record(journals, call.key)
            if record and record != recorded.get((target.commit, target.environment, call.key)):
                result.setdefault(target, []).append(call)
    return result


def _recorded(project: Project, machine: str) -> dict[tuple[str, str, str], CaseRecord]:
    records = {}
    for sidecar in current_sidecars(project, machine):
        for group, cases in sidecar.groups.items():
            for case, record in cases.items():
                records[sidecar.commit, sidecar.environment, f"{group}/{case}"] = record
    return records


def record(
    project: Project,
    machine: str,
    environment: str,
    wanted: Mapping[Target, Sequence[Call]],
    cores: int,
    tell: Callable[[str, int, int], None],
) -> list[str]:
    """Let asv record every target, several side by side: no clock runs. What failed, in words.

    `environment` is asv's -E.
    """
    failed: list[str] = []
    ended = 0
    with _only_reading(project, machine), ThreadPoolExecutor(cores) as threads:
        for why in threads.map(lambda item: _one(project, machine, environment, item, wanted[item]), wanted):
            ended += 1
            failed += [why] if why else []
            tell("record", ended, len(wanted))
    return failed


def _one(project: Project, machine: str, environment: str, target: Target, calls: Sequence[Call]) -> str:
    groups = tuple(dict.fromkeys(call.group for call in calls))
    request = BackfillRequest(machine, flavours=(target.flavour,))
    task = Task(target.commit, target.name, target.flavour, groups, target.environment)
    try:
        Attempt(project, task, request, environment).run()
    except Fa4AsvError as error:
        return str(error)
    return ""


@contextmanager
def _only_reading(project: Project, machine: str) -> Iterator[None]:
    """What the asv that is started must know: the machine's record, and that nothing may be measured."""
    before = {name: os.environ.get(name) for name in (MACHINE_VARIABLE, SWEEP_ONLY)}
    os.environ[MACHINE_VARIABLE] = json.dumps(machine_record(project, machine))
    os.environ[SWEEP_ONLY] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
