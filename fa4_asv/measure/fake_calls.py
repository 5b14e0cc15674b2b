"""Calls of FA4 on fake CUDA tensors: its kernels are compiled, none is launched."""

from __future__ import annotations

from typing import Any

from fa4_asv.catalog.kernels import Call


def _tensors(torch: Any, call: Call) -> dict[str, Any]:
    """Fake tensors of one call in FA4's layout: (batch, seq, heads, dim), varlen (tokens, heads, dim)."""
    lead = (2048,) if call.varlen else (2, 1024)

    def make(heads: int, dim: int) -> Any:
        return torch.empty(*lead, heads, dim, dtype=torch.bfloat16, device="cuda")

    lse_shape = (16, 2048) if call.varlen else (2, 16, 1024)
    return {
        "q": make(16, call.head_dim),
        "k": make(call.kv_heads, call.head_dim),
        "v": make(call.kv_heads, call.head_dim_v),
        "out": make(16, call.head_dim_v),
        "dout": make(16, call.head_dim_v),
        "lse": torch.empty(lse_shape, dtype=torch.float32, device="cuda"),
    }


def make_call(torch: Any, interface: Any, call: Call) -> None:
    """One call of FA4 on fake tensors. Raises what FA4 raises."""
    tensors = _tensors(torch, call)
    options: dict[str, Any] = {"causal": call.causal}
    if call.window is not None:
        options |= {"window_size_left": call.window, "window_size_right": 0}
    if call.varlen:
        lengths = torch.empty(3, dtype=torch.int32, device="cuda")
        options |= {
            "cu_seqlens_q": lengths,
            "cu_seqlens_k": lengths,
            "max_seqlen_q": 1024,
            "max_seqlen_k": 1024,
        }
    q, k, v = tensors["q"], tensors["k"], tensors["v"]
    if not call.backward:
        interface._flash_attn_fwd(q, k, v, return_lse=call.return_lse, **options)
        return
    if call.deterministic:
        options["deterministic"] = True
    interface._flash_attn_bwd(q, k, v, tensors["out"], tensors["dout"], tensors["lse"], **options)
