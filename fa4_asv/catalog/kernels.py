"""The codegen cases: which kernels are watched, by stable names.

A *call* is one forward or backward of FA4; a *case* is one of the kernels that a call compiles. Names
are part of asv's series: never rename one, never give one another meaning (raise the benchmark's
version instead).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fa4_asv.catalog.shapes import SdpaShape, shape

ARCHES = ("sm_90", "sm_100")

# Compile target of each architecture, and the SMs of the SKU that the schedule is built for: H100/H200
# SXM and B200 (NVIDIA's data sheets).
TARGETS = {"sm_90": ("sm_90a", 132), "sm_100": ("sm_100a", 148)}

HEAD_DIMS = {"d64": (64, 64), "d96": (96, 96), "d128": (128, 128), "d192_128": (192, 128), "d256": (256, 256)}
MASKS = ("full", "causal")


@dataclass(frozen=True)
class Call:
    """One forward or backward of FA4 on bf16 tensors, batch 2, 1024 tokens, 16 query heads.

    FA4's kernels do not depend on batch, heads or length beyond what is varied here.
    """

    name: str
    backward: bool
    shape: SdpaShape
    return_lse: bool = True


@dataclass(frozen=True)
class Case:
    """One kernel of a call; `role` is main, pre, post_dq or post_dkv."""

    name: str
    call: Call
    role: str = "main"


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


CALLS = {call.name: call for call in _calls()}


def _cases() -> list[Case]:
    cases = [Case(name, call) for name, call in CALLS.items()]
    for dim in HEAD_DIMS:
        call = CALLS[f"bwd_{dim}_full"]
        cases += [Case(f"bwd_pre_{dim}", call, "pre"), Case(f"bwd_post_dq_{dim}", call, "post_dq")]
    varlen, gqa = CALLS["bwd_d128_full_varlen"], CALLS["bwd_d128_full_gqa4"]
    cases += [
        Case("bwd_pre_d128_varlen", varlen, "pre"),
        Case("bwd_post_dq_d128_varlen", varlen, "post_dq"),
        Case("bwd_post_dkv_d128_gqa4", gqa, "post_dkv"),
    ]
    return cases


CASES = {case.name: case for case in _cases()}


def main_kernel(one: SdpaShape, backward: bool) -> str:
    """The watched case that is the main kernel of a call at any length and number of heads; "" where none is.

    A window is watched with 128 keys per query; what FA4 compiles does not depend on its width.
    """
    dim = next((name for name, dims in HEAD_DIMS.items() if dims == (one.head_dim, one.head_dim_v)), "")
    grouped = "" if one.kv_heads == one.num_heads else f"_gqa{one.num_heads // one.kv_heads}"
    mask = "window" if one.window is not None else "causal" if one.causal else "full"
    variant = f"_{one.variant}" if one.variant else ""
    name = f"{'bwd' if backward else 'fwd'}_{dim}_{mask}{variant}{grouped}"
    return name if one.dtype == "bf16" and name in CASES else ""
