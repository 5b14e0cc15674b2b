"""How long a sweep takes, from what sweeps took on cards (docs/sweep.md)."""

from __future__ import annotations

from fa4_asv.measure.runtime.journal import Plan

# Measured on H200 machines of 16 and 64 virtual cores, 5 and 31 subjects, 2026-11-28.
GUARD = 3.5  # seconds of a core: guard and cold compile of one call of one commit, among as many others as there are cores
IMPORT = 10.0  # of a core: torch, FA4 and its compiler, per process
LOAD = 0.25  # of a core: one call, its kernels read from FA4's disk cache
TURN = 0.1  # of the card: one round of one call, its share of the yardsticks included
PROFILE = 0.14  # of the card: one backward under the profiler
RECORD = 11.0  # of a core: asv reads a commit's calls and writes them
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
