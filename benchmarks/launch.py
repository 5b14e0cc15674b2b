"""The launch contract: what a call of FA4 compiles, reads back from the card and allocates. No GPU; exact; machine `nogpu`."""

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.catalog.launch import LAUNCH_CALLS, STEPS
from fa4_asv.measure.benchmark_api import collect, figure
from fa4_asv.measure.contract.collect import measure


class Contract:
    """A call in its steps: the same again, with other lengths, batches and strides, and first in another process."""

    params = [list(ARCHES), list(LAUNCH_CALLS), list(STEPS)]
    param_names = ["arch", "call", "step"]
    version = GROUPS["launch"].version
    timeout = 60

    def setup_cache(self):
        return collect("launch", measure)

    setup_cache.timeout = 1800

    def track_compiles(self, records, arch, call, step):
        return figure(records, "launch", "compiles", arch, call, step)

    track_compiles.unit = "kernels"

    def track_host_reads(self, records, arch, call, step):
        return figure(records, "launch", "host_reads", arch, call, step)

    track_host_reads.unit = "reads"

    def track_allocations(self, records, arch, call, step):
        return figure(records, "launch", "allocations", arch, call, step)

    track_allocations.unit = "allocations"
