"""The route through PyTorch: does a torch drive this FA4? Needs no GPU; exact; machine `nogpu`."""

from fa4_asv.cases import ARCHES
from fa4_asv.groups import TORCHES
from fa4_asv.lanes import collect, figure
from fa4_asv.route import measure


class Sdpa:
    """Checks of scaled_dot_product_attention's way to FA4; what each broken one said is in the sidecar.

    A known breakage is a figure, not a failure. FA4_ASV_TORCHES names torches beside the base's own.
    """

    params = [list(TORCHES), list(ARCHES)]
    param_names = ["torch", "arch"]
    version = "1"
    timeout = 60

    def setup_cache(self):
        return collect("route", measure)

    setup_cache.timeout = 3600

    def track_broken(self, records, torch, arch):
        return figure(records, "route", "broken", torch, arch)

    track_broken.unit = "checks"
