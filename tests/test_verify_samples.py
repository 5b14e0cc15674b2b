"""Samples edited by hand in a real record: asv keeps none there, only what it made of them."""

from __future__ import annotations

import json
import shutil

import pytest

from fa4_asv.integrity.verify import verify
from fa4_asv.record.store import sidecar_path
from tests.support import ROOT

NAME = "d14f663b-fa4-py3.11-flavourcu13-toolchainday.json"


@pytest.fixture
def recorded(project):
    """b36's compile seconds, alone in a checkout; its sidecar."""
    folder = project.results / "xeon-2c"
    folder.mkdir(parents=True)
    for name in ("machine.json", NAME, sidecar_path(folder / NAME).name):
        shutil.copyfile(ROOT / "results" / "xeon-2c" / name, folder / name)
    shutil.copyfile(ROOT / "results" / "benchmarks.json", project.results / "benchmarks.json")
    shutil.copytree(ROOT / "history", project.root / "history")
    assert verify(project) == []
    return sidecar_path(folder / NAME)


@pytest.mark.parametrize(
    ("group", "case"), [("import", "flash_attn.cute"), ("compile", "sm_90/fwd_d128_full")]
)
@pytest.mark.parametrize("index", range(6))
def test_one_edited_sample_is_seen_wherever_it_stands(project, recorded, group, case, index):
    data = json.loads(recorded.read_text())
    samples = data["groups"][group][case]["samples"]["seconds"]
    order = sorted(range(6), key=samples.__getitem__)
    samples[order[index]] *= 1.05 if index > 2 else 0.95  # outwards: the middle may stay where it was
    recorded.write_text(json.dumps(data))
    (problem,) = verify(project)
    assert f"{case} seconds: the result file has " in problem.what


def test_samples_that_were_dropped_are_seen_though_the_median_stays(project, recorded):
    data = json.loads(recorded.read_text())
    samples = sorted(data["groups"]["import"]["flash_attn.cute"]["samples"]["seconds"])
    data["groups"]["import"]["flash_attn.cute"]["samples"]["seconds"] = samples[1:-1]
    recorded.write_text(json.dumps(data))
    (problem,) = verify(project)
    assert "flash_attn.cute seconds: the result file has ci_99_a " in problem.what


def test_rounds_pooled_twice_are_seen_in_the_sidecar_alone(project, recorded):
    """asv keeps no samples there, and its statistics may be those of the pooled ones."""
    data = json.loads(recorded.read_text())
    record = data["groups"]["import"]["flash_attn.cute"]
    record["samples"]["seconds"] = record["samples"]["seconds"] * 2
    recorded.write_text(json.dumps(data))
    (problem,) = verify(project)
    assert problem.path == recorded
    assert "flash_attn.cute seconds: the sidecar has 12 samples that repeat one block" in problem.what


def test_samples_that_are_all_the_same_are_sound(project, recorded):
    """A result file without statistics leaves only the median to agree with."""
    data = json.loads(recorded.read_text())
    samples = data["groups"]["import"]["flash_attn.cute"]["samples"]
    result_path = recorded.with_suffix(".json")
    result = json.loads(result_path.read_text())
    (value,) = result["results"]["compile.Import.track_seconds"][0]
    samples["seconds"] = [value] * 6
    result["results"]["compile.Import.track_seconds"][5:9] = [None] * 4
    recorded.write_text(json.dumps(data))
    result_path.write_text(json.dumps(result))
    assert verify(project) == []
