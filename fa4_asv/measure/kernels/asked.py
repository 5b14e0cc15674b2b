"""Which calls compile another kernel where torch was built for another CUDA: asked of FA4, compiling nothing.

FA4 reads `torch.version.cuda` at its import. So the same calls are made in two processes, which differ in that answer
only, and what reaches the DSL's compiler is compared: which kernels, built and called with what.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from fa4_asv.catalog.flavours import FLAVOURS
from fa4_asv.measure.context import Context
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.pool import Job, run_jobs

# Importing FA4 takes 5 to 17 s, a call milliseconds.
_TIMEOUT = 180.0
Calls = Sequence[tuple[str, ...]]


def reached(context: Context, calls: Calls, processes: int) -> set[tuple[str, ...]]:
    """Those of `calls` (arch, call name) that torch's CUDA version reaches: not all as under cu12.

    A process that is lost leaves the question open: its calls count as reached, and are compiled.
    """
    if context.torch_cuda == FLAVOURS["cu12"].cuda:
        return set()
    arches = sorted({arch for arch, _ in calls})
    jobs = [
        _job(arch, [call for name, call in calls if name == arch], cuda)
        for arch in arches
        for cuda in (FLAVOURS["cu12"].cuda, context.torch_cuda)
    ]
    answers = {outcome.key: outcome.answer or {} for outcome in run_jobs(jobs, processes)}
    rows: set[tuple[str, ...]] = set()
    for arch, call in calls:
        item, other = (
            answers[f"{arch}/{cuda}"].get(call) for cuda in (FLAVOURS["cu12"].cuda, context.torch_cuda)
        )
        if item is None or item != other:
            rows.add((arch, call))
    return rows


def _job(arch: str, calls: list[str], cuda: str) -> Job:
    command = (sys.executable, "-m", "fa4_asv.measure.kernels.asked_worker")
    payload: Any = {"calls": calls}
    return Job(f"{arch}/{cuda}", payload, command, target_environment(arch, "plain", cuda), _TIMEOUT)
