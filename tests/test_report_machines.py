"""A machine's page: which card its name tells, and errors as shares of what the guard allows."""

from __future__ import annotations

import pytest

from fa4_asv.catalog.metrics import TIMES_OWN_ERROR
from fa4_asv.measure.runtime import tolerances
from fa4_asv.record.schema import CaseRecord
from fa4_asv.report.machines import _worst, peak_of


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


@pytest.mark.parametrize(
    ("state", "errors", "shown"),
    [
        ("measured", {"dq hard": "0.5", "out hard": "0.2"}, "0.25 (dq hard)"),
        (
            "measured",
            {"dk gaussian": "1.75"},
            "0.88 (dk gaussian)",
        ),  # above MATH's own error, below what is allowed
        ("measured", {"dk gaussian": "2"}, "1 (dk gaussian)"),
        ("measured", {"dk hard": "2.5"}, "at most 1 (dk hard)"),  # passed: rounding is allowed beyond
        ("broken", {"dk hard": "2.5"}, "1.2 (dk hard)"),
        ("measured", {"out sampled": "1.2e-05"}, "6e-06 (out sampled)"),
        ("measured", {"out sampled": "1e+02", "dq sampled": "9"}, "at most 1 (out sampled)"),
        ("measured", {"out sampled": "nan"}, ""),
        ("measured", {}, ""),
    ],
)
def test_an_error_is_a_share_of_what_is_allowed(state: str, errors: dict[str, str], shown: str):
    notes = {f"error {name}": text for name, text in errors.items()} | {"notes": "9"}
    assert _worst(CaseRecord(state, notes=notes)) == shown


def test_what_the_guard_lets_pass_is_shown_as_one_at_most():
    """The guard's own rule on both sides of its limit: what it records, as the page shows it."""
    torch = pytest.importorskip("torch")
    exact, own = torch.zeros(64, dtype=torch.float32), torch.full((64,), 0.25)
    own[::2] *= -1  # no slope against the reference
    exact[0] = 1.0
    low = exact + own

    def error_of(times: float) -> float:
        answer = {"out": exact + times * own}
        return tolerances.compare(torch, answer, {"out": exact}, {"out": low}, "case").errors["out"]

    for times in (0.5, 1.0, 1.5, 0.999 * TIMES_OWN_ERROR):
        record = CaseRecord("measured", notes={"error out": f"{error_of(times):.3g}"})
        assert _worst(record) == f"{times / TIMES_OWN_ERROR:.2g} (out)"
    with pytest.raises(tolerances.GuardFailed, match="is rounding"):
        error_of(1.01 * TIMES_OWN_ERROR)
