"""A copy on the card of as many bytes as a call must move, half of them read and half written: no attention, a yardstick."""

from __future__ import annotations

from typing import Any

from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.catalog.traffic import bytes_moved
from fa4_asv.measure.runtime.backends import Calls, Results
from fa4_asv.measure.runtime.inputs import Inputs
from fa4_asv.measure.runtime.tolerances import GuardFailed


class Copied:
    """torch's copy from one tensor of bytes to another."""

    name = "copy"
    kernel = ""

    def why_not(self, torch: Any, shape: SdpaShape, device: str, backward: bool) -> str:
        if backward:
            return "a copy stands beside forwards only"
        try:
            bytes_moved(shape)
        except ValueError as error:
            return str(error)
        return ""

    def prepare(self, torch: Any, inputs: Inputs, deterministic: bool = False) -> Calls:
        half = bytes_moved(inputs.shape) // 2
        source = torch.ones(half, dtype=torch.uint8, device=inputs.q.device)
        target = torch.zeros_like(source)

        def copy() -> Any:
            return target.copy_(source)

        def forward() -> Results:
            copy()
            if not torch.equal(source, target):
                raise GuardFailed(f"{inputs.shape.name}: the copy differs from its source")
            return {}

        return Calls(forward, lambda: {}, copy, copy)


def backend(name: str) -> Copied:
    """The only one of this file."""
    return Copied()
