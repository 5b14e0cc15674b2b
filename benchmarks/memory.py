"""Peak memory at real sizes: traced (no GPU; exact; machine `nogpu`) and as allocated on a card (`-m NAME`)."""

from fa4_asv.catalog.benchmarks import CPU_CALLS, FAMILIES, GROUPS, TRACED
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.measure.benchmark_api import collect, figure
from fa4_asv.measure.memory.collect import measure, measure_growth
from fa4_asv.measure.runtime.collect import sample


class Traced:
    """Peak of the bytes live in one call, inputs included, and what of it is neither input nor output."""

    params = [list(ARCHES), list(TRACED)]
    param_names = ["arch", "case"]
    version = GROUPS["memory"].version
    timeout = 60

    def setup_cache(self):
        return collect("memory", measure)

    setup_cache.timeout = 1800

    def track_peak_bytes(self, records, arch, case):
        return figure(records, "memory", "peak_bytes", arch, case)

    track_peak_bytes.unit = "bytes"

    def track_extra_bytes(self, records, arch, case):
        return figure(records, "memory", "extra_bytes", arch, case)

    track_extra_bytes.unit = "bytes"


class Growth:
    """How far the peaks lie apart when the same 32k tokens are cut into sequences of 1k to 32k."""

    params = [list(ARCHES), list(FAMILIES)]
    param_names = ["arch", "family"]
    version = GROUPS["growth"].version
    timeout = 60

    def setup_cache(self):
        return collect("growth", measure_growth)

    setup_cache.timeout = 1800

    def track_growth_bytes(self, records, arch, family):
        return figure(records, "growth", "growth_bytes", arch, family)

    track_growth_bytes.unit = "bytes"


class Allocated:
    """The peak of one call as the CUDA allocator saw it, and how far the trace of the same call is from it."""

    params = [list(ARCHES), list(TRACED)]
    param_names = ["arch", "case"]
    version = GROUPS["allocated"].version
    timeout = 3600

    def track_peak_bytes(self, arch, case):
        return sample("allocated", arch, case, metric="peak_bytes")

    track_peak_bytes.unit = "bytes"

    def track_untraced_bytes(self, arch, case):
        return sample("allocated", arch, case, metric="untraced_bytes")

    track_untraced_bytes.unit = "bytes"


class AllocatedCpu:
    """The peak of one call on a CPU, of a stand-in that runs there."""

    params = [["cpu"], list(CPU_CALLS)]
    param_names = ["arch", "case"]
    version = GROUPS["allocated-cpu"].version
    timeout = 3600

    def track_peak_bytes(self, arch, case):
        return sample("allocated-cpu", arch, case, metric="peak_bytes")

    track_peak_bytes.unit = "bytes"
