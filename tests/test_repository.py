"""Questions to the history, and asv's view of it, also where it is missing, half made or asked nonsense."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from asv import util
from asv.repo import NoSuchNameError

from fa4_asv.asv_plugin.repo import Fa4History
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.cli import history as commands
from fa4_asv.cli import run
from fa4_asv.history import repository
from fa4_asv.history.registry import Registry
from fa4_asv.history.repository import (
    NO_HISTORY,
    archive_cute,
    git,
    has_history,
    in_hashes,
    read_file,
    resolve,
    tree_of,
)
from fa4_asv.history.sync import sync


@pytest.fixture
def synced(project: Project, registry) -> Project:
    sync(project, Registry())
    return project


def half_made(project: Project) -> None:
    """What a first sync leaves when it is killed before the refs move."""
    project.repository.mkdir(parents=True)
    git(project.repository, "init", "--bare", "--quiet")
    git(project.repository, "symbolic-ref", "HEAD", "refs/heads/releases")


def test_without_a_history_every_question_says_what_to_do(project):
    with pytest.raises(Fa4AsvError, match="run `fa4-asv history sync` first"):
        resolve(project, "fa4-v4.0.0b3")
    with pytest.raises(util.UserError, match="run `fa4-asv history sync` first"):
        Fa4History(".asv/history.git", "unused")


def test_a_half_made_history_is_none_and_the_next_sync_completes_it(project, registry):
    half_made(project)
    assert not has_history(project)
    with pytest.raises(util.UserError) as told:
        Fa4History(".asv/history.git", "unused")
    assert str(told.value) == NO_HISTORY
    sync(project, Registry())
    assert has_history(project)


def test_asv_run_before_the_first_sync_is_one_line(project):
    (project.root / "benchmarks").mkdir()
    root = Path(__file__).resolve().parent.parent
    (project.root / "fa4_asv").symlink_to(root / "fa4_asv")
    command = [sys.executable, "-m", "asv", "run", "--machine", "nogpu", "HEAD^!"]
    home = {**os.environ, "HOME": str(project.root)}
    (project.root / ".asv-machine.json").write_text(
        '{"nogpu": {"machine": "nogpu", "os": "", "arch": "", "cpu": "", "num_cpu": "", "ram": ""}, "version": 1}'
    )
    done = subprocess.run(command, capture_output=True, text=True, env=home, cwd=project.root)
    assert done.returncode != 0
    assert NO_HISTORY in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_asv_walks_tags_ranges_and_an_absent_branch(synced):
    history = Fa4History(".asv/history.git", "unused")
    newest = resolve(synced, "fa4-v4.0.0b10")
    assert history.get_hash_from_name("HEAD") == history.get_hash_from_name(None) == newest
    assert history.get_branch_commits("releases")[0] == newest
    assert history.get_branch_commits("upstream") == []
    assert len(history.get_new_branch_commits(["upstream", "releases"], [])) == 3
    assert history.get_hashes_from_range("fa4-v4.0.0b4..fa4-v4.0.0b10") == [newest]
    assert history.get_hashes_from_range("4.0.0b4..4.0.0b10") == [newest]
    assert history.get_hashes_from_range("4.0.0b10^!") == [newest]
    assert set(history.get_tags()) == {"fa4-v4.0.0b3", "fa4-v4.0.0b4", "fa4-v4.0.0b10"}
    assert not Fa4History.url_match(".asv/history.git")


def test_a_range_of_hashes_is_asked_of_git_once(synced, monkeypatch):
    """asv's regressions ask for the same few, once per figure."""
    history = Fa4History(".asv/history.git", "unused")
    oldest, middle, newest = (resolve(synced, f"fa4-v4.0.0b{number}") for number in (3, 4, 10))
    asked = []
    real = history._run_git
    monkeypatch.setattr(history, "_run_git", lambda *a, **k: asked.append(a) or real(*a, **k))
    monkeypatch.setattr("fa4_asv.asv_plugin.repo.in_hashes", lambda *_: pytest.fail("they have no names"))
    for _ in range(3):
        found = history.get_hashes_from_range(f"{oldest}..{newest}")
        assert found == [newest, middle]
        found.clear()
    assert len(asked) == 1
    with pytest.raises(util.UserError, match="git cannot read the range"):
        history.get_hashes_from_range(f"{'0' * 40}..{newest}")


