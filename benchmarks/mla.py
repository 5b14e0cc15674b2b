"""DeepSeek's latent attention on Blackwell: dense, paged, chosen keys, FP8, split keys, the sparse backward. Needs no GPU; exact; machine `nogpu`; on request: `-b '^mla'`."""

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.measure import benchmark_api
from fa4_asv.measure.kernels import benchmarks, collect
from fa4_asv.measure.memory import collect as memory


class Kernels(benchmarks.KernelFigures):
    """Each kernel of these calls as compiled for `arch`, and its loops, read from its cubin."""

    group = "mla"
    params = benchmarks.params_of(group)
    version = GROUPS[group].version

    def setup_cache(self):
        return benchmark_api.collect(self.group, collect.measure_group(self.group))

    setup_cache.timeout = 7200


class Traced(benchmarks.TracedFigures):
    """What the host code of the same calls allocates."""

    group = "mla-memory"
    params = benchmarks.params_of(group)
    version = GROUPS[group].version

    def setup_cache(self):
        return benchmark_api.collect(self.group, memory.measure_group(self.group))

    setup_cache.timeout = 1800
