"""Peak memory of FA4's calls without a GPU: what its host code allocates, traced on fake tensors.

One process an architecture (`worker`), both at once. Answers come from a disk cache, so that the
growth benchmark traces nothing that the peak benchmark has traced, and the other way round.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from fa4_asv.base.core_locks import shared
from fa4_asv.catalog.benchmarks import FAMILIES, TRACED, key_of
from fa4_asv.measure.cache import cache_path, read_cache, write_cache
from fa4_asv.measure.context import Context
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.pool import Job, Outcome, run_jobs
from fa4_asv.measure.progress import progress
from fa4_asv.record.schema import CaseRecord

# A case takes milliseconds, the first of a process a second or two; nothing is compiled.
CASE_TIMEOUT = 60.0

Records = dict[str, CaseRecord]


def measure(context: Context, wanted: Sequence[tuple[str, ...]]) -> Records:
    """Records of `wanted` (arch, traced name) pairs, keyed "sm_90/fwd_b8_s4096_h16_d128_full".

    Every pair has a record, whatever its process did. Broken ones are not cached: they are tried again
    in the next run.
    """
    keys = [key_of(case) for case in wanted]
    records: Records = {}
    missing: dict[str, list[str]] = {}
    for arch, name in dict.fromkeys(wanted):
        cached = read_cache(cache_path(context, "memory", arch, name))
        if cached is None:
            missing.setdefault(arch, []).append(name)
        else:
            records |= cached
    if missing:
        records |= _trace(context, missing)
    return {key: records[key] for key in keys}


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


def _trace(context: Context, missing: dict[str, list[str]]) -> Records:
    """Trace `missing` (names by architecture), each architecture in a process of its own."""
    records: Records = {}

    def trace(arch: str) -> Records:
        return _trace_arch(context, arch, missing[arch])

    try:
        with shared(lambda words: progress(context, words)), ThreadPoolExecutor(len(missing)) as threads:
            for found in threads.map(trace, missing):
                records |= found
    finally:
        progress(context, "")
    return records


def _trace_arch(context: Context, arch: str, names: Sequence[str]) -> Records:
    records: Records = {}

    def finished(outcome: Outcome) -> None:
        found = {key_of((arch, outcome.key)): _record(outcome)}
        write_cache(cache_path(context, "memory", arch, outcome.key), found)
        records.update(found)
        progress(context, f"traced {len(records)}/{len(names)} cases of {arch}")

    command = (sys.executable, "-m", "fa4_asv.measure.memory.worker")
    environment = target_environment(arch, context.flavour, context.torch_cuda)
    jobs = [
        Job(name, {"backward": backward, "shape": asdict(shape)}, command, environment, CASE_TIMEOUT)
        for name in names
        for backward, shape in (TRACED[name],)
    ]
    run_jobs(jobs, 1, finished)
    return records


def _record(outcome: Outcome) -> CaseRecord:
    if outcome.lost:
        return CaseRecord("broken", why=outcome.lost)
    error = outcome.answer["error"]
    if error:
        words = f"{error['kind']}: {error['words']}"
        return CaseRecord("unsupported" if error["refused"] else "broken", why=words)
    figures = {metric: outcome.answer[metric] for metric in ("peak_bytes", "extra_bytes")}
    return CaseRecord("measured", figures=figures, parts=outcome.answer["parts"])
