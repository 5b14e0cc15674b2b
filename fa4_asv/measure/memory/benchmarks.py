"""What the classes of traced benchmarks beyond the core share."""

from __future__ import annotations

from typing import Any

from fa4_asv.measure.benchmark_api import OfGroup, collect, figure
from fa4_asv.measure.memory.collect import measure_group


class TracedFigures(OfGroup):
    """The peak of the bytes live in one call, inputs included, and what of it is neither input nor output."""

    param_names = ("arch", "call")
    timeout = 60
    unit = "bytes"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.params = cls.axes()

    def collected(self) -> dict[str, Any]:
        return collect(self.group, measure_group(self.group))

    def track_peak_bytes(self, records: dict[str, Any], arch: str, call: str) -> int:
        return figure(records, self.group, "peak_bytes", arch, call)

    def track_extra_bytes(self, records: dict[str, Any], arch: str, call: str) -> int:
        return figure(records, self.group, "extra_bytes", arch, call)
