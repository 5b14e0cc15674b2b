"""A staged checkout: shared but for its record; what is sound is moved back, what is not stays out."""

from __future__ import annotations

import json
import shutil

import pytest

from fa4_asv.asv_plugin.base_environments import Bases
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.integrity.staging import seed, stage, take
from fa4_asv.integrity.verify import verify
from fa4_asv.record.store import iter_results, sidecar_path
from tests.support.backfills import ENVIRONMENT, commits, record
from tests.support.results import BENCHMARKS_TEXT


@pytest.fixture
def recorded(history):
    """Two of three releases recorded."""
    for commit, version in zip(commits(history), ("4.0.0b3", "4.0.0b4"), strict=False):
        record(history, commit, version)
    return history


@pytest.fixture
def staged(recorded, tmp_path) -> Project:
    return stage(recorded, tmp_path / "staged")


def pair(project, number):
    path = project.results / "nogpu" / f"{commits(project)[number][:8]}-{ENVIRONMENT}.json"
    return sidecar_path(path), path


def spoil(path):
    path.write_text(path.read_text().replace("[[16, ", "[[17, ", 1))


def test_a_staged_checkout_shares_all_but_its_record(recorded, staged, monkeypatch):
    assert (staged.work / "history.git" / "HEAD").is_file()
    assert not list(staged.results.iterdir())
    with pytest.raises(Fa4AsvError, match="cannot make"):
        stage(recorded, staged.root)
    monkeypatch.chdir(staged.root)
    assert Project.find() == staged != recorded


def test_a_staged_checkout_names_the_base_as_the_real_one_does(recorded, staged):
    """A toolchain's folder is named after its base: another name would lay every toolchain anew."""
    (recorded.work / "base").mkdir()
    assert Bases(staged, same=False).folder == Bases(recorded, same=False).folder


def test_seed_and_take_are_inverse(recorded, staged):
    before = {path: path.read_bytes() for path in recorded.results.rglob("*.*")}
    times = {path: path.stat().st_mtime_ns for path in before}
    seed(recorded, staged, commits(recorded)[1], ENVIRONMENT)
    assert [path.name for path in iter_results(staged.results)] == [pair(recorded, 1)[1].name]
    assert take(staged, recorded) == list(pair(recorded, 1))
    assert {path: path.read_bytes() for path in recorded.results.rglob("*.*")} == before
    assert {path: path.stat().st_mtime_ns for path in before} == times


def test_an_unsound_pair_is_no_seed(recorded, staged):
    """asv would merge into it, and what it measured then could never be taken."""
    spoil(pair(recorded, 1)[1])
    (recorded.results / "benchmarks.json").write_text("[]")
    seed(recorded, staged, commits(recorded)[1], ENVIRONMENT)
    assert [path.name for path in staged.results.rglob("*.*")] == ["machine.json"]
    record(staged, commits(recorded)[1], "4.0.0b4")
    take(staged, recorded)
    assert verify(recorded) == []


def test_a_new_pair_is_taken_with_what_describes_it(recorded, staged):
    record(staged, commits(recorded)[2], "4.0.0b10")
    (staged.results / "nogpu" / "machine.json").write_text('{"machine": "nogpu", "ram": "any", "version": 1}')
    (recorded.results / "benchmarks.json").write_text(BENCHMARKS_TEXT.replace("track_registers", "track_old"))
    assert take(staged, recorded) == list(pair(recorded, 2))
    assert not list(iter_results(staged.results))
    machine = json.loads((recorded.results / "nogpu" / "machine.json").read_text())
    assert machine["ram"] == "any"
    names = {"version", "codegen.Kernels.track_old", "codegen.Kernels.track_registers"}
    assert set(json.loads((recorded.results / "benchmarks.json").read_text())) == names
    assert verify(recorded) == []


def test_one_unsound_pair_keeps_all_out(recorded, staged):
    record(staged, commits(recorded)[2], "4.0.0b10")
    shutil.copy(pair(recorded, 0)[1], staged.results / "nogpu")
    shutil.copy(pair(recorded, 0)[0], staged.results / "nogpu")
    spoil(staged.results / "nogpu" / pair(recorded, 0)[1].name)
    before = sorted(recorded.results.rglob("*"))
    message = "the result file has 17, the sidecar 16; .*not moved into results/"
    with pytest.raises(Fa4AsvError, match=message):
        take(staged, recorded)
    assert sorted(recorded.results.rglob("*")) == before
