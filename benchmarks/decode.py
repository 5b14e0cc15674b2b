"""What a decode costs the host (a card, `-m NAME`), on request: -b '^decode'. Its seconds on the card: `fa4-asv sweep --set serving`."""

from fa4_asv.catalog.benchmarks import GROUPS, LAUNCHES
from fa4_asv.measure.runtime import benchmarks
from fa4_asv.measure.runtime.collect import sample


class Host(benchmarks.OnCard):
    """Seconds of the host per decode: called as it stands, and as a CUDA graph, which servers use."""

    group = "decode-host"
    params = [list(LAUNCHES), list(dict.fromkeys(case[1] for case in GROUPS[group].cases))]
    param_names = ["launch", "shape"]
    unit = "seconds"

    def track_seconds(self, launch, shape):
        return sample(self.group, launch, shape)
