"""What the launch contract is asked of: calls of FA4, and the steps in which each is made; stable names.

Names are part of asv's series: never rename one, never give one another meaning (raise the benchmark's version).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fa4_asv.catalog.shapes import SdpaShape, shape

# Heads of the queries, heads of keys and values, head dim. The last is Qwen3.5's (flash-attention#2635).
_HEADS = {"d128": (16, 16, 128), "d128_gqa4": (16, 4, 128), "d256_gqa8": (16, 2, 256)}
_WAYS = ("autograd", "varlen", "varlen_tensor")


@dataclass(frozen=True)
class Form:
    """How a call's inputs lie: `batch` sequences of `seq_len` tokens.

    `layout`: "plain" (each tensor contiguous), "packed" (q, k and v are parts of one tensor) or "heads" (the heads
    outside of the tokens).
    """

    batch: int
    seq_len: int
    layout: str = "plain"


@dataclass(frozen=True)
class LaunchCall:
    """One way to call FA4 in bf16, causal.

    `way`: "direct" (the forward that frameworks call), "autograd" and "varlen" (forward and backward of the public
    function; of packed sequences). `tensors`: the longest sequence is told as a tensor on the card, not as a number.
    """

    name: str
    way: str
    num_heads: int
    kv_heads: int
    head_dim: int
    tensors: bool = False

    @property
    def packed(self) -> bool:
        return self.way == "varlen"

    def shape(self, form: Form) -> SdpaShape:
        variant = "varlen" if self.packed else ""
        heads = (self.num_heads, form.seq_len, self.head_dim, self.kv_heads)
        return shape(form.batch, *heads, causal=True, variant=variant)


def _calls() -> list[LaunchCall]:
    calls = [LaunchCall("direct_d128", "direct", *_HEADS["d128"])]
    for name in _WAYS:
        way = name.partition("_")[0]
        calls += [
            LaunchCall(f"{name}_{dims}", way, *heads, tensors=name.endswith("tensor"))
            for dims, heads in _HEADS.items()
        ]
    return calls


LAUNCH_CALLS = {call.name: call for call in _calls()}

# How the parts of a record begin, by the metric that counts them: "compiled NAME", "read in PLACE", "allocated in PLACE".
COMPILED, READ, ALLOCATED = "compiled", "read", "allocated"
COUNTED = {"compiles": COMPILED, "host_reads": READ, "allocations": ALLOCATED}


def counts(parts: Mapping[str, int]) -> dict[str, int]:
    """The figures that parts add up to."""
    return {
        metric: sum(count for name, count in parts.items() if name.partition(" ")[0] == kind)
        for metric, kind in COUNTED.items()
    }


_BASE = Form(2, 1024)
PROCESS = "process"
# In this order, in one process that has compiled nothing; each counts what the steps before it have not compiled.
STEPS: dict[str, tuple[Form, ...]] = {
    "first": (_BASE,),
    "again": (_BASE, _BASE),
    "length": (Form(2, 2048), Form(2, 1000)),
    "batch": (Form(1, 1024), Form(5, 1024)),
    "strides": (Form(2, 1024, "packed"), Form(2, 1024, "heads")),
    "short": (Form(2, 100),),  # FA4 has kernels of their own for a single block
    # The first call of another process, which finds FA4's disk cache filled.
    PROCESS: (_BASE,),
}
