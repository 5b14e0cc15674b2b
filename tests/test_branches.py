"""Branches of a clone beside the releases: plain names, nothing lost, one clear line for every bad source."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import pytest

from fa4_asv.asv_plugin.repo import Fa4History
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.cli import run
from fa4_asv.history.branches import refusal, sync_branches
from fa4_asv.history.registry import Registry
from fa4_asv.history.repository import archive_cute, branches, git, resolve
from fa4_asv.history.sync import sync
from tests.support import upstream_fake
from tests.support.upstream_fake import commit, lose_file, refs, run_sync


def test_a_clone_s_commits_stand_beside_the_releases(synced, upstream, tmp_path):
    before, manifest = refs(synced), synced.manifest.read_bytes()
    (main,) = sync_branches(synced, str(upstream)).branches
    assert (main.name, main.old, main.commits, main.touching, main.rewritten) == ("main", "", 5, 3, False)
    assert set(before.splitlines()) < set(refs(synced).splitlines())
    assert synced.manifest.read_bytes() == manifest
    history = Fa4History(".asv/history.git", "unused")
    assert len(history.get_hashes_from_range("main~3..main")) == 3
    assert history.get_branch_commits("main")[0] == history.get_hash_from_name("main") == main.new
    assert history.get_date(main.new) == 1777982400000, (
        "the committer's date, by which its toolchain is chosen"
    )
    shutil.rmtree(upstream)
    archive_cute(synced, main.new, tmp_path / "laid")
    assert (tmp_path / "laid" / "interface.py").read_text() == "VERSION = 'second'\n"
    assert sync(synced, Registry()).lost == ()
    assert resolve(synced, "main") == main.new, "a sync of the releases leaves them alone"


def test_files_that_fa4_does_not_need_are_neither_kept_nor_needed(synced, upstream, tmp_path):
    bare = tmp_path / "bare.git"
    upstream_fake.git(tmp_path, "clone", "-q", "--bare", str(upstream), str(bare))
    lose_file(upstream, "csrc/asset.py")
    for source in (str(upstream), f"file://{upstream}", str(bare)):
        sync_branches(synced, source)
    with pytest.raises(Fa4AsvError):
        git(synced.repository, "cat-file", "-e", "main:csrc/asset.py")
    git(synced.repository, "cat-file", "-e", "main:flash_attn/cute/interface.py")


def test_a_file_that_moves_into_fa4_comes_along(synced, upstream):
    sync_branches(synced, str(upstream))
    upstream_fake.git(upstream, "mv", "csrc/kernel.py", "flash_attn/cute/kernel.py")
    commit(upstream, 6, "moved")
    assert sync_branches(synced, str(upstream)).branches[0].touching == 1
    git(synced.repository, "cat-file", "-e", "main:flash_attn/cute/kernel.py")


def test_moved_and_rewritten_branches_are_followed_and_told(synced, upstream, capsys):
    run_sync(synced, str(upstream), code=0)
    assert "main: 5 commits, 3 of them touch FA4, now at " in capsys.readouterr().out
    run_sync(synced, str(upstream), code=0)
    assert "main: nothing new at " in capsys.readouterr().out
    old = commit(upstream, 6, "more", cute__interface="VERSION = 'third'\n")
    run_sync(synced, str(upstream), code=0)
    assert "main: 1 commits, 1 of them touch FA4 since " in capsys.readouterr().out
    upstream_fake.git(upstream, "reset", "-q", "--hard", "HEAD~2")
    new = commit(upstream, 7, "other", cute__interface="VERSION = 'other'\n")
    run_sync(synced, str(upstream), code=0)
    told = capsys.readouterr().out
    assert f"main: rewritten, {old[:8]} is no longer in it; now at {new[:8]}, 1 commits" in told
    assert git(synced.repository, "cat-file", "-t", old).strip() == b"commit", "what was measured can be read"
    assert resolve(synced, "main") == new


def test_which_branches_and_under_which_name(synced, upstream):
    for name in ("feature", "releases", "fa4-v4.0.0b3", "deadbeef"):
        upstream_fake.git(upstream, "branch", name, "main~1")
    sync_branches(synced, str(upstream), ["feature"])
    assert set(branches(synced)) == {"main", "feature"}, "the default branch where it is not here yet"
    commit(upstream, 6, "more", cute__interface="VERSION = 'third'\n")
    assert [b.name for b in sync_branches(synced, str(upstream), ["feature"]).branches] == ["feature"]
    assert resolve(synced, "main") != upstream_fake.git(upstream, "rev-parse", "main")
    sync_branches(synced, str(upstream), ["releases:theirs", "HEAD~2:before", "refs/heads/main:new"])
    assert resolve(synced, "before") == upstream_fake.git(upstream, "rev-parse", "main~2")
    every = sync_branches(synced, str(upstream), every=True)
    assert every.left_out == {
        "releases": "would hide FA4's releases",
        "fa4-v4.0.0b3": "would hide the tag of a release",
        "deadbeef": "reads as a commit's hash",
    }
    assert {branch.name for branch in every.branches} == {"main", "feature"}


def test_names_that_would_mislead_are_refused_and_odd_ones_are_inert(synced, upstream, capsys):
    before = refs(synced)
    upstream_fake.git(upstream, "branch", "releases/2")
    for name, reason in (
        ("releases/2", "branch 'releases/2' would hide FA4's releases; give it another name"),
        ("main:-x", "branch '-x' means something else to git or asv"),
        ("main:ALL", "branch 'ALL' means something else to git or asv"),
        ("main:a..b", "branch 'a..b' is not a name of a branch"),
        ("nosuch", "has no branch 'nosuch'"),
        ("--upload-pack=touch x:y", "has no branch '--upload-pack=touch x'"),
    ):
        with pytest.raises(Fa4AsvError, match=reason):
            sync_branches(synced, str(upstream), [name])
    assert refs(synced) == before
    odd = "$(touch${IFS}owned);<b>'[red]"
    assert refusal(odd) == "is not a name of a branch"  # git has no '['
    odd = odd.replace("[red]", "`&")
    upstream_fake.git(upstream, "branch", odd)
    run_sync(synced, str(upstream), "--branch", odd, "--json", code=0)
    assert odd in [branch["name"] for branch in json.loads(capsys.readouterr().out)["branches"]]
    assert not (synced.root / "owned").exists()
    with pytest.raises(SystemExit):
        run(["history", "list"])
    assert odd in capsys.readouterr().out


KILLED = """
import os, signal, sys
from pathlib import Path
from fa4_asv.history import branches as module
from fa4_asv.base.project import Project
name = sys.argv[3]
real = getattr(module, name)
def die(*a, **k):
    if name != "move_refs":
        real(*a, **k)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module, name, die)
