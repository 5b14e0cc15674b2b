"""The turns of a case that a sweep timed, as its samples keep them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fa4_asv.record.schema import CaseRecord

HISTORY = "history"  # in the name of every group of the run-time history
YARDSTICKS = ("cudnn", "fa2")  # the first that both sides have stands beside figures of two cards
# A copy on the card that moves as many bytes as the call must: how much of its time memory explains.
COPY = "copy"
BESIDE = (*YARDSTICKS, COPY)
_SERVING, _SHAPES = "serving", "shapes"  # in the names of groups that a sweep times on request
# Samples with one value per turn, in the order taken; not every case has every one.
NEEDED = ("centre", "process", "round", "two modes")
PER_TURN = (*NEEDED, "kept", "order", "control", *BESIDE)
_KEPT = "turns"  # no field: neither compared nor written
WHOLE = ("kept", "process", "round", "order")


@dataclass(frozen=True)
class Turn:
    """One round of one release: its median `seconds`, by which process, in which round of the sweep.

    `control` and `yardsticks` are the seconds of other kernels in the same round.
    """

    seconds: float
    process: int
    round: int
    control: float | None = None
    two_modes: bool = False
    yardsticks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Where the turns of a case come from: only those of one sweep on one card are compared as seconds."""

    sweep: str
    card: str


def is_history(group: str) -> bool:
    """Whether the cases of a group are those of the run-time history."""
    return HISTORY in group.split("-")


def is_swept(group: str) -> bool:
    """Whether sweeps time the cases of a group."""
    return is_history(group) or not {_SERVING, _SHAPES}.isdisjoint(group.split("-")[1:])


def yardsticks_of(group: str) -> tuple[str, ...]:
    """What a sweep times beside the calls of a group."""
    return BESIDE if _SERVING in group.split("-") else YARDSTICKS


def origin_of(record: CaseRecord) -> Origin:
    return Origin(record.notes.get("sweep", ""), record.notes.get("card", ""))


def is_of_a_sweep(record: CaseRecord) -> bool:
    """Whether the record says which process each of its rounds is from."""
    return record.state == "measured" and "process" in record.samples


def turns_of(record: CaseRecord) -> list[Turn]:
    """The turns of a sweep's case; none where its lists are not of one length (`fa4-asv verify` says so).

    They stay with the record: a report asks for them forty times.
    """
    kept: list[Turn] | None = vars(record).get(_KEPT)
    if kept is None:
        kept = vars(record)[_KEPT] = _turns(record)
    return list(kept)


def _turns(record: CaseRecord) -> list[Turn]:
    samples = record.samples
    result = {name: samples[name] for name in PER_TURN if name in samples}
    if any(name not in result for name in NEEDED) or len({len(values) for values in result.values()}) != 1:
        return []
    beside = {name: result[name] for name in (*YARDSTICKS, "control") if name in result}
    if min(min(values) for values in (result["centre"], *beside.values())) <= 0:
        return []
    controls = beside.get("control", [None] * len(result["centre"]))
    return [
        Turn(
            seconds,
            int(result["process"][at]),
            int(result["round"][at]),
            controls[at],
            bool(result["two modes"][at]),
            {name: beside[name][at] for name in YARDSTICKS if name in beside},
        )
        for at, seconds in enumerate(result["centre"])
    ]
