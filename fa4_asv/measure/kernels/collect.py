"""Compile cases for an architecture in fresh processes and read their kernels and loops.

Of the core these are two groups of one compile; in other groups a kernel and its loops are one record.

Answers come from a disk cache keyed by FA4's source tree, toolchain, architecture and call, so that a
second metric, a repeated run or `asv find` compiles nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fa4_asv.base import scratch
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.side_by_side import cores
from fa4_asv.catalog.benchmarks import key_of
from fa4_asv.catalog.flavours import AS_CU12, PLAIN, without_torch
from fa4_asv.catalog.kernels import KERNEL_GROUPS, Case, KernelGroup
from fa4_asv.measure.cached_jobs import cache_path, cached, failure, run_and_cache, write_cache
from fa4_asv.measure.context import Context
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.kernels.asked import reached
from fa4_asv.measure.kernels.cubin import Cubin, read_cubin
from fa4_asv.measure.kernels.kept_cubins import keep, loops_of_kept
from fa4_asv.measure.kernels.loop_records import loop_record, with_loops
from fa4_asv.measure.pool import Job, Outcome
from fa4_asv.record.schema import CaseRecord, Records, toolchain_digest

# A kernel takes 1-9 s, four times that under the oldest DSLs; a call has up to four kernels.
CALL_TIMEOUT = 180.0

# What one compile of the core gives, each with a cache of its own.
OF_A_COMPILE = ("codegen", "loops")
# Kernels around the main one, as a record names them where a call has none.
_ROLES = {"combine": "combine", "dq": "dQ GEMM", "dk": "dK GEMM"}


def measure(context: Context, wanted: Sequence[tuple[str, ...]], processes: int | None = None) -> Records:
    """Records of `wanted` (arch, case name) pairs, keyed "sm_90/fwd_d128_causal".

    Every pair has a record, whatever its compile did. Broken ones are not cached: they are tried again
    in the next run.
    """
    return _measure(context, "codegen", wanted, processes or cores())


def measure_loops(
    context: Context, wanted: Sequence[tuple[str, ...]], processes: int | None = None
) -> Records:
    """The same of the loops of main kernels: after `measure`, in any process, nothing is compiled again."""
    return _measure(context, "loops", wanted, processes or cores())


def measure_group(
    group: str,
) -> Callable[[Context, Sequence[tuple[str, ...]]], Records]:
    """The `measure` of one of KERNEL_GROUPS beyond the core: its kernels, each with its loops."""

    def measure_them(context: Context, wanted: Sequence[tuple[str, ...]]) -> Records:
        return _measure(context, group, wanted, cores())

    return measure_them


def _kernels(group: str) -> KernelGroup:
    """Those that a group of benchmarks is read from: `loops` from `codegen`, others from their own."""
    return KERNEL_GROUPS["codegen" if group in OF_A_COMPILE else group]


def _measure(context: Context, group: str, wanted: Sequence[tuple[str, ...]], processes: int) -> Records:
    records, missing = known(context, wanted, group)
    if missing and group == "loops":
        for call, loops in loops_of_kept(
            context, [(call, _keys(call[0], call[1], group)) for call in missing]
        ):
            write_cache(cache_path(context, group, *call), loops)
            records |= loops
        missing = [call for call in missing if not records.keys() >= set(_keys(call[0], call[1], group))]
    if missing and context.flavour == PLAIN:
        taken, missing = _as_cu12(context, group, missing, processes)
        records |= taken
    if missing:
        records |= _compile(context, group, missing, processes)
    return {key: records[key] for key in map(key_of, wanted)}


def known(
    context: Context, wanted: Sequence[tuple[str, ...]], group: str = "codegen"
) -> tuple[Records, list[tuple[str, ...]]]:
    """What the cache has of `wanted` (and more cases of the same calls), and the (arch, call) it lacks."""
    cases = _kernels(group).cases
    return cached(context, group, ((arch, cases[name].call.name) for arch, name in wanted))


def _as_cu12(
    context: Context, group: str, calls: Sequence[tuple[str, ...]], processes: int
) -> tuple[Records, list[tuple[str, ...]]]:
    """Records of the calls that torch's CUDA does not reach, which are cu12's and say so; and the other calls."""
    other = reached(context, calls, processes)
    same = [pair for pair in calls if pair not in other]
    packages = without_torch(context.packages)
    cu12 = replace(context, flavour="cu12", packages=packages, digest=toolchain_digest("cu12", packages))
    cases = [(arch, name) for arch, call in same for name in _cases_of(call, group)]
    taken = _measure(cu12, group, cases, processes)
    for each in OF_A_COMPILE if group in OF_A_COMPILE else (group,):
        records = taken if each == group else known(cu12, cases, each)[0]
        _take_over(context, each, same, records)
    return {key: _marked(group, record) for key, record in taken.items()}, [p for p in calls if p in other]


def _take_over(context: Context, group: str, calls: Sequence[tuple[str, ...]], records: Records) -> None:
    """Keep what cu12 has of `calls` as plain's, where it has all of a call."""
    for arch, call in calls:
        keys = _keys(arch, call, group)
        if records.keys() >= set(keys):
            taken = {key: _marked(group, records[key]) for key in keys}
            write_cache(cache_path(context, group, arch, call), taken)


