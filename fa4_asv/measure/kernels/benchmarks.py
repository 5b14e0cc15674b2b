"""What the classes of kernel benchmarks beyond the core share: a figure of each metric, looked up in the records.

A class says `group`, `params`, `version`, and has a `setup_cache` of its own: asv tells them apart by it.
"""

from __future__ import annotations

from typing import Any

from fa4_asv.catalog.benchmarks import GROUPS, TRACE
from fa4_asv.catalog.metrics import LOOP_METRICS, METRICS
from fa4_asv.measure.benchmark_api import figure


class KernelFigures:
    """The figures of one compiled kernel, those of its loops included."""

    group = ""
    param_names = ("arch", "case")
    timeout = 60

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


class TracedFigures:
    """The peak of the bytes live in one call, inputs included, and what of it is neither input nor output."""

    group = ""
    param_names = ("arch", "call")
    timeout = 60

    def track_peak_bytes(self, records: dict[str, Any], arch: str, call: str) -> int:
        return figure(records, self.group, "peak_bytes", arch, call)

    def track_extra_bytes(self, records: dict[str, Any], arch: str, call: str) -> int:
        return figure(records, self.group, "extra_bytes", arch, call)


for _metric, (_unit, _) in TRACE.items():
    getattr(TracedFigures, f"track_{_metric}").unit = _unit


def params_of(group: str) -> list[list[str]]:
    """The architectures and the cases of a group, as asv's `params`."""
    arches, cases = (list(dict.fromkeys(values)) for values in zip(*GROUPS[group].cases, strict=True))
    return [arches, cases]
