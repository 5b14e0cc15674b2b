"""Seconds of a backward, behind the guard. Belongs to the machine that measures it: `asv run -m NAME`."""

from fa4_asv.catalog.benchmarks import GROUPS, YARD_SHAPES, YARDSTICKS, names
from fa4_asv.catalog.shapes import core, for_cpu, further, history, history_more, shapes_on_card
from fa4_asv.measure.runtime.collect import sample


class _Timed:
    param_names = ["backend", "shape"]
    # The first figure of a round waits for the whole class.
    timeout = 3600


class Core(_Timed):
    """FA4 at what every commit is timed at."""

    version = GROUPS["backward"].version
    params = [["fa4"], [shape.name for shape in core()]]

    def track_seconds(self, backend, shape):
        return sample("backward", backend, shape)

    track_seconds.unit = "seconds"
    track_seconds.rounds = 3


class Further(_Timed):
    """FA4 at the other sets."""

    version = GROUPS["backward-further"].version
    params = [["fa4"], list(names(further(), backward=True))]

    def track_seconds(self, backend, shape):
        return sample("backward-further", backend, shape)

    track_seconds.unit = "seconds"


class Yardsticks(_Timed):
    """What FA4 is held against, and its route through SDPA."""

    version = GROUPS["backward-yardsticks"].version
    params = [list(YARDSTICKS), list(YARD_SHAPES)]

    def track_seconds(self, backend, shape):
        return sample("backward-yardsticks", backend, shape)

    track_seconds.unit = "seconds"


class Cpu(_Timed):
    """PyTorch's own attention on a CPU, the same way as on a card."""

    version = GROUPS["backward-cpu"].version
    params = [["fa4", "fa2", "math"], [shape.name for shape in for_cpu()]]

    def track_seconds(self, backend, shape):
        return sample("backward-cpu", backend, shape)

    track_seconds.unit = "seconds"
    track_seconds.rounds = 3


class History(_Timed):
    """FA4 from release to release: what `fa4-asv sweep` takes in turns; a plain run takes one round."""

    version = GROUPS["backward-history"].version
    params = [["fa4"], [shape.name for shape in history()]]

    def track_seconds(self, backend, shape):
        return sample("backward-history", backend, shape)

    track_seconds.unit = "seconds"


class HistoryMore(_Timed):
    """The rest of the core set, the same way."""

    version = GROUPS["backward-history-more"].version
    params = [["fa4"], [shape.name for shape in history_more()]]

    def track_seconds(self, backend, shape):
        return sample("backward-history-more", backend, shape)

    track_seconds.unit = "seconds"


class HistoryCpu(_Timed):
    """On a CPU, where only a stand-in of FA4 runs."""

    version = GROUPS["backward-history-cpu"].version
    params = [["fa4"], [shape.name for shape in for_cpu()]]

    def track_seconds(self, backend, shape):
        return sample("backward-history-cpu", backend, shape)

    track_seconds.unit = "seconds"


class Shapes(_Timed):
    """Sinks, soft caps, windows at d 256, d 72 and 80, video, very short sequences. On request: `fa4-asv sweep --set shapes`."""

    version = GROUPS["backward-shapes"].version
    params = [["fa4"], [shape.name for shape in shapes_on_card()]]

    def track_seconds(self, backend, shape):
        return sample("backward-shapes", backend, shape)

    track_seconds.unit = "seconds"
