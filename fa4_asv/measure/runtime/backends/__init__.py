"""Who can run an attention shape: one file a backend, listed here and nowhere else.

A backend says yes or why not; one that was asked for never falls back to another.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fa4_asv.catalog.shapes import SdpaShape

if TYPE_CHECKING:
    from torch import Tensor

    from fa4_asv.measure.runtime.inputs import Inputs

Results = dict[str, "Tensor"]


@dataclass(frozen=True)
class Calls:
    """`forward` gives {"out"}, `backward` {"dq", "dk", "dv"} of the same inputs, layout (batch, seq, heads, dim).

    `raw` are the same calls without any packing of results: what is timed.
    """

    forward: Callable[[], Results]
    backward: Callable[[], Results]
    raw_forward: Callable[[], object]
    raw_backward: Callable[[], object]


class Backend(Protocol):
    """One way to compute attention."""

    name: str
    kernel: str  # part of its kernels' names in the profiler

    def why_not(self, torch: Any, shape: SdpaShape, device: str, backward: bool) -> str:
        """ "" where it can, else the reason."""
        ...

    def prepare(self, torch: Any, inputs: Inputs, deterministic: bool = False) -> Calls:
        """Calls on `inputs`. Raises what the backend raises."""
        ...


# name: module with a function `backend()`.
TABLE = {
    "fa4": "fa4_asv.measure.runtime.backends.fa4",
    "fa4-sdpa": "fa4_asv.measure.runtime.backends.fa4_sdpa",
    "fa2": "fa4_asv.measure.runtime.backends.sdpa",
    "cudnn": "fa4_asv.measure.runtime.backends.sdpa",
    "efficient": "fa4_asv.measure.runtime.backends.sdpa",
    "math": "fa4_asv.measure.runtime.backends.sdpa",
    "copy": "fa4_asv.measure.runtime.backends.copied",
}


def backend(name: str) -> Backend:
    """The backend of that name. KeyError for an unknown one."""
    found_backend: Backend = importlib.import_module(TABLE[name]).backend(name)
    return found_backend
