"""An FA4 that computes nothing: its two functions with FA4's arguments, tensors of the right shapes, in place of the real one.

For the workers that drive FA4 on fake tensors. `lay(folder, edits)` writes it, with text replaced where a defect is wanted.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.mutants import STANDIN

_INTERFACE = """
import torch


def _flash_attn_fwd(q, k, v, softmax_scale=None, causal=False, window_size_left=None, window_size_right=None,
                    return_lse=False, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, max_seqlen_k=None,
                    seqused_k=None, page_table=None, num_splits=1, out=None, lse=None, score_mod=None, mask_mod=None,
                    block_sparse_tensors=None, aux_tensors=None):
    out = torch.empty_like(q) if out is None else out
    heads_first = (q.shape[1], q.shape[0]) if cu_seqlens_q is not None else (q.shape[0], q.shape[2], q.shape[1])
    lse = torch.empty(heads_first, dtype=torch.float32, device=q.device) if lse is None else lse
    return out, lse


def _flash_attn_bwd(q, k, v, out, dout, lse, softmax_scale=None, causal=False, window_size_left=None,
                    window_size_right=None, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None,
                    max_seqlen_k=None, deterministic=False, score_mod=None, score_mod_bwd=None, mask_mod=None,
                    aux_tensors=None, dq=None, dk=None, dv=None, block_sparse_tensors=None):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
"""
_BLOCKS = (STANDIN / "flash_attn" / "cute" / "block_sparsity.py").read_text(encoding="utf-8")
_FILES = {
    "flash_attn/cute/__init__.py": "",
    "flash_attn/cute/interface.py": _INTERFACE,
    "flash_attn/cute/block_sparsity.py": _BLOCKS,
    "cutlass/__init__.py": "Float32 = Int32 = None",
    "cutlass/utils.py": "class HardwareInfo:\n    pass\n",
    "cutlass/cute.py": "def compile(function, *_, **__):\n    return function\n\n\ndef jit(function):\n    return function\n",
}


def lay(folder: Path, *edits: tuple[str, str]) -> Path:
    """It below `folder`, to be put on Python's path. Each edit must apply."""
    for name, text in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("interface.py"):
            for old, new in edits:
                assert old in text, old
                text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    return folder
