"""FA4's interface, argument by argument: which calls of this suite give it, which architectures refuse it, and what is not watched.

`docs/coverage.md` is written from here (tools/coverage_page.py). A new argument of a release is added here first: to
ARGUMENTS with what asks for it, or to NOT_WATCHED with the reason.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fa4_asv.catalog.calls import Call
from fa4_asv.catalog.kernels import CALLS, KERNEL_GROUPS, TARGETS

# FA4's public functions, and the two that every one of them ends in.
FUNCTIONS = (
    "flash_attn_func",
    "flash_attn_varlen_func",
    "flash_attn_combine",
    "get_scheduler_metadata",
)
PRIVATE = ("_flash_attn_fwd", "_flash_attn_bwd", "_flash_attn_bwd_sparse_mla")

Asks = Callable[[Call], bool]


def _of_shape(name: str) -> Asks:
    return lambda call: bool(getattr(call.shape, name))


def _of_features(name: str) -> Asks:
    return lambda call: bool(getattr(call.shape.features, name))


def _splits(call: Call) -> bool:
    return call.shape.features.splits > 1 or call.shape.variant == "split"


def _pages(call: Call) -> bool:
    return bool(call.shape.features.page) or call.shape.variant == "paged"


def _backward_of(asks: Asks) -> Asks:
    return lambda call: call.backward and asks(call)


def _forward_of(asks: Asks) -> Asks:
    return lambda call: not call.backward and asks(call)


def _aux(call: Call) -> bool:
    return bool(call.shape.features.score or call.shape.features.mask)


def _every(call: Call) -> bool:
    return True


# Argument: which calls give it. Of a forward and its backward alike unless its words say otherwise.
ARGUMENTS: dict[str, Asks] = {
    "q, k, v": _every,
    "qv": _of_features("latent"),
    "gather_kv_indices": _of_features("topk"),
    "causal": _of_shape("causal"),
    "window_size": lambda call: call.shape.window is not None,
    "learnable_sink": _of_features("sink"),
    "softcap": _of_features("softcap"),
    "num_splits": _splits,
    "deterministic": lambda call: call.shape.variant == "deterministic",
    "score_mod": _of_features("score"),
    "score_mod_bwd": _backward_of(_of_features("score")),
    "mask_mod": _of_features("mask"),
    "aux_tensors": _aux,
    "block_sparse_tensors": _forward_of(_of_features("blocks")),
    "block_sparse_tensors_bwd": _backward_of(_of_features("blocks")),
    "return_lse": _forward_of(lambda call: call.return_lse),
    "gather_bwd_recompute_p": _of_features("recompute"),
    "cu_seqlens_q": _of_shape("packed"),
    "cu_seqlens_k": lambda call: call.shape.packed and not call.shape.features.page,
    "max_seqlen_q": _of_shape("packed"),
    "max_seqlen_k": _of_shape("packed"),
    "seqused_k": _of_features("used"),
    "page_table": _pages,
    "q_descale, k_descale, v_descale": _of_features("descale"),
    # What a forward with splits ends in.
    "out_partial, lse_partial": _splits,
}

# What else a signature may hold, and why no call gives it.
NOT_WATCHED: dict[str, str] = {
    "softmax_scale": "a number that the kernel is given; other code is not compiled for it",
    "pack_gqa": "left to FA4, which packs where there are several query heads per KV head: the `gqa` calls",
    "aux_scalars": "numbers for score and mask functions; the tensors of `aux_tensors` take the same way",
    "gather_bwd_token_chunk": "the host calls the same kernels chunk by chunk",
    "min_seqlen_k": "FA4 takes it and no kernel reads it",
    "seqused_q": "servers give `cu_seqlens_q` instead",
    "scheduler_metadata": "made by FA4 itself in `decode_d128_gqa4_causal_page128_split4`",
    "seqlen_k_per_split": "a length of splits; `num_splits` is watched",
    "disable_scheduler_metadata": "turns a default off",
    "out": "a tensor of the caller's in place of a new one; the same kernel",
    "out_dtype": "the dtype of a tensor that the caller has not given",
    "cu_seqlens": "packed queries of `flash_attn_combine` alone; the forward with splits gives them",
    "seqused": "as `seqused_q`",
    "virtual_batch_idx": "an order of sequences that FA4 does not sort by yet",
    "varlen_batch_idx": "the name of `virtual_batch_idx` up to 4.0.0b24",
    "full_block_cnt": "part of `block_sparse_tensors` up to 4.0.0b10",
    "full_block_idx": "part of `block_sparse_tensors` up to 4.0.0b10",
    "mask_block_cnt": "part of `block_sparse_tensors` up to 4.0.0b10",
    "mask_block_idx": "part of `block_sparse_tensors` up to 4.0.0b10",
    "block_size": "part of `block_sparse_tensors` up to 4.0.0b10",
    # get_scheduler_metadata
    "nheads, nheads_kv, headdim, headdim_v": "the sizes of the call that it prepares",
    "window_size_left, window_size_right": "the mask of the call that it prepares",
    "seqlen_k_new, cu_seqlens_k_new": "keys that are appended: FA4 appends none yet",
    "leftpad_k": "padding before the keys: FA4's forward has no such argument",
    "_arch": "an architecture in place of the card's; the suite sets it for a whole process",
}

# What FA4 4.0.0b36 says where an architecture is asked for what it does not have. tests/test_real_coverage.py asks anew.
REFUSED: dict[tuple[str, str], str] = {
    ("sm_90", "qv"): "(head_dim, head_dim_v)=(64, 512) is not supported on SM90",
    ("sm_90", "gather_kv_indices"): "(head_dim, head_dim_v)=(64, 512) is not supported on SM90",
    ("sm_90", "gather_bwd_recompute_p"): "Unsupported compute capability. Supported: 10.x, 11.x",
    ("sm_90", "num_splits"): "SplitKV not supported on SM 9.0",
    ("sm_90", "out_partial, lse_partial"): "SplitKV not supported on SM 9.0",
    ("sm_90", "q_descale, k_descale, v_descale"): "FP8 is only supported on SM100",
    ("sm_120", "qv"): "only support Blackwell arch with qv",
    ("sm_120", "gather_kv_indices"): "only support Blackwell arch with qv",
    ("sm_120", "gather_bwd_recompute_p"): "Unsupported compute capability. Supported: 10.x, 11.x",
    ("sm_120", "num_splits"): "SM120 forward only supports num_splits=1",
    ("sm_120", "out_partial, lse_partial"): "SM120 forward only supports num_splits=1",
    ("sm_120", "deterministic"): "deterministic backward not supported on SM 12.0",
    ("sm_120", "score_mod_bwd"): "score_mod backward not supported on SM 12.0",
    ("sm_120", "block_sparse_tensors_bwd"): "Block sparsity backward not supported on SM 12.0",
    ("sm_120", "page_table"): "Paged KV not supported on SM 12.0 in this PR",
    ("sm_120", "q_descale, k_descale, v_descale"): "FP8 is only supported on SM100",
}
# Refused only in part: the other calls with the argument compile.
PARTLY: dict[tuple[str, str], str] = {
    ("sm_100", "softcap"): "not in a backward at head dim 256",
    ("sm_103", "softcap"): "not in a backward at head dim 256",
    ("sm_120", "learnable_sink"): "not in a backward",
    ("sm_120", "score_mod"): "not in a backward",
    ("sm_120", "mask_mod"): "not in a backward",
    ("sm_120", "aux_tensors"): "not in a backward",
}


@dataclass(frozen=True)
class Cell:
    """What an architecture has of an argument: so many watched calls, or FA4's refusal; neither: not watched there."""

    watched: int = 0
    refused: str = ""
    partly: str = ""


