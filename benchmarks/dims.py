"""Head dims beside the usual ones, fp16, FP8, deterministic and packed backwards. Needs no GPU; exact; machine `nogpu`; on request: `-b '^dims'`."""

from fa4_asv.measure.kernels import benchmarks as kernels
from fa4_asv.measure.memory import benchmarks as memory


class Kernels(kernels.KernelFigures):
    """Each kernel of these calls as compiled for `arch`, and its loops, read from its cubin."""

    group = "dims"

    def setup_cache(self):
        return self.collected()

    setup_cache.timeout = 7200


class Traced(memory.TracedFigures):
    """What the host code of the same calls allocates."""

    group = "dims-memory"

    def setup_cache(self):
        return self.collected()

    setup_cache.timeout = 1800
