"""Peak memory of FA4's calls without a GPU: what its host code allocates, traced on fake tensors.

One process per architecture (`worker`), both at once. Answers come from a disk cache, so that the
growth benchmark traces nothing that the peak benchmark has traced, and the other way round.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

from fa4_asv.catalog.benchmarks import FAMILIES, TRACED, key_of
from fa4_asv.catalog.kernels import CALLS
from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.cached_jobs import cached, failure, run_and_cache
from fa4_asv.measure.context import Context
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.memory.tracker import WORKSPACE
from fa4_asv.measure.pool import Job, Outcome
from fa4_asv.record.schema import CaseRecord, Records

# A case takes milliseconds, the first of a process a second or two; nothing is compiled.
CASE_TIMEOUT = 60.0


def measure(context: Context, wanted: Sequence[tuple[str, ...]]) -> Records:
    """Records of `wanted` (arch, traced name) pairs, keyed "sm_90/fwd_b8_s4096_h16_d128_full".

    Every pair has a record, whatever its process did. Broken ones are not cached: they are tried again
    in the next run.
    """
    return _measure(context, "memory", wanted)


def measure_group(group: str) -> Callable[[Context, Sequence[tuple[str, ...]]], Records]:
    """The same of the calls of another group, whose names are (arch, call)."""

    def measure_them(context: Context, wanted: Sequence[tuple[str, ...]]) -> Records:
        return _measure(context, group, wanted)

    return measure_them


def _measure(context: Context, group: str, wanted: Sequence[tuple[str, ...]]) -> Records:
    records, missing = cached(context, group, wanted)
    names: dict[str, list[str]] = {}
    for arch, name in missing:
        names.setdefault(arch, []).append(name)
    if names:
        with ThreadPoolExecutor(len(names)) as threads:
            for result in threads.map(lambda arch: _trace(context, group, arch, names[arch]), names):
                records |= result
    return {key: _of_the_workspace(records[key]) for key in map(key_of, wanted)}


def measure_growth(context: Context, wanted: Sequence[tuple[str, ...]]) -> Records:
    """Records of `wanted` (arch, family) pairs: how far the peaks of a family lie apart.

    A family has the same number of tokens throughout; what grows with the sequence length is quadratic.
    """
    cases = [(arch, name) for arch, family in wanted for name in FAMILIES[family]]
    traced = measure(context, cases)
    return {
        key_of((arch, family)): _growth({name: traced[key_of((arch, name))] for name in FAMILIES[family]})
        for arch, family in wanted
    }


def _growth(family: Records) -> CaseRecord:
    """Measured only when the whole family is; else what stands in the way, the broken before the refused."""
    for state in ("broken", "unsupported"):
        for name, record in family.items():
            if record.state == state:
                return CaseRecord(state, why=f"{name}: {record.why}")
    peaks = {name: record.figures["peak_bytes"] for name, record in family.items()}
    growth = max(peaks.values()) - min(peaks.values())
    return CaseRecord("measured", figures={"growth_bytes": growth}, parts=peaks)


def _call_of(name: str) -> tuple[bool, SdpaShape, bool]:
    """Whether it is a backward, the shape, and whether a forward returns the LSE."""
    if name in TRACED:
        return (*TRACED[name], True)
    call = CALLS[name]
    return call.backward, call.shape, call.return_lse


def _trace(context: Context, group: str, arch: str, names: Sequence[str]) -> Records:
    """Trace the calls of an architecture in one process."""
    command = (sys.executable, "-m", "fa4_asv.measure.memory.worker")
    environment = target_environment(arch, context.flavour, context.torch_cuda)
    jobs = [
        Job(
            f"{arch}/{name}",
            {"backward": backward, "shape": asdict(shape), "lse": lse},
            command,
            environment,
            CASE_TIMEOUT,
        )
        for name in names
        for backward, shape, lse in (_call_of(name),)
    ]
    return run_and_cache(context, group, jobs, 1, _record, "traced")


def _record(case: tuple[str, ...], outcome: Outcome) -> Records:
    return {key_of(case): failure(outcome) or _figures(outcome)}


def _of_the_workspace(record: CaseRecord) -> CaseRecord:
    """Without the parts that the call itself says, its inputs and outputs: they were a tenth of the whole record."""
    return replace(record, parts={name: size for name, size in record.parts.items() if is_workspace(name)})


def is_workspace(part: str) -> bool:
    """Whether a part of a peak is neither input nor output."""
    return part.partition(" ")[0] == WORKSPACE


def _figures(outcome: Outcome) -> CaseRecord:
    figures = {metric: outcome.answer[metric] for metric in ("peak_bytes", "extra_bytes")}
    return CaseRecord("measured", figures=figures, parts=outcome.answer["parts"])