def _marked(group: str, record: CaseRecord) -> CaseRecord:
    """A kernel says whose it is, and leaves its opcodes to cu12's record; its loops have its digest."""
    if group == "loops" or record.state != "measured":
        return record
    return replace(record, why=AS_CU12, opcodes={})


def _cases_of(call: str, group: str) -> list[str]:
    """Every kernel of a call, or the main one: others have no loop that waits."""
    return [
        case.name
        for case in _kernels(group).cases.values()
        if case.call.name == call and (group != "loops" or case.role == "main")
    ]


def _keys(arch: str, call: str, group: str) -> list[str]:
    return [f"{arch}/{name}" for name in _cases_of(call, group)]


def _compile(context: Context, group: str, calls: Sequence[tuple[str, ...]], processes: int) -> Records:
    """Compile `calls` (arch, call name) and read their cubins; what `group` is not of the compile goes to its cache."""
    folder = scratch.make("codegen")
    cubins: dict[str, Cubin] = {}

    def records_of(asked: tuple[str, ...], outcome: Outcome) -> Records:
        records = _records_of(context, group, asked, outcome, cubins)
        for other in records.keys() - {group}:
            write_cache(cache_path(context, other, *asked), records[other])
        return records[group]

    around = {case.call.name for case in _kernels(group).cases.values() if case.role != "main"}
    dumps = folder / "dumps"
    dumps.mkdir()
    keep = (("CUTE_DSL_KEEP_CUBIN", "1"), ("FA4_ASV_DUMPS", str(dumps)))
    command = (sys.executable, "-m", "fa4_asv.measure.kernels.worker")
    jobs = [
        Job(
            f"{arch}/{call}",
            {"call": call, "into": str(folder / arch / call), "around": call in around},
            command,
            (*target_environment(arch, context.flavour, context.torch_cuda), *keep),
            CALL_TIMEOUT,
        )
        for arch, call in sorted(calls)
    ]
    try:
        return run_and_cache(context, group, jobs, processes, records_of, "compiled")
    finally:
        scratch.remove(folder)


def _records_of(
    context: Context, group: str, asked: tuple[str, ...], outcome: Outcome, cubins: dict[str, Cubin]
) -> dict[str, Records]:
    """The records of a call by group, from what its process answered."""
    arch, call = asked
    cases, core = _kernels(group).cases, group in OF_A_COMPILE
    kernels = "codegen" if core else group
    whole = {
        f"{arch}/{name}": _record(context, cases[name], outcome, cubins) for name in _cases_of(call, kernels)
    }
    read = {key: cubins[digest].loops if (digest := record.sha256) else None for key, record in whole.items()}
    if not core:
        return {group: {key: with_loops(record, read[key]) for key, record in whole.items()}}
    loops = {key: loop_record(whole[key], read[key]) for key in _keys(arch, call, "loops")}
    return {"codegen": whole, "loops": loops}


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
        return CaseRecord("unsupported", why=_without(case))
    try:
        cubin = read_cubin(Path(kernel["cubin"]), context.cuobjdump, context.nvdisasm, cubins)
        keep(context, Path(kernel["cubin"]), cubin.sha256)
    except Fa4AsvError as unreadable:
        return CaseRecord("broken", why=str(unreadable))
    return CaseRecord(
        "measured",
        figures=asdict(cubin.figures),
        sha256=cubin.sha256,
        kernel=kernel["kernel"],
        opcodes=cubin.opcodes,
    )


def _without(case: Case) -> str:
    """Why there is no such kernel; the words of the core are recorded, and stay."""
    if case.role.startswith("p"):
        return f"this backward has no {case.role.partition('_')[0]}process kernel"
    return f"this call has no {_ROLES[case.role]} kernel"


def _kernel_of(case: Case, kernels: list[dict[str, Any]], whole: bool = True) -> dict[str, Any] | None:
    """The kernel of `case` among those its call compiled, in the order of compilation.

    FA4 compiles the postprocess of dQ first; those of dK and dV, where there are any, share the last.
    Where the call broke off (not `whole`), a single postprocess is that of dQ alone.
    """
    pre = [kernel for kernel in kernels if "Preprocess" in kernel["kernel"]]
    post = [kernel for kernel in kernels if "Postprocess" in kernel["kernel"]]
    combine = [kernel for kernel in kernels if "Combine" in kernel["kernel"]]
    stem = "Backward" if case.call.backward else "Forward"
    main = [kernel for kernel in kernels if stem in kernel["kernel"] and kernel not in pre + post + combine]
    chosen = {
        "main": main[:1],
        "pre": pre[:1],
        "post_dq": post[:1],
        "post_dkv": post[-1:] if whole else post[1:][-1:],
        "combine": combine[:1],
        "dq": [kernel for kernel in kernels if kernel["kernel"].startswith("dQ")][:1],
        "dk": [kernel for kernel in kernels if kernel["kernel"].startswith("dK")][:1],
    }[case.role]
    return chosen[0] if chosen else None
