"""Masks and scores: sinks, soft caps, ALiBi, documents, sparse blocks. Needs no GPU; exact; machine `nogpu`; on request: `-b '^flex'`."""

from fa4_asv.measure.kernels import benchmarks as kernels
from fa4_asv.measure.memory import benchmarks as memory


class Kernels(kernels.KernelFigures):
    """Each kernel of these calls as compiled for `arch`, and its loops, read from its cubin."""

    group = "flex"

    def setup_cache(self):
        return self.collected()

    setup_cache.timeout = 7200


class Traced(memory.TracedFigures):
    """What the host code of the same calls allocates."""

    group = "flex-memory"

    def setup_cache(self):
        return self.collected()

    setup_cache.timeout = 1800
