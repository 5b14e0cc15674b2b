"""Seeded inputs: the same tensor for the same shape, name, kind and seed, whatever was made before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fa4_asv.catalog.shapes import SdpaShape

if TYPE_CHECKING:
    from torch import Tensor

# gaussian: what every benchmark uses. hard: outliers in K and V, and query rows whose scores are all equal.
KINDS = ("gaussian", "hard")
_OUTLIER = 20.0  # times a standard deviation; larger ones saturate softmax and hide errors behind exact zeros


@dataclass(frozen=True)
class Inputs:
    """q, dout: (batch, seq, heads, dim); k, v: (batch, seq, kv_heads, dim); all of one dtype and device.

    Packed sequences lie one after another in one batch: (1, tokens, heads, dim). Of fp8 the values are e4m3's, the
    dtype is bf16's.
    """

    shape: SdpaShape
    q: Tensor
    k: Tensor
    v: Tensor
    dout: Tensor

    def sequences(self) -> Iterator[Inputs]:
        """Each packed sequence as dense inputs of batch 1; unpacked inputs are one piece."""
        if not self.shape.packed:
            yield self
            return
        begin = 0
        for length in self.shape.lengths:
            end = begin + length
            shape = replace(self.shape, batch=1, seq_len=length, variant="")
            yield Inputs(shape, *(x[:, begin:end] for x in (self.q, self.k, self.v, self.dout)))
            begin = end


def make(torch: Any, shape: SdpaShape, device: str, kind: str = "gaussian", seed: int = 0) -> Inputs:
    """Inputs of `shape`, made on `device` (another device draws other numbers)."""
    dtype = getattr(torch, shape.torch_dtype)

    def draw(name: str, heads: int, dim: int) -> Any:
        text = f"{shape.name}/{name}/{kind}/{seed}"
        generator = torch.Generator(device=device)
        generator.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big"))
        tokens = (1, shape.tokens) if shape.packed else (shape.batch, shape.seq_len)
        return torch.randn((*tokens, heads, dim), generator=generator, device=device, dtype=dtype)

    q = draw("q", shape.num_heads, shape.head_dim)
    k = draw("k", shape.kv_heads, shape.head_dim)
    v = draw("v", shape.kv_heads, shape.head_dim_v)
    dout = draw("dout", shape.num_heads, shape.head_dim_v)
    if kind == "hard":
        q[:, ::7] = 0  # every key scores the same
        k[:, ::61, :, ::5] *= _OUTLIER
        v[:, 3::89] *= _OUTLIER
    if shape.dtype == "fp8":
        q, k, v = (x.to(torch.float8_e4m3fn).to(dtype) for x in (q, k, v))
    return Inputs(shape, q, k, v, dout)
