"""Compiled kernels: spills, local memory traffic, size. Needs no GPU; exact; machine `nogpu`."""

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.kernels import ARCHES, CASES
from fa4_asv.measure.benchmark_api import collect, figure
from fa4_asv.measure.kernels.collect import measure, measure_loops


class Kernels:
    """Each kernel of FA4 as compiled for `arch`, read from its cubin; the same on every machine."""

    params = [list(ARCHES), list(CASES)]
    param_names = ["arch", "case"]
    version = GROUPS["codegen"].version
    timeout = 60

    def setup_cache(self):
        return collect("codegen", measure)

    setup_cache.timeout = 7200

    def track_spill_bytes(self, records, arch, case):
        return figure(records, "codegen", "spill_bytes", arch, case)

    track_spill_bytes.unit = "bytes"

    def track_local_loads(self, records, arch, case):
        return figure(records, "codegen", "local_loads", arch, case)

    track_local_loads.unit = "instructions"

    def track_local_stores(self, records, arch, case):
        return figure(records, "codegen", "local_stores", arch, case)

    track_local_stores.unit = "instructions"

    def track_instructions(self, records, arch, case):
        return figure(records, "codegen", "instructions", arch, case)

    track_instructions.unit = "instructions"

    def track_text_bytes(self, records, arch, case):
        return figure(records, "codegen", "text_bytes", arch, case)

    track_text_bytes.unit = "bytes"

    def track_registers(self, records, arch, case):
        return figure(records, "codegen", "registers", arch, case)

    track_registers.unit = "registers"


class Loops:
    """The loops of each main kernel, read from the same cubin as its other figures; n/a where they are not understood."""

    params = [list(ARCHES), [name for name, case in CASES.items() if case.role == "main"]]
    param_names = ["arch", "case"]
    version = GROUPS["loops"].version
    timeout = 60

    def setup_cache(self):
        return collect("loops", measure_loops)

    setup_cache.timeout = 7200

    def track_turn_instructions(self, records, arch, case):
        return figure(records, "loops", "turn_instructions", arch, case)

    track_turn_instructions.unit = "instructions"

    def track_masked_instructions(self, records, arch, case):
        return figure(records, "loops", "masked_instructions", arch, case)

    track_masked_instructions.unit = "instructions"

    def track_spills_inside(self, records, arch, case):
        return figure(records, "loops", "spills_inside", arch, case)

    track_spills_inside.unit = "instructions"

    def track_spills_outside(self, records, arch, case):
        return figure(records, "loops", "spills_outside", arch, case)

    track_spills_outside.unit = "instructions"

    def track_slots_per_100_products(self, records, arch, case):
        return figure(records, "loops", "slots_per_100_products", arch, case)

    track_slots_per_100_products.unit = "issue slots"
