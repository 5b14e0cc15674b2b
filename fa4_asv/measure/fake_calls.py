"""Calls of FA4 on fake CUDA tensors: its host code runs, its kernels are compiled, none is launched."""

from __future__ import annotations

import importlib
import os
from typing import Any

from fa4_asv.catalog.calls import Call
from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.fa4_arguments import (
    backward_options,
    feature_options,
    function_of,
    lse_shape,
    options_of,
)

_BLOCK = 128  # keys of a block of block sparsity; of queries as many as an architecture's tile asks for
_PROBABILITIES = 128  # keys per maximum that MLA's forward keeps for its backward


def fake_inputs(torch: Any, shape: SdpaShape, backward: bool) -> dict[str, Any]:
    """Tensors of one call in FA4's layout: (batch, seq, heads, dim), of packed sequences (tokens, heads, dim)."""
    lead = (shape.tokens,) if shape.packed else (shape.batch, shape.seq_len)
    features = shape.features
    dtype = torch.float8_e4m3fn if shape.dtype == "fp8" else getattr(torch, shape.torch_dtype)

    def make(heads: int, dim: int, place: tuple[int, ...] = lead) -> Any:
        return torch.empty(*place, heads, dim, dtype=dtype, device="cuda")

    keys = _place_of_keys(shape)
    inputs = {
        "q": make(shape.num_heads, shape.head_dim),
        "k": make(shape.kv_heads, shape.head_dim, keys),
        "v": make(shape.kv_heads, shape.head_dim_v, keys),
    }
    if features.latent:
        inputs["qv"] = make(shape.num_heads, features.latent)
    if backward:
        inputs["out"] = make(shape.num_heads, shape.head_dim_v)
        inputs["dout"] = make(shape.num_heads, shape.head_dim_v)
        inputs["lse"] = torch.empty(lse_shape(shape), dtype=torch.float32, device="cuda")
    return inputs


def _place_of_keys(shape: SdpaShape) -> tuple[int, ...]:
    """Where K and V lie: in pages, packed, or a sequence after the other."""
    page = shape.features.page
    if page:
        return (shape.batch * (shape.keys // page), page)
    return (shape.batch * shape.keys,) if shape.packed else (shape.batch, shape.keys)


def feature_tensors_of(torch: Any, shape: SdpaShape, backward: bool) -> dict[str, Any]:
    """The further tensors of a call, by FA4's names of them."""
    features, tensors = shape.features, {}

    def make(*size: int, dtype: Any = torch.int32) -> Any:
        return torch.empty(*size, dtype=dtype, device="cuda")

    if features.page:
        tensors["page_table"] = make(shape.batch, shape.keys // features.page)
    if features.used:
        tensors["seqused_k"] = make(shape.batch)
    if features.sink:
        tensors["learnable_sink"] = make(shape.num_heads, dtype=torch.bfloat16)
    if features.score:
        tensors["aux_tensors"] = [make(shape.num_heads, dtype=torch.float32)]
    if features.mask:
        tensors["aux_tensors"] = [make(shape.batch, shape.keys)]
    if features.topk:
        tensors["gather_kv_indices"] = make(shape.batch, shape.seq_len, features.topk)
    if features.descale:
        tensors |= _descales(make, shape, torch.float32)
    if features.blocks:
        tensors["block_sparse_tensors"] = _blocks(make, shape, backward)
    return tensors


def _descales(make: Any, shape: SdpaShape, dtype: Any) -> dict[str, Any]:
    """A factor per sequence and KV head. MLA's K and V are one tensor, and have one."""
    size = (shape.batch, shape.kv_heads)
    q, k = make(*size, dtype=dtype), make(*size, dtype=dtype)
    v = k if shape.features.latent else make(*size, dtype=dtype)
    return {"q_descale": q, "k_descale": k, "v_descale": v}


def _blocks(make: Any, shape: SdpaShape, backward: bool) -> Any:
    """Counts and indices of the blocks that are visited, per block of queries; of a backward per block of keys."""
    sparsity = importlib.import_module("flash_attn.cute.block_sparsity")
    # FA4 wants blocks of one tile of queries; Blackwell has two tiles at once.
    rows = 256 if os.environ["FA4_ASV_ARCH"].startswith("sm_10") else _BLOCK
    lines, columns = shape.seq_len // rows, shape.keys // _BLOCK
    if backward:
        lines, columns = columns, lines
    count, index = (shape.batch, shape.num_heads, lines), (shape.batch, shape.num_heads, lines, columns)
    tensors = make(*count), make(*index), make(*count), make(*index)
    return sparsity.BlockSparseTensorsTorch(*tensors, block_size=(rows, _BLOCK))


def call_on(
    torch: Any,
    interface: Any,
    inputs: dict[str, Any],
    feature_tensors: dict[str, Any],
    shape: SdpaShape,
    backward: bool,
    lse: bool = True,
) -> Any:
    """What FA4 returns for `inputs`; `lse`: whether a forward is asked for it. Raises what FA4 raises, and Lacking."""
    begins = torch.empty(shape.batch + 1, dtype=torch.int32, device="cuda") if shape.packed else None
    features = shape.features
    if features.latent and backward:
        return _sparse_mla_backward(torch, interface, inputs, feature_tensors, shape)
    options = {**options_of(shape, begins), **feature_tensors, **feature_options(features, backward)}
    tensors = dict(inputs)
    if "qv" in tensors:
        options["qv"] = tensors.pop("qv")
    if backward:
        options |= backward_options(shape)
        return function_of(interface, "_flash_attn_bwd", options)(*tensors.values(), **options)
    options["return_lse"] = lse
    return function_of(interface, "_flash_attn_fwd", options)(*tensors.values(), **options)


def _sparse_mla_backward(
    torch: Any, interface: Any, inputs: dict[str, Any], feature_tensors: dict[str, Any], shape: SdpaShape
) -> Any:
    """MLA's backward of chosen keys, with the probabilities that its forward kept or without (`recompute`)."""
    features = shape.features
    lead = (shape.batch, shape.seq_len)
    options: dict[str, Any] = {"causal": shape.causal, **feature_tensors, "p": None, "row_max": None}
    if features.recompute:
        options["recompute_p"] = True
    else:
        size = (*lead, features.topk // _PROBABILITIES, shape.num_heads)
        options["p"] = torch.empty(
            *lead, shape.num_heads, features.topk, dtype=inputs["q"].dtype, device="cuda"
        )
        options["row_max"] = torch.empty(size, dtype=torch.float32, device="cuda")
    return function_of(interface, "_flash_attn_bwd_sparse_mla", options)(**inputs, **options)


def make_call(torch: Any, interface: Any, call: Call) -> None:
    """One call of FA4 on fake tensors of its own. Raises what FA4 raises."""
    inputs = fake_inputs(torch, call.shape, call.backward)
    feature_tensors = feature_tensors_of(torch, call.shape, call.backward)
    call_on(torch, interface, inputs, feature_tensors, call.shape, call.backward, call.return_lse)
