"""A small flash-attention: an upstream repository with a history that its releases do not have."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fa4_asv.cli import run
from fa4_asv.history import repository
from fa4_asv.history.registry import Registry
from fa4_asv.history.sync import sync

PYPROJECT = '[project]\nname = "flash-attn-4"\nversion = "1"\ndependencies = ["nvidia-cutlass-dsl>=4.4"]\n'


def git(folder: Path, *arguments: str, day: int = 1, stdin: bytes | None = None) -> str:
    """Git as the author of `folder`; commits are of that day of May 2026."""
    when = f"2026-05-{day:02}T12:00:00Z"
    person = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z"}
    person |= {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b", "GIT_COMMITTER_DATE": when}
    person |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *arguments],
        cwd=folder,
        env={**os.environ, **person},
        input=stdin,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


def commit(folder: Path, day: int, message: str, **files: str) -> str:
    """A commit that writes `files` ("cute__x" is flash_attn/cute/x.py); its hash."""
    for name, content in files.items():
        path = folder / (name.replace("cute__", "flash_attn/cute/").replace("__", "/") + ".py")
        if name == "pyproject":
            path = folder / "flash_attn" / "cute" / "pyproject.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message, day=day)
    return git(folder, "rev-parse", "HEAD")


def make_upstream(folder: Path) -> Path:
    """Five commits on main: before FA4, FA4 without a package, a package, documentation, a kernel."""
    folder.mkdir()
    git(folder, "init", "-q")
    commit(folder, 1, "FA2", csrc__kernel="big = 0\n" * 3)
    commit(folder, 2, "FA4 begins", cute__interface="VERSION = 'first'\n")
    commit(folder, 3, "a package", pyproject=PYPROJECT, csrc__asset="asset = 1\n")
    commit(folder, 4, "words only", README="words\n")
    commit(folder, 5, "<b>faster</b> [red]$(x)[/red]", cute__interface="VERSION = 'second'\n")
    return folder


@pytest.fixture
def upstream(tmp_path) -> Path:
    return make_upstream(tmp_path / "flash-attention")


@pytest.fixture
def synced(project, registry):
    sync(project, Registry())
    return project


def refs(project) -> str:
    return repository.git(project.repository, "for-each-ref").decode()


def lose_file(upstream: Path, name: str) -> None:
    """Remove the object of main's file `name`, as a copy without large assets lacks it."""
    blob = git(upstream, "rev-parse", f"main:{name}")
    (upstream / ".git" / "objects" / blob[:2] / blob[2:]).unlink()


def run_sync(project, source: str, *arguments: str, code: int) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["history", "sync", "--source", source, *arguments])
    assert ended.value.code == code
