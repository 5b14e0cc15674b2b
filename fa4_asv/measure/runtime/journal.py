"""What a sweep has measured, line by line, until `asv run` records it: one file per commit, environment and card.

A line is whole or absent: it is written at once, and a last line that a kill tore is left out when it is read. So nothing
that was finished is lost, and nothing stands there twice. Below `.asv/sweeps/<machine>/<card>/`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import parse_json, read_bytes
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.turns import yardsticks_of

YARDSTICK_FILE = "yardsticks.jsonl"
SWEEP_FILE = "sweep.json"
_LONGEST_LINE = 1 << 16
_LARGEST_FILE = 1 << 26
_LARGEST_NUMBER = 1 << 31  # of a round, a process, a place
_MOST_NOTES = 3  # of a record; the journal has those of every round
# What a line of each kind must hold; of another kind nothing is asked, and nothing is read.
_FIELDS: dict[str, dict[str, type]] = {
    "session": {"processes": int, "rounds": int, "words": dict},
    "first": {"call": str, "record": dict},
    "failed": {"call": str, "why": str},
    "round": {
        "call": str,
        "slot": int,
        "process": int,
        "round": int,
        "order": int,
        "seconds": list,
        "words": dict,
        "why": str,
    },
    "kernels": {"call": str, "samples": dict},
}
# Values of a round, in the names of a record's samples.
_PER_ROUND = ("process", "round", "order")

Entry = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How often each call is timed: `processes` started one after another, `rounds` of each.

    `profile`: whether the profiler is asked for the kernels of each backward after the last round.
    """

    processes: int = 2
    rounds: int = 3
    profile: bool = True


def sweeps_folder(work: Path, machine: str) -> Path:
    """Where the sweeps of a machine's name lie; a folder for each card below it."""
    return work / "sweeps" / machine


def journal_path(folder: Path, commit: str, environment: str) -> Path:
    """The journal of a commit in asv's environment, in the folder of a card."""
    return folder / f"{commit[:12]}-{environment}.jsonl"


