"""A history is replaced only where it is proven damaged, after its successor stands, and upstream's branches go along."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.history.branches import sync_branches
from fa4_asv.history.registry import Registry
from fa4_asv.history.repair import damage_of, repair
from fa4_asv.history.repository import branches, git, resolve
from fa4_asv.history.sync import sync
from tests.support.upstream_fake import refs

GIT = shutil.which("git") or "git"


@pytest.fixture
def whole(synced, upstream):
    """A history with three releases and upstream's main."""
    sync_branches(synced, str(upstream))
    return synced


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def loose(project, name: str) -> Path:
    """The file of the object `name`; packs are unpacked first."""
    for pack in project.repository.glob("objects/pack/*.pack"):
        packed = pack.read_bytes()
        for part in pack.parent.glob(f"{pack.stem}.*"):
            part.unlink()
        git(project.repository, "unpack-objects", "-q", stdin=packed)
    blob = git(project.repository, "rev-parse", name).decode().strip()
    return project.repository / "objects" / blob[:2] / blob[2:]


# What the body of a shell script does in git's place, for each command but --version.
FAILING = {
    "no memory": "echo 'fatal: Out of memory, malloc failed (tried to allocate 9 bytes)' >&2; exit 128",
    "no memory for a pack": "echo 'fatal: packfile x.pack cannot be mapped: Cannot allocate memory' >&2; exit 128",
    "no memory, so an object seems missing": (
        "echo 'error: mmap failed: Cannot allocate memory' >&2; echo 'fatal: bad object refs/tags/x' >&2; exit 128"
    ),
    "too many files, so an object seems missing": (
        "echo 'error: unable to open object pack directory: Too many open files' >&2; "
        "echo 'fatal: bad object refs/tags/x' >&2; exit 128"
    ),
    "an old version": "echo 'error: unknown option `end-of-options' >&2; echo 'usage: git' >&2; exit 129",
    "an old version of a repository": ("echo 'fatal: Expected git repo version <= 0, found 1' >&2; exit 128"),
    "a disk that does not answer": "echo 'fatal: unable to read tree: Input/output error' >&2; exit 128",
    "killed": "kill -9 $$",
    "without a word": "exit 128",
    "another program": "echo hello; exit 3",
    "limited memory": f'ulimit -v 6500; exec {GIT} "$@"',
    "limited files": f'ulimit -n 3; exec {GIT} "$@"',
}


@pytest.mark.fault(
    kind="git fails",
    inputs="no memory, too many files, an old version, killed, in every command or in one",
    happens="one line; the history keeps every byte",
)
@pytest.mark.parametrize("only", ["", "rev-list"])
@pytest.mark.parametrize("kind", FAILING)
def test_failing_git_removes_nothing(whole, registry, upstream, tmp_path, monkeypatch, kind, only):
    before = content(whole.repository)
    manifest = whole.manifest.read_bytes()
    script = tmp_path / "bin" / "git"
    script.parent.mkdir()
    passes = f'case " $* " in *" --version "*) exec {GIT} "$@";; esac\n'
    passes += f'case " $* " in *" {only} "*) ;; *) exec {GIT} "$@";; esac\n' if only else ""
    script.write_text(f"#!/bin/sh\n{passes}{FAILING[kind]}\n")
    script.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
        with pytest.raises(Fa4AsvError) as told:
            sync(whole, Registry())
        with pytest.raises(
            Fa4AsvError, match="that does not prove that .* is damaged, so nothing was changed"
        ):
            damage_of(whole.repository)
        with pytest.raises(Fa4AsvError):
            sync_branches(whole, str(upstream))
    assert str(told.value).isprintable()
    assert "was damaged" not in str(told.value)
    assert content(whole.repository) == before
    assert whole.manifest.read_bytes() == manifest
    assert sync(whole, Registry()).damage == ""
    assert branches(whole).keys() == {"main"}


def test_unreadable_files_prove_nothing(whole, monkeypatch):
    """They look like missing ones to git. (Root reads everything, so the question is answered in its place.)"""
    lost = loose(whole, "fa4-v4.0.0b4:flash_attn/cute/interface.py")
    content = lost.read_bytes()
    lost.unlink()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "tags" not in str(path) and real(path, mode))
    with pytest.raises(Fa4AsvError, match="may not be read; make it readable, nothing was changed"):
        sync(whole, Registry())
    lost.write_bytes(content)
    assert damage_of(whole.repository) == ""


