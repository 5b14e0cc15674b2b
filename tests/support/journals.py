"""Lines of a sweep's journal: a session, the first answer to a call, rounds."""

from __future__ import annotations

from typing import Any

from fa4_asv.measure.runtime.journal import version_of
from fa4_asv.record.schema import CaseRecord

FORWARD, BACKWARD = "forward-history/fa4/b1_s256", "backward-history/fa4/b1_s256"
WORDS = {"sweep": "one", "card": "a" * 12, "card name": "NVIDIA H100"}
PASSED = CaseRecord(
    "measured", samples={"first_seconds": [0.5], "peak_bytes": [1024]}, notes={"error out": "0.1"}
)


def session(processes: int = 2, rounds: int = 2, **notes: str) -> dict[str, Any]:
    return {"kind": "session", "processes": processes, "rounds": rounds, "words": WORDS | notes}


def first(call: str = FORWARD, record: CaseRecord = PASSED, at: float = 1.0) -> dict[str, Any]:
    return {"kind": "first", "call": call, "version": version_of(call), "record": record.to_json(), "at": at}


def kernels(call: str, samples: dict[str, list[float]]) -> dict[str, Any]:
    return {"kind": "kernels", "call": call, "version": version_of(call), "samples": samples}


def failed(call: str, why: str) -> dict[str, Any]:
    return {"kind": "failed", "call": call, "version": version_of(call), "why": why}


def one_round(slot: int, number: int, call: str = FORWARD, **changed: Any) -> dict[str, Any]:
    """Round `number` over all releases: three samples of about 1 ms, none twice."""
    seconds = [1e-3 + number * 1e-5 + sample * 1e-6 for sample in range(3)]
    result = {
        "kind": "round",
        "call": call,
        "version": version_of(call),
        "slot": int(slot),
        "process": int(slot),
        "round": number,
        "order": 3,
    }
    return result | {"at": 2.0, "seconds": seconds, "control": 1e-4, "words": {}, "why": ""} | changed
