"""What servers ask for: decoding, speculative decoding, prefill and chunks over paged keys, split keys. Needs no GPU; exact; machine `nogpu`; on request: `-b '^serving'`."""

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.measure import benchmark_api
from fa4_asv.measure.kernels import benchmarks, collect
from fa4_asv.measure.memory import collect as memory


class Kernels(benchmarks.KernelFigures):
    """Each kernel of these calls as compiled for `arch`, and its loops, read from its cubin."""

    group = "serving"
    params = benchmarks.params_of(group)
    version = GROUPS[group].version

    def setup_cache(self):
        return benchmark_api.collect(self.group, collect.measure_group(self.group))

    setup_cache.timeout = 7200


class Traced(benchmarks.TracedFigures):
    """What the host code of the same calls allocates."""

    group = "serving-memory"
    params = benchmarks.params_of(group)
    version = GROUPS[group].version

    def setup_cache(self):
        return benchmark_api.collect(self.group, memory.measure_group(self.group))

    setup_cache.timeout = 1800
