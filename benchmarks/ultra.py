"""The core calls for Blackwell Ultra (sm_103). Needs no GPU; exact; machine `nogpu`; on request: `-b '^ultra'`."""

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.measure import benchmark_api
from fa4_asv.measure.kernels import benchmarks, collect


class Kernels(benchmarks.KernelFigures):
    """Each kernel of these calls as compiled for `arch`, and its loops, read from its cubin."""

    group = "ultra"
    params = benchmarks.params_of(group)
    version = GROUPS[group].version

    def setup_cache(self):
        return benchmark_api.collect(self.group, collect.measure_group(self.group))

    setup_cache.timeout = 7200