def lose_a_file(project) -> None:
    loose(project, "fa4-v4.0.0b4:flash_attn/cute/interface.py").unlink()


def empty_a_file(project) -> None:
    path = loose(project, "fa4-v4.0.0b4:flash_attn")
    path.chmod(0o644)
    path.write_bytes(b"")


def scramble_a_file(project) -> None:
    path = loose(project, "fa4-v4.0.0b4^{tree}")
    path.chmod(0o644)
    path.write_bytes(b"x" * 50)


def lose_head(project) -> None:
    (project.repository / "HEAD").unlink()


def lose_refs(project) -> None:
    git(project.repository, "pack-refs", "--all")
    shutil.rmtree(project.repository / "refs")


def scramble_refs(project) -> None:
    git(project.repository, "pack-refs", "--all")
    with (project.repository / "packed-refs").open("a") as packed:
        packed.write("nonsense\n")


def scramble_configuration(project) -> None:
    (project.repository / "config").write_text("[core\n")


@pytest.mark.fault(
    kind="the history is damaged",
    inputs="a lost, an empty and a scrambled object; HEAD, references and configuration lost or scrambled",
    happens="built anew beside it, upstream's whole branches carried over, then renamed",
)
@pytest.mark.parametrize(
    "fault",
    [lose_a_file, empty_a_file, scramble_a_file, lose_head, lose_refs, scramble_refs, scramble_configuration],
)
def test_what_is_damaged_is_replaced_and_upstreams_branches_stay(whole, registry, upstream, fault):
    tips, releases = branches(whole), resolve(whole, "releases")
    fault(whole)
    with pytest.raises(Fa4AsvError, match=r"the history is damaged .* sync` builds it anew|no FA4 history"):
        sync_branches(whole, str(upstream))
    done = sync(whole, Registry())
    assert done.damage
    assert done.damage.isprintable()
    assert done.lost == ()
    assert branches(whole) == tips
    assert resolve(whole, "releases") == releases
    git(whole.repository, "rev-list", "--quiet", "--objects", "releases", "--tags")
    assert sync_branches(whole, str(upstream)).branches[0].commits == 0
    assert sorted(path.name for path in whole.work.glob("*history*")) == ["history.git", "history.lock"]


def test_a_file_in_its_place_is_replaced(synced):
    shutil.rmtree(synced.repository)
    synced.repository.write_text("no repository")
    assert sync(synced, Registry()).damage == "it has no HEAD"
    assert resolve(synced, "4.0.0b10")


def test_a_damaged_history_stays_where_its_successor_cannot_be_made(whole, registry):
    lose_a_file(whole)
    before = content(whole.repository)
    registry.corrupt.add("4.0.0b10")
    with pytest.raises(Fa4AsvError, match="is corrupt"):
        sync(whole, Registry())
    assert content(whole.repository) == before
    assert not list(whole.work.glob(".history.*"))


KILLED = """
import os, signal, sys
from pathlib import Path
from fa4_asv.base.project import Project
from fa4_asv.history import repair, sync
from fa4_asv.history.registry import Registry
left = int(sys.argv[2])
def counted(real):
    def call(*words, **more):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words, **more)
    return call
Path.rename = counted(Path.rename)
repair._remove = counted(repair._remove)
sync.rescue_branches = counted(sync.rescue_branches)
sync.sync(Project(Path(sys.argv[1])), Registry())
"""


@pytest.mark.fault(
    kind="a kill while the history is replaced",
    inputs="at each step",
    happens="the next command ends what was begun; nothing is lost",
)
@pytest.mark.parametrize("step", range(4))
def test_a_kill_while_it_is_replaced_loses_nothing(whole, registry, step):
    """Before branches are rescued, before each of the two renames, before the old one goes."""
    lose_a_file(whole)
    tips = branches(whole)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(whole.root), str(step)])
    assert killed.returncode == -9
    sync(whole, Registry())
    assert damage_of(whole.repository) == ""
    assert branches(whole) == tips
    assert sorted(path.name for path in whole.work.glob("*history*")) == ["history.git", "history.lock"]


def test_repair_removes_only_what_a_kill_left(whole):
    before = refs(whole)
    left = [whole.repository / "packed-refs.lock", whole.repository / "objects" / "pack" / "tmp_pack_1"]
    for path in left:
        path.write_text("")
    (whole.work / ".history.abc").mkdir()
    repair(whole)
    assert not any(path.exists() for path in left)
    assert not (whole.work / ".history.abc").exists()
    assert refs(whole) == before