def append(path: Path, entry: Entry) -> None:
    """Add one line. Raises Fa4AsvError where it cannot be written whole."""
    line = (json.dumps(entry, sort_keys=True) + "\n").encode()
    if len(line) > _LONGEST_LINE:
        raise Fa4AsvError(f"a line of {len(line)} bytes for {path}, expected at most {_LONGEST_LINE}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not blocking: a pipe in the place of the journal is an error, and nothing to wait for.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o644)
        try:
            if not _ends_whole(path):
                line = b"\n" + line  # what a kill tore must not spoil this line, too
            written = os.write(handle, line)
        finally:
            os.close(handle)
    except OSError as error:
        raise Fa4AsvError(
            f"cannot write {path}: {error.strerror}; what was measured before is kept"
        ) from None
    if written != len(line):
        raise Fa4AsvError(f"cannot write {path}: no space left; what was measured before is kept")


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        if not size:
            return True
        stream.seek(size - 1)
        return stream.read(1) == b"\n"


def read(path: Path) -> list[Entry]:
    """Every whole line; none where there is no file. Raises Fa4AsvError where it is not a journal."""
    if not path.exists():
        return []
    lines = read_bytes(path, _LARGEST_FILE, advice="remove it").split(b"\n")
    return [entry for line in lines if line and (entry := _entry(line)) is not None]


def _entry(line: bytes) -> Entry | None:
    """None for a line that a kill tore, or that no sweep wrote."""
    if len(line) > _LONGEST_LINE:
        return None
    try:
        entry = parse_json(line)
    except ValueError:
        return None
    is_ours = isinstance(entry, dict) and isinstance(entry.get("kind"), str) and _is_sound(entry)
    return entry if is_ours else None


def _is_sound(entry: Entry) -> bool:
    """Whether an entry holds what its kind must, so that no reader has to ask again."""
    for name, kind in _FIELDS.get(entry["kind"], {}).items():
        value = entry.get(name)
        if type(value) is not kind or (type(value) is int and not 0 <= value <= _LARGEST_NUMBER):
            return False
    if entry["kind"] == "first":
        return _is_record(entry["record"])
    if entry["kind"] == "round":
        return _are_seconds(entry["seconds"]) and _are_seconds([entry.get("control") or 0.0])
    return entry["kind"] != "kernels" or all(
        samples and _are_seconds(samples) for samples in entry["samples"].values()
    )


def _is_record(data: object) -> bool:
    try:
        CaseRecord.from_json(data)
    except Fa4AsvError:
        return False
    return True


def _are_seconds(values: object) -> bool:
    return isinstance(values, list) and all(
        isinstance(item, float) and math.isfinite(item) for item in values
    )


def version_of(call: str) -> str:
    """The version of the benchmark that a call belongs to; journals of before it was written down are of "1"."""
    group = GROUPS.get(call.partition("/")[0])
    return group.version if group else "1"


def of_call(entries: Iterable[Entry], call: str, *kinds: str) -> list[Entry]:
    """The lines of one call, of these kinds, in the order they were taken; only since its newest guard.

    A call that is asked again begins anew. What another version of its benchmark took means something else.
    """
    version = version_of(call)
    mine = [entry for entry in entries if entry.get("call") == call and entry.get("version", "1") == version]
    first = max((at for at, entry in enumerate(mine) if entry["kind"] == "first"), default=0)
    return [entry for entry in mine[first:] if entry["kind"] in kinds]


def plan_of(entries: Sequence[Entry]) -> Plan:
    """What the newest session on this card asked for."""
    heads = [entry for entry in entries if entry["kind"] == "session"]
    if not heads:
        return Plan()
    head = heads[-1]
    return Plan(int(head["processes"]), int(head["rounds"]), bool(head.get("profile", True)))


def verdict_of(entries: Sequence[Entry], call: str) -> CaseRecord | None:
    """What the newest guard said of a call: measured where it may be timed; None before it was asked."""
    asked = of_call(entries, call, "first")
    return CaseRecord.from_json(asked[-1]["record"]) if asked else None


def failure_of(entries: Sequence[Entry], call: str) -> str:
    """Why a call that passed the guard could not be timed after it, "" where it could."""
    return next((str(entry["why"]) for entry in of_call(entries, call, "failed")), "")


def is_broken(entries: Sequence[Entry], call: str) -> bool:
    """Whether a call failed, before the clock or with it, or no round of it is without noise."""
    verdict, rounds = verdict_of(entries, call), rounds_of(entries, call)
    if verdict is None:
        return False
    noisy = bool(rounds) and not any(entry["seconds"] for entry in rounds)
    return verdict.state == "broken" or bool(failure_of(entries, call)) or noisy


def rounds_of(entries: Sequence[Entry], call: str) -> list[Entry]:
    """The rounds of a call, in the order they were taken."""
    return of_call(entries, call, "round")


def lacking(entries: Sequence[Entry], call: str, plan: Plan, slot: int) -> int:
    """How many rounds of a call the process in `slot` (0 or 1) still owes; 0 where it will never be timed."""
    if verdict_of(entries, call) and not may_be_timed(entries, call):
        return 0
    done = sum(int(entry["slot"] == slot) for entry in rounds_of(entries, call))
    return max(0, plan.rounds - done)


def may_be_timed(entries: Sequence[Entry], call: str) -> bool:
    """Whether a call passed its guard and has not failed since."""
    verdict = verdict_of(entries, call)
    return verdict is not None and verdict.state == "measured" and not failure_of(entries, call)


def is_complete(entries: Sequence[Entry], call: str, plan: Plan) -> bool:
    """Whether nothing of a call is left to do."""
    timed = not any(lacking(entries, call, plan, slot) for slot in range(plan.processes))
    profiled = not plan.profile or not is_unprofiled(entries, call)
    return verdict_of(entries, call) is not None and timed and profiled


def is_unprofiled(entries: Sequence[Entry], call: str) -> bool:
    """Whether the profiler has still to be asked of a call: each backward of FA4 that was timed, once."""
    name, _, case = call.partition("/")
    is_backward = name in GROUPS and GROUPS[name].backward and case.startswith("fa4/")
    if not is_backward or not rounds_of(entries, call) or failure_of(entries, call):
        return False
    return not of_call(entries, call, "kernels")


def record_of(entries: Sequence[Entry], call: str, yardsticks: Sequence[Entry] = ()) -> CaseRecord | None:
    """The record of a call as the sidecar keeps it; None while something is missing."""
    verdict = verdict_of(entries, call)
    if verdict is None or not is_complete(entries, call, plan_of(entries)):
        return None
    if verdict.state != "measured":
        return replace(verdict, notes=_head(entries, call) | verdict.notes)
    if why := failure_of(entries, call):
        return CaseRecord("broken", why=why, notes=_head(entries, call))
    timed = [entry for entry in rounds_of(entries, call) if entry["seconds"]]
    if not timed:
        reasons = dict.fromkeys(str(entry["why"]) for entry in rounds_of(entries, call))
        return CaseRecord("broken", why="; ".join(reasons), notes=_head(entries, call))
    samples = _samples(timed) | dict(verdict.samples) | _beside(timed, call, yardsticks)
    for entry in of_call(entries, call, "kernels"):
        samples |= entry["samples"]
    notes = verdict.notes | _head(entries, call) | _notes(timed)
    return CaseRecord.from_json(replace(verdict, samples=samples, notes=notes).to_json())


def of_cards(folder: Path, file: str) -> list[tuple[list[Entry], list[Entry]]]:
    """The journals named `file` of every card below `folder`, each with the yardsticks' beside."""
    return [(read(path), read(path.with_name(YARDSTICK_FILE))) for path in sorted(folder.glob(f"*/{file}"))]


def newest_record(
    journals: Iterable[tuple[Sequence[Entry], Sequence[Entry]]], call: str
) -> CaseRecord | None:
    """The record of a call from the card on which it was taken last, of those that have all of it.

    `journals` are those of one commit, a card each, with the yardsticks' beside.
    """
    pairs = [
        (_taken(entries, call), record)
        for entries, beside in journals
        if (record := record_of(entries, call, beside))
    ]
    return max(pairs, key=lambda each: each[0])[1] if pairs else None


def _taken(entries: Sequence[Entry], call: str) -> float:
    """When the last line of a call was written, in seconds since 1970."""
    lines = of_call(entries, call, "first", "round")
    return max((line["at"] for line in lines if isinstance(line.get("at"), float)), default=0.0)


def _samples(timed: Sequence[Entry]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {
        "seconds": [value for entry in timed for value in entry["seconds"]],
        "centre": [median(entry["seconds"]) for entry in timed],
        "two modes": [0.0 for _ in timed],
        "kept": [len(entry["seconds"]) for entry in timed],
    }
    for name in _PER_ROUND:
        values[name] = [entry[name] for entry in timed]
    if all(entry.get("control") for entry in timed):
        values["control"] = [entry["control"] for entry in timed]
    return values


def _beside(timed: Sequence[Entry], call: str, yardsticks: Sequence[Entry]) -> dict[str, list[float]]:
    """What each yardstick took for the same call in the same rounds, where it has all of them."""
    result = {}
    group, _, case = call.partition("/")
    shape = case.partition("/")[2]
    for backend in yardsticks_of(group):
        theirs = {
            entry["round"]: median(entry["seconds"])
            for entry in rounds_of(yardsticks, f"{group}/{backend}/{shape}")
            if entry["seconds"]
        }
        values = [theirs.get(entry["round"]) for entry in timed]
        if all(values):
            result[backend] = [value for value in values if value]
    return result


def _head(entries: Sequence[Entry], call: str) -> dict[str, str]:
    """Which sweep and card a record comes from: the notes of the session in which the last line of the call was taken."""
    notes: dict[str, Any] = {}
    session: dict[str, Any] = {}
    for entry in entries:
        if entry["kind"] == "session":
            session = entry["words"]
        elif entry.get("call") == call:
            notes = session
    return {str(name): str(text) for name, text in notes.items()}


def _notes(timed: Sequence[Entry]) -> dict[str, str]:
    """What the timer said of the last round, and what is noted of any."""
    details = {str(name): str(text) for name, text in timed[-1]["words"].items()}
    notes = dict.fromkeys(str(entry["words"]["notes"]) for entry in timed if "notes" in entry["words"])
    return details | ({"notes": "; ".join(list(notes)[:_MOST_NOTES])} if notes else {})
