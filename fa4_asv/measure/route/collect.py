"""Which checks of a route are broken, for each torch at hand and architecture; a process each.

A broken check is a figure with a reason, and so is one that torch or FA4 refuses; only a process that hangs or dies makes a
case broken.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fa4_asv.base.side_by_side import cores
from fa4_asv.catalog.benchmarks import REFUSED, key_of
from fa4_asv.measure.benchmark_api import Measure
from fa4_asv.measure.cached_jobs import cached, failure, run_and_cache
from fa4_asv.measure.context import Context
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.pool import Job, Outcome
from fa4_asv.record.schema import CaseRecord, Records

# The checks take a second; importing torch and a cold DSL up to a minute.
TIMEOUT = 240.0
_MODULES = {"route": "fa4_asv.measure.route.worker"}  # of the others:
_BEYOND = "fa4_asv.measure.route.beyond_worker"


def measure(
    context: Context, wanted: Sequence[tuple[str, ...]], processes: int | None = None, group: str = "route"
) -> Records:
    """Records of those of `wanted` (torch version, arch) whose torch is at hand, keyed "2.13.0/sm_90"."""
    records, missing = cached(context, group, (case for case in wanted if case[0] in context.torches))
    if missing:
        records |= _ask(context, missing, processes or cores(), group)
    return records


def measure_group(group: str) -> Measure:
    """`measure` for one of catalog.benchmarks.BY_TORCH."""
    return partial(measure, group=group)


def _ask(context: Context, pairs: Sequence[tuple[str, ...]], processes: int, group: str = "route") -> Records:
    jobs = [
        Job(
            f"{torch}/{arch}",
            {"route": group.removeprefix("route-")},
            (context.torches[torch], "-m", _MODULES.get(group, _BEYOND)),
            target_environment(arch, context.flavour, context.torch_cuda),
            TIMEOUT,
        )
        for torch, arch in pairs
    ]
    return run_and_cache(context, group, jobs, processes, _records)


def _records(case: tuple[str, ...], outcome: Outcome) -> Records:
    return {key_of(case): failure(outcome) or _figures(case[0], outcome.answer)}


def _figures(torch: str, answer: dict[str, Any]) -> CaseRecord:
    # "2.13.0+cpu": which build it is does not matter, which version it is does.
    if plain_version(answer["torch"]) != torch:
        return CaseRecord("broken", why=f"the interpreter for torch {torch} holds {answer['torch']}")
    figures = {"broken": len(answer["broken"]), "checks": answer["checks"]}
    notes = dict(answer["broken"])
    if "refused" in answer:
        figures["refused"] = len(answer["refused"])
        notes |= {name: f"{REFUSED}{reason}" for name, reason in answer["refused"].items()}
    return CaseRecord("measured", figures=figures, notes=notes)


def plain_version(version: str) -> str:
    """A torch's version without the build it came as: "2.13.0" of "2.13.0+cpu"."""
    return version.partition("+")[0]
