"""The process that traces memory: one call of FA4 a line, on fake CUDA tensors of real size.

Started as `python -m fa4_asv.measure.memory.worker` with the target architecture in the environment. Reads a
JSON line {"backward": bool, "shape": SdpaShape as JSON, "lse": bool}, answers {"peak_bytes", "extra_bytes", "parts",
"error": null or {"kind", "words", "refused"}}.

FA4's host code allocates, its kernels do not: nothing is compiled, and a case takes milliseconds. What a
CUDA operator of torch takes for itself while it runs is not seen.
"""

from __future__ import annotations

from typing import Any

from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.compile_stubs import stand_in_without_a_card
from fa4_asv.measure.driver_stubs import describe, open_answers, serve
from fa4_asv.measure.fake_calls import call_on, fake_inputs, feature_tensors_of
from fa4_asv.measure.memory.tracker import Tracker, following


def trace(torch: Any, interface: Any, backward: bool, shape: SdpaShape, lse: bool = True) -> dict[str, Any]:
    """Figures and parts of one call, inputs included; `lse`: whether a forward returns it. Raises what FA4 raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    names = ("dq", "dk", "dv") if backward else ("out", "lse")
    tracker = Tracker()
    with FakeTensorMode(), following(tracker):
        inputs = fake_inputs(torch, shape, backward)
        feature_tensors = feature_tensors_of(torch, shape, backward)
        tracker.name({**inputs, **_flat(feature_tensors)})
        returned = call_on(torch, interface, inputs, feature_tensors, shape, backward, lse)
        tracker.name(dict(zip(names, returned, strict=False)))
        return {"peak_bytes": tracker.peak, "extra_bytes": tracker.extra(), "parts": tracker.parts()}


def _flat(feature_tensors: dict[str, Any]) -> dict[str, Any]:
    """Tensors by name; of several in one argument each has the argument's name and a number."""
    from torch import Tensor

    tensors: dict[str, Any] = {}
    for name, value in feature_tensors.items():
        each = (
            [value]
            if isinstance(value, Tensor)
            else [tensor for tensor in value if isinstance(tensor, Tensor)]
        )
        tensors |= {
            name if len(each) == 1 else f"{name}_{number}": tensor for number, tensor in enumerate(each)
        }
    return tensors


def _import_fa4() -> tuple[Any, Any]:
    """torch and FA4's interface, which compiles nothing from here on."""
    import torch

    stand_in_without_a_card(torch)
    from flash_attn.cute import interface

    return torch, interface


def main() -> None:
    answers = open_answers()
    torch = interface = broken = None
    try:
        torch, interface = _import_fa4()
    except Exception as caught:  # said once per case; dying would import once per case
        broken = describe(caught)

    def answer(job: dict[str, Any]) -> dict[str, Any]:
        if broken:
            return {"error": broken}
        try:
            shape = SdpaShape.from_json(job["shape"])
            return {"error": None, **trace(torch, interface, job["backward"], shape, job.get("lse", True))}
        except Exception as caught:
            return {"error": describe(caught)}

    serve(answers, answer)


if __name__ == "__main__":
    main()
