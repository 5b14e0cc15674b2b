"""Sync: the same hashes everywhere, nothing lost, one clear line for every fault."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.cli import run
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.registry import Registry
from fa4_asv.history.repository import archive_cute, commit_date, git, resolve, tree_of
from fa4_asv.history.sync import BRANCH, sync


def refs(project: Project) -> str:
    return git(project.repository, "for-each-ref").decode()


def test_releases_become_commits_in_upload_order(project, registry):
    done = sync(project, Registry())
    manifest = Manifest.load(project.manifest)
    assert [release.version for release in manifest.releases] == ["4.0.0b3", "4.0.0b4", "4.0.0b10"]
    assert done.fetched == done.total == 3
    log = git(project.repository, "log", "--reverse", "--format=%H", BRANCH).decode().split()
    assert log == [release.commit for release in manifest.releases]
    for release in manifest.releases:
        assert resolve(project, release.tag) == release.commit
        assert commit_date(project, release.commit) == release.time.replace(microsecond=0)


def test_hashes_do_not_depend_on_machine_user_or_configuration(project, registry, tmp_path, monkeypatch):
    sync(project, Registry())
    before = Manifest.load(project.manifest)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[user]\nname=someone\n[init]\ndefaultObjectFormat=sha256\n[core]\nautocrlf=true\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "someone else")
    os.umask(0o077)
    other = Project(tmp_path / "other")
    other.root.mkdir()
    try:
        sync(other, Registry())
    finally:
        os.umask(0o022)
    assert Manifest.load(other.manifest) == before


def test_content_is_laid_as_upstream_with_plain_modes(project, registry):
    sync(project, Registry())
    listing = git(project.repository, "ls-tree", "-r", "fa4-v4.0.0b3").decode().splitlines()
    assert {line.split()[0] for line in listing} == {"100644"}
    assert [line.split("\t")[1] for line in listing] == [
        "flash_attn/cute/PKG-INFO",
        "flash_attn/cute/interface.py",
        "flash_attn/cute/pyproject.toml",
    ]


def test_second_sync_fetches_only_what_is_new(project, registry):
    sync(project, Registry())
    first = Manifest.load(project.manifest).releases
    registry.downloads.clear()
    assert sync(project, Registry()).fetched == 0
    assert registry.downloads == []
    registry.add("4.0.0b11", "2026-04-29T08:00:00Z")
    assert sync(project, Registry()).fetched == 1
    assert registry.downloads == ["4.0.0b11"]
    assert Manifest.load(project.manifest).releases[:3] == first


def test_a_sync_of_known_releases_leaves_the_list_as_it_is(project, registry):
    """A tracked file: who only looks at the record changes none."""
    sync(project, Registry(), known=True)
    assert len(Manifest.load(project.manifest).releases) == 3, "without a list every release is wanted"
    manifest = project.manifest.read_bytes()
    registry.add("4.0.0b11", "2026-04-29T08:00:00Z")
    assert sync(project, Registry(), known=True).total == 3
    subprocess.run(["rm", "-rf", str(project.work)], check=True)
    assert sync(project, Registry(), known=True).fetched == 3
    assert project.manifest.read_bytes() == manifest
    assert sync(project, Registry()).total == 4


def test_a_lost_repository_is_rebuilt_to_the_same_hashes(project, registry):
    sync(project, Registry())
    before, manifest = refs(project), project.manifest.read_bytes()
    subprocess.run(["rm", "-rf", str(project.work)], check=True)
    sync(project, Registry())
    assert (refs(project), project.manifest.read_bytes()) == (before, manifest)


def test_an_interrupted_sync_leaves_everything_as_it_was(project, registry):
    sync(project, Registry())
    before, manifest = refs(project), project.manifest.read_bytes()
    registry.add("4.0.0b11", "2026-04-29T08:00:00Z")
    registry.add("4.0.0b12", "2026-05-06T08:00:00Z")

    def interrupt(done, *_):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync(project, Registry(), interrupt)
    assert project.manifest.read_bytes() == manifest
    assert [line for line in refs(project).splitlines() if "refs/fa4-asv" not in line] == before.splitlines()
    assert sync(project, Registry()).total == 5
    assert "refs/fa4-asv" not in refs(project)


KILLED = """
import os, signal, sys
from fa4_asv.history import sync as module
from fa4_asv.history.registry import Registry
from fa4_asv.base.project import Project
from pathlib import Path
name = sys.argv[2]
real = getattr(module, name)
def die(*a, **k):
    if name == "_move_refs":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*a, **k)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module, name, die)
