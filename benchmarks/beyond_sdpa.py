"""The ways to FA4 that are not SDPA: no GPU, exact, on `nogpu`, and on a card (`-m NAME`). On request: -b '^beyond_sdpa'.

A check that torch or FA4 refuses in words is counted beside the broken ones; what each said is in the sidecar.
FA4_ASV_TORCHES names torches beside the base's own.
"""

from fa4_asv.catalog.benchmarks import GROUPS, TORCHES
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.measure.benchmark_api import collect, figure
from fa4_asv.measure.route.collect import measure_group
from fa4_asv.measure.runtime.collect import sample


class Varlen:
    """Checks of torch.nn.attention.varlen: packed sequences, pages, used keys, splits, the backward."""

    params = [list(TORCHES), list(ARCHES)]
    param_names = ["torch", "arch"]
    version = GROUPS["route-varlen"].version
    timeout = 60

    def setup_cache(self):
        return collect("route-varlen", measure_group("route-varlen"))

    setup_cache.timeout = 3600

    def track_broken(self, records, torch, arch):
        return figure(records, "route-varlen", "broken", torch, arch)

    def track_refused(self, records, torch, arch):
        return figure(records, "route-varlen", "refused", torch, arch)

    track_broken.unit = track_refused.unit = "checks"


class Flex:
    """Checks of FlexAttention's FLASH backend: score and mask functions, blocks, the backward."""

    params = [list(TORCHES), list(ARCHES)]
    param_names = ["torch", "arch"]
    version = GROUPS["route-flex"].version
    timeout = 60

    def setup_cache(self):
        return collect("route-flex", measure_group("route-flex"))

    setup_cache.timeout = 3600

    def track_broken(self, records, torch, arch):
        return figure(records, "route-flex", "broken", torch, arch)

    def track_refused(self, records, torch, arch):
        return figure(records, "route-flex", "refused", torch, arch)

    track_broken.unit = track_refused.unit = "checks"


class Card:
    """The same ways on this card with the torch that it has: values, gradients, and FA4's own kernel."""

    params = [["varlen", "flex"]]
    param_names = ["way"]
    version = GROUPS["route-beyond-card"].version
    timeout = 3600

    def track_broken(self, way):
        return sample("route-beyond-card", way, metric="broken")

    def track_refused(self, way):
        return sample("route-beyond-card", way, metric="refused")

    track_broken.unit = track_refused.unit = "checks"
