"""Calls of FA4 on fake CUDA tensors: its host code runs, its kernels are compiled, none is launched."""

from __future__ import annotations

from typing import Any

from fa4_asv.catalog.kernels import Call
from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.fa4_arguments import backward_options, lse_shape, options_of


def fake_inputs(torch: Any, shape: SdpaShape, backward: bool) -> dict[str, Any]:
    """Tensors of one call in FA4's layout: (batch, seq, heads, dim), of packed sequences (tokens, heads, dim)."""
    lead = (shape.tokens,) if shape.packed else (shape.batch, shape.seq_len)

    def make(heads: int, dim: int) -> Any:
        return torch.empty(*lead, heads, dim, dtype=getattr(torch, shape.torch_dtype), device="cuda")

    inputs = {
        "q": make(shape.num_heads, shape.head_dim),
        "k": make(shape.kv_heads, shape.head_dim),
        "v": make(shape.kv_heads, shape.head_dim_v),
    }
    if backward:
        inputs["out"] = make(shape.num_heads, shape.head_dim_v)
        inputs["dout"] = make(shape.num_heads, shape.head_dim_v)
        inputs["lse"] = torch.empty(lse_shape(shape), dtype=torch.float32, device="cuda")
    return inputs


def call_on(
    torch: Any, interface: Any, inputs: dict[str, Any], shape: SdpaShape, backward: bool, lse: bool = True
) -> Any:
    """What FA4 returns for `inputs`; `lse`: whether a forward is asked for it. Raises what FA4 raises."""
    begins = torch.empty(shape.batch + 1, dtype=torch.int32, device="cuda") if shape.packed else None
    options = options_of(shape, begins)
    if backward:
        return interface._flash_attn_bwd(*inputs.values(), **options, **backward_options(shape))
    return interface._flash_attn_fwd(*inputs.values(), return_lse=lse, **options)


def make_call(torch: Any, interface: Any, call: Call) -> None:
    """One call of FA4 on fake tensors of its own. Raises what FA4 raises."""
    inputs = fake_inputs(torch, call.shape, call.backward)
    call_on(torch, interface, inputs, call.shape, call.backward, call.return_lse)
