"""What the route through SDPA costs the host beyond calling FA4 directly: short sequences wait for it.

Direct calls and calls through SDPA are queued in turns, eight at a time, on an idle card; only the host's time until
the last is queued counts. A pair's difference is a sample, so that a slow moment of the host touches both sides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.runtime.backends import backend
from fa4_asv.measure.runtime.backends.sdpa import leaves, options_of
from fa4_asv.measure.runtime.inputs import Inputs, make

CALLS, PAIRS, WARM_UP = 8, 40, 5


def extra_seconds(torch: Any, shape: SdpaShape, backward: bool) -> tuple[list[float], dict[str, str]]:
    """Samples of seconds per call (route less direct), and notes of both sides' medians. Needs a card."""
    inputs = make(torch, shape, "cuda")
    calls = backend("fa4").prepare(torch, inputs)
    direct = calls.raw_backward if backward else calls.raw_forward
    route = backend("fa4-sdpa")
    with route.chosen(torch):  # type: ignore[attr-defined] # chosen once, as a program does
        through = _through_sdpa(torch, inputs, backward)
        pairs = [
            (queued_seconds(torch, direct), queued_seconds(torch, through)) for _ in range(WARM_UP + PAIRS)
        ][WARM_UP:]
    notes = {
        "direct": f"{median(pair[0] for pair in pairs) * 1e6:.1f} us",
        "through SDPA": f"{median(pair[1] for pair in pairs) * 1e6:.1f} us",
    }
    return [through - direct for direct, through in pairs], notes


def _through_sdpa(torch: Any, inputs: Inputs, backward: bool) -> Callable[[], object]:
    (q, k, v), options = leaves(inputs, backward), options_of(inputs.shape)

    def forward() -> Any:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

    if not backward:
        return forward
    out, dout = forward(), inputs.dout.transpose(1, 2)
    return lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)


def queued_seconds(torch: Any, call: Callable[[], object]) -> float:
    """The host's seconds per call until the last of CALLS is queued on an idle card."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - begin) / CALLS
