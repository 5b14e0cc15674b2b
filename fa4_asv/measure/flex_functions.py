"""Score and mask functions in the DSL's language, for calls that ask for them; imported only where FA4 is.

`alibi` adds slope * (key - query) to a score, a slope per head. `document` lets a query see the keys up to its own
of the same document, of which `ids` holds a number per token.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any


def functions_of(name: str, backward: bool) -> dict[str, Any]:
    """Keywords for FA4 by the name of a score or mask function (catalog.features); {} for no name."""
    if not name:
        return {}
    cutlass, cute = (importlib.import_module(module) for module in ("cutlass", "cutlass.cute"))
    utils = importlib.import_module("flash_attn.cute.utils")
    if name == "document":
        return {"mask_mod": _document(cutlass, cute, utils)}
    forward, its_backward = (_alibi if _knows_lengths(utils) else _alibi_b8)(cutlass, cute)
    return {"score_mod": forward, **({"score_mod_bwd": its_backward} if backward else {})}


def _knows_lengths(utils: Any) -> bool:
    """Whether score functions are told `seqlen_info`: from 4.0.0b9 on, seen at FA4's own soft cap."""
    own = utils.create_softcap_scoremod(50.0)
    return "seqlen_info" in inspect.signature(getattr(own, "__wrapped__", own)).parameters


def _alibi(cutlass: Any, cute: Any) -> tuple[Any, Any]:
    def alibi(score, batch_idx, head_idx, q_idx, kv_idx, seqlen_info, aux_tensors):  # type: ignore[no-untyped-def]
        slopes = aux_tensors[0]
        return score + slopes[head_idx[0]] * (kv_idx - q_idx).to(cutlass.Float32)

    def alibi_backward(  # type: ignore[no-untyped-def]
        grad, score, batch_idx, head_idx, q_idx, kv_idx, seqlen_info, aux_tensors
    ):
        return grad

    return cute.jit(alibi), cute.jit(alibi_backward)


def _alibi_b8(cutlass: Any, cute: Any) -> tuple[Any, Any]:
    """As up to 4.0.0b8, which tell them no lengths."""

    def alibi(score, batch_idx, head_idx, q_idx, kv_idx, aux_tensors):  # type: ignore[no-untyped-def]
        slopes = aux_tensors[0]
        return score + slopes[head_idx[0]] * (kv_idx - q_idx).to(cutlass.Float32)

    def alibi_backward(grad, score, batch_idx, head_idx, q_idx, kv_idx, aux_tensors):  # type: ignore[no-untyped-def]
        return grad

    return cute.jit(alibi), cute.jit(alibi_backward)


def _document(cutlass: Any, cute: Any, utils: Any) -> Any:
    def document(batch_idx, head_idx, q_idx, kv_idx, seqlen_info, aux_tensors):  # type: ignore[no-untyped-def]
        ids = aux_tensors[0]
        query, key = (
            utils.scalar_to_ssa(ids[batch_idx[0], place[0]], cutlass.Int32) for place in (q_idx, kv_idx)
        )
        return (query == key) & (kv_idx <= q_idx)

    return cute.jit(document)
