"""What the classes of route benchmarks without a card share."""

from __future__ import annotations

from typing import Any

from fa4_asv.catalog.benchmarks import TORCHES
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.measure.benchmark_api import OfGroup, collect, figure
from fa4_asv.measure.route.collect import measure_group


class Checks(OfGroup):
    """How many checks of a way to FA4 are broken, by torch and architecture."""

    params = (list(TORCHES), list(ARCHES))
    param_names = ("torch", "arch")
    timeout = 60
    unit = "checks"

    def collected(self) -> dict[str, Any]:
        return collect(self.group, measure_group(self.group))

    def track_broken(self, records: dict[str, Any], torch: str, arch: str) -> int:
        return figure(records, self.group, "broken", torch, arch)


class ChecksOrRefused(Checks):
    """And how many are refused in words, by torch or by FA4."""

    def track_refused(self, records: dict[str, Any], torch: str, arch: str) -> int:
        return figure(records, self.group, "refused", torch, arch)
