"""docs/findings.md holds no number that the record does not hold."""

from __future__ import annotations

import re

import pytest

from fa4_asv.causes import read_explanation
from fa4_asv.changes import Record, changes_between, recorded
from fa4_asv.history.manifest import Manifest
from fa4_asv.project import Project
from tests.conftest import ROOT

ROW = re.compile(
    r"^\| (4\.0\.0b\d+) \| (4\.0\.0b\d+) \| (cu1[23]) \| (\S.*) \| (\w+) \| (\w+) \| (\w+) \|$", re.M
)
TEXT = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, str], Record]:
    project = Project(ROOT)
    manifest = Manifest.load(project.manifest)
    return {
        (flavour, record.release): record
        for flavour in ("cu12", "cu13")
        for record in recorded(project.results, manifest, flavour)
    }


def figure(known, flavour: str, pair: tuple[str, str], release: str, kernel: str, metric: str) -> str:
    cases = known[flavour, release].sidecar.groups["codegen"]
    if metric == "state":
        return cases[kernel].state
    if "/" in kernel:
        return str(cases[kernel].figures[metric])
    arch = kernel.partition(",")[0]
    sides = [known[flavour, one].sidecar.groups["codegen"] for one in pair]
    shared = [
        name
        for name in cases
        if name.startswith(f"{arch}/") and all(name in s and s[name].state == "measured" for s in sides)
    ]
    return str(sum(cases[name].figures[metric] for name in shared))


def test_every_row_is_in_the_record(known):
    rows = ROW.findall(TEXT)
    assert len(rows) == len(re.findall(r"^\| 4\.0", TEXT, re.M)) >= 25
    for old, new, flavour, kernel, metric, before, after in rows:
        found = [figure(known, flavour, (old, new), release, kernel, metric) for release in (old, new)]
        assert found == [before, after], (old, new, flavour, kernel, metric)


def test_what_is_called_proven_is(known):
    """b13: the same toolchain on both sides, in both flavours; under CUDA 13 nothing moved by 1 %."""
    for flavour in ("cu12", "cu13"):
        old, new = known[flavour, "4.0.0b12"], known[flavour, "4.0.0b13"]
        assert old.sidecar.toolchain == new.sidecar.toolchain
    small = changes_between(old, new)
    assert len({change.case for change in small}) == 2
    assert all(change.weight < 1.01 for change in small if change.metric == "instructions")
    grown = changes_between(known["cu12", "4.0.0b12"], known["cu12", "4.0.0b13"])
    ratios = [
        c.after / c.before
        for c in grown
        if re.search(r"/bwd_d128_(full|causal)(_varlen)?$", c.case) and c.metric == "instructions"
    ]
    assert sorted(round(ratio, 2) for ratio in ratios) == [1.19, 1.29, 1.29, 1.34]


def test_what_is_called_proven_by_a_cross_pair_stands_in_its_file():
    proven = {
        "a5a288d5-31e2e883-cu12": ("sm_100/fwd_d128_full", "source"),
        "8c78acd6-b59d7754-cu13": ("sm_100/fwd_d128_full", "toolchain"),
        "cdcf72b3-9c7c5e9d-cu13": ("sm_100/fwd_d128_full", "source"),
        "1e0b038b-36ad5cf0-cu12": ("sm_100/fwd_d256_full", "source"),
    }
    for name, (case, cause) in proven.items():
        found = read_explanation(ROOT / "results" / "nogpu" / f"{name}.cause")
        assert {verdict.cause for verdict in found.cases[case].values()} == {cause}, name
