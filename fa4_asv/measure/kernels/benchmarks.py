"""What the classes of kernel benchmarks beyond the core share: a figure of each metric, looked up in the records."""

from __future__ import annotations

from typing import Any

from fa4_asv.catalog.metrics import LOOP_METRICS, METRICS
from fa4_asv.measure.benchmark_api import OfGroup, collect, figure
from fa4_asv.measure.kernels.collect import measure_group


class KernelFigures(OfGroup):
    """The figures of one compiled kernel, those of its loops included."""

    param_names = ("arch", "case")
    timeout = 60

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.params = cls.axes()

    def collected(self) -> dict[str, Any]:
        return collect(self.group, measure_group(self.group))

    def track_spill_bytes(self, records: dict[str, Any], arch: str, case: str) -> int:
        return figure(records, self.group, "spill_bytes", arch, case)

    def track_local_loads(self, records: dict[str, Any], arch: str, case: str) -> int:
        return figure(records, self.group, "local_loads", arch, case)

    def track_local_stores(self, records: dict[str, Any], arch: str, case: str) -> int:
        return figure(records, self.group, "local_stores", arch, case)

    def track_instructions(self, records: dict[str, Any], arch: str, case: str) -> int:
        return figure(records, self.group, "instructions", arch, case)

    def track_text_bytes(self, records: dict[str, Any], arch: str, case: str) -> int:
        return figure(records, self.group, "text_bytes", arch, case)

    def track_registers(self, records: dict[str, Any], arch: str, case: str) -> int:
        return figure(records, self.group, "registers", arch, case)

    def track_turn_instructions(self, records: dict[str, Any], arch: str, case: str) -> int:
        return figure(records, self.group, "turn_instructions", arch, case)

    def track_masked_instructions(self, records: dict[str, Any], arch: str, case: str) -> int:
        return figure(records, self.group, "masked_instructions", arch, case)

    def track_spills_inside(self, records: dict[str, Any], arch: str, case: str) -> int:
        return figure(records, self.group, "spills_inside", arch, case)

    def track_spills_outside(self, records: dict[str, Any], arch: str, case: str) -> int:
        return figure(records, self.group, "spills_outside", arch, case)

    def track_slots_per_100_products(self, records: dict[str, Any], arch: str, case: str) -> int:
        return figure(records, self.group, "slots_per_100_products", arch, case)


for _metric, (_unit, _) in {**METRICS, **LOOP_METRICS}.items():
    getattr(KernelFigures, f"track_{_metric}").unit = _unit
