"""How far FA4 is from the truth, against MATH's own error in the same dtype. Needs `-m NAME` and a card (or a CPU)."""

from fa4_asv.catalog.benchmarks import GROUPS, KINDS
from fa4_asv.catalog.shapes import for_accuracy, for_cpu
from fa4_asv.measure.runtime.collect import sample


class _Errors:
    """Root mean square of the distance from MATH in fp32; 1 is what MATH in the inputs' dtype is off."""

    params = [["fa4", "fa4-sdpa"], [shape.name for shape in for_accuracy()], list(KINDS)]
    param_names = ["backend", "shape", "kind"]
    timeout = 3600


class _OnCpu(_Errors):
    params = [["fa4", "fa2", "math"], [shape.name for shape in for_cpu()], list(KINDS)]


class Forward(_Errors):
    """Error of the output."""

    version = GROUPS["accuracy-forward"].version

    def track_out(self, backend, shape, kind):
        return sample("accuracy-forward", backend, shape, kind, metric="out")

    track_out.unit = "MATH's own error"


class Backward(_Errors):
    """Errors of the gradients."""

    version = GROUPS["accuracy-backward"].version

    def track_dq(self, backend, shape, kind):
        return sample("accuracy-backward", backend, shape, kind, metric="dq")

    def track_dk(self, backend, shape, kind):
        return sample("accuracy-backward", backend, shape, kind, metric="dk")

    def track_dv(self, backend, shape, kind):
        return sample("accuracy-backward", backend, shape, kind, metric="dv")

    track_dq.unit = track_dk.unit = track_dv.unit = "MATH's own error"


class ForwardCpu(_OnCpu):
    """Error of the output, of what runs on a CPU."""

    version = GROUPS["accuracy-forward-cpu"].version

    def track_out(self, backend, shape, kind):
        return sample("accuracy-forward-cpu", backend, shape, kind, metric="out")

    track_out.unit = "MATH's own error"


class BackwardCpu(_OnCpu):
    """Errors of the gradients, of what runs on a CPU."""

    version = GROUPS["accuracy-backward-cpu"].version

    def track_dq(self, backend, shape, kind):
        return sample("accuracy-backward-cpu", backend, shape, kind, metric="dq")

    def track_dk(self, backend, shape, kind):
        return sample("accuracy-backward-cpu", backend, shape, kind, metric="dk")

    def track_dv(self, backend, shape, kind):
        return sample("accuracy-backward-cpu", backend, shape, kind, metric="dv")

    track_dq.unit = track_dk.unit = track_dv.unit = "MATH's own error"
