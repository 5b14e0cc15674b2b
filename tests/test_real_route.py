"""The SDPA route of real releases under the torch at hand, through real asv."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from fa4_asv.asv_plugin.base_environments import torch_of
from fa4_asv.base.project import Project
from fa4_asv.measure.route.checks import NAMES
from fa4_asv.record.schema import Records
from fa4_asv.record.store import load_result, read_sidecar, sidecar_path
from tests.support import ROOT
from tests.support.real_checkout import command, measure

pytestmark = pytest.mark.slow
UNPACK = "ValueError: too many values to unpack (expected 2) (in _fa4.py, _fa4_run_forward)"
OURS = "2.13.0"


def routed(project: Project, version: str) -> tuple[Records, Path]:
    """Records of a release and its result file, run as a person runs it."""
    if torch_of(sys.executable) != OURS:
        pytest.skip(f"needs torch {OURS}, the base's own")
    done = measure(project.root, "route", commits=f"fa4-v{version}^!")
    assert done.returncode == 0, done.stdout + done.stderr
    for path in (project.results / "nogpu").glob("*.sidecar"):
        sidecar = read_sidecar(path)
        if sidecar.release == version:
            return sidecar.groups["route"], path.with_suffix(".json")
    raise AssertionError(version)


@pytest.fixture(scope="module")
def b36(real) -> tuple[Records, Path]:
    return routed(real, "4.0.0b36")


def test_the_newest_release_returns_more_than_torch_2_13_unpacks(b36):
    cases, path = b36
    for arch in ("sm_90", "sm_100"):
        record = cases[f"{OURS}/{arch}"]
        assert record.figures == {"broken": 13, "checks": len(NAMES)}
        assert {message for message in record.notes.values() if not message.startswith("needs ")} == {UNPACK}
    figures = load_result(path).figures
    assert figures["route.Sdpa.track_broken", (OURS, "sm_90")] == 13
    assert math.isnan(figures["route.Sdpa.track_broken", ("2.15.0", "sm_90")]), "not at hand"
    assert sidecar_path(path).is_file()


@pytest.fixture(params=["committed", pytest.param("run", marks=pytest.mark.nightly)])
def b15(request) -> Records:
    """As committed, and run as a person runs it."""
    if request.param == "run":
        return routed(request.getfixturevalue("real"), "4.0.0b15")[0]
    (path,) = (ROOT / "results" / "nogpu").glob("28b648d3-*-flavourcu13-toolchainday.sidecar")
    return read_sidecar(path).groups["route"]


def test_an_older_release_is_driven_whole(b15):
    assert [b15[f"{OURS}/{arch}"].notes for arch in ("sm_90", "sm_100")] == [{}, {}]


def test_the_table_says_so(real, b36):
    done = command(real.root, "fa4_asv", "route")
    assert done.returncode == 0, done.stderr
    assert "no (13 of 21)" in done.stdout
    assert UNPACK in done.stdout


def test_a_torch_that_nobody_knows_is_one_line(real):
    done = measure(real.root, "route", FA4_ASV_TORCHES="2.9")
    assert done.returncode != 0
    assert "no torch '2.9'; write `all` or some of" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
