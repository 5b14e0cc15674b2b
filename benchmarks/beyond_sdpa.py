"""The ways to FA4 that are not SDPA: no GPU, exact, on `nogpu`, and on a card (`-m NAME`). On request: -b '^beyond_sdpa'.

A check that torch or FA4 refuses in words is counted beside the broken ones; what each said is in the sidecar.
FA4_ASV_TORCHES names torches beside the base's own.
"""

from fa4_asv.measure.route import benchmarks
from fa4_asv.measure.runtime import benchmarks as on_card
from fa4_asv.measure.runtime.collect import sample


class Varlen(benchmarks.ChecksOrRefused):
    """Checks of torch.nn.attention.varlen: packed sequences, pages, used keys, splits, the backward."""

    group = "route-varlen"

    def setup_cache(self):
        return self.collected()

    setup_cache.timeout = 3600


class Flex(benchmarks.ChecksOrRefused):
    """Checks of FlexAttention's FLASH backend: score and mask functions, blocks, the backward."""

    group = "route-flex"

    def setup_cache(self):
        return self.collected()

    setup_cache.timeout = 3600


class Card(on_card.OnCard):
    """The same ways on this card with the torch that it has: values, gradients, and FA4's own kernel."""

    group = "route-beyond-card"
    params = [["varlen", "flex"]]
    param_names = ["way"]
    unit = "checks"

    def track_broken(self, way):
        return sample(self.group, way, metric="broken")

    def track_refused(self, way):
        return sample(self.group, way, metric="refused")
