"""What a sweep has measured, line by line, until `asv run` records it: one file a commit, environment and card.

A line is whole or absent: it is written at once, and a last line that a kill tore is left out when it is read. So nothing
that was finished is lost, and nothing stands there twice. Below `.asv/sweeps/<machine>/<card>/`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.record.schema import CaseRecord

YARDSTICKS = ("cudnn", "fa2")
YARDSTICK_FILE = "yardsticks.jsonl"
SWEEP_FILE = "sweep.json"
_LONGEST_LINE = 1 << 16
_LARGEST_FILE = 1 << 26
_MOST_NOTES = 3  # of a record; the journal has those of every round
# Values of a round, in the names of a record's samples.
_PER_ROUND = ("process", "round", "order")

Entry = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How often each call is timed: `processes` started one after another, `rounds` of each."""

    processes: int = 2
    rounds: int = 3


def sweeps_folder(work: Path, machine: str) -> Path:
    """Where the sweeps of a machine's name lie; a folder for each card below it."""
    return work / "sweeps" / machine


def journal_path(folder: Path, commit: str, environment: str) -> Path:
    """The journal of a commit in asv's environment, in the folder of a card."""
    return folder / f"{commit[:12]}-{environment}.jsonl"


def append(path: Path, entry: Entry) -> None:
    """Add one line. Raises Fa4AsvError where it cannot be written whole."""
    line = (json.dumps(entry, sort_keys=True) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
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
    """Every whole line; none where there is no file. Raises Fa4AsvError where it is no journal."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise Fa4AsvError(f"{path} has more than {_LARGEST_FILE >> 20} MiB; it is no journal of a sweep")
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Fa4AsvError(f"cannot read {path}: {error.strerror}") from None
    return [entry for line in lines if line and (entry := _entry(line)) is not None]


def _entry(line: bytes) -> Entry | None:
    """None for a line that a kill tore."""
    if len(line) > _LONGEST_LINE:
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("kind"), str) else None


def of_call(entries: Iterable[Entry], call: str, *kinds: str) -> Iterator[Entry]:
    """The lines of one call, of these kinds, in the order they were taken."""
    return (entry for entry in entries if entry.get("call") == call and entry["kind"] in kinds)


def plan_of(entries: Sequence[Entry]) -> Plan:
    """What the newest session on this card asked for."""
    heads = [entry for entry in entries if entry["kind"] == "session"]
    return Plan(int(heads[-1]["processes"]), int(heads[-1]["rounds"])) if heads else Plan()


def verdict_of(entries: Sequence[Entry], call: str) -> CaseRecord | None:
    """What the newest guard said of a call: measured where it may be timed; None before it was asked."""
    asked = list(of_call(entries, call, "first"))
    return CaseRecord.from_json(asked[-1]["record"]) if asked else None


def failure_of(entries: Sequence[Entry], call: str) -> str:
    """Why a call that passed the guard could not be timed after it, "" where it could."""
    first = [
        number
        for number, entry in enumerate(entries)
        if entry.get("call") == call and entry["kind"] == "first"
    ]
    later = entries[first[-1] :] if first else entries
    return next((str(entry["why"]) for entry in of_call(later, call, "failed")), "")


def is_broken(entries: Sequence[Entry], call: str) -> bool:
    """Whether a call failed, before the clock or with it."""
    verdict = verdict_of(entries, call)
    return verdict is not None and (verdict.state == "broken" or bool(failure_of(entries, call)))


def rounds_of(entries: Sequence[Entry], call: str) -> list[Entry]:
    """The rounds of a call, in the order they were taken."""
    return list(of_call(entries, call, "round"))


def lacking(entries: Sequence[Entry], call: str, plan: Plan, slot: int) -> int:
    """How many rounds of a call the process in `slot` (0 or 1) still owes; 0 where it will never be timed."""
    verdict = verdict_of(entries, call)
    if verdict and (verdict.state != "measured" or failure_of(entries, call)):
        return 0
    done = sum(int(entry["slot"] == slot) for entry in rounds_of(entries, call))
    return max(0, plan.rounds - done)


def is_complete(entries: Sequence[Entry], call: str, plan: Plan) -> bool:
    """Whether nothing of a call is left to do."""
    return verdict_of(entries, call) is not None and not any(
        lacking(entries, call, plan, slot) for slot in range(plan.processes)
    )


def record_of(entries: Sequence[Entry], call: str, yardsticks: Sequence[Entry] = ()) -> CaseRecord | None:
    """The record of a call as the sidecar keeps it; None while rounds are missing. Raises Fa4AsvError on a foreign line."""
    verdict = verdict_of(entries, call)
    if verdict is None or not is_complete(entries, call, plan_of(entries)):
        return None
    if verdict.state != "measured":
        return verdict
    if why := failure_of(entries, call):
        return CaseRecord("broken", why=why)
    timed = [entry for entry in rounds_of(entries, call) if entry["seconds"]]
    if not timed:
        reasons = dict.fromkeys(str(entry["why"]) for entry in rounds_of(entries, call))
        return CaseRecord("broken", why="; ".join(reasons))
    samples = _samples(timed) | dict(verdict.samples) | _beside(timed, call, yardsticks)
    for entry in of_call(entries, call, "kernels"):
        samples |= entry["samples"]
    words = verdict.words | _words(entries, timed)
    return CaseRecord.from_json(replace(verdict, samples=samples, words=words).to_json())


def _samples(timed: Sequence[Entry]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {
        "seconds": [value for entry in timed for value in entry["seconds"]],
        "centre": [median(entry["seconds"]) for entry in timed],
        "two modes": [0.0 for _ in timed],
        "kept": [len(entry["seconds"]) for entry in timed],
    }
    for name in _PER_ROUND:
        found[name] = [entry[name] for entry in timed]
    if all(entry["control"] for entry in timed):
        found["control"] = [entry["control"] for entry in timed]
    return found


def _beside(timed: Sequence[Entry], call: str, yardsticks: Sequence[Entry]) -> dict[str, list[float]]:
    """What each yardstick took for the same call in the same rounds, where it has all of them."""
    found = {}
    group, _, case = call.partition("/")
    shape = case.partition("/")[2]
    for backend in YARDSTICKS:
        theirs = {
            entry["round"]: median(entry["seconds"])
            for entry in rounds_of(yardsticks, f"{group}/{backend}/{shape}")
            if entry["seconds"]
        }
        values = [theirs.get(entry["round"]) for entry in timed]
        if all(values):
            found[backend] = [value for value in values if value]
    return found


def _words(entries: Sequence[Entry], timed: Sequence[Entry]) -> dict[str, str]:
    """Which sweep and card the rounds come from, and what the timer said of the last of them."""
    heads = [entry for entry in entries if entry["kind"] == "session"]
    words = {str(name): str(text) for name, text in (heads[-1]["words"] if heads else {}).items()}
    words |= {str(name): str(text) for name, text in timed[-1]["words"].items()}
    notes = dict.fromkeys(str(entry["words"]["notes"]) for entry in timed if "notes" in entry["words"])
    return words | ({"notes": "; ".join(list(notes)[:_MOST_NOTES])} if notes else {})
