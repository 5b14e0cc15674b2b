"""Seconds of a forward, behind the guard. Belongs to the machine that measures it: `asv run -m NAME`."""

from fa4_asv.catalog.benchmarks import GROUPS, YARD_SHAPES, YARDSTICKS, names
from fa4_asv.catalog.shapes import (
    core,
    for_cpu,
    further,
    history,
    history_more,
    serving_on_card,
    serving_on_cpu,
    shapes_on_card,
)
from fa4_asv.measure.runtime.collect import sample


class _Timed:
    param_names = ["backend", "shape"]
    # The first figure of a round waits for the whole class.
    timeout = 3600


class Core(_Timed):
    """FA4 at what every commit is timed at."""

    version = GROUPS["forward"].version
    params = [["fa4"], [shape.name for shape in core()]]

    def track_seconds(self, backend, shape):
        return sample("forward", backend, shape)

    track_seconds.unit = "seconds"
    track_seconds.rounds = 3


class Further(_Timed):
    """FA4 at the other sets."""

    version = GROUPS["forward-further"].version
    params = [["fa4"], list(names(further(), backward=False))]

    def track_seconds(self, backend, shape):
        return sample("forward-further", backend, shape)

    track_seconds.unit = "seconds"


class Yardsticks(_Timed):
    """What FA4 is held against, and its route through SDPA."""

    version = GROUPS["forward-yardsticks"].version
    params = [list(YARDSTICKS), list(YARD_SHAPES)]

    def track_seconds(self, backend, shape):
        return sample("forward-yardsticks", backend, shape)

    track_seconds.unit = "seconds"


class Cpu(_Timed):
    """PyTorch's own attention on a CPU, the same way as on a card."""

    version = GROUPS["forward-cpu"].version
    params = [["fa4", "fa2", "math"], [shape.name for shape in for_cpu()]]

    def track_seconds(self, backend, shape):
        return sample("forward-cpu", backend, shape)

    track_seconds.unit = "seconds"
    track_seconds.rounds = 3


class History(_Timed):
    """FA4 from release to release: what `fa4-asv sweep` takes in turns; a plain run takes one round."""

    version = GROUPS["forward-history"].version
    params = [["fa4"], [shape.name for shape in history()]]

    def track_seconds(self, backend, shape):
        return sample("forward-history", backend, shape)

    track_seconds.unit = "seconds"


class HistoryMore(_Timed):
    """The rest of the core set, the same way."""

    version = GROUPS["forward-history-more"].version
    params = [["fa4"], [shape.name for shape in history_more()]]

    def track_seconds(self, backend, shape):
        return sample("forward-history-more", backend, shape)

    track_seconds.unit = "seconds"


class HistoryCpu(_Timed):
    """On a CPU, where only a stand-in of FA4 runs."""

    version = GROUPS["forward-history-cpu"].version
    params = [["fa4"], [shape.name for shape in for_cpu()]]

    def track_seconds(self, backend, shape):
        return sample("forward-history-cpu", backend, shape)

    track_seconds.unit = "seconds"


class Serving(_Timed):
    """What servers ask for: decode, speculative decode, chunks of a prefill. On request: `fa4-asv sweep --set serving`."""

    version = GROUPS["forward-serving"].version
    params = [["fa4"], [shape.name for shape in serving_on_card()]]

    def track_seconds(self, backend, shape):
        return sample("forward-serving", backend, shape)

    track_seconds.unit = "seconds"


class ServingCpu(_Timed):
    """The same kinds on a CPU, where only a stand-in of FA4 runs."""

    version = GROUPS["forward-serving-cpu"].version
    params = [["fa4"], [shape.name for shape in serving_on_cpu()]]

    def track_seconds(self, backend, shape):
        return sample("forward-serving-cpu", backend, shape)

    track_seconds.unit = "seconds"


class Shapes(_Timed):
    """Sinks, soft caps, windows at d 256, d 72 and 80, video, very short sequences. On request: `fa4-asv sweep --set shapes`."""

    version = GROUPS["forward-shapes"].version
    params = [["fa4"], [shape.name for shape in shapes_on_card()]]

    def track_seconds(self, backend, shape):
        return sample("forward-shapes", backend, shape)

    track_seconds.unit = "seconds"
