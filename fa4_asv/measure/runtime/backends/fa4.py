"""FA4 called directly: flash_attn.cute.interface, without autograd."""

from __future__ import annotations

import importlib
import itertools
from functools import cache
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.shapes import PAGE, SPLITS, SdpaShape
from fa4_asv.measure.fa4_arguments import (
    backward_options,
    feature_options,
    function_of,
    lse_shape,
    options_of,
)
from fa4_asv.measure.runtime.backends import Calls, Results
from fa4_asv.measure.runtime.blocks import block_sparse_tensors
from fa4_asv.measure.runtime.inputs import Inputs


class Fa4:
    """`_flash_attn_fwd` and `_flash_attn_bwd`: what every public function of FA4 ends in."""

    name = "fa4"
    kernel = "flash_attncute"

    def __init__(self) -> None:
        self._interface = importlib.import_module("flash_attn.cute.interface")

    def why_not(self, torch: Any, shape: SdpaShape, device: str, backward: bool) -> str:
        """FA4's own refusals come from FA4 when it is called; this only keeps it off other hardware."""
        if device == "cpu":
            # The stand-in that the tests use runs there; FA4 does not.
            return "" if getattr(self._interface, "RUNS_ON_CPU", False) else "FA4 has no CPU kernels"
        major, minor = torch.cuda.get_device_capability()
        if major not in (9, 10, 11, 12):
            return f"FA4 needs Hopper or Blackwell, this card has compute capability {major}.{minor}"
        return ""

    def prepare(self, torch: Any, inputs: Inputs, deterministic: bool = False) -> Calls:
        shape, interface = inputs.shape, self._interface
        q, k, v, only_forward = _prepared(torch, inputs)
        dout = inputs.dout[0] if shape.packed else inputs.dout
        both = options_of(shape, begins_of(torch, inputs) if shape.packed else None)
        both |= _shared(inputs)
        first = {**only_forward, **feature_options(shape.features, backward=False)}
        last = {**backward_options(shape, deterministic), **feature_options(shape.features, backward=True)}
        if shape.features.blocks:
            name = "block_sparse_tensors"
            first[name], last[name] = (block_sparse_tensors(torch, inputs, way) for way in (False, True))
        if shape.features.topk:
            return self._of_chosen_keys(torch, inputs, q, k, v, dout, first)
        saved: list[Any] = []
        # Looked at once: a call's time is the host's, too. Not before it is called: a release may lack the backward alone.
        attend = cache(lambda: function_of(interface, "_flash_attn_fwd", {**both, **first}))
        attend_back = cache(lambda: function_of(interface, "_flash_attn_bwd", {**both, **last}))

        def raw_forward() -> Any:
            return attend()(q, k, v, return_lse=True, **both, **first)

        def raw_backward() -> Any:
            if not saved:
                saved.extend(_out_and_lse(torch, raw_forward(), inputs))
            return attend_back()(q, k, v, saved[0], dout, saved[1], **both, **last)

        def forward() -> Results:
            return {"out": _batched(_out_and_lse(torch, raw_forward(), inputs)[0], shape)}

        def backward() -> Results:
            grads = raw_backward()
            if not isinstance(grads, (tuple, list)) or len(grads) < 3:
                raise Fa4AsvError(f"_flash_attn_bwd returned {_words(grads)}, expected dq, dk, dv")
            named = dict(zip(("dq", "dk", "dv"), (_batched(x, shape) for x in grads[:3]), strict=True))
            return {**named, "dsink": grads[3]} if shape.features.sink else named

        return Calls(forward, backward, raw_forward, raw_backward)

    def _of_chosen_keys(
        self, torch: Any, inputs: Inputs, q: Any, k: Any, v: Any, dout: Any, first: dict[str, Any]
    ) -> Calls:
        """MLA with chosen keys: its backward is a function of its own, and takes what its forward kept."""
        shape, interface = inputs.shape, self._interface
        features, causal = shape.features, shape.causal
        if features.recompute:
            first["gather_bwd_recompute_p"] = True
        # The forward keeps what the backward needs where an input asks for gradients.
        with_gradients = {**first, "qv": first["qv"].detach().requires_grad_()}
        chosen = first["gather_kv_indices"]
        saved: list[Any] = []

        def raw_forward() -> Any:
            return interface._flash_attn_fwd(q, k, v, causal=causal, return_lse=True, **first)

        def raw_backward() -> Any:
            if not saved:
                answer = interface._flash_attn_fwd(q, k, v, causal=causal, return_lse=True, **with_gradients)
                saved.extend((*_out_and_lse(torch, answer, inputs), *answer[2:4]))
            out, lse, *probabilities = saved
            return interface._flash_attn_bwd_sparse_mla(
                *(q, k, v, first["qv"], out, dout, lse, *probabilities, chosen),
                causal=causal,
                **({"recompute_p": True} if features.recompute else {}),
            )

        def forward() -> Results:
            return {"out": _out_and_lse(torch, raw_forward(), inputs)[0]}

        def backward() -> Results:
            # Gradients of keys come in fp32, which ranks add up; held to the reference as the inputs are.
            grads = [x.to(q.dtype) for x in raw_backward()[:4]]
            return dict(zip(("dq", "dk", "dv", "dqv"), grads, strict=True))

        return Calls(forward, backward, raw_forward, raw_backward)


