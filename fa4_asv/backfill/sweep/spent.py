"""How long a sweep takes, from what sweeps took on cards (docs/sweep.md)."""

from __future__ import annotations

from fa4_asv.measure.runtime.journal import Plan

# Measured on an H200 machine of 16 virtual cores, 63 subjects, 2026-11-29.
GUARD = 3.0  # seconds of a core: guard and cold compile of one call of one commit, among as many others as there are cores
IMPORT = 10.0  # of a core: torch, FA4 and its compiler, per process
LOAD = 0.2  # of a core: one call, its kernels read from FA4's disk cache
TURN = 0.061  # of the card: one round of one call, its share of the yardsticks included
PROFILE = 0.042  # of the card: one backward under the profiler, its first start included
RECORD = 7.0  # of a core: asv reads a commit's calls and writes them
_GUARD_CALLS = 14  # of one process


def estimate(subjects: int, calls: int, plan: Plan, cores: int, cards: int) -> dict[str, float]:
    """Seconds of each phase, nothing known before. `cards` share the calls."""
    guards = max(cards, -(-calls // _GUARD_CALLS))
    least = IMPORT + min(calls, _GUARD_CALLS) * GUARD  # one process does its part alone
    starts = subjects * (cards * IMPORT + calls * LOAD) / cores
    return {
        "guard and compile": max(subjects * (calls * GUARD + guards * IMPORT) / cores, least),
        "start of processes": plan.processes * max(starts, IMPORT),
        "rounds": plan.processes * subjects * calls * plan.rounds * TURN / cards,
        "profiler": subjects * calls / 2 * PROFILE / cards if plan.profile else 0.0,
        "record": max(subjects / cores, 1) * RECORD,
    }