module.sync(Project(Path(sys.argv[1])), Registry())
"""


@pytest.mark.parametrize("place", ["create", "_import", "_build", "_move_refs"])
def test_a_kill_anywhere_is_completed_by_the_next_sync(project, registry, tmp_path, place):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(project.root), place])
    assert killed.returncode == -signal.SIGKILL
    sync(project, Registry())
    whole = Project(tmp_path / "whole")
    whole.root.mkdir()
    sync(whole, Registry())
    assert refs(project) == refs(whole)
    assert project.manifest.read_bytes() == whole.manifest.read_bytes()


def test_a_half_written_history_is_built_anew(project, registry):
    sync(project, Registry())
    before = refs(project)
    for pack in [*project.repository.glob("objects/pack/*"), *project.repository.glob("objects/??/*")]:
        pack.unlink()
    (project.repository / "packed-refs.lock").write_text("")
    sync(project, Registry())
    assert refs(project) == before
    git(project.repository, "fsck", "--full")


def test_one_lost_file_is_noticed_and_built_anew(project, registry):
    sync(project, Registry())
    before = refs(project)
    pack = next(project.repository.glob("objects/pack/*.pack"), None)
    if pack is not None:
        content = pack.read_bytes()
        for part in project.repository.glob("objects/pack/*"):
            part.unlink()
        git(project.repository, "unpack-objects", "-q", stdin=content)
    blob = git(project.repository, "rev-parse", "fa4-v4.0.0b4:flash_attn/cute/interface.py").decode().strip()
    (project.repository / "objects" / blob[:2] / blob[2:]).unlink()
    sync(project, Registry())
    assert refs(project) == before
    git(project.repository, "fsck", "--full")


def test_without_git_nothing_is_removed(project, registry, monkeypatch, tmp_path):
    sync(project, Registry())
    before = refs(project)
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        with pytest.raises(Fa4AsvError, match="git is not installed"):
            sync(project, Registry())
    assert refs(project) == before


def test_a_release_yanked_later_is_labelled_never_removed(project, registry):
    sync(project, Registry())
    commits = [release.commit for release in Manifest.load(project.manifest).releases]
    registry.yanked["4.0.0b4"] = "hangs <b>on</b> Hopper"
    assert sync(project, Registry()).yanked == ("4.0.0b4",)
    del registry.files["4.0.0b4"]
    sync(project, Registry())
    releases = Manifest.load(project.manifest).releases
    assert [release.commit for release in releases] == commits
    assert releases[1].yanked == "hangs <b>on</b> Hopper"


def test_list_shows_releases(project, registry, capsys):
    sync(project, Registry())
    registry.yanked["4.0.0b4"] = "[red]bad[/red]"
    sync(project, Registry())
    with pytest.raises(SystemExit) as done:
        run(["history", "list", "--json"])
    assert done.value.code == 0
    assert '"version": "4.0.0b10"' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(["history", "list"])
    told = capsys.readouterr().out
    assert told.splitlines()[0].startswith(
        f"{len(Manifest.load(project.manifest).releases)} releases, 4.0.0b"
    )
    assert "4.0.0b4 is yanked: [red]bad[/red]" in told
    with pytest.raises(SystemExit) as done:
        run(["history", "list", "--toolchain", "../x"])
    assert done.value.code == 2
    assert "no toolchain is locked under '../x'" in capsys.readouterr().err


def test_sources_are_laid_once_and_whole(project, registry, tmp_path):
    sync(project, Registry())
    commit = resolve(project, "fa4-v4.0.0b4")
    folder = tmp_path / "laid"
    archive_cute(project, commit, folder)
    assert (folder / "interface.py").read_text() == "VERSION = '4.0.0b4'\n"
    assert len(tree_of(project, commit)) == 40
    archive_cute(project, commit, folder)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".laid")) == []


def test_committed_manifest_is_what_the_code_reads():
    manifest = Manifest.load(Path(__file__).parent.parent / "history" / "releases.json")
    assert len(manifest.releases) >= 33
    assert manifest.releases[0].version == "4.0.0b3"
    assert all(len(release.commit) == 40 for release in manifest.releases)
