"""The codegen cases: which kernels are watched, by stable names.

A *call* is one forward or backward of FA4; a *case* is one of the kernels that a call compiles. Names
are part of asv's series: never rename one, never give one another meaning (raise the benchmark's
version instead). KERNEL_GROUPS are the cases that are recorded together; `calls.py` has those beyond the core.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fa4_asv.catalog import calls
from fa4_asv.catalog.calls import Call
from fa4_asv.catalog.features import Features
from fa4_asv.catalog.shapes import SdpaShape, shape

ARCHES = ("sm_90", "sm_100")
ULTRA, CONSUMER = "sm_103", "sm_120"

# Compile target of each architecture, and the SMs of the SKU that the schedule is built for: H100/H200
# SXM, B200, RTX 5090 (NVIDIA's data sheets), B300 (as B200).
TARGETS = {
    "sm_90": ("sm_90a", 132),
    "sm_100": ("sm_100a", 148),
    ULTRA: ("sm_103a", 148),
    CONSUMER: ("sm_120a", 170),
}

HEAD_DIMS = {"d64": (64, 64), "d96": (96, 96), "d128": (128, 128), "d192_128": (192, 128), "d256": (256, 256)}
MASKS = ("full", "causal")


@dataclass(frozen=True)
class Case:
    """One kernel of a call; `role` is main, pre, post_dq, post_dkv, combine, or a GEMM of MLA's backward: dq, dk."""

    name: str
    call: Call
    role: str = "main"


@dataclass(frozen=True)
class KernelGroup:
    """Cases that are recorded together, each for all of `arches`; `stem` is the class of their benchmarks."""

    name: str
    stem: str
    arches: tuple[str, ...]
    cases: dict[str, Case]


def _calls() -> list[Call]:
    small = partial(shape, 2, 16, 1024)
    calls = []
    for direction in ("fwd", "bwd"):
        backward = direction == "bwd"
        for dim, (d, dv) in HEAD_DIMS.items():
            for mask in MASKS:
                each_shape = small(d, head_dim_v=dv, causal=mask == "causal")
                calls.append(Call(f"{direction}_{dim}_{mask}", backward, each_shape))
        for mask in MASKS:
            stem, like = f"{direction}_d128_{mask}", partial(small, 128, causal=mask == "causal")
            if backward:
                calls.append(Call(f"{stem}_deterministic", True, like(variant="deterministic")))
            else:
                calls.append(Call(f"{stem}_nolse", False, like(), return_lse=False))
            calls.append(Call(f"{stem}_gqa4", backward, like(kv_heads=4)))
            calls.append(Call(f"{stem}_varlen", backward, like(variant="varlen")))
        # A window of 128 tokens to the left, none to the right: gpt-oss's sliding window.
        calls.append(Call(f"{direction}_d128_window", backward, small(128, window=128)))
    return calls


_CORE = {call.name: call for call in _calls()}


def _cases() -> list[Case]:
    cases = [Case(name, call) for name, call in _CORE.items()]
    for dim in HEAD_DIMS:
        call = _CORE[f"bwd_{dim}_full"]
        cases += [Case(f"bwd_pre_{dim}", call, "pre"), Case(f"bwd_post_dq_{dim}", call, "post_dq")]
    varlen, gqa = _CORE["bwd_d128_full_varlen"], _CORE["bwd_d128_full_gqa4"]
    cases += [
        Case("bwd_pre_d128_varlen", varlen, "pre"),
        Case("bwd_post_dq_d128_varlen", varlen, "post_dq"),
        Case("bwd_post_dkv_d128_gqa4", gqa, "post_dkv"),
    ]
    return cases


CASES = {case.name: case for case in _cases()}


def _by_name(made: dict[Call, tuple[str, ...]]) -> dict[str, Case]:
    """The main kernel of each call under the call's name, the others as "name_role"."""
    cases = [Case(call.name, call) for call in made]
    cases += [Case(f"{call.name}_{role}", call, role) for call, roles in made.items() for role in roles]
    return {case.name: case for case in cases}


KERNEL_GROUPS = {
    group.name: group
    for group in (
        KernelGroup("codegen", "codegen.Kernels.track_", ARCHES, CASES),
        KernelGroup("serving", "serving.Kernels.track_", ARCHES, _by_name(calls.serving())),
        KernelGroup("flex", "flex.Kernels.track_", ARCHES, _by_name(calls.flex())),
        KernelGroup("mla", "mla.Kernels.track_", ("sm_100",), _by_name(calls.mla())),
        KernelGroup("dims", "dims.Kernels.track_", ARCHES, _by_name(calls.dims())),
        KernelGroup("consumer", "consumer.Kernels.track_", (CONSUMER,), CASES),
        KernelGroup("ultra", "ultra.Kernels.track_", (ULTRA,), CASES),
    )
}
BEYOND = tuple(name for name in KERNEL_GROUPS if name != "codegen")  # groups that are measured on request
CALLS = {case.call.name: case.call for group in KERNEL_GROUPS.values() for case in group.cases.values()}


def main_kernel(shape: SdpaShape, backward: bool) -> str:
    """The watched case that is the main kernel of a call at any length and number of heads; "" where none is.

    A window is watched with 128 keys per query; what FA4 compiles does not depend on its width.
    """
    dim = next((name for name, dims in HEAD_DIMS.items() if dims == (shape.head_dim, shape.head_dim_v)), "")
    grouped = "" if shape.kv_heads == shape.num_heads else f"_gqa{shape.num_heads // shape.kv_heads}"
    mask = "window" if shape.window is not None else "causal" if shape.causal else "full"
    variant = f"_{shape.variant}" if shape.variant else ""
    name = f"{'bwd' if backward else 'fwd'}_{dim}_{mask}{variant}{grouped}"
    plain = shape.dtype == "bf16" and shape.features == Features()
    return name if plain and name in CASES else ""
