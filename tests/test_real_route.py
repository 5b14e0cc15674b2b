"""The SDPA route of real releases under the torch at hand, through real asv."""

from __future__ import annotations

import math
import sys

import pytest

from fa4_asv.asv_plugin.base_environments import torch_of
from fa4_asv.measure.route.checks import NAMES
from fa4_asv.record.store import load_result, read_sidecar, sidecar_path
from tests.support.real_checkout import command, measure

pytestmark = pytest.mark.slow
UNPACK = "ValueError: too many values to unpack (expected 2) (in _fa4.py, _fa4_run_forward)"
OURS = "2.13.0"


@pytest.fixture(scope="module")
def routes(real):
    """Sidecars and figures of b15 and b36, run as a person runs them."""
    if torch_of(sys.executable) != OURS:
        pytest.skip(f"needs torch {OURS}, the base's own")
    result = {}
    for version in ("4.0.0b15", "4.0.0b36"):
        done = measure(real.root, "route", commits=f"fa4-v{version}^!")
        assert done.returncode == 0, done.stdout + done.stderr
    for path in (real.results / "nogpu").glob("*.sidecar"):
        sidecar = read_sidecar(path)
        result[sidecar.release] = sidecar.groups.get("route", {}), path.with_suffix(".json")
    return result


def test_the_newest_release_returns_more_than_torch_2_13_unpacks(routes):
    cases, path = routes["4.0.0b36"]
    for arch in ("sm_90", "sm_100"):
        record = cases[f"{OURS}/{arch}"]
        assert record.figures == {"broken": 13, "checks": len(NAMES)}
        assert {message for message in record.notes.values() if not message.startswith("needs ")} == {UNPACK}
    figures = load_result(path).figures
    assert figures["route.Sdpa.track_broken", (OURS, "sm_90")] == 13
    assert math.isnan(figures["route.Sdpa.track_broken", ("2.15.0", "sm_90")]), "not at hand"
    assert sidecar_path(path).is_file()


def test_an_older_release_is_driven_whole(routes):
    cases, _ = routes["4.0.0b15"]
    assert [cases[f"{OURS}/{arch}"].notes for arch in ("sm_90", "sm_100")] == [{}, {}]


def test_the_table_says_so(real, routes):
    done = command(real.root, "fa4_asv", "route")
    assert done.returncode == 0, done.stderr
    assert "no (13 of 21)" in done.stdout
    assert UNPACK in done.stdout


def test_a_torch_that_nobody_knows_is_one_line(real):
    done = measure(real.root, "route", FA4_ASV_TORCHES="2.9")
    assert done.returncode != 0
    assert "no torch '2.9'; write `all` or some of" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
