"""How long a sweep takes, from what one took on a card."""

from __future__ import annotations

import math

from fa4_asv.measure.runtime.journal import Plan

# Seconds, to be replaced by what the committed sweeps took (docs/sweep.md).
GUARD = 5.0  # of a core: guard and cold compile of one call, of each release
IMPORT = 14.0  # of a core: torch, FA4 and its compiler, per process
LOAD = 0.3  # of a core: one call, its kernels read from FA4's disk cache
TURN = 0.06  # of the card: one round of one call
RECORD = 8.0  # of a core: asv reads a release's calls and writes them
_GUARD_CALLS = 8  # of one process


def estimate(subjects: int, calls: int, plan: Plan, cores: int, cards: int) -> dict[str, float]:
    """Seconds of each phase, nothing known before."""
    guards = math.ceil(calls / _GUARD_CALLS)
    starts = subjects * (cards * IMPORT + calls * LOAD) / cores
    rounds = subjects * calls * plan.rounds * TURN / cards
    return {
        "guard and compile": subjects * (calls * GUARD + guards * IMPORT) / cores,
        "start of processes": plan.processes * max(starts, IMPORT),
        "rounds": plan.processes * rounds,
        "record": subjects * RECORD / cores,
    }
