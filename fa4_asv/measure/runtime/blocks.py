"""Which blocks of a mask are visited: for FA4's block sparsity, from the mask itself."""

from __future__ import annotations

import importlib
from typing import Any

from fa4_asv.measure.runtime.answers import card_arch
from fa4_asv.measure.runtime.feature_reference import seen_by
from fa4_asv.measure.runtime.inputs import Inputs

COLUMNS = 128  # keys of a block


def rows_of(torch: Any, device: str) -> int:
    """Queries of a block: FA4 wants one tile of them, and Blackwell has two tiles at once."""
    return 256 if device != "cpu" and card_arch(torch) == "sm_100" else 128


def block_sparse_tensors(torch: Any, inputs: Inputs, backward: bool) -> Any:
    """FA4's argument of that name: per block of queries (of a backward: of keys) the blocks that the mask cuts and those that
    it leaves whole, each as a count and indices in ascending order; shapes (batch, heads, lines) and (..., columns), int32."""
    sparsity: Any = importlib.import_module("flash_attn.cute.block_sparsity")
    rows = rows_of(torch, inputs.q.device.type)
    cut, whole = _kinds(torch, inputs, rows)
    if backward:
        cut, whole = (kind.transpose(-1, -2) for kind in (cut, whole))
    tensors = [tensor for kind in (cut, whole) for tensor in _listed(torch, kind)]
    return sparsity.BlockSparseTensorsTorch(*tensors, block_size=(rows, COLUMNS))


def _kinds(torch: Any, inputs: Inputs, rows: int) -> tuple[Any, Any]:
    """Whether each block is cut, and whether it is whole: (batch, heads, blocks of queries, blocks of keys)."""
    shape = inputs.shape
    if shape.seq_len % rows or shape.keys % COLUMNS:
        raise ValueError(
            f"{shape.name}: {shape.seq_len} queries and {shape.keys} keys are no multiple of a block of {rows} x {COLUMNS}"
        )
    some, every = [], []
    for number in range(shape.batch):
        seen = seen_by(torch, inputs, number, shape.seq_len, shape.keys)
        blocks = seen.reshape(shape.seq_len // rows, rows, shape.keys // COLUMNS, COLUMNS)
        some.append(blocks.any(3).any(1))
        every.append(blocks.all(3).all(1))
    some, every = (
        torch.stack(kind).unsqueeze(1).expand(-1, shape.num_heads, -1, -1) for kind in (some, every)
    )
    return some & ~every, every


def _listed(torch: Any, kind: Any) -> tuple[Any, Any]:
    """Counts, and indices of those that are true before the others."""
    counts = kind.sum(-1).to(torch.int32).contiguous()
    order = (~kind).to(torch.int8).argsort(dim=-1, stable=True).to(torch.int32)
    return counts, order.contiguous()
