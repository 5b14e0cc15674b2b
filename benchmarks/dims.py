"""Head dims beside the usual ones, fp16, FP8, deterministic and packed backwards. Needs no GPU; exact; machine `nogpu`; on request: `-b '^dims'`."""

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.measure import benchmark_api
from fa4_asv.measure.kernels import benchmarks, collect
from fa4_asv.measure.memory import collect as memory


class Kernels(benchmarks.KernelFigures):
    """Each kernel of these calls as compiled for `arch`, and its loops, read from its cubin."""

    group = "dims"
    params = benchmarks.params_of(group)
    version = GROUPS[group].version

    def setup_cache(self):
        return benchmark_api.collect(self.group, collect.measure_group(self.group))

    setup_cache.timeout = 7200


class Traced(benchmarks.TracedFigures):
    """What the host code of the same calls allocates."""

    group = "dims-memory"
    params = benchmarks.params_of(group)
    version = GROUPS[group].version

    def setup_cache(self):
        return benchmark_api.collect(self.group, memory.measure_group(self.group))

    setup_cache.timeout = 1800
