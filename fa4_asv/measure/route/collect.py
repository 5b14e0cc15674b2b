"""Which checks of the SDPA route are broken, for each torch at hand and architecture; a process each.

A broken check is a figure with words; only a process that hangs or dies makes a case broken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fa4_asv.base.core_locks import shared
from fa4_asv.measure.cache import cache_path, read_cache, write_cache
from fa4_asv.measure.context import Context
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.pool import Job, Outcome, cores, run_jobs
from fa4_asv.record.schema import CaseRecord

# The checks take a second; importing torch and a cold DSL up to a minute.
TIMEOUT = 240.0

Records = dict[str, CaseRecord]


def measure(context: Context, wanted: Sequence[tuple[str, ...]], processes: int | None = None) -> Records:
    """Records of those of `wanted` (torch version, arch) whose torch is at hand, keyed "2.13.0/sm_90"."""
    records: Records = {}
    missing = []
    for torch, arch in wanted:
        if torch not in context.torches:
            continue
        cached = read_cache(cache_path(context, "route", torch, arch))
        if cached is None:
            missing.append((torch, arch))
        else:
            records |= cached
    if missing:
        records |= _ask(context, missing, processes or cores())
    return records


def _ask(context: Context, pairs: Sequence[tuple[str, str]], processes: int) -> Records:
    records: Records = {}

    def finished(outcome: Outcome) -> None:
        torch, _, arch = outcome.key.partition("/")
        found = {outcome.key: _record(torch, outcome)}
        write_cache(cache_path(context, "route", torch, arch), found)
        records.update(found)

    jobs = [
        Job(
            f"{torch}/{arch}",
            {},
            (context.torches[torch], "-m", "fa4_asv.measure.route.worker"),
            target_environment(arch, context.flavour, context.torch_cuda),
            TIMEOUT,
        )
        for torch, arch in pairs
    ]
    with shared(lambda _: None):
        run_jobs(jobs, processes, finished)
    return records


def _record(torch: str, outcome: Outcome) -> CaseRecord:
    if outcome.lost:
        return CaseRecord("broken", why=outcome.lost)
    answer: dict[str, Any] = outcome.answer
    # "2.13.0+cpu": which build it is does not matter, which version it is does.
    if plain_version(answer["torch"]) != torch:
        return CaseRecord("broken", why=f"the interpreter for torch {torch} holds {answer['torch']}")
    figures = {"broken": len(answer["broken"]), "checks": answer["checks"]}
    return CaseRecord("measured", figures=figures, words=answer["broken"])


def plain_version(version: str) -> str:
    """A torch's version without the build it came as: "2.13.0" of "2.13.0+cpu"."""
    return version.partition("+")[0]
