"""How long a user waits for FA4's first step: its import, and the JIT of a call. No GPU; needs `-m NAME`."""

from fa4_asv.catalog.benchmarks import GROUPS, TIMED_CALLS
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.measure.benchmark_api import sampled
from fa4_asv.measure.compile_time.collect import measure_call, measure_import


class Jit:
    """One call of FA4 in a process that has compiled nothing yet, all its kernels; depends on the processor."""

    params = [list(ARCHES), list(TIMED_CALLS)]
    param_names = ["arch", "call"]
    version = GROUPS["compile"].version
    timeout = 10800  # an hour of waiting for the machine, 19 processes that may each need minutes

    def track_seconds(self, arch, call):
        return sampled("compile", (arch, call), measure_call)

    track_seconds.unit = "seconds"


class Import:
    """`import flash_attn.cute` with the DSL, in a fresh process that has imported torch."""

    version = GROUPS["import"].version
    timeout = 10800

    def track_seconds(self):
        return sampled("import", ("flash_attn.cute",), measure_import)

    track_seconds.unit = "seconds"
