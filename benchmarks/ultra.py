"""The core calls for Blackwell Ultra (sm_103). Needs no GPU; exact; machine `nogpu`; on request: `-b '^ultra'`."""

from fa4_asv.measure.kernels import benchmarks as kernels


class Kernels(kernels.KernelFigures):
    """Each kernel of these calls as compiled for `arch`, and its loops, read from its cubin."""

    group = "ultra"

    def setup_cache(self):
        return self.collected()

    setup_cache.timeout = 7200
