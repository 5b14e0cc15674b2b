"""Rounds of timed cases: one timing process a class and round, each figure handed out once.

asv starts a process per figure and round. Starting torch and FA4 in each would take longer than measuring, and
reading one collection in every round would pool the same samples again. So the first figure of a round collects
all cases that are selected; each round file is read once per case, and asking again collects anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from fa4_asv.base.core_locks import exclusive
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import only_one, read_json, write_atomic
from fa4_asv.base.side_by_side import cores
from fa4_asv.catalog.benchmarks import GROUPS, Case, Group, key_of, traced_call
from fa4_asv.measure.benchmark_api import sampled
from fa4_asv.measure.cached_jobs import failure, run
from fa4_asv.measure.context import Context
from fa4_asv.measure.memory.collect import measure as measure_traced
from fa4_asv.measure.pool import Job, Outcome
from fa4_asv.measure.progress import progress
from fa4_asv.measure.runtime import journal, kernel_cache
from fa4_asv.measure.runtime.fatal import is_out_of_memory
from fa4_asv.measure.runtime.journal import sweeps_folder
from fa4_asv.record.modes import two_modes
from fa4_asv.record.schema import CaseRecord, Records
from fa4_asv.record.spool import read_records, write_records

# Of each question: the guard with a compile of every kernel of the call, or at most 5 s of GPU time.
CASE_TIMEOUT = 300.0
GUARDS = 8  # processes at once, each with a context and a few tensors of up to a GiB on the card
_WORKER = (sys.executable, "-m", "fa4_asv.measure.runtime.worker")
# Set while a sweep hands over: `asv run` only reads.
SWEEP_ONLY = "FA4_ASV_SWEEP_ONLY"


def sample(group: str, *case: str, metric: str = "seconds") -> dict[str, Any]:
    """What a benchmark of a run-time group returns: the next round's samples of a case, as asv reads them."""
    return sampled(
        group, case, lambda context, names: next_record(context, GROUPS[group], names, metric), metric
    )


def next_record(
    context: Context, group: Group, case: Case, metric: str = "", command: tuple[str, ...] = _WORKER
) -> CaseRecord:
    """The record of `case`: of a sweep, where one has finished it; else from a round that it has not been read from for
    `metric`, collected now if there is none."""
    swept = swept_record(context, group, case)
    if swept is not None:
        return swept
    folder = Path(context.spool) / "rounds" / group.name
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder / ".lock"):
        number = 0
        used = _digest((*case, metric))
        while (folder / f"{number}-{used}.used").exists():
            number += 1
        path = folder / f"{number}.round"
        if not path.is_file():
            write_records(path, collect(context, group, command))
        (folder / f"{number}-{used}.used").touch()
        known = read_records(path)
    return known.get(
        key_of(case), CaseRecord("broken", why="asv asked for a case that --bench did not select")
    )


def swept_record(context: Context, group: Group, case: Case) -> CaseRecord | None:
    """What a sweep on any card of this machine's name has finished of a case, the newest; None where none has.

    While a sweep hands over what it has (SWEEP_ONLY), nothing else is measured: what is not finished is not run.
    """
    if group.what != "turn":
        return None
    folder = sweeps_folder(Path(context.root) / ".asv", context.machine)
    file = journal.journal_path(folder, context.commit, context.environment).name
    if record := journal.newest_record(journal.of_cards(folder, file), f"{group.name}/{key_of(case)}"):
        return record
    if os.environ.get(SWEEP_ONLY):
        return CaseRecord("not run", why="the sweep has not finished this call")
    return None


