"""What the benchmarks of the suite decide by, without the minutes that they take."""

from __future__ import annotations

import random
import shutil
from types import SimpleNamespace

import pytest

from fa4_asv.base.machine import python_tag
from fa4_asv.base.project import Project
from fa4_asv.history.manifest import Release
from fa4_asv.integrity import consistency
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import read_sidecar, sidecar_path
from tests.support import ROOT
from tests.support.fake_record import write_pair, write_releases
from tools.suite_benchmarks import isolation, publish, record, run
from tools.suite_benchmarks.__main__ import BENCHMARKS, main


def test_the_bare_loop_runs_in_the_base_that_asv_uses(project, monkeypatch):
    """Beside the base of another torch, whose name may come first."""
    shutil.copytree(ROOT / "requirements", project.root / "requirements")
    names = [f"python{python_tag()}-torch2.11.0", f"python{python_tag()}"]
    for name in names:
        folder = project.work / "base" / name
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").touch()
        shutil.copy(project.root / "requirements" / "base.txt", folder / "fa4_asv-pins.txt")
    used = []
    source = SimpleNamespace(lock=lambda *arguments: None, folder=project.root)
    monkeypatch.setattr(run, "lay_source", lambda *arguments: source)
    monkeypatch.setattr(run, "install", lambda project, lock, base: used.append(base))
    monkeypatch.setattr(run, "ARCHES", ())  # nothing is compiled
    run.run_bare(project, "c" * 40, "cu13")
    assert used == [project.work / "base" / names[1] / "bin" / "python"]


def test_the_record_is_counted_by_machine_history_and_policy(project, capsys):
    before, after = write_releases(project, 2)
    measured = CaseRecord("measured", samples={"seconds": [2.0, 2.2, 2.1]})
    groups = {"import": {"flash_attn.cute": measured}}
    sizes = []
    for release, policy in ((after, "day"), (before, "day"), (after, "nvidia-cutlass-dsl==4.7.1")):
        path = write_pair(project, release, groups, machine="box", policy=policy)
        sizes.append(path.stat().st_size + sidecar_path(path).stat().st_size)
    assert [key for key, _ in record.rows(project)].count(("box", "releases", "day")) == 2
    assert sum(row[2] for _, row in record.rows(project)) == sum(sizes)
    assert main(["record"]) == 0
    lines = [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines()[2:]]
    counts = [(line[0].strip(), int(line[3]), int(line[5])) for line in lines]
    assert counts == [("box", 2, 2), ("box", 1, 1), ("all", 3, 3)]


def test_a_synthetic_record_passes_the_checks_of_a_real_one():
    """Else the report of it would be empty."""
    source = publish.newest("cu13")
    real = read_sidecar(sidecar_path(source))
    moves = random.Random(1)
    release = Release("4.0.0b1", "x.tar.gz", "0" * 64, "2026-01-01T00:00:00Z", "c" * 40)
    made = publish.moved(real, release, moves, real)
    changed = {key for key, case in made.groups["codegen"].items() if case != real.groups["codegen"][key]}
    assert 1 <= len(changed) <= 20
    assert [wrong for _, wrong in consistency.checks(made.groups) if wrong] == []
    digests = [case.sha256 for case in made.groups["codegen"].values() if case.sha256]
    before = {case.sha256 for case in real.groups["codegen"].values()}
    assert len(set(digests) - before) == len(changed)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_says_what_it_measures(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "-h"])
    assert ended.value.code == 0
    assert f"python -m tools.suite_benchmarks {name}" in capsys.readouterr().out


def test_a_cold_checkout_shares_everything_but_what_was_measured(project, tmp_path):
    for name in ("cache", "spool", "held", "toolchains"):
        (project.work / name).mkdir(parents=True)
    shutil.copy(ROOT / "asv.conf.json", project.root)
    staged = run.cold(Project(project.root), tmp_path / "cold")
    assert [path.name for path in staged.work.iterdir()] == ["toolchains"]


def test_what_bounds_cost_is_the_median_of_pairs():
    """One slow pair does not decide; a pair's two starts are compared with each other."""
    pairs = [(1.02, 1.0), (2.04, 2.0), (9.0, 1.0), (1.02, 1.0), (1.0, 1.0)]
    result = isolation.summary(pairs)
    assert (result["within"], result["without"]) == (1.02, 1.0)
    assert result["more"] == pytest.approx(0.02) and result["share"] == pytest.approx(0.02)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_the_aim_of_isolation_is_five_percent(monkeypatch, capsys, share):
    row = {"within": 1.0 + share, "without": 1.0, "more": share, "share": share}
    monkeypatch.setattr(isolation, "asked", lambda *_: None)
    monkeypatch.setattr(isolation, "compared", lambda *_: {"start": row, "start and compile": row})
    assert main(["isolation"]) == int(share > isolation.MORE)
    assert f"{share:+.1%}" in capsys.readouterr().out
