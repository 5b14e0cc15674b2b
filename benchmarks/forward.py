"""Seconds of a forward, behind the guard. Belongs to the machine that measures it: `asv run -m NAME`."""

from fa4_asv.catalog.benchmarks import CPU_BACKENDS, YARD_SHAPES, YARDSTICKS, names
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
from fa4_asv.measure.runtime import benchmarks


class Core(benchmarks.TimedInRounds):
    """FA4 at what every commit is timed at."""

    group = "forward"
    params = [["fa4"], [shape.name for shape in core()]]


class Further(benchmarks.Timed):
    """FA4 at the other sets."""

    group = "forward-further"
    params = [["fa4"], list(names(further(), backward=False))]


class Yardsticks(benchmarks.Timed):
    """What FA4 is held against, and its route through SDPA."""

    group = "forward-yardsticks"
    params = [list(YARDSTICKS), list(YARD_SHAPES)]


class Cpu(benchmarks.TimedInRounds):
    """PyTorch's own attention on a CPU, the same way as on a card."""

    group = "forward-cpu"
    params = [list(CPU_BACKENDS), [shape.name for shape in for_cpu()]]


class History(benchmarks.Timed):
    """FA4 from release to release: what `fa4-asv sweep` takes in turns; a plain run takes one round."""

    group = "forward-history"
    params = [["fa4"], [shape.name for shape in history()]]


class HistoryMore(benchmarks.Timed):
    """The rest of the core set, the same way."""

    group = "forward-history-more"
    params = [["fa4"], [shape.name for shape in history_more()]]


class HistoryCpu(benchmarks.Timed):
    """On a CPU, where only a stand-in of FA4 runs."""

    group = "forward-history-cpu"
    params = [["fa4"], [shape.name for shape in for_cpu()]]


class Serving(benchmarks.Timed):
    """What servers ask for: decode, speculative decode, chunks of a prefill. On request: `fa4-asv sweep --set serving`."""

    group = "forward-serving"
    params = [["fa4"], [shape.name for shape in serving_on_card()]]


class ServingCpu(benchmarks.Timed):
    """The same kinds on a CPU, where only a stand-in of FA4 runs."""

    group = "forward-serving-cpu"
    params = [["fa4"], [shape.name for shape in serving_on_cpu()]]


class Shapes(benchmarks.Timed):
    """Sinks, soft caps, windows at d 256, d 72 and 80, video, very short sequences. On request: `fa4-asv sweep --set shapes`."""

    group = "forward-shapes"
    params = [["fa4"], [shape.name for shape in shapes_on_card()]]
