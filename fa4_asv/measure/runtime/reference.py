"""What attention should give: PyTorch's MATH in full for short sequences, sampled rows and columns for long ones.

MATH needs a matrix of batch x heads x S x S, so it stops at FULL tokens. Beyond, a block of query rows against
all keys gives out and dQ there, and a block of key columns against all queries gives dK and dV: an error
that begins at some position is seen wherever the blocks lie on its far side, which is why they lie at both ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fa4_asv.catalog.features import Features
from fa4_asv.measure.runtime import feature_reference
from fa4_asv.measure.runtime.inputs import Inputs

if TYPE_CHECKING:
    from torch import Tensor

FULL = 2048  # tokens; B H S^2 fp32 beyond takes gigabytes
ROWS = 32  # sampled at each end and in the middle
_BLOCK = 1024  # queries at a time while streaming over all of them

Tensors = dict[str, "Tensor"]


def full(torch: Any, inputs: Inputs, low: bool, cast: bool = True) -> Tensors:
    """out, dq, dk, dv by MATH, in fp32 or (`low`) in the inputs' dtype; layout and (`cast`) dtype as the inputs.

    Packed sequences are computed one by one. Low means every product rounded, as in the tests that the rule comes from. MATH itself computes in fp32
    by default, which leaves a kernel that keeps P in 16 bits no error budget at all.
    """
    if inputs.shape.features != Features():
        return feature_reference.full(torch, inputs, low, cast)
    pieces = [_full(torch, piece, low, cast) for piece in inputs.sequences()]
    return {name: torch.cat([piece[name] for piece in pieces], dim=1) for name in pieces[0]}


def _full(torch: Any, inputs: Inputs, low: bool, cast: bool) -> Tensors:
    dtype = inputs.q.dtype if low else torch.float32
    q, k, v = (x.detach().transpose(1, 2).to(dtype).requires_grad_() for x in (inputs.q, inputs.k, inputs.v))
    with _products_rounded(torch), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        out = torch.nn.functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=_window_mask(torch, inputs),
            is_causal=inputs.shape.causal and inputs.shape.window is None,
            enable_gqa=inputs.shape.kv_heads != inputs.shape.num_heads,
        )
    grads = torch.autograd.grad(out, (q, k, v), inputs.dout.transpose(1, 2).to(dtype))
    outputs = dict(zip(("out", "dq", "dk", "dv"), (out.detach(), *grads), strict=True))
    return {name: x.transpose(1, 2).to(inputs.q.dtype if cast else dtype) for name, x in outputs.items()}


@contextmanager
def _products_rounded(torch: Any) -> Iterator[None]:
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


def _window_mask(torch: Any, inputs: Inputs) -> Any:
    if inputs.shape.window is None:
        return None
    positions = torch.arange(inputs.shape.seq_len, device=inputs.q.device)
    return allowed(positions[:, None], positions[None, :], inputs)


def allowed(rows: Any, columns: Any, inputs: Inputs) -> Any:
    """Whether query `rows` see key `columns` (broadcast positions)."""
    shape = inputs.shape
    if shape.window is not None:
        return (columns <= rows) & (columns >= rows - shape.window)
    return (columns <= rows) if shape.causal else (rows >= 0) & (columns >= 0)


def sampled_positions(torch: Any, inputs: Inputs) -> Any:
    """Positions at the start, in the middle and at the end of a sequence."""
    length = inputs.shape.seq_len
    count = min(ROWS, max(1, length // 3))
    starts = (0, length // 2, length - count)
    return torch.cat([torch.arange(s, s + count, device=inputs.q.device) for s in starts])


def sampled(torch: Any, inputs: Inputs, low: bool) -> Tensors:
    """out and dq at the sampled rows, dk and dv at the sampled columns, of the last batch and last KV head.

    Shapes: out, dq (rows, group, dim), dk, dv (columns, dim); group is the number of query heads that share
    the KV head. Of packed sequences, the last, which is the longest. In fp32, or (`low`) with products and
    probabilities rounded to the inputs' dtype. Of a call with features out and dq alone: `full` holds all of a small one.
    """
    if inputs.shape.features != Features():
        return feature_reference.sampled(torch, inputs, sampled_positions(torch, inputs), low)
    *_, inputs = inputs.sequences()
    shape, at = inputs.shape, sampled_positions(torch, inputs)
    group = shape.num_heads // shape.kv_heads
    dtype = inputs.q.dtype
    # The last ones: what overflows an index or a tile overflows there.
    q, dout = (x[-1, :, -group:].float() for x in (inputs.q, inputs.dout))
    k, v = (x[-1, :, -1].float() for x in (inputs.k, inputs.v))

    def rounded(x: Any) -> Any:
        return x.to(dtype).float() if low else x

    scale = 1 / math.sqrt(shape.head_dim)
    keys = torch.arange(shape.seq_len, device=q.device)
    dk, dv = torch.zeros_like(k[at]), torch.zeros_like(v[at])
    out, dq = q.new_zeros(len(at), group, shape.head_dim_v), torch.zeros_like(q[at])
    for begin in range(0, shape.seq_len, _BLOCK):
        rows = keys[begin : begin + _BLOCK]
        seen = allowed(rows[:, None], keys[None, :], inputs)
        mine = (at >= begin) & (at < begin + _BLOCK)
        local = at[mine] - begin
        for head in range(group):
            qb, db = q[rows, head], dout[rows, head]
            scores = rounded(qb @ k.T) * scale
            p = torch.softmax(scores.masked_fill(~seen, -math.inf), dim=-1)
            ob = rounded(rounded(p) @ v)
            delta = (ob * db).sum(-1, keepdim=True)
            ds = rounded(p * (rounded(db @ v.T) - delta))
            out[mine, head] = ob[local]
            dq[mine, head] = (ds[local] @ k) * scale
            dk += (ds[:, at].T @ qb) * scale
            dv += rounded(p)[:, at].T @ db
    outputs = {"out": out, "dq": dq, "dk": dk, "dv": dv}
    return {name: x.to(dtype) for name, x in outputs.items()}


def sample_of(torch: Any, inputs: Inputs, tensors: Tensors) -> Tensors:
    """What `sampled` computes, cut out of whole results in the inputs' layout."""
    if inputs.shape.features != Features():
        at, group = sampled_positions(torch, inputs), inputs.shape.num_heads // inputs.shape.kv_heads
        rows = {name: x[-1, -inputs.shape.seq_len :] for name, x in tensors.items() if name in ("out", "dq")}
        return {name: x[at, -group:] for name, x in rows.items()}
    *_, inputs = inputs.sequences()
    tensors = {name: x[:, -inputs.shape.seq_len :] for name, x in tensors.items()}
    at = sampled_positions(torch, inputs)
    group = inputs.shape.num_heads // inputs.shape.kv_heads
    cut = {}
    for name, x in tensors.items():
        cut[name] = x[-1, at, -1] if name in ("dk", "dv") else x[-1, at][:, -group:]
    return cut