def collect(context: Context, group: Group, command: tuple[str, ...] = _WORKER) -> Records:
    """One round: every selected case of `group`, in one process that is replaced where it hangs or dies.

    Cases that are timed are guarded before, by other processes, once for all rounds of an asv process.
    """
    cases = {key_of(case): case for case in group.selected(context.select)}
    records = {key: bad for key in cases if (bad := _failed_before(context, group.name, key))}
    # A card is one, whatever cores a process is bound to.
    with exclusive(lambda message: progress(context, message), whole=group.device == "cuda"):
        left = {key: case for key, case in cases.items() if key not in records}
        guarded = _guarded(context, group, left, command) if group.timed else {}
        records |= {key: record for key, record in guarded.items() if record.state != "measured"}
        left = {key: case for key, case in left.items() if key not in records}
        for key, record in _ask(context, group, left, command).items():
            notes = guarded[key].notes if key in guarded else {}
            records[key] = replace(record, notes=notes | record.notes)
    return beside_traced(context, group, records) if "untraced_bytes" in group.metrics else records


def _guarded(context: Context, group: Group, cases: dict[str, Case], command: tuple[str, ...]) -> Records:
    """What the guard says of `cases`: a later round is a fresh process of the same code, and reads it."""
    path = Path(context.spool) / "rounds" / group.name / "guard"
    # No record as they are kept elsewhere: a guard that is passed has notes and no figure.
    records: Records = {}
    if path.is_file():
        known = read_json(path, advice="remove it and measure again")
        records = {key: CaseRecord(**answer) for key, answer in known.items()}
    if left := {key: case for key, case in cases.items() if key not in records}:
        beside = _beside(group)
        what = "first" if group.what == "turn" else "guard"
        records |= _ask(context, group, left, command, what, beside)
        # Memory that others took beside it says nothing of a case; what a card cannot hold fails alone, too.
        starved = {key: case for key, case in left.items() if is_out_of_memory(records[key].why)}
        if starved and beside > 1:
            records |= _ask(context, group, starved, command, what)
        path.parent.mkdir(parents=True, exist_ok=True)
        reasons = {
            key: {"state": record.state, "why": record.why, "notes": record.notes}
            for key, record in records.items()
        }
        write_atomic(path, json.dumps(reasons))
    return {key: records[key] for key in cases}


def _ask(
    context: Context,
    group: Group,
    cases: dict[str, Case],
    command: tuple[str, ...],
    what: str = "",
    processes: int = 1,
) -> Records:
    """What worker processes answer to `what` of each case; that is the group's own question where none is given."""
    surroundings = environment(context)
    jobs = [
        Job(key, payload_of(group, case, what), command, surroundings, CASE_TIMEOUT, again=True)
        for key, case in cases.items()
    ]
    asked = {job.key: job.payload for job in jobs}

    def records_of(outcome: Outcome) -> Records:
        return {outcome.key: _record(context, group.name, outcome, asked[outcome.key])}

    return run(context, jobs, processes, records_of, what or group.what)


def _beside(group: Group) -> int:
    """How many processes may guard at once: MATH takes a whole card's memory, and so may any yardstick."""
    alone = group.device == "cpu" or any(case[0] != "fa4" for case in group.cases)
    return 1 if alone else min(cores(), GUARDS)


def beside_traced(context: Context, group: Group, records: Records) -> Records:
    """Measured peaks with how far the trace of the same call, under the same toolchain, is from them."""
    peaks = {key: record for key, record in records.items() if record.state == "measured"}
    wanted = [(case[0], case[1]) for case in group.cases if key_of(case) in peaks]
    traces = measure_traced(context, wanted)
    for key, record in peaks.items():
        trace = traces[key]
        if trace.state != "measured":
            records[key] = CaseRecord("broken", why=f"measured, but the trace is {trace.state}: {trace.why}")
            continue
        traced = trace.figures["peak_bytes"]
        beyond = [abs(peak - traced) for peak in record.samples["peak_bytes"]]
        notes = {**record.notes, "traced": str(traced)}
        samples = {**record.samples, "untraced_bytes": beyond}
        records[key] = CaseRecord("measured", samples=samples, notes=notes)
    return records


def environment(context: Context) -> tuple[tuple[str, str], ...]:
    """Of a collecting process: FA4's disk cache on, so that no round compiles what another has compiled."""
    return kernel_cache.variables(kernel_cache.folder_of(Path(context.root) / ".asv", context.digest))


