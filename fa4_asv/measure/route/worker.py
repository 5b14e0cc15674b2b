"""The process that asks one torch to drive one FA4 through SDPA, without a GPU.

Started as `python -m fa4_asv.measure.route.worker` with the target architecture in the environment, by the
interpreter that holds the torch in question. Reads one JSON line, answers {"torch": version, "broken":
{check: reason}, "checks": how many}. One job per process: what is activated is a state of the process.

The calls enter torch's dispatcher at the CUDA key with fake CUDA tensors, so that torch's schema, its
choice of kernel and its adapter are the real ones. Above that key a CPU-only torch has no way in:
autograd on a CUDA device needs a driver. FA4's host code is real, too; its kernels are never compiled.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import Any

from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.driver_stubs import open_answers, serve
from fa4_asv.measure.route.checks import CHECKS, Answer, Attention, Seen, run_checks
from fa4_asv.measure.route.no_card import stand_in_for_a_card

_FORWARD, _BACKWARD = "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_backward"
_VARLEN_FORWARD, _VARLEN_BACKWARD = "_flash_attention_forward", "_flash_attention_backward"
OPERATORS = (_FORWARD, _BACKWARD, _VARLEN_FORWARD, _VARLEN_BACKWARD)


def seen(tensor: Any) -> Seen | None:
    """What can be seen of a fake tensor; None of none."""
    if tensor is None:
        return None
    return Seen(tuple(tensor.shape), tuple(tensor.stride()), str(tensor.dtype).removeprefix("torch."))


class TorchDriver:
    """The torch and FA4 of this process; see route_checks.Driver."""

    def __init__(self, torch: Any, fake_mode: Any) -> None:
        self._torch, self._fake_mode = torch, fake_mode
        self._attention = importlib.import_module("torch.nn.attention")
        self._cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
        self._original = {name: self._kernels(name) for name in OPERATORS}
        self.calls: list[dict[str, Any]] = []

    def _kernels(self, name: str) -> str:
        """The dispatcher's own account of who serves an operator."""
        return str(self._torch._C._dispatch_dump(f"aten::{name}"))

    def import_fa4(self) -> None:
        """Import FA4's interface and listen at the two functions that torch's adapter calls."""
        interface = importlib.import_module("flash_attn.cute.interface")
        for name in ("_flash_attn_fwd", "_flash_attn_bwd"):
            setattr(interface, name, self._listening(getattr(interface, name)))

    def _listening(self, function: Any) -> Any:
        @functools.wraps(function)  # with its attributes: FA4 keeps its compile caches there
        def listening(*args: Any, **kwargs: Any) -> Any:
            try:
                arguments = dict(inspect.signature(function).bind_partial(*args, **kwargs).arguments)
            except TypeError:  # the call below says it better
                arguments = dict(kwargs)
            self.calls.append(arguments)
            return function(*args, **kwargs)

        return listening

    def activate(self) -> None:
        self._attention.activate_flash_attention_impl("FA4")

    def restore(self) -> None:
        self._attention.restore_flash_attention_impl()

    def current(self) -> str | None:
        name = self._attention.current_flash_attention_impl()
        return None if name is None else str(name)

    def routed(self) -> list[str]:
        return [name for name in OPERATORS if self._kernels(name) != self._original[name]]

    def not_routed(self) -> list[str]:
        return [name for name in OPERATORS if self._kernels(name) == self._original[name]]

    def _call(self, name: str, *args: Any) -> Any:
        """Call the kernel that the dispatcher has for CUDA. Raises what it raises."""
        if name not in self.routed():
            # torch's own kernel would follow the fake tensors' null pointers
            raise RuntimeError(f"{name} is not routed to FA4")
        return getattr(self._torch.ops.aten, name).default.redispatch(self._cuda, *args)

    def _make(self, attention: Attention, heads: int) -> Any:
        shape = attention.shape
        options = {"dtype": getattr(self._torch, shape.torch_dtype), "device": "cuda"}
        if shape.packed:
            return self._torch.empty(shape.tokens, heads, shape.head_dim, **options)
        if attention.bshd:
            size = (shape.batch, shape.seq_len, heads, shape.head_dim)
            return self._torch.empty(*size, **options).transpose(1, 2)
        return self._torch.empty(shape.batch, heads, shape.seq_len, shape.head_dim, **options)

    def _inputs(self, attention: Attention) -> list[Any]:
        shape = attention.shape
        return [self._make(attention, heads) for heads in (shape.num_heads, shape.kv_heads, shape.kv_heads)]

    def _packing(self, shape: SdpaShape) -> tuple[Any, Any, int, int]:
        """Where packed sequences begin, for queries and keys, and their longest."""
        begins = self._torch.empty(shape.batch + 1, dtype=self._torch.int32, device="cuda")
        return begins, begins, max(shape.lengths), max(shape.lengths)

    def _run(self, attention: Attention, inputs: list[Any]) -> Any:
        """The forward's whole answer, as the dispatcher gives it."""
        shape = attention.shape
        if not shape.packed:
            return self._call(_FORWARD, *inputs, attention.dropout, shape.causal)
        rest = (*self._packing(shape), attention.dropout, shape.causal, False)
        return self._call(_VARLEN_FORWARD, *inputs, *rest)

    def forward(self, attention: Attention) -> Answer:
        self.calls.clear()
        with self._fake_mode():
            inputs = self._inputs(attention)
            out, lse = self._run(attention, inputs)[:2]
            return self._answer((out, lse), inputs)

    def promised(self, attention: Attention) -> Answer:
        self.calls.clear()
        with self._fake_mode():
            inputs = self._inputs(attention)
            operator = getattr(self._torch.ops.aten, _FORWARD).default
            return self._answer(operator(*inputs, attention.dropout, attention.shape.causal)[:2], inputs)

    def backward(self, attention: Attention) -> Answer:
        """Forward, then backward with what it left, as autograd would; only FA4's backward is listened to."""
        was = self._torch.are_deterministic_algorithms_enabled()
        asked = attention.shape.variant == "deterministic"
        self._torch.use_deterministic_algorithms(asked, warn_only=True)
        try:
            with self._fake_mode():
                inputs = self._inputs(attention)
                left = self._run(attention, inputs)
                self.calls.clear()
                grads = self._run_backward(attention, inputs, left)
                return self._answer(grads, inputs)
        finally:
            self._torch.use_deterministic_algorithms(was)

    def _run_backward(self, attention: Attention, inputs: list[Any], left: Any) -> Any:
        (out, lse), shape = left[:2], attention.shape
        grad = self._torch.empty_like(out)
        if not shape.packed:
            lengths = (left[2], left[3], left[4], left[5], attention.dropout, shape.causal)
            return self._call(_BACKWARD, grad, *inputs, out, lse, *lengths, left[6], left[7])
        rest = (*self._packing(shape), attention.dropout, shape.causal)
        return self._call(_VARLEN_BACKWARD, grad, *inputs, out, lse, *rest, left[2], left[3])

    def _answer(self, tensors: Any, inputs: list[Any]) -> Answer:
        described = tuple(each for each in map(seen, inputs) if each is not None)
        return Answer(tuple(map(seen, tensors)), described, list(self.calls))


def main() -> None:
    answers = open_answers()
    import torch

    mode = stand_in_for_a_card(torch)

    def answer(_: Any) -> dict[str, Any]:
        broken = run_checks(TorchDriver(torch, mode))
        return {"torch": torch.__version__, "broken": broken, "checks": len(CHECKS)}

    serve(answers, answer)


if __name__ == "__main__":
    main()
