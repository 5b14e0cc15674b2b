"""Calls of FA4 as users make them, on fake CUDA tensors: direct, through autograd, of packed sequences.

A CPU-only torch has no autograd engine for CUDA. So forward and backward of FA4's autograd functions are called here
as the engine would call them, with a stand-in for its context.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from fa4_asv.catalog.launch import Form, LaunchCall
from fa4_asv.measure.contract.watch import Watch, give_twin, watching

_FUNCTIONS = ("FlashAttnFunc", "FlashAttnVarlenFunc")


class Context:
    """What autograd hands to forward and backward of a Function."""

    def __init__(self, inputs: tuple[Any, ...]) -> None:
        self.saved_tensors: tuple[Any, ...] = ()
        self.needs_input_grad = tuple(bool(getattr(value, "requires_grad", False)) for value in inputs)
        self.materializes = True

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    def set_materialize_grads(self, value: bool) -> None:
        self.materializes = value

    def mark_non_differentiable(self, *_: Any) -> None:
        """Says something of gradients of gradients, which nobody asks for here."""


class Tape:
    """The last call of an autograd function: what its backward needs."""

    def __init__(self) -> None:
        self.function: Any = None
        self.context: Any = None
        self.returned: tuple[Any, ...] = ()

    def recorded(self, function: Any) -> Callable[..., Any]:
        """What stands for `function.apply`."""

        def apply(*args: Any) -> Any:
            self.function, self.context = function, Context(args)
            returned = function.forward(self.context, *args)
            self.returned = returned if isinstance(returned, tuple) else (returned,)
            return returned

        return apply

    def gradients(self, torch: Any) -> list[Any]:
        """One for the output; for others none, or zeros where the function did not say that it takes none."""
        first, *others = self.returned
        zeros = self.context.materializes
        return [
            torch.empty_like(first),
            *(torch.zeros_like(other) if zeros and other is not None else None for other in others),
        ]


def record_calls(interface: Any) -> Tape:
    """Have FA4's autograd functions called here, without torch's engine; the tape of the last one."""
    tape = Tape()
    for name in _FUNCTIONS:
        function = getattr(interface, name)
        function.apply = tape.recorded(function)
    return tape


def make_inputs(torch: Any, call: LaunchCall, form: Form) -> list[Any]:
    """q, k and v, which need gradients unless the call is direct: (batch, seq, heads, dim), packed (tokens, heads, dim)."""
    shape = call.shape(form)
    lead = (shape.tokens,) if shape.packed else (shape.batch, shape.seq_len)
    heads = [shape.num_heads, shape.kv_heads, shape.kv_heads]
    options = {"dtype": torch.bfloat16, "device": "cuda"}
    if form.layout == "packed":
        whole = torch.empty(*lead, sum(heads), shape.head_dim, **options)
        inputs = list(whole.split(heads, dim=-2))
    elif form.layout == "heads":
        turned = [torch.empty(*lead[:-1], count, lead[-1], shape.head_dim, **options) for count in heads]
        inputs = [tensor.transpose(-3, -2) for tensor in turned]
    else:
        inputs = [torch.empty(*lead, count, shape.head_dim, **options) for count in heads]
    return [tensor.requires_grad_(call.way != "direct") for tensor in inputs]


def packing(torch: Any, call: LaunchCall, form: Form) -> dict[str, Any]:
    """Keywords that tell where packed sequences begin and how long the longest is; none of others."""
    shape = call.shape(form)
    if not shape.packed:
        return {}
    begins = _with_values(torch, list(itertools.accumulate(shape.lengths, initial=0)))
    longest = [_with_values(torch, max(shape.lengths)) if call.tensors else max(shape.lengths) for _ in "qk"]
    return {
        **dict.fromkeys(("cu_seqlens_q", "cu_seqlens_k"), begins),
        **dict(zip(("max_seqlen_q", "max_seqlen_k"), longest, strict=True)),
    }


def _with_values(torch: Any, values: Any) -> Any:
    """A fake int32 tensor on the card whose values are known."""
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes():
        twin = torch.tensor(values, dtype=torch.int32)
    return give_twin(torch.empty(twin.shape, dtype=torch.int32, device="cuda"), twin)


def make_call(torch: Any, interface: Any, tape: Tape, watch: Watch, call: LaunchCall, form: Form) -> None:
    """One call, watched: a forward, and unless it is direct its backward. Raises what FA4 raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.no_grad():
        inputs, options = make_inputs(torch, call, form), packing(torch, call, form)
        watch.known(*inputs, *(value for value in options.values() if not isinstance(value, int)))
        if call.way == "direct":
            with watching(watch):
                interface._flash_attn_fwd(*inputs, causal=True, return_lse=True)
            return
        name = "flash_attn_varlen_func" if call.packed else "flash_attn_func"
        with watching(watch):
            getattr(interface, name)(*inputs, causal=True, **options)
        gradients = tape.gradients(torch)
        watch.known(*(gradient for gradient in gradients if gradient is not None))
        with watching(watch):
            tape.function.backward(tape.context, *gradients)