def payload_of(group: Group, case: Case, what: str) -> dict[str, Any]:
    """What the worker is asked: a group's cases say more or less, the rest is the group's."""
    job: dict[str, Any] = {
        "what": what or group.what,
        "device": group.device,
        "backward": group.backward,
    }
    if group.what == "bytes":
        backward, shape = traced_call(case[-1])
        return job | {"backend": "fa4", "arch": case[0], "shape": shape.name, "backward": backward}
    if group.what == "route":
        return job | {"dtype": case[0]}
    if group.what == "route-beyond":
        return job | {"way": case[0]}
    if group.what == "decode-host":
        return job | {"backend": "fa4", "launch": case[0], "shape": case[1]}
    if group.what == "host":
        return job | {"shape": case[1], "backward": case[0] == "bwd"}
    return job | dict(zip(("backend", "shape", "kind"), case, strict=False))


def _record(context: Context, group: str, outcome: Outcome, asked: dict[str, Any]) -> CaseRecord:
    """The record of an answer; that the guard refused it is remembered."""
    record = record_of_outcome(outcome, asked)
    if not outcome.lost and (outcome.answer.get("error") or {}).get("guard"):
        _remember(context, group, outcome.key, record.why)
    return record


# What a job asks for, as the reason of a crash names it.
_ASKED = {
    "first": "guard",
    "load": "first call",
    "turn": "timing",
    "seconds": "timing",
    "bytes": "peak memory",
    "host": "host cost",
    "decode-host": "host cost",
    "route": "checks",
    "route-beyond": "checks",
}


def _call(asked: dict[str, Any]) -> str:
    """A job as text: "guard of fa4 backward b1_s256_h2_d128_causal"."""
    direction = ("backward" if asked["backward"] else "forward") if "shape" in asked else ""
    parts = (
        asked.get("backend"),
        direction,
        asked.get("shape"),
        asked.get("kind"),
        asked.get("dtype"),
        asked.get("way"),
        asked.get("launch"),
    )
    return f"{_ASKED.get(asked['what'], asked['what'])} of {' '.join(part for part in parts if part)}"


def record_of_outcome(outcome: Outcome, asked: dict[str, Any]) -> CaseRecord:
    """What a worker's answer to the job `asked`, or that there is none, says of a case."""
    if failed := failure(outcome, f" ({_call(asked)})" if outcome.fatal else ""):
        return failed
    answer = outcome.answer
    samples = dict(answer["samples"])
    if seconds := samples.get("seconds"):
        # A value per round beside the samples, which asv pools: verdicts count processes, not samples.
        samples |= {"centre": [median(seconds)], "two modes": [float(bool(two_modes(seconds)))]}
    if answer["control"] is not None:
        samples["control"] = [answer["control"]]
    errors = {f"error {name}": f"{value:.3g}" for name, value in answer["errors"].items()}
    return CaseRecord("measured", samples=samples, notes={**answer["words"], **errors})


# A wrong answer stays wrong: no later round may bring a time back for this commit and environment.


def _verdict_path(context: Context, group: str, key: str) -> Path:
    version = GROUPS[group].version
    fields = (version, context.commit, context.environment, context.digest, context.machine, group, key)
    name = hashlib.sha256("\0".join(fields).encode()).hexdigest()[:24]
    return Path(context.root) / ".asv" / "guard" / f"{name}.json"


def _remember(context: Context, group: str, key: str, message: str) -> None:
    write_atomic(_verdict_path(context, group, key), json.dumps({"case": key, "why": message}))


def _failed_before(context: Context, group: str, key: str) -> CaseRecord | None:
    path = _verdict_path(context, group, key)
    try:
        why = read_json(path)["why"]
    except (Fa4AsvError, KeyError, TypeError):
        return None
    shown = os.path.relpath(path, context.root)
    return CaseRecord("broken", why=f"{why} (failed before; remove {shown} to try again)")


def _digest(case: Case) -> str:
    return hashlib.sha256(key_of(case).encode()).hexdigest()[:16]