def test_a_release_is_known_by_its_version_too(synced):
    oldest, newest = resolve(synced, "fa4-v4.0.0b3"), resolve(synced, "fa4-v4.0.0b10")
    assert resolve(synced, "4.0.0b10") == newest
    assert resolve(synced, "4.0.0b10~2") == oldest
    assert in_hashes(synced, "4.0.0b3..releases") == f"{oldest}..{newest}"
    assert in_hashes(synced, "4.0.0b3...4.0.0b10") == f"{oldest}...{newest}"
    assert in_hashes(synced, "4.0.0b10^!") == f"{newest}^!"
    with pytest.raises(Fa4AsvError, match=r"unknown release or commit '4\.0\.0b99'"):
        in_hashes(synced, "4.0.0b3..4.0.0b99")


def test_unknown_names_and_unreadable_ranges_are_one_line(synced):
    history = Fa4History(".asv/history.git", "unused")
    for exception in (util.UserError, NoSuchNameError):  # asv catches the one, prints the other
        with pytest.raises(exception, match="unknown release or commit 'fa4-v9'"):
            history.get_hash_from_name("fa4-v9")
    for revisions in ("nosuch..HEAD", "HEAD^! --nonsense", "HEAD 'unpaired"):
        with pytest.raises(util.UserError) as told:
            history.get_hashes_from_range(revisions)
        assert "\n" not in str(told.value)


def test_files_and_trees_of_a_commit(synced):
    commit = resolve(synced, "fa4-v4.0.0b3")
    assert read_file(synced, commit, "flash_attn/cute/interface.py") == "VERSION = '4.0.0b3'\n"
    with pytest.raises(Fa4AsvError, match="has no text file flash_attn/cute/nosuch.py"):
        read_file(synced, commit, "flash_attn/cute/nosuch.py")
    with pytest.raises(Fa4AsvError, match="unknown release or commit"):
        tree_of(synced, "f" * 40)


def test_a_hooks_environment_and_attributes_do_not_reach_the_history(synced, tmp_path, monkeypatch):
    attributes = tmp_path / "home" / "git" / "attributes"
    attributes.parent.mkdir(parents=True)
    attributes.write_text("*.py export-ignore\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "elsewhere"))
    archive_cute(synced, resolve(synced, "HEAD"), tmp_path / "laid")
    assert (tmp_path / "laid" / "interface.py").is_file()


def test_a_full_disk_leaves_no_half_sources(synced, tmp_path, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Fa4AsvError, match="cannot lay the sources of .*: No space left on device"):
        archive_cute(synced, resolve(synced, "HEAD"), tmp_path / "sources" / "laid")
    assert list((tmp_path / "sources").iterdir()) == []


def test_missing_git_is_said(synced, monkeypatch):
    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(repository.subprocess, "run", absent)
    with pytest.raises(Fa4AsvError, match="git is not installed"):
        git(synced.repository, "status")


def test_ctrl_c_is_one_line_exit_130_and_loses_nothing(synced, registry, capsys, monkeypatch):
    before = git(synced.repository, "for-each-ref")
    registry.add("4.0.0b11", "2026-04-29T08:00:00Z")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as done:
        patched.setattr(Registry, "download", interrupted)
        run(["history", "sync", "--quiet"])
    assert done.value.code == 130
    assert capsys.readouterr().err.splitlines() == [
        "fa4-asv: interrupted; the history is as it was, sync again to continue"
    ]
    assert git(synced.repository, "for-each-ref") == before
    with pytest.raises(SystemExit) as done:
        run(["history", "sync", "--quiet"])
    assert done.value.code == 0
    assert resolve(synced, "fa4-v4.0.0b11")


def test_two_syncs_do_not_race(synced, monkeypatch):
    import fcntl

    with (synced.work / "history.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Fa4AsvError, match="another `fa4-asv history sync` is running"):
            commands.run_sync(synced, Registry())
