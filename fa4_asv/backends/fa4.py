"""FA4 called directly: flash_attn.cute.interface, without autograd."""

from __future__ import annotations

import importlib
from typing import Any

from fa4_asv.backends import Calls, Results
from fa4_asv.errors import Fa4AsvError
from fa4_asv.inputs import Inputs
from fa4_asv.shapes import SdpaShape


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
        options: dict[str, Any] = {"causal": shape.causal and shape.window is None}
        if shape.window is not None:
            options |= {"window_size_left": shape.window, "window_size_right": 0}
        q, k, v, dout = inputs.q, inputs.k, inputs.v, inputs.dout
        saved: list[Any] = []

        def raw_forward() -> Any:
            return interface._flash_attn_fwd(q, k, v, return_lse=True, **options)

        def forward() -> Results:
            return {"out": _out_and_lse(torch, raw_forward(), inputs)[0]}

        def raw_backward() -> Any:
            if not saved:
                saved.extend(_out_and_lse(torch, raw_forward(), inputs))
            if deterministic:
                options_bwd = {**options, "deterministic": True}
                return interface._flash_attn_bwd(q, k, v, saved[0], dout, saved[1], **options_bwd)
            return interface._flash_attn_bwd(q, k, v, saved[0], dout, saved[1], **options)

        def backward() -> Results:
            grads = raw_backward()
            if not isinstance(grads, (tuple, list)) or len(grads) < 3:
                raise Fa4AsvError(f"_flash_attn_bwd returned {_words(grads)}, expected dq, dk, dv")
            return dict(zip(("dq", "dk", "dv"), grads[:3], strict=True))

        return Calls(forward, backward, raw_forward, raw_backward)


def _out_and_lse(torch: Any, answer: Any, inputs: Inputs) -> tuple[Any, Any]:
    """The first two values, whatever follows them: b19 began to return more. Raises Fa4AsvError."""
    shape = inputs.shape
    if not isinstance(answer, (tuple, list)) or len(answer) < 2:
        raise Fa4AsvError(f"_flash_attn_fwd returned {_words(answer)}, expected out, lse and more")
    out, lse = answer[:2]
    expected = (shape.batch, shape.num_heads, shape.seq_len)
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
