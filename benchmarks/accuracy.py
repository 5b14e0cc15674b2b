"""How far FA4 is from the truth, against MATH's own error in the same dtype. Needs `-m NAME` and a card (or a CPU)."""

from fa4_asv.catalog.benchmarks import CPU_BACKENDS, KINDS
from fa4_asv.catalog.shapes import for_accuracy, for_cpu
from fa4_asv.measure.runtime import benchmarks

_CARD = [["fa4", "fa4-sdpa"], [shape.name for shape in for_accuracy()], list(KINDS)]
_CPU = [list(CPU_BACKENDS), [shape.name for shape in for_cpu()], list(KINDS)]


class Forward(benchmarks.ErrorsOfOutput):
    """Error of the output."""

    group = "accuracy-forward"
    params = _CARD


class Backward(benchmarks.ErrorsOfGradients):
    """Errors of the gradients."""

    group = "accuracy-backward"
    params = _CARD


class ForwardCpu(benchmarks.ErrorsOfOutput):
    """Error of the output, of what runs on a CPU."""

    group = "accuracy-forward-cpu"
    params = _CPU


class BackwardCpu(benchmarks.ErrorsOfGradients):
    """Errors of the gradients, of what runs on a CPU."""

    group = "accuracy-backward-cpu"
    params = _CPU
