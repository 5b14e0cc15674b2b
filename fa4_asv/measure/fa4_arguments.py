"""What FA4's functions are told of a shape, the same in every instrument: on fake tensors, traced, or timed."""

from __future__ import annotations

import inspect
from typing import Any

from fa4_asv.catalog.features import Features
from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.driver_stubs import Lacking
from fa4_asv.measure.flex_functions import functions_of


def options_of(shape: SdpaShape, begins: Any = None) -> dict[str, Any]:
    """Keywords that forward and backward share: the mask, and for packed sequences where they begin and how long they are.

    `begins`: int32, one more than there are sequences; for queries and keys alike.
    """
    options: dict[str, Any] = {"causal": shape.causal and shape.window is None}
    if shape.window is not None:
        options |= {"window_size_left": shape.window, "window_size_right": 0}
    if shape.packed:
        # Keys in pages are packed by their table, not by where they begin.
        which = ("q",) if shape.features.page else ("q", "k")
        longest = {"q": max(shape.lengths), "k": shape.features.keys or max(shape.lengths)}
        options |= {f"cu_seqlens_{name}": begins for name in which}
        options |= {f"max_seqlen_{name}": length for name, length in longest.items()}
    return options


def feature_options(features: Features, backward: bool) -> dict[str, Any]:
    """Keywords of what a call asks for beyond its tensors; only what is asked for, since older releases do not know all."""
    options: dict[str, Any] = {}
    if features.splits > 1:
        options["num_splits"] = features.splits
    if features.softcap:
        options["softcap"] = features.softcap
    return options | functions_of(features.score or features.mask, backward)


def backward_options(shape: SdpaShape, deterministic: bool = False) -> dict[str, Any]:
    """Keywords of the backward alone; older releases do not know them, so they are left out where not asked for."""
    return {"deterministic": True} if deterministic or shape.variant == "deterministic" else {}


def lse_shape(shape: SdpaShape) -> tuple[int, ...]:
    """Of the logarithm of each query's sum of exponentials, in fp32. MLA's has the heads last."""
    if shape.features.latent:
        return (shape.batch, shape.seq_len, shape.num_heads)
    return (shape.num_heads, shape.tokens) if shape.packed else (shape.batch, shape.num_heads, shape.seq_len)


def function_of(interface: Any, name: str, options: dict[str, Any]) -> Any:
    """FA4's function of that name. Raises Lacking where this release has none, or not with these arguments."""
    function = getattr(interface, name, None)
    if function is None:
        raise Lacking(f"this release has no {name}")
    known = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return function
    if unknown := sorted(options.keys() - known.keys()):
        raise Lacking(f"{name} of this release has no argument {', '.join(unknown)}")
    return function
