"""The ways to FA4 that are not SDPA on a card: values and gradients against the formula, and FA4's own kernel.

Each check answers "" or says what is wrong; an exception breaks its own check only, and a refusal with a reason is counted apart.
Names are kept in records: never rename one. FlexAttention is compiled by torch, as people do; packed sequences are not.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fa4_asv.catalog.features import Features
from fa4_asv.catalog.shapes import SdpaShape, shape
from fa4_asv.measure.driver_stubs import Lacking
from fa4_asv.measure.route.refusals import Result, attribute, is_refusal, takes, words_of
from fa4_asv.measure.runtime import reference, tolerances
from fa4_asv.measure.runtime.answers import card_arch
from fa4_asv.measure.runtime.backends.fa4 import begins_of, pages_of
from fa4_asv.measure.runtime.correctness import kernels_of
from fa4_asv.measure.runtime.fatal import is_fatal
from fa4_asv.measure.runtime.inputs import Inputs, make
from fa4_asv.measure.runtime.tolerances import GuardFailed

Check = Callable[[Any, str], None]  # of torch and a device; raises GuardFailed and what the route raises


def run_checks(torch: Any, way: str, device: str = "cuda") -> tuple[int, Result]:
    """How many checks "varlen" or "flex" has, and which did not pass.

    Raises what leaves no working card, and Lacking where this torch has no way to FA4 at all.
    """
    result, checks = Result(), CHECKS[way]
    with _activated(torch, device):
        for name, check in checks.items():
            try:
                check(torch, device)
            except GuardFailed as failed:
                result.broken[name] = str(failed)
            except Exception as error:
                if is_fatal(str(error)):
                    raise RuntimeError(f"{name}: {error}") from error
                (result.refused if is_refusal(error) else result.broken)[name] = words_of(error)
    return len(checks), result


@contextmanager
def _activated(torch: Any, device: str) -> Iterator[None]:
    """FA4 stands for torch's flash attention meanwhile, on a card. Raises Lacking where this torch knows no such thing."""
    if device != "cuda":
        yield
        return
    attribute(torch.nn.attention, "activate_flash_attention_impl", torch.__version__)("FA4")
    try:
        yield
    finally:
        with suppress(Exception):  # of a card that has stopped working
            torch.nn.attention.restore_flash_attention_impl()


def _held(torch: Any, inputs: Inputs, outputs: dict[str, Any]) -> None:
    """Against the formula, by PyTorch's rule of tolerance. Raises GuardFailed."""
    exact, low = (reference.full(torch, inputs, low) for low in (False, True))
    tolerances.compare(torch, outputs, exact, low, inputs.shape.name)


def _own_kernel(torch: Any, call: Callable[[], object], device: str) -> None:
    """FA4's kernel and no other attention ran. Raises GuardFailed."""
    if device == "cuda":
        tolerances.right_kernel(kernels_of(torch, call, device), tolerances.FA4_KERNEL)


# Packed sequences.


def _varlen_of(torch: Any, inputs: Inputs, splits: int) -> tuple[Callable[..., Any], list[Any]]:
    """torch's function with everything but Q, K and V, and these. Raises Lacking."""
    try:
        function = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    except (ImportError, AttributeError):
        raise Lacking(f"torch {torch.__version__} has no torch.nn.attention.varlen") from None
    each, features = inputs.shape, inputs.shape.features
    options: dict[str, Any] = {}
    if each.causal:
        options["window_size"] = (-1, 0)
    if each.window is not None:
        options["window_size"] = (each.window, 0)
    if each.kv_heads != each.num_heads:
        options["enable_gqa"] = True
    if splits > 1:
        options["num_splits"] = splits
    k, v = inputs.k, inputs.v
    begins = begins_of(torch, inputs)
    if features.used:
        options["seqused_k"] = inputs.feature_tensors["seqused_k"]
    if features.page:
        k, v, options["block_table"] = pages_of(torch, k, v, features.page)
    else:
        k, v = k[0], v[0]
    takes(function, options)
    places = (
        begins,
        None if features.page else begins,
        max(each.lengths),
        features.keys or max(each.lengths),
    )
    return lambda q, k, v: function(q, k, v, *places, **options), [inputs.q[0], k, v]


