"""Rounds of timed cases: one collecting process a class and round, each figure handed out once.

asv starts a process per figure and round. Starting torch and FA4 in each would take longer than measuring, and
reading one collection in every round would pool the same samples again. So the first figure of a round collects
all cases that are selected; each round file is read once per case, and asking again collects anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

from fa4_asv.alone import exclusive
from fa4_asv.codegen import progress
from fa4_asv.compile_pool import Job, Outcome, run_jobs
from fa4_asv.context import Context
from fa4_asv.files import only_one, write_atomic
from fa4_asv.groups import Case, Group, key_of
from fa4_asv.records import CaseRecord
from fa4_asv.sampling import two_modes

# Raised when inputs, guard or timing change meaning; also the benchmarks' version.
VERSION = "1"
# The guard, a compile of every kernel of the call, and at most 5 s of GPU time.
CASE_TIMEOUT = 300.0
_WORKER = (sys.executable, "-m", "fa4_asv.runtime_worker")

Records = dict[str, CaseRecord]


def next_record(context: Context, group: Group, case: Case, command: tuple[str, ...] = _WORKER) -> CaseRecord:
    """The record of `case` from a round that it has not been read from yet; collects one if there is none."""
    folder = Path(context.spool) / "rounds" / group.name
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder / ".lock"):
        number = 0
        while (folder / f"{number}-{_digest(case)}.used").exists():
            number += 1
        path = folder / f"{number}.round"
        if not path.is_file():
            records = collect(context, group, number, command)
            write_atomic(path, json.dumps({key: record.to_json() for key, record in records.items()}))
        (folder / f"{number}-{_digest(case)}.used").touch()
        known = json.loads(path.read_text(encoding="utf-8"))
    if key_of(case) not in known:
        return CaseRecord("broken", why="asv asked for a case that --bench did not select")
    return CaseRecord.from_json(known[key_of(case)])


def collect(context: Context, group: Group, number: int = 0, command: tuple[str, ...] = _WORKER) -> Records:
    """Round `number`: every selected case of `group`, in one process that is replaced where it hangs or dies."""
    cases = {key_of(case): case for case in group.selected(context.select)}
    records = {key: bad for key in cases if (bad := _failed_before(context, group.name, key))}
    jobs = [
        Job(key, _payload(group, case, number), command, environment(context), CASE_TIMEOUT)
        for key, case in cases.items()
        if key not in records
    ]

    def finished(outcome: Outcome) -> None:
        records[outcome.key] = _record(context, group.name, outcome)

    with exclusive(lambda words: progress(context, words)):
        run_jobs(jobs, 1, finished)
    return records


def environment(context: Context) -> tuple[tuple[str, str], ...]:
    """Of a collecting process: FA4's disk cache on, so that no round compiles what another has compiled."""
    cache = Path(context.root) / ".asv" / "cache" / "fa4-kernels"
    return (
        ("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1"),
        ("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(cache)),
    )


def _payload(group: Group, case: Case, number: int) -> dict[str, Any]:
    backend, shape = case
    return {
        "backend": backend,
        "shape": shape,
        "backward": group.backward,
        "device": group.device,
        # Later rounds are fresh processes of the same code: one kind of input and the sample suffice there.
        "guard": "quick" if number else "full",
    }


def _record(context: Context, group: str, outcome: Outcome) -> CaseRecord:
    if outcome.lost:
        return CaseRecord("broken", why=outcome.lost)
    error = outcome.answer.get("error")
    if error and error["guard"]:
        words = f"guard: {error['words']}"
        _remember(context, group, outcome.key, words)
        return CaseRecord("broken", why=words)
    if error:
        return CaseRecord(
            "unsupported" if error["refused"] else "broken", why=f"{error['kind']}: {error['words']}"
        )
    answer = outcome.answer
    # A value a round beside the samples, which asv pools: verdicts count processes, not samples.
    seconds = answer["samples"]
    samples = {
        "seconds": seconds,
        "centre": [median(seconds)],
        "two modes": [float(bool(two_modes(seconds)))],
    }
    if answer["control"] is not None:
        samples["control"] = [answer["control"]]
    errors = {f"error {name}": f"{value:.3g}" for name, value in answer["errors"].items()}
    return CaseRecord("measured", samples=samples, words={**answer["words"], **errors})


# A wrong answer stays wrong: no later round may bring a time back for this commit and environment.


def _verdict_path(context: Context, group: str, key: str) -> Path:
    words = (VERSION, context.commit, context.environment, context.digest, context.machine, group, key)
    name = hashlib.sha256("\0".join(words).encode()).hexdigest()[:24]
    return Path(context.root) / ".asv" / "guard" / f"{name}.json"


def _remember(context: Context, group: str, key: str, words: str) -> None:
    write_atomic(_verdict_path(context, group, key), json.dumps({"case": key, "why": words}))


def _failed_before(context: Context, group: str, key: str) -> CaseRecord | None:
    path = _verdict_path(context, group, key)
    try:
        why = json.loads(path.read_text(encoding="utf-8"))["why"]
    except (OSError, ValueError, KeyError):
        return None
    shown = os.path.relpath(path, context.root)
    return CaseRecord("broken", why=f"{why} (failed before; remove {shown} to try again)")


def _digest(case: Case) -> str:
    return hashlib.sha256(key_of(case).encode()).hexdigest()[:16]
