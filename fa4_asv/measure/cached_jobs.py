"""Exact figures by worker processes, and a disk cache of them, so that nothing exact is made twice.

The cache is of a source tree under a toolchain: a second metric, a repeated run or `asv find` then costs
milliseconds. What is broken is never kept: a full disk or a missing tool is not a property of FA4.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fa4_asv.base.core_locks import shared
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.benchmarks import GROUPS, Case
from fa4_asv.measure.context import Context
from fa4_asv.measure.pool import Job, Outcome, run_jobs
from fa4_asv.measure.progress import progress
from fa4_asv.record.schema import CaseRecord, Records
from fa4_asv.record.spool import read_records, write_records


def cache_path(context: Context, group: str, *parts: str) -> Path:
    """Where records of an exact group are kept: keyed by its version, source tree, flavour, toolchain and parts.

    The version is the one that its benchmarks tell asv, so that none of the two can be raised alone.
    """
    identity = (GROUPS[group].version, context.tree, context.flavour, context.digest, *parts)
    key = hashlib.sha256("\0".join(identity).encode()).hexdigest()
    return Path(context.root) / ".asv" / "cache" / group / key[:2] / f"{key}.json"


def write_cache(path: Path, records: Records) -> None:
    """Keep `records`, unless one of them is broken."""
    if all(record.state != "broken" for record in records.values()):
        write_records(path, records)


def cached(context: Context, group: str, asked: Iterable[Case]) -> tuple[Records, list[Case]]:
    """The records that the cache has of `asked` (cases, or calls of several cases), and those of `asked` that it lacks."""
    records: Records = {}
    missing = []
    for names in dict.fromkeys(asked):
        try:
            records |= read_records(cache_path(context, group, *names))
        except Fa4AsvError:  # none, or none that can be read
            missing.append(names)
    return records, missing


def run_and_cache(
    context: Context,
    group: str,
    jobs: Sequence[Job],
    processes: int,
    records_of: Callable[[Case, Outcome], Records],
    verb: str = "asked",
) -> Records:
    """Run `jobs`, whose keys are those of what was asked; `records_of` makes records of an outcome, which are kept."""

    def entries(outcome: Outcome) -> Records:
        case = tuple(outcome.key.split("/"))
        records = records_of(case, outcome)
        write_cache(cache_path(context, group, *case), records)
        return records

    with shared(lambda message: progress(context, message)):
        return run(context, jobs, processes, entries, verb)


def run(
    context: Context,
    jobs: Sequence[Job],
    processes: int,
    records_of: Callable[[Outcome], Records],
    verb: str,
) -> Records:
    """The records of all jobs, with a line of progress; whoever calls has the lock that it needs."""
    records: Records = {}
    ended = itertools.count(1)

    def finished(outcome: Outcome) -> None:
        records.update(records_of(outcome))
        progress(context, f"{verb} {next(ended)}/{len(jobs)}, last {outcome.key}")

    try:
        run_jobs(jobs, processes, finished)
    finally:
        progress(context, "")
    return records


def failure(outcome: Outcome, where: str = "") -> CaseRecord | None:
    """The record of a job without figures: its process is lost or met an error. None for an answer. `where` follows the reason."""
    if outcome.lost:
        return CaseRecord("broken", why=f"{outcome.lost}{where}")
    error = outcome.answer.get("error")
    if not error:
        return None
    state = "unsupported" if error["refused"] else "broken"
    return CaseRecord(state, why=f"{error['kind']}: {error['words']}{where}")
