"""What a decode costs the host: launched call by call, or as a CUDA graph that has recorded it, as servers do.

The card is idle and calls are queued eight at a time; only the host's time until the last is queued counts. A graph is
held to the call that it recorded before it is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.runtime.backends import backend
from fa4_asv.measure.runtime.host_cost import queued_seconds
from fa4_asv.measure.runtime.inputs import make
from fa4_asv.measure.runtime.tolerances import GuardFailed

SAMPLES, WARM_UP = 40, 5
_EAGER_FIRST = 3  # calls on a stream of their own before a graph records one, as torch asks for


def host_seconds(
    torch: Any, shape: SdpaShape, launch: str, device: str = "cuda"
) -> tuple[list[float], dict[str, str]]:
    """Samples of the host's seconds per call, and a note of their median. `launch`: "eager" or "graph".

    Raises GuardFailed where a graph gives another answer, and what FA4 and torch raise where a call cannot be recorded.
    """
    calls = backend("fa4").prepare(torch, make(torch, shape, device))
    call = calls.raw_forward
    call()  # compiled before anything is recorded
    if launch == "graph":
        call = _recorded(torch, calls.raw_forward)
    samples = [queued_seconds(torch, call) for _ in range(WARM_UP + SAMPLES)][WARM_UP:]
    return samples, {"per call": f"{median(samples) * 1e6:.1f} us"}


def _recorded(torch: Any, call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a graph's replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_EAGER_FIRST):
            expected = call()[0].clone()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()[0]
    out.zero_()
    graph.replay()
    torch.cuda.synchronize()
    if not torch.equal(out, expected):
        off = float((out.float() - expected.float()).abs().max())
        raise GuardFailed(f"the graph gave another answer than the call that it recorded (off by {off:.3g})")

    def replay() -> Any:
        graph.replay()
        return out  # lives as long as the replay that writes it

    return replay
