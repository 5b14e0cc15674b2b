"""Bytes that a forward must move between the card's memory and its kernels, however it is written: decode is bound by them.

Each number is read or written once: Q; of K and V the keys that some query sees, for each KV head; the output; the
logarithm of each query's sum, which the timed call asks for; tables, lengths and sinks. L2 is cold, since it is overwritten before each call.
"""

from __future__ import annotations

from fa4_asv.catalog.shapes import SdpaShape

_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4, "fp8": 1}
_LOW, _FLOAT, _INT = 2, 4, 4  # of sinks and FP8's outputs, of logarithms, of tables and lengths


def bytes_moved(shape: SdpaShape) -> int:
    """Of one forward. Raises ValueError for what is not written down here: MLA, chosen keys, functions, blocks, factors."""
    features = shape.features
    if features.latent or features.score or features.mask or features.blocks or features.descale:
        raise ValueError(f"{shape.name}: nobody has counted the bytes of this call")
    size = _BYTES[shape.dtype]
    queries = shape.tokens * shape.num_heads
    keys = sum(_seen(shape, used) for used in shape.used_keys)
    numbers = size * (queries * shape.head_dim + keys * shape.kv_heads * (shape.head_dim + shape.head_dim_v))
    written = max(_LOW, size) * queries * shape.head_dim_v + _FLOAT * queries
    return numbers + written + _beside(shape)


def _seen(shape: SdpaShape, used: int) -> int:
    """Keys of one sequence that some query sees: with a window those before its first query are never read."""
    if shape.window is None:
        return used
    return min(used, shape.seq_len + shape.window)


def _beside(shape: SdpaShape) -> int:
    """Tables and lengths; of a table the pages that are read."""
    features, count = shape.features, 0
    if shape.packed:
        count += (1 if features.page else 2) * (shape.batch + 1)
    if features.used:
        count += shape.batch
    if features.page:
        count += sum(-(-_seen(shape, used) // features.page) for used in shape.used_keys)
    return _INT * count + (_LOW * shape.num_heads if features.sink else 0)
