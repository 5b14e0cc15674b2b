"""What the scripts of tools/ decide by, without the minutes that they take."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

from fa4_asv.machine import python_tag
from tests.conftest import ROOT
from tests.test_airgap import tool


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


def test_cluster_speed_reads(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    assert callable(tool("cluster_speed").main)