module.sync_branches(Project(Path(sys.argv[1])), sys.argv[2])
"""


@pytest.mark.parametrize("place", ["scratch_repository", "_copy", "move_refs"])
def test_a_kill_anywhere_leaves_the_old_history_and_is_completed(synced, upstream, place):
    before = refs(synced)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(synced.root), str(upstream), place])
    assert killed.returncode == -signal.SIGKILL
    assert refs(synced) == before
    sync_branches(synced, str(upstream))
    assert resolve(synced, "main") == upstream_fake.git(upstream, "rev-parse", "main")
    assert not list(synced.work.glob(".history.*"))


def test_a_damaged_history_is_built_anew_and_says_what_is_lost(synced, upstream, registry, capsys):
    sync_branches(synced, str(upstream))
    before = resolve(synced, "fa4-v4.0.0b4")
    for pack in [*synced.repository.glob("objects/pack/*"), *synced.repository.glob("objects/??/*")]:
        pack.unlink()
    with pytest.raises(SystemExit):
        run(["history", "sync"])
    assert (
        "is built anew\nbranches that were not whole in it; sync them again: main" in capsys.readouterr().err
    )
    assert resolve(synced, "fa4-v4.0.0b4") == before


def test_releases_come_first_and_options_need_a_source(project, registry, upstream, capsys):
    run_sync(project, str(upstream), code=0)
    assert resolve(project, "fa4-v4.0.0b10") != resolve(project, "main")
    for arguments in (
        ["--branch", "main"],
        ["--all"],
        ["--source", str(upstream), "--all", "--branch", "main"],
    ):
        with pytest.raises(SystemExit) as ended:
            run(["history", "sync", *arguments])
        assert ended.value.code == 2
    capsys.readouterr()
