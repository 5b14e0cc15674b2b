"""Seeded inputs: the same tensor for the same shape, name, kind and seed, whatever was made before it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fa4_asv.shapes import SdpaShape

if TYPE_CHECKING:
    from torch import Tensor

# gaussian: what every benchmark uses. hard: outliers in K and V, and query rows whose scores are all equal.
KINDS = ("gaussian", "hard")
_OUTLIER = 20.0  # times a standard deviation; larger ones saturate softmax and hide errors behind exact zeros


@dataclass(frozen=True)
class Inputs:
    """q, dout: (batch, seq, heads, dim); k, v: (batch, seq, kv_heads, dim); all of one dtype and device."""

    shape: SdpaShape
    q: Tensor
    k: Tensor
    v: Tensor
    dout: Tensor


def make(torch: Any, shape: SdpaShape, device: str, kind: str = "gaussian", seed: int = 0) -> Inputs:
    """Inputs of `shape`, made on `device` (another device draws other numbers)."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[shape.dtype]

    def draw(name: str, heads: int, dim: int) -> Any:
        words = f"{shape.name}/{name}/{kind}/{seed}"
        generator = torch.Generator(device=device)
        generator.manual_seed(int.from_bytes(hashlib.sha256(words.encode()).digest()[:6], "big"))
        size = (shape.batch, shape.seq_len, heads, dim)
        return torch.randn(size, generator=generator, device=device, dtype=dtype)

    q = draw("q", shape.num_heads, shape.head_dim)
    k = draw("k", shape.kv_heads, shape.head_dim)
    v = draw("v", shape.kv_heads, shape.head_dim_v)
    dout = draw("dout", shape.num_heads, shape.head_dim_v)
    if kind == "hard":
        q[:, ::7] = 0  # every key scores the same
        k[:, ::61, :, ::5] *= _OUTLIER
        v[:, 3::89] *= _OUTLIER
    return Inputs(shape, q, k, v, dout)
