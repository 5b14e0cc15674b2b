"""A checkout that the real tests share: the real registry, uv, compilers and asv."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fa4_asv.base.project import Project
from fa4_asv.record.store import read_sidecar, sidecar_path
from tests.support import ROOT

ENVIRONMENT = "fa4-pyany-flavourcu13-toolchainday"
B36 = "fa4-v4.0.0b36^!"


def command(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=root,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=580,
        stdin=subprocess.DEVNULL,
    )


def asv(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return command(root, "asv", *arguments, **environment)


def measure(
    root: Path, bench: str, *more: str, commits: str = B36, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`asv run` as a person types it, with the interpreter at hand."""
    return asv(root, "run", "-E", "fa4:same", "-b", bench, commits, *more, **environment)


def copy_sources(name: str, root: Path) -> None:
    """A folder of this checkout into another, with its bytecode: else each checkout compiles all that it imports.

    Not what is just being written there, by another process of these tests.
    """
    shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("*.pyc.*"))


@pytest.fixture(scope="session")
def real(tmp_path_factory) -> Project:
    """A checkout as a stranger has it, one flavour, synced from the real registry."""
    root = tmp_path_factory.mktemp("real") / "checkout"
    root.mkdir()
    for name in ("benchmarks", "history", "requirements", "fa4_asv"):
        copy_sources(name, root)
    conf = json.loads((ROOT / "asv.conf.json").read_text())
    conf["matrix"]["req"]["flavour"] = ["cu13"]
    (root / "asv.conf.json").write_text(json.dumps(conf))
    early = asv(root, "run", "-E", "fa4:same", "fa4-v4.0.0b36^!")
    assert early.returncode != 0
    assert "no FA4 history here yet; run `fa4-asv history sync` first" in early.stdout + early.stderr
    assert "Traceback" not in early.stdout + early.stderr
    done = command(root, "fa4_asv", "history", "sync")
    assert done.returncode == 0, done.stderr
    return Project(root)


@pytest.fixture(scope="session")
def measured(real) -> Path:
    """Result file of a real run: one GQA backward of b36, which compiles four kernels."""
    done = measure(real.root, "codegen.*d128_(full_)?gqa4'", "--show-stderr")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (real.results / "nogpu").glob(f"d14f663b-{ENVIRONMENT}.json")
    return path


def toolchain_of(project: Project, result: Path) -> Path:
    """The folder of the toolchain that a result file was measured with."""
    digest = read_sidecar(sidecar_path(result)).toolchain.digest
    (folder,) = (project.work / "toolchains").glob(f"cu13-{digest}-*")
    return folder