def cell(argument: str, arch: str) -> Cell:
    asks = ARGUMENTS[argument]
    refused = REFUSED.get((arch, argument), "")
    watched = 0 if refused else sum(map(asks, calls_of(arch)))
    return Cell(watched, refused, PARTLY.get((arch, argument), "") if not refused else "")


def calls_of(arch: str) -> list[Call]:
    """The calls whose kernels are watched on an architecture."""
    each = {
        case.call.name: case.call
        for group in KERNEL_GROUPS.values()
        if arch in group.arches
        for case in group.cases.values()
    }
    return list(each.values())


def asking(argument: str) -> list[Call]:
    """Every call of the suite that gives an argument."""
    return [call for call in CALLS.values() if ARGUMENTS[argument](call)]


def known() -> set[str]:
    """Every argument that this page has a line for."""
    return {name for line in (*ARGUMENTS, *NOT_WATCHED) for name in line.split(", ")}


def arguments_of(source: str, functions: tuple[str, ...] = FUNCTIONS) -> dict[str, list[str]]:
    """The arguments of FA4's functions as its interface.py writes them; nothing of it is run. SyntaxError for no Python."""
    arguments = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name in functions:
            each = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            arguments[node.name] = [argument.arg for argument in each]
    return arguments


def unknown(source: str) -> Iterator[tuple[str, str]]:
    """(function, argument) for each argument of FA4's public functions that this page does not know."""
    lines = known()
    for function, names in arguments_of(source).items():
        yield from ((function, name) for name in names if name not in lines)


ARCHES = tuple(TARGETS)
