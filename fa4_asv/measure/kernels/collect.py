"""Compile cases for an architecture in fresh processes and read their kernels.

Answers come from a disk cache keyed by FA4's source tree, toolchain, architecture and call, so that a
second metric, a repeated run or `asv find` compiles nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fa4_asv.base import scratch
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.benchmarks import key_of
from fa4_asv.catalog.flavours import AS_CU12, PLAIN, without_torch
from fa4_asv.catalog.kernels import CASES, Case
from fa4_asv.measure.cached_jobs import cache_path, cached, failure, run_and_cache, write_cache
from fa4_asv.measure.context import Context
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.kernels.asked import reached
from fa4_asv.measure.kernels.cubin import Cubin, read_cubin
from fa4_asv.measure.pool import Job, Outcome, cores
from fa4_asv.record.schema import CaseRecord, Records, toolchain_digest

# A kernel takes 1-9 s, four times that under the oldest DSLs; a call has up to four kernels.
CALL_TIMEOUT = 180.0

# Calls of which more than the main kernel is read. Others share theirs, half a second a kernel.
_WITH_AROUND = {case.call.name for case in CASES.values() if case.role != "main"}


def measure(context: Context, wanted: Sequence[tuple[str, ...]], processes: int | None = None) -> Records:
    """Records of `wanted` (arch, case name) pairs, keyed "sm_90/fwd_d128_causal".

    Every pair has a record, whatever its compile did. Broken ones are not cached: they are tried again
    in the next run.
    """
    records, missing = known(context, wanted)
    if missing and context.flavour == PLAIN:
        taken, missing = _as_cu12(context, missing, processes or cores())
        records |= taken
    if missing:
        records |= _compile(context, missing, processes or cores())
    return {key: records[key] for key in map(key_of, wanted)}


def known(context: Context, wanted: Sequence[tuple[str, ...]]) -> tuple[Records, list[tuple[str, ...]]]:
    """What the cache has of `wanted` (and more cases of the same calls), and the (arch, call) it lacks."""
    return cached(context, "codegen", ((arch, CASES[name].call.name) for arch, name in wanted))


def _as_cu12(
    context: Context, calls: Sequence[tuple[str, ...]], processes: int
) -> tuple[Records, list[tuple[str, ...]]]:
    """Records of the calls that torch's CUDA does not reach, which are cu12's and say so; and the other calls."""
    other = reached(context, calls, processes)
    same = [pair for pair in calls if pair not in other]
    packages = without_torch(context.packages)
    cu12 = replace(context, flavour="cu12", packages=packages, digest=toolchain_digest("cu12", packages))
    cases = [(arch, name) for arch, call in same for name in _cases_of(call)]
    taken = {key: _marked(record) for key, record in measure(cu12, cases, processes).items()}
    for arch, call in same:
        records = {key: taken[key] for key in (f"{arch}/{name}" for name in _cases_of(call))}
        write_cache(cache_path(context, "codegen", arch, call), records)
    return taken, [pair for pair in calls if pair in other]


def _marked(record: CaseRecord) -> CaseRecord:
    return replace(record, why=AS_CU12) if record.state == "measured" else record


def _cases_of(call: str) -> list[str]:
    return [case.name for case in CASES.values() if case.call.name == call]


def _compile(context: Context, calls: Sequence[tuple[str, ...]], processes: int) -> Records:
    """Compile `calls` (arch, call name) and read their cubins."""
    folder = scratch.make("codegen")
    cubins: dict[str, Cubin] = {}

    def records_of(asked: tuple[str, ...], outcome: Outcome) -> Records:
        arch, call = asked
        names = _cases_of(call)
        return {f"{arch}/{name}": _record(context, CASES[name], outcome, cubins) for name in names}

    dumps = folder / "dumps"
    dumps.mkdir()
    keep = (("CUTE_DSL_KEEP_CUBIN", "1"), ("FA4_ASV_DUMPS", str(dumps)))
    command = (sys.executable, "-m", "fa4_asv.measure.kernels.worker")
    jobs = [
        Job(
            f"{arch}/{call}",
            {"call": call, "into": str(folder / arch / call), "around": call in _WITH_AROUND},
            command,
            (*target_environment(arch, context.flavour, context.torch_cuda), *keep),
            CALL_TIMEOUT,
        )
        for arch, call in sorted(calls)
    ]
    try:
        return run_and_cache(context, "codegen", jobs, processes, records_of, "compiled")
    finally:
        scratch.remove(folder)


def _record(context: Context, case: Case, outcome: Outcome, cubins: dict[str, Cubin]) -> CaseRecord:
    failed = failure(outcome)
    # A call that breaks off has compiled the kernels before that.
    kernels = [] if outcome.lost else outcome.answer["kernels"]
    kernel = _kernel_of(case, kernels, whole=failed is None)
    if kernel is None and failed:
        return failed
    if kernel is None:
        if case.role == "main":
            return CaseRecord("broken", why="the call returned without compiling a main kernel")
        return CaseRecord(
            "unsupported", why=f"this backward has no {case.role.partition('_')[0]}process kernel"
        )
    try:
        cubin = read_cubin(Path(kernel["cubin"]), context.cuobjdump, context.nvdisasm, cubins)
    except Fa4AsvError as unreadable:
        return CaseRecord("broken", why=str(unreadable))
    return CaseRecord(
        "measured",
        figures=asdict(cubin.figures),
        sha256=cubin.sha256,
        kernel=kernel["kernel"],
        opcodes=cubin.opcodes,
    )


def _kernel_of(case: Case, kernels: list[dict[str, Any]], whole: bool = True) -> dict[str, Any] | None:
    """The kernel of `case` among those its call compiled, in the order of compilation.

    FA4 compiles the postprocess of dQ first; those of dK and dV, where there are any, share the last.
    Where the call broke off (not `whole`), a single postprocess is that of dQ alone.
    """
    pre = [kernel for kernel in kernels if "Preprocess" in kernel["kernel"]]
    post = [kernel for kernel in kernels if "Postprocess" in kernel["kernel"]]
    stem = "Backward" if case.call.backward else "Forward"
    main = [kernel for kernel in kernels if stem in kernel["kernel"] and kernel not in pre + post]
    chosen = {
        "main": main[:1],
        "pre": pre[:1],
        "post_dq": post[:1],
        "post_dkv": post[-1:] if whole else post[1:][-1:],
    }[case.role]
    return chosen[0] if chosen else None