def _varlen(each: SdpaShape, splits: int = 1, backward: bool = False) -> Check:
    def check(torch: Any, device: str) -> None:
        inputs = make(torch, each, device)
        attend, tensors = _varlen_of(torch, inputs, splits)
        leaves = [x.detach().requires_grad_(backward) for x in tensors]
        out = attend(*leaves)
        outputs = {"out": out.detach()}
        if backward:
            grads = torch.autograd.grad(out, leaves, inputs.dout[0])
            outputs |= dict(zip(("dq", "dk", "dv"), grads, strict=True))
        _held(torch, inputs, {name: x.unsqueeze(0) for name, x in outputs.items()})
        _own_kernel(torch, lambda: attend(*leaves), device)

    return check


# FlexAttention.


def _score(inputs: Inputs) -> Callable[..., Any]:
    slopes = inputs.feature_tensors["slopes"]

    def alibi(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return score + slopes[h] * (kv_idx - q_idx)

    return alibi


def _mask(torch: Any, inputs: Inputs, device: str) -> Any:
    """torch's block mask of a causal or document mask, None for neither."""
    each, flex = inputs.shape, torch.nn.attention.flex_attention
    ids: Any = inputs.feature_tensors.get("ids")

    def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx >= kv_idx

    def document(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (ids[b, q_idx] == ids[b, kv_idx]) & (kv_idx <= q_idx)

    if not each.causal and ids is None:
        return None
    # One tile of FA4's queries: two of Hopper's stand side by side on Blackwell.
    rows = 256 if device == "cuda" and card_arch(torch) == "sm_100" else 128
    batch = None if ids is None else each.batch
    return flex.create_block_mask(
        causal if ids is None else document,
        batch,
        None,
        each.seq_len,
        each.seq_len,
        device=device,
        BLOCK_SIZE=(rows, 128),
    )


def _flex(each: SdpaShape, backward: bool = False) -> Check:
    def check(torch: Any, device: str) -> None:
        attention = importlib.import_module("torch.nn.attention.flex_attention")
        inputs = make(torch, each, device)
        options: dict[str, Any] = {"enable_gqa": each.kv_heads != each.num_heads}
        if "slopes" in inputs.feature_tensors:
            options["score_mod"] = _score(inputs)
        options["block_mask"] = _mask(torch, inputs, device)
        attend = attention.flex_attention
        if device == "cuda":  # a processor has torch's plain formula only
            # The name of the backend stands in the options' documentation and checks only.
            if "FLASH" not in inspect.getsource(attention):
                raise Lacking(f"torch {torch.__version__} has no FLASH backend of FlexAttention")
            torch.compiler.reset()  # torch gives up a function that is compiled for the ninth time
            attend = torch.compile(attend, fullgraph=True)
            options["kernel_options"] = {"BACKEND": "FLASH"}
        leaves = [
            x.detach().transpose(1, 2).contiguous().requires_grad_(backward)
            for x in (inputs.q, inputs.k, inputs.v)
        ]
        out = attend(*leaves, **options)
        outputs = {"out": out.detach()}
        if backward:
            grads = torch.autograd.grad(out, leaves, inputs.dout.transpose(1, 2))
            outputs |= dict(zip(("dq", "dk", "dv"), grads, strict=True))
        _held(torch, inputs, {name: x.transpose(1, 2) for name, x in outputs.items()})
        _own_kernel(torch, lambda: attend(*leaves, **options), device)

    return check


def _small(**options: Any) -> SdpaShape:
    return shape(2, 8, 512, 128, **options)


def _packed(**options: Any) -> SdpaShape:
    return shape(3, 8, 250, 128, variant="varlen", **options)


def _cached(page: int) -> SdpaShape:
    features = Features(keys=1024, page=page, used=True)
    return shape(3, 8, 1, 128, 2, causal=True, variant="varlen", features=features)


_VARLEN = {
    "full": _packed(),
    "causal": _packed(causal=True),
    "window": _packed(window=100),
    "gqa": _packed(kv_heads=2, causal=True),
}
_FLEX = {
    "full": _small(),
    "causal": _small(causal=True),
    "gqa": _small(kv_heads=2, causal=True),
    "alibi": _small(features=Features(score="alibi")),
    "document": _small(features=Features(mask="document")),
}
CHECKS: dict[str, dict[str, Check]] = {
    "varlen": {
        **{f"forward_{name}": _varlen(each) for name, each in _VARLEN.items()},
        **{f"backward_{name}": _varlen(each, backward=True) for name, each in _VARLEN.items()},
        "block_table": _varlen(_cached(128)),
        "block_table_16": _varlen(_cached(16)),
        "num_splits_4": _varlen(_cached(128), splits=4),
    },
    "flex": {
        **{f"forward_{name}": _flex(each) for name, each in _FLEX.items()},
        **{f"backward_{name}": _flex(each, backward=True) for name, each in _FLEX.items()},
    },
}
