"""What a decode costs the host (a card, `-m NAME`), on request: -b '^decode'. Its seconds on the card: `fa4-asv sweep --set serving`."""

from fa4_asv.catalog.benchmarks import GROUPS, LAUNCHES
from fa4_asv.measure.runtime.collect import sample


class Host:
    """Seconds of the host per decode: called as it stands, and as a CUDA graph, which servers use."""

    params = [list(LAUNCHES), list(dict.fromkeys(case[1] for case in GROUPS["decode-host"].cases))]
    param_names = ["launch", "shape"]
    version = GROUPS["decode-host"].version
    timeout = 3600

    def track_seconds(self, launch, shape):
        return sample("decode-host", launch, shape)

    track_seconds.unit = "seconds"
