"""Which card a machine's name tells."""

from __future__ import annotations

import pytest

from fa4_asv.report.machines import peak_of


@pytest.mark.parametrize(
    ("machine", "peak"),
    [
        ("h100-sxm", 989.5),
        ("Lab-H200", 989.5),
        ("b200", 2250.0),
        ("gb200-nvl72", 2500.0),
        ("lab-h100-pcie", None),
        ("H100_80GB_PCIe", None),
        ("h200-nvl", None),
        ("xeon-2c", None),
    ],
)
def test_only_a_card_with_a_known_peak_gets_a_share(machine: str, peak: float | None):
    assert peak_of(machine) == peak
