"""What calls of FA4 compile, read back and allocate, step by step; counted on fake tensors, nothing is compiled.

Three processes per architecture, one after the other. The first has no disk cache and makes all steps but the last. The
second fills FA4's disk cache, the third finds it filled. The third has another hash seed, as a user's next process has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from fa4_asv.base import scratch
from fa4_asv.base.core_locks import shared
from fa4_asv.catalog.benchmarks import key_of
from fa4_asv.catalog.launch import LAUNCH_CALLS, PROCESS, STEPS, counts
from fa4_asv.measure.cached_jobs import cache_path, cached, failure, run, write_cache
from fa4_asv.measure.context import Context
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.pool import Job, Outcome
from fa4_asv.measure.progress import progress
from fa4_asv.measure.runtime.kernel_cache import variables
from fa4_asv.record.schema import CaseRecord, Records

CALL_TIMEOUT = 60.0  # a call takes milliseconds; importing FA4 has its own bound
_COMMAND = (sys.executable, "-m", "fa4_asv.measure.contract.worker")
_IN_ONE = tuple(step for step in STEPS if step != PROCESS)
_SEED_OF_NEXT = (("PYTHONHASHSEED", "1"),)
NO_DISK_CACHE = "this FA4 keeps no kernels on disk"

Outcomes = dict[str, Outcome]  # by call


def measure(context: Context, wanted: Sequence[tuple[str, ...]]) -> Records:
    """Records of `wanted` (arch, call, step) cases, keyed "sm_90/varlen_d128/again".

    All calls of an architecture are made where one is missing: they take a second, importing FA4 takes longer.
    """
    records, missing = cached(context, "launch", ((arch, call) for arch, call, _ in wanted))
    for arch in dict.fromkeys(arch for arch, _ in missing):
        records |= _of_arch(context, arch)
    return {key: records[key] for key in map(key_of, wanted)}


def _of_arch(context: Context, arch: str) -> Records:
    with shared(lambda message: progress(context, message)), scratch.folder("launch") as folder:
        disk = variables(folder)
        in_one = _ask(context, arch, _IN_ONE)
        filling = _ask(context, arch, ("first",), disk, exports=True)
        keeps = any(folder.rglob("*.o"))
        in_another = _ask(context, arch, (PROCESS,), (*disk, *_SEED_OF_NEXT))
    records: Records = {}
    for call in LAUNCH_CALLS:
        steps = _steps(in_one[call], _IN_ONE) | _in_another(filling[call], in_another[call], keeps)
        mine = {key_of((arch, call, step)): record for step, record in steps.items()}
        write_cache(cache_path(context, "launch", arch, call), mine)
        records |= mine
    return records


def _ask(
    context: Context,
    arch: str,
    steps: Sequence[str],
    more: Iterable[tuple[str, str]] = (),
    exports: bool = False,
) -> Outcomes:
    """What a process of its own answers to every call."""
    outcomes: Outcomes = {}

    def keep(outcome: Outcome) -> Records:
        outcomes[outcome.key.rpartition("/")[2]] = outcome
        return {}

    environment = (*target_environment(arch, context.flavour, context.torch_cuda), *more)
    jobs = [
        Job(
            f"{arch}/{call}",
            {"call": call, "steps": list(steps), "exports": exports},
            _COMMAND,
            environment,
            CALL_TIMEOUT,
            again=True,  # where children cannot be made, a process ends after one call
        )
        for call in LAUNCH_CALLS
    ]
    run(context, jobs, 1, keep, "asked")
    return outcomes


def _steps(outcome: Outcome, names: Sequence[str]) -> Records:
    """A record for each step of one call."""
    if failed := failure(outcome):
        return dict.fromkeys(names, failed)
    return {name: _record(Outcome(outcome.key, outcome.answer["steps"][name])) for name in names}


def _record(step: Outcome) -> CaseRecord:
    if failed := failure(step):
        return failed
    parts = step.answer["parts"]
    return CaseRecord("measured", figures=counts(parts), parts=parts)


def _in_another(filling: Outcome, other: Outcome, keeps: bool) -> Records:
    """The record of the call that finds the disk cache filled: what went wrong while it was filled counts, too."""
    before = _steps(filling, ("first",))["first"]
    if before.state != "measured":
        return {PROCESS: before}
    if not keeps:
        return {PROCESS: CaseRecord("unsupported", why=NO_DISK_CACHE)}
    return _steps(other, (PROCESS,))
