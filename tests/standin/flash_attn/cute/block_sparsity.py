"""Which blocks of a mask are visited, in FA4's words."""

from typing import Any, NamedTuple


class BlockSparseTensorsTorch(NamedTuple):
    mask_block_cnt: Any
    mask_block_idx: Any
    full_block_cnt: Any = None
    full_block_idx: Any = None
    block_size: Any = None
