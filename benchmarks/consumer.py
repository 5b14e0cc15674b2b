"""The core calls for consumer Blackwell (sm_120). Needs no GPU; exact; machine `nogpu`; on request: `-b '^consumer'`."""

from fa4_asv.measure.kernels import benchmarks as kernels


class Kernels(kernels.KernelFigures):
    """Each kernel of these calls as compiled for `arch`, and its loops, read from its cubin."""

    group = "consumer"

    def setup_cache(self):
        return self.collected()

    setup_cache.timeout = 7200
