"""Peak memory of one call as it runs: by the CUDA allocator on a card, by the trace on a CPU.

The definition is that of the traced figure (`memory.Traced`): everything alive at the worst moment of the call, inputs
included; of a backward, the forward's output and LSE are inputs.
"""

from __future__ import annotations

from typing import Any

from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.memory.tracker import Tracker, following
from fa4_asv.measure.runtime.backends import Backend
from fa4_asv.measure.runtime.inputs import make


def peak_of(
    torch: Any, backend: Backend, shape: SdpaShape, device: str, backward: bool, compiled: bool = False
) -> int:
    """Bytes. A first call compiles and is not counted; none is made where the process has `compiled` it before."""
    if not compiled:
        make_call(torch, backend, shape, device, backward)()
    return (_allocated if device == "cuda" else _traced)(torch, backend, shape, device, backward)


def make_call(torch: Any, backend: Backend, shape: SdpaShape, device: str, backward: bool) -> Any:
    """The call, its inputs made; of a backward, its forward done."""
    inputs = make(torch, shape, device)
    calls = backend.prepare(torch, inputs)
    if backward:
        calls.raw_backward()
        return calls.raw_backward
    # Only q, k and v live on in it: dout is drawn with them, but is no input of a forward.
    return calls.raw_forward


def _allocated(torch: Any, backend: Backend, shape: SdpaShape, device: str, backward: bool) -> int:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    call = make_call(torch, backend, shape, device, backward)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def _traced(torch: Any, backend: Backend, shape: SdpaShape, device: str, backward: bool) -> int:
    tracker = Tracker(device)
    with following(tracker):
        call = make_call(torch, backend, shape, device, backward)
        tracker.restart()
        call()
    return tracker.peak
