"""A record of a sweep of invented turns, and the table's entries for it where the suite has none of that name."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from fa4_asv.catalog import benchmarks
from fa4_asv.catalog.benchmarks import GROUPS, SECONDS, Group
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.turns import Turn

FORWARD, BACKWARD = "forward-history", "backward-history"
CALL, LONG = "fa4/b4_s8192_h16_d128_causal", "fa4/b4_s8192_h16_d128_full"
SWEEP, CARD = "2026-11-28-1", "0123456789ab"


def add_groups(monkeypatch) -> None:
    """Both directions of the history, with the two calls of this file at least."""
    for name in (FORWARD, BACKWARD):
        if name not in GROUPS:
            stem = f"{name.partition('-')[0]}.History.track_"
            cases = tuple(tuple(call.split("/")) for call in (CALL, LONG))
            group = Group(name, stem, SECONDS, cases, exact=False, device="cuda")
            monkeypatch.setitem(GROUPS, name, group)
            monkeypatch.setattr(benchmarks, "_GROUPS", (*benchmarks._GROUPS, group))


def turns(*processes: Sequence[float], rounds: Sequence[float] = (), begin: int = 0) -> list[Turn]:
    """Turns in order, from log seconds of each round of each process; `rounds` are effects, by number."""
    results = []
    for process, logs in enumerate(processes):
        for level in logs:
            number = begin + len(results)
            results.append(Turn(math.exp(level + (rounds[number] if rounds else 0.0)), process, number))
    return results


def swept(
    taken: Sequence[Turn],
    notes: Mapping[str, str] | None = None,
    yardsticks: Mapping[str, float] | None = None,
    order: int = 0,
) -> CaseRecord:
    """The record of a case: three samples per round around its centre; each yardstick takes so long in every round.

    `order`: which commit of the sweep it was, in every round.
    """
    seconds = [
        value for turn in taken for value in (turn.seconds * 0.999, turn.seconds, turn.seconds * 1.002)
    ]
    samples = {
        "seconds": seconds,
        "centre": [turn.seconds for turn in taken],
        "kept": [3.0] * len(taken),
        "two modes": [float(turn.two_modes) for turn in taken],
        "process": [turn.process for turn in taken],
        "round": [turn.round for turn in taken],
        "order": [order] * len(taken),
        **{name: [value] * len(taken) for name, value in (yardsticks or {}).items()},
    }
    return CaseRecord(
        "measured", samples=samples, notes={"sweep": SWEEP, "card": CARD, "torch": "2.13.0", **(notes or {})}
    )


def noisy(
    seed: str, level: float, spread: float = 0.001, processes: int = 2, rounds: Sequence[float] = ()
) -> list[Turn]:
    """Three rounds of each process; `level` in log seconds."""
    rng = random.Random(seed)
    luck = [level + rng.gauss(0, spread) for _ in range(processes)]
    return turns(*([each + rng.gauss(0, spread / 3) for _ in range(3)] for each in luck), rounds=rounds)
