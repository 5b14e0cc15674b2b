"""Seeded inputs: the same tensor for the same shape, name, kind and seed, whatever was made before it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fa4_asv.catalog.shapes import SdpaShape

if TYPE_CHECKING:
    from torch import Tensor

# gaussian: what every benchmark uses. hard: outliers in K and V, and query rows whose scores are all equal.
KINDS = ("gaussian", "hard")
# Of calls with features: Q, K and V as views of one tensor, as a fused projection gives them; and values as a model has
# them, a few channels far larger than the others and a first key that most queries look at.
FEATURE_KINDS = (*KINDS, "one-tensor", "model")
_CHANNEL = 4.0  # times a standard deviation: the large channels of K in public models
_OUTLIER = 20.0  # times a standard deviation; larger ones saturate softmax and hide errors behind exact zeros


@dataclass(frozen=True)
class Inputs:
    """q, dout: (batch, seq, heads, dim); k, v: (batch, seq, kv_heads, dim); all of one dtype and device.

    Packed sequences lie one after another in one batch: (1, tokens, heads, dim). Of fp8 the values are e4m3's, the
    dtype is bf16's. `feature_tensors` by name (`feature_tensors_of`); K and V of pages
    lie here as sequences.
    """

    shape: SdpaShape
    q: Tensor
    k: Tensor
    v: Tensor
    dout: Tensor
    feature_tensors: dict[str, Tensor] = field(default_factory=dict)

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
        tokens = _place(shape, keys=name in ("k", "v"))
        return torch.randn((*tokens, heads, dim), generator=generator, device=device, dtype=dtype)

    q = draw("q", shape.num_heads, shape.head_dim)
    k = draw("k", shape.kv_heads, shape.head_dim)
    v = draw("v", shape.kv_heads, shape.head_dim_v)
    dout = draw("dout", shape.num_heads, shape.head_dim_v)
    if kind == "hard":
        q[:, ::7] = 0  # every key scores the same
        k[:, ::61, :, ::5] *= _OUTLIER
        v[:, 3::89] *= _OUTLIER
    if kind == "model":
        q[..., :2] += 1
        k[..., :2] += _CHANNEL
        k[:, 0] *= 2
    if shape.dtype == "fp8":
        q, k, v = (x.to(torch.float8_e4m3fn).to(dtype) for x in (q, k, v))
    if kind == "one-tensor":
        q, k, v = _views(torch, q, k, v)
    return Inputs(shape, q, k, v, dout, feature_tensors_of(torch, shape, device, draw))


def _place(shape: SdpaShape, keys: bool) -> tuple[int, int]:
    """Batch and tokens: packed sequences lie in one batch, keys in pages are sequences of their own."""
    if shape.packed and not (keys and shape.features.page):
        return (1, shape.tokens)
    return (shape.batch, shape.keys if keys else shape.seq_len)


def _views(torch: Any, *tensors: Any) -> list[Any]:
    """The same values as views of one tensor, side by side for each token; as they are where lengths differ."""
    if len({x.shape[:2] for x in tensors}) > 1:
        return list(tensors)
    flat = [x.flatten(2) for x in tensors]
    parts = torch.cat(flat, dim=2).split([x.shape[2] for x in flat], dim=2)
    return [part.unflatten(2, x.shape[2:]) for part, x in zip(parts, tensors, strict=True)]


def feature_tensors_of(
    torch: Any, shape: SdpaShape, device: str, draw: Callable[[str, int, int], Any]
) -> dict[str, Any]:
    """The tensors of a shape's features: FA4's names, `slopes` of ALiBi and `ids` of documents."""
    features, tensors = shape.features, {}
    if features.used:
        tensors["seqused_k"] = torch.tensor(shape.used_keys, dtype=torch.int32, device=device)
    if features.sink:
        tensors["learnable_sink"] = torch.linspace(-1, 2, shape.num_heads, device=device).to(
            getattr(torch, shape.torch_dtype)
        )
    if features.score == "alibi":
        tensors["slopes"] = 0.5 ** torch.arange(1, shape.num_heads + 1, device=device)
    if features.mask == "document":  # boundaries that differ from batch to batch and are no tile's
        tokens = torch.arange(shape.keys, device=device)[None, :]
        length = 300 if features.blocks else 37  # long enough that some blocks are whole
        tensors["ids"] = ((tokens + 13 * torch.arange(shape.batch, device=device)[:, None]) // length).to(
            torch.int32
        )
    if features.latent:
        tensors["qv"] = draw("qv", shape.num_heads, features.latent)
    if features.topk:
        order = torch.rand(
            shape.batch, shape.seq_len, shape.keys, generator=torch.Generator().manual_seed(shape.keys)
        )
        tensors["gather_kv_indices"] = order.argsort(-1)[..., : features.topk].to(torch.int32).to(device)
    if features.descale:
        size = (shape.batch, shape.kv_heads)
        factors = torch.linspace(0.5, 1.5, shape.batch * shape.kv_heads, device=device).reshape(size)
        tensors |= {"q_descale": factors, "k_descale": factors.flip(0), "v_descale": factors.flip(1)}
    return tensors
