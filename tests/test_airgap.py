"""What travels to a machine without a network: packed from a real history, joined and chosen there. No wheels."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.history.toolchain import Lock

TOOLS = Path(__file__).parent.parent / "tools"


def tool(name: str) -> ModuleType:
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A pack of one release and one commit in several parts; the registry's part of it left out."""
    packing = tool("airgap_pack")
    lock = tmp_path / "abc.txt"
    lock.write_text("nvidia-cutlass-dsl==4.5.2\n")
    here = [Lock(lock, "cu13", "day", {"nvidia-cutlass-dsl": "4.5.2"})]
    monkeypatch.setattr(packing, "commits_of", lambda project, ranges: ["abc"])
    monkeypatch.setattr(packing, "commit_locks", lambda project, commits, flavours: here)
    monkeypatch.setattr(packing, "download", lambda pins, wheels, python: None)
    repository = tmp_path / "history.git"
    repository.mkdir()
    (repository / "HEAD").write_bytes(b"x" * (3 << 20))
    monkeypatch.setattr(Project, "repository", property(lambda self: repository))
    folder = tmp_path / "pack"
    packing.pack(options(folder))
    return folder


def options(folder: Path, release: str = "4.0.0b36") -> argparse.Namespace:
    return argparse.Namespace(
        folder=str(folder),
        release=[release],
        commits=["main"],
        flavour=["cu13"],
        policy=["day"],
        leave_out=["nvidia-cutlass-dsl-libs-cu12"],
        python="3.12",
        part_mib=1,
    )


def test_parts_are_joined_to_what_was_packed(packed: Path, tmp_path: Path):
    assert len(list(packed.glob("pack.part-*"))) > 3
    running = tool("airgap")
    (tmp_path / "work").mkdir()
    inside = running.join(packed, tmp_path / "work")
    assert (inside / "toolchain-locks/day/cu13/abc.txt").read_text() == "nvidia-cutlass-dsl==4.5.2\n"
    # The other flavour's compiler is a name without content.
    assert [path.name.split("-")[0] for path in (inside / "wheels").iterdir()] == [
        "nvidia_cutlass_dsl_libs_cu12"
    ]
    both = argparse.Namespace(release=[], commits=False)
    assert running.revisions(inside, both) == ["fa4-v4.0.0b36", "abc"]
    assert running.revisions(inside, argparse.Namespace(release=[], commits=True)) == ["abc"]
    assert running.revisions(inside, argparse.Namespace(release=["4.0.0b36"], commits=False)) == [
        "fa4-v4.0.0b36"
    ]


def test_a_lost_part_is_said(packed: Path, tmp_path: Path):
    (packed / "pack.part-01").unlink()
    with pytest.raises(SystemExit, match="are not what was packed; carry them again"):
        tool("airgap").join(packed, tmp_path)


def test_a_folder_with_another_pack_is_left_alone(packed: Path):
    with pytest.raises(Fa4AsvError, match="name an empty folder"):
        tool("airgap_pack").pack(options(packed))


def test_an_unknown_release_is_said(tmp_path: Path):
    with pytest.raises(Fa4AsvError, match="no release '9.9'; `fa4-asv history list` shows them"):
        tool("airgap_pack").release_locks(Project.find(), options(tmp_path, "9.9"))


def test_what_was_measured_comes_back_with_what_its_commits_need(tmp_path: Path):
    checkout = tmp_path / "checkout"
    for name in ("results/nogpu/a.json", "history/upstream.json", "history/toolchains/day/cu13/abc.txt"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("{}")
    (checkout / "history/releases.json").write_text("{}")  # not measured there
    (tmp_path / "nogpu-abc.log").write_text("log")
    output = tmp_path / "out.tar.gz"
    tool("airgap").keep(checkout, "nogpu", output, tmp_path)
    with tarfile.open(output) as tar:
        names = {member.name for member in tar if member.isfile()}
    assert names == {
        "results/nogpu/a.json",
        "history/upstream.json",
        "history/toolchains/day/cu13/abc.txt",
        "logs/nogpu-abc.log",
    }


def test_each_flavour_has_its_configuration_and_each_job_its_core(tmp_path: Path):
    running = tool("airgap")
    (tmp_path / "asv.conf.json").write_text('{"matrix": {"req": {"flavour": ["cu13", "cu12"]}}}')
    running.one_flavour_each(tmp_path, ["cu12", "cu13"])
    for flavour in ("cu12", "cu13"):
        text = (tmp_path / running.configuration_of(flavour)).read_text()
        assert json.loads(text) == {"matrix": {"req": {"flavour": [flavour]}}}
    core = max(os.sched_getaffinity(0))
    command = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"]
    bound = subprocess.run(running.on_core(command, core), capture_output=True, text=True, check=True)
    assert bound.stdout == f"{{{core}}}\n"
    assert running.on_core(command, None) == command
