"""The route through PyTorch: does a torch drive this FA4 (no GPU; exact; `nogpu`), and how well on a card (`-m NAME`)."""

from fa4_asv.catalog.benchmarks import GROUPS, TORCHES
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.catalog.shapes import HOST_SHAPES
from fa4_asv.measure.benchmark_api import collect, figure
from fa4_asv.measure.route.collect import measure
from fa4_asv.measure.runtime.collect import sample


class Sdpa:
    """Checks of scaled_dot_product_attention's way to FA4; what each broken one said is in the sidecar.

    A known breakage is a figure, not a failure. FA4_ASV_TORCHES names torches beside the base's own.
    """

    params = [list(TORCHES), list(ARCHES)]
    param_names = ["torch", "arch"]
    version = GROUPS["route"].version
    timeout = 60

    def setup_cache(self):
        return collect("route", measure)

    setup_cache.timeout = 3600

    def track_broken(self, records, torch, arch):
        return figure(records, "route", "broken", torch, arch)

    track_broken.unit = "checks"


class Card:
    """What PyTorch's own FA4 test asks, on this card, for inputs of `dtype`; how many checks are broken."""

    params = [["bf16", "fp16"]]
    param_names = ["dtype"]
    version = GROUPS["route-card"].version
    timeout = 3600

    def track_broken(self, dtype):
        return sample("route-card", dtype, metric="broken")

    track_broken.unit = "checks"


class Host:
    """Seconds of the host that a call through SDPA takes beyond FA4 called directly."""

    params = [["fwd", "bwd"], [shape.name for shape in HOST_SHAPES]]
    param_names = ["direction", "shape"]
    version = GROUPS["route-host"].version
    timeout = 3600

    def track_seconds(self, direction, shape):
        return sample("route-host", direction, shape)

    track_seconds.unit = "seconds"
