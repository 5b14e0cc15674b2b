"""How far a backend is from the truth, in units of what MATH in the same dtype is: drift inside the tolerance.

The guard says whether an answer may be used; this says whether it has become worse. 1 is as good as PyTorch's MATH
with every product rounded.
"""

from __future__ import annotations

from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.runtime import reference
from fa4_asv.measure.runtime.backends import Backend
from fa4_asv.measure.runtime.correctness import results
from fa4_asv.measure.runtime.inputs import make

SEEDS = 3  # values per case: their spread is the inputs' luck


def errors_of(
    torch: Any, backend: Backend, shape: SdpaShape, device: str, backward: bool, kind: str
) -> dict[str, list[float]]:
    """Per tensor ("out", or "dq", "dk", "dv") one value per seed: root mean square of the distance from MATH in fp32,
    over that of MATH in the inputs' dtype. Raises Fa4AsvError where a value is not finite."""
    values: dict[str, list[float]] = {}
    for seed in range(SEEDS):
        inputs = make(torch, shape, device, kind, seed)
        answer = results(backend.prepare(torch, inputs), backward)
        exact, low = (reference.full(torch, inputs, low, cast=low) for low in (False, True))
        for name in ("dq", "dk", "dv") if backward else ("out",):
            if not bool(torch.isfinite(answer[name]).all()):
                raise Fa4AsvError(
                    f"{name} of {shape.name} ({kind}, seed {seed}) has values that are not finite"
                )
            mine, theirs = ((x[name].float() - exact[name]).square().mean().sqrt() for x in (answer, low))
            values.setdefault(name, []).append(float(mine / theirs))
    return values
