"""The route through PyTorch: does a torch drive this FA4 (no GPU; exact; `nogpu`), and how well on a card (`-m NAME`)."""

from fa4_asv.catalog.shapes import HOST_SHAPES
from fa4_asv.measure.route import benchmarks
from fa4_asv.measure.runtime import benchmarks as on_card
from fa4_asv.measure.runtime.collect import sample


class Sdpa(benchmarks.Checks):
    """Checks of scaled_dot_product_attention's way to FA4; what each broken one said is in the sidecar.

    A known breakage is a figure, not a failure. FA4_ASV_TORCHES names torches beside the base's own.
    """

    group = "route"

    def setup_cache(self):
        return self.collected()

    setup_cache.timeout = 3600


class Card(on_card.OnCard):
    """What PyTorch's own FA4 test asks, on this card, for inputs of `dtype`; how many checks are broken."""

    group = "route-card"
    params = [["bf16", "fp16"]]
    param_names = ["dtype"]
    unit = "checks"

    def track_broken(self, dtype):
        return sample(self.group, dtype, metric="broken")


class Host(on_card.OnCard):
    """Seconds of the host that a call through SDPA takes beyond FA4 called directly."""

    group = "route-host"
    params = [["fwd", "bwd"], [shape.name for shape in HOST_SHAPES]]
    param_names = ["direction", "shape"]
    unit = "seconds"

    def track_seconds(self, direction, shape):
        return sample(self.group, direction, shape)