def _shared(inputs: Inputs) -> dict[str, Any]:
    """Tensors of features that forward and backward are given alike, by FA4's names."""
    tensors = inputs.feature_tensors
    alike: dict[str, Any] = {
        name: tensors[name] for name in ("seqused_k", "learnable_sink") if name in tensors
    }
    of_functions = [tensors[name] for name in ("slopes", "ids") if name in tensors]
    return {**alike, **({"aux_tensors": of_functions} if of_functions else {})}


def _batched(x: Any, shape: SdpaShape) -> Any:
    """A packed result with the batch axis that inputs have."""
    return x.unsqueeze(0) if shape.packed else x


def begins_of(torch: Any, inputs: Inputs) -> Any:
    """Where packed sequences begin, and where the last one ends."""
    begins = [0, *itertools.accumulate(inputs.shape.lengths)]
    return torch.tensor(begins, dtype=torch.int32, device=inputs.q.device)


def _prepared(torch: Any, inputs: Inputs) -> tuple[Any, Any, Any, dict[str, Any]]:
    """q, k, v as the variant lays them out, and what it asks of the forward."""
    shape = inputs.shape
    q, k, v = inputs.q, inputs.k, inputs.v
    if shape.dtype == "fp8":
        q, k, v = (x.to(torch.float8_e4m3fn) for x in (q, k, v))
    features = shape.features
    names = ("qv", "gather_kv_indices", "q_descale", "k_descale", "v_descale")
    options = {name: inputs.feature_tensors[name] for name in names if name in inputs.feature_tensors}
    if shape.packed:
        q = q[0]
        k, v = (k, v) if features.page else (k[0], v[0])
    if features.page:
        k, v, table = pages_of(torch, k, v, features.page)
        return q, k, v, {**options, "page_table": table}
    if shape.variant == "split":
        return q, k, v, {"num_splits": SPLITS}
    if shape.variant == "paged":
        k, v, table = pages_of(torch, k, v, PAGE)
        return q, k, v, {"page_table": table}
    return q, k, v, options


def pages_of(torch: Any, k: Any, v: Any, page: int) -> tuple[Any, Any, Any]:
    """K and V (batch, keys, heads, dim) in pages of an order of their own, and the table: read in a row they give a wrong answer."""
    batch, pages = k.shape[0], k.shape[0] * k.shape[1] // page
    order = torch.randperm(pages, generator=torch.Generator().manual_seed(pages))
    table = torch.argsort(order).to(torch.int32).reshape(batch, -1).to(k.device)
    k, v = (x.reshape(pages, page, *x.shape[2:])[order.to(k.device)] for x in (k, v))
    return k, v, table


def _out_and_lse(torch: Any, answer: Any, inputs: Inputs) -> tuple[Any, Any]:
    """The first two values, whatever follows them: b19 began to return more. Raises Fa4AsvError."""
    if not isinstance(answer, (tuple, list)) or len(answer) < 2:
        raise Fa4AsvError(f"_flash_attn_fwd returned {_words(answer)}, expected out, lse and more")
    out, lse = answer[:2]
    expected = lse_shape(inputs.shape)
    if not isinstance(lse, torch.Tensor) or tuple(lse.shape) != expected or lse.dtype != torch.float32:
        raise Fa4AsvError(f"_flash_attn_fwd returned {_words(lse)} for lse, expected float32 {expected}")
    return out, lse


def _words(answer: Any) -> str:
    if isinstance(answer, (tuple, list)):
        return f"{len(answer)} values"
    shape = getattr(answer, "shape", None)
    return f"{type(answer).__name__}" + (f" {tuple(shape)}" if shape is not None else "")


def backend(name: str) -> Fa4:
    """The only one of this file."""
    return Fa4()
