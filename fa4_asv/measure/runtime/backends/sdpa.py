"""torch.nn.functional.scaled_dot_product_attention, held to one of its own backends: the yardsticks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fa4_asv.catalog.features import Features
from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.runtime.backends import Calls, Results
from fa4_asv.measure.runtime.inputs import Inputs

# name: (SDPBackend, part of its kernels' names on CUDA, on a CPU).
_CHOICES = {
    "fa2": ("FLASH_ATTENTION", "flash_", "_scaled_dot_product_flash_attention_for_cpu"),
    "cudnn": ("CUDNN_ATTENTION", "cudnn", ""),
    "efficient": ("EFFICIENT_ATTENTION", "fmha", ""),
    "math": ("MATH", "", "_scaled_dot_product_attention_math"),
}


def leaves(inputs: Inputs, grad: bool = True) -> list[Any]:
    """q, k and v as SDPA takes them, heads before tokens; with `grad` as leaves of a graph."""
    return [x.detach().transpose(1, 2).requires_grad_(grad) for x in (inputs.q, inputs.k, inputs.v)]


def options_of(shape: SdpaShape) -> dict[str, bool]:
    """What SDPA is told of a shape."""
    return {"is_causal": shape.causal, "enable_gqa": shape.kv_heads != shape.num_heads}


class Sdpa:
    """One SDPBackend. A shape that it refuses is an error there, never another backend."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._choice, self.kernel, self._cpu_kernel = _CHOICES[name]

    def why_not(self, torch: Any, shape: SdpaShape, device: str, backward: bool) -> str:
        if device == "cpu" and not self._cpu_kernel:
            return f"{self._choice} has no CPU kernels"
        if shape.window is not None:
            return "SDPA has no sliding window"
        if shape.features != Features(keys=shape.features.keys):
            return f"SDPA has no {', '.join(shape.features.names)}"
        if shape.causal and shape.keys != shape.seq_len:
            return "SDPA's causal mask begins at the first key"
        if shape.variant not in ("", "deterministic") or shape.dtype == "fp8":
            return f"SDPA has no {shape.variant or shape.dtype} attention"
        return ""

    @contextmanager
    def chosen(self, torch: Any) -> Iterator[None]:
        """Only this backend, for calls inside; not FA4 in the place of FA2, should it be active."""
        attention = torch.nn.attention
        if getattr(attention, "current_flash_attention_impl", lambda: None)() is not None:
            attention.restore_flash_attention_impl()
        with torch.nn.attention.sdpa_kernel(getattr(torch.nn.attention.SDPBackend, self._choice)):
            yield

    def prepare(self, torch: Any, inputs: Inputs, deterministic: bool = False) -> Calls:
        shape = inputs.shape
        deterministic = deterministic or shape.variant == "deterministic"
        q, k, v = leaves(inputs)
        dout, options = inputs.dout.transpose(1, 2), options_of(shape)
        graph: list[Any] = []

        def attend() -> Any:
            with self.chosen(torch):
                return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

        def raw_forward() -> Any:
            with torch.no_grad():
                return attend()

        def raw_backward() -> Any:
            if not graph:
                graph.append(attend())
            before = torch.are_deterministic_algorithms_enabled()
            torch.use_deterministic_algorithms(deterministic or before)
            try:
                return torch.autograd.grad(graph[0], (q, k, v), dout, retain_graph=True)
            finally:
                torch.use_deterministic_algorithms(before)

        def forward() -> Results:
            return {"out": raw_forward().transpose(1, 2)}

        def backward() -> Results:
            grads = (x.transpose(1, 2) for x in raw_backward())
            return dict(zip(("dq", "dk", "dv"), grads, strict=True))

        return Calls(forward, backward, raw_forward, raw_backward)


def backend(name: str) -> Sdpa:
    """One of fa2, cudnn, efficient, math."""
    return Sdpa(name)
