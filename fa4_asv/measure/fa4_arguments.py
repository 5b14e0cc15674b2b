"""What FA4's functions are told of a shape, the same in every instrument: on fake tensors, traced, or timed."""

from __future__ import annotations

from typing import Any

from fa4_asv.catalog.shapes import SdpaShape


def options_of(shape: SdpaShape, begins: Any = None) -> dict[str, Any]:
    """Keywords that forward and backward share: the mask, and for packed sequences where they begin and how long they are.

    `begins`: int32, one more than there are sequences; for queries and keys alike.
    """
    options: dict[str, Any] = {"causal": shape.causal and shape.window is None}
    if shape.window is not None:
        options |= {"window_size_left": shape.window, "window_size_right": 0}
    if shape.packed:
        options |= dict.fromkeys(("cu_seqlens_q", "cu_seqlens_k"), begins)
        options |= dict.fromkeys(("max_seqlen_q", "max_seqlen_k"), max(shape.lengths))
    return options


def backward_options(shape: SdpaShape, deterministic: bool = False) -> dict[str, Any]:
    """Keywords of the backward alone; older releases do not know them, so they are left out where not asked for."""
    return {"deterministic": True} if deterministic or shape.variant == "deterministic" else {}


def lse_shape(shape: SdpaShape) -> tuple[int, ...]:
    """Of the logarithm of each query's sum of exponentials, in fp32."""
    return (shape.num_heads, shape.tokens) if shape.packed else (shape.batch, shape.num_heads, shape.seq_len)
