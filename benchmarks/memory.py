"""Traced peak memory: what FA4's host code allocates at real sizes. Needs no GPU; exact; machine `nogpu`."""

from fa4_asv.cases import ARCHES
from fa4_asv.groups import FAMILIES, TRACED
from fa4_asv.lanes import collect, figure
from fa4_asv.traced import measure, measure_growth


class Traced:
    """Peak of the bytes live in one call, inputs included, and what of it is neither input nor output."""

    params = [list(ARCHES), list(TRACED)]
    param_names = ["arch", "case"]
    version = "1"
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
    version = "1"
    timeout = 60

    def setup_cache(self):
        return collect("growth", measure_growth)

    setup_cache.timeout = 1800

    def track_growth_bytes(self, records, arch, family):
        return figure(records, "growth", "growth_bytes", arch, family)

    track_growth_bytes.unit = "bytes"
