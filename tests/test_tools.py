"""What the scripts of tools/ decide by, without the minutes that they take."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

from fa4_asv.base.machine import python_tag
from fa4_asv.record.schema import CaseRecord
from tests.support import ROOT
from tests.support.fake_record import write_pair, write_releases
from tests.support.tools import tool


def test_after_a_kill_the_report_is_compared_byte_by_byte_and_asvs_pages_by_name(project):
    site_of = tool("kills").site_of
    report = project.html / "report" / "events"
    report.mkdir(parents=True)
    (report / "a.html").write_text("one")
    (project.html / "info.json").write_text('{"published": 1}')
    before = site_of(project)
    (project.html / "info.json").write_text('{"published": 2}')
    assert site_of(project) == before
    (report / "a.html").write_text("two")
    assert site_of(project) != before
    (report / "a.html").write_text("one")
    (project.html / "info.json").unlink()
    assert site_of(project) != before


def test_the_bare_loop_runs_in_the_base_that_asv_uses(project, monkeypatch):
    """Beside the base of another torch, whose name may come first."""
    shutil.copytree(ROOT / "requirements", project.root / "requirements")
    names = [f"python{python_tag()}-torch2.11.0", f"python{python_tag()}"]
    for name in names:
        folder = project.work / "base" / name
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").touch()
        shutil.copy(project.root / "requirements" / "base.txt", folder / "fa4_asv-pins.txt")
    cost, used = tool("cost"), []
    source = SimpleNamespace(lock=lambda *words: None, folder=project.root)
    monkeypatch.setattr(cost, "lay_source", lambda *words: source)
    monkeypatch.setattr(cost, "install", lambda project, lock, base: used.append(base))
    monkeypatch.setattr(cost, "ARCHES", ())  # nothing is compiled
    cost.run_bare(project, "c" * 40, "cu13")
    assert used == [project.work / "base" / names[1] / "bin" / "python"]


def test_what_cluster_speed_imports_is_there(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool("cluster_speed")


def test_compile_seconds_are_told_by_release_with_their_spread(project, monkeypatch, capsys):
    one, two = write_releases(project, 2)
    record = CaseRecord("measured", samples={"seconds": [2.0, 2.2, 2.1]})
    for release, policy in ((two, "day"), (one, "day"), (two, "nvidia-cutlass-dsl==4.7.1")):
        groups = {"import": {"flash_attn.cute": record}}
        write_pair(project, release, groups, machine="box", policy=policy)
    monkeypatch.setattr("sys.argv", ["compile_seconds.py", "box"])
    tool("compile_seconds").main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:3] for line in lines if line.startswith("| 4.0.0b")] == [
        ["| 4.0.0b1", "4.8.1", "2.1"],
        ["| 4.0.0b2", "4.8.1", "2.1"],
    ]
    assert lines[-1].startswith("2 cases, 6 samples. The spread of a case's samples is 10 % in the median")
