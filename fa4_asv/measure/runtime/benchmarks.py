"""What the classes of benchmarks on a card share: samples of a call's metric, behind the guard."""

from __future__ import annotations

from typing import Any

from fa4_asv.measure.benchmark_api import OfGroup
from fa4_asv.measure.runtime.collect import sample

Samples = dict[str, Any]


class OnCard(OfGroup):
    """The first figure of a round waits for the whole class."""

    timeout = 3600


class Timed(OnCard):
    """Seconds of a call."""

    param_names = ("backend", "shape")
    unit = "seconds"

    def track_seconds(self, backend: str, shape: str) -> Samples:
        return sample(self.group, backend, shape)


class TimedInRounds(Timed):
    """The same, in three rounds of asv."""

    def track_seconds(self, backend: str, shape: str) -> Samples:
        return super().track_seconds(backend, shape)


# asv reads the number of rounds from the function, not from its class.
vars(TimedInRounds)["track_seconds"].rounds = 3


class Errors(OnCard):
    """Root mean square of the distance from MATH in fp32; 1 is what MATH in the inputs' dtype is off."""

    param_names = ("backend", "shape", "kind")
    unit = "MATH's own error"


class ErrorsOfOutput(Errors):
    """Of a forward."""

    def track_out(self, backend: str, shape: str, kind: str) -> Samples:
        return sample(self.group, backend, shape, kind, metric="out")


class ErrorsOfGradients(Errors):
    """Of a backward."""

    def track_dq(self, backend: str, shape: str, kind: str) -> Samples:
        return sample(self.group, backend, shape, kind, metric="dq")

    def track_dk(self, backend: str, shape: str, kind: str) -> Samples:
        return sample(self.group, backend, shape, kind, metric="dk")

    def track_dv(self, backend: str, shape: str, kind: str) -> Samples:
        return sample(self.group, backend, shape, kind, metric="dv")
