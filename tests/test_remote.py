"""Where branches may come from: clones and URLs, and one clear line for each that cannot serve."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.history import remote
from fa4_asv.history.branches import sync_branches
from fa4_asv.history.repository import resolve
from tests.support import upstream_fake
from tests.support.upstream_fake import commit, lose_file, refs, run_sync


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("--upload-pack=touch owned", "looks like an option"),
        ("ext::sh -c touch% owned", "asks for a remote helper"),
        ("fd::17", "asks for a remote helper"),
        ("http://example.invalid/x", "is no path and none of https, ssh, git, file"),
        ("/nosuch/flash-attention", "source '/nosuch/flash-attention' does not exist"),
        ("file:///nosuch", "does not exist"),
        (".", "is no git repository"),
    ],
)
def test_sources_that_cannot_serve_are_one_line(synced, capsys, source, words):
    before = refs(synced)
    run_sync(synced, source, code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fa4-asv: ")
    assert words in line
    assert refs(synced) == before
    assert not (synced.root / "owned").exists()


def test_a_password_is_not_repeated(synced):
    with pytest.raises(Fa4AsvError) as told:
        sync_branches(synced, "git://someone:secret@127.0.0.1:9/x")
    assert "secret" not in str(told.value)
    assert "git://127.0.0.1:9/x cannot be read" in str(told.value)


def test_half_clones_are_one_line(synced, upstream, tmp_path):
    before = refs(synced)
    upstream_fake.git(upstream, "config", "uploadpack.allowFilter", "true")
    for words, reason in (
        (["--depth=2"], "is a shallow clone, and ranges need the whole history; run `git fetch --unshallow`"),
        (["--filter=blob:none"], "is a partial clone .--filter.: 3 objects of flash_attn/cute are missing"),
        (["--filter=tree:0"], "is a partial clone .--filter."),
    ):
        half = tmp_path / words[0]
        upstream_fake.git(tmp_path, "clone", "-q", "--bare", *words, f"file://{upstream}", str(half))
        with pytest.raises(Fa4AsvError, match=reason):
            sync_branches(synced, str(half))
    lose_file(upstream, "flash_attn/cute/interface.py")
    with pytest.raises(Fa4AsvError, match="is not whole: 1 objects of flash_attn/cute are missing"):
        sync_branches(synced, str(upstream))
    assert refs(synced) == before
    assert not list(synced.work.glob(".history.*"))


def test_other_repositories_are_one_line(synced, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    upstream_fake.git(other, "init", "-q")
    with pytest.raises(Fa4AsvError, match="has no default branch; choose one with --branch"):
        sync_branches(synced, str(other))
    commit(other, 1, "no FA4", code="x = 1\n")
    with pytest.raises(Fa4AsvError, match="branch 'main' of .* has no flash_attn/cute"):
        sync_branches(synced, str(other))
    sha256 = tmp_path / "sha256"
    sha256.mkdir()
    upstream_fake.git(sha256, "init", "-q", "--object-format=sha256")
    with pytest.raises(Fa4AsvError, match="names objects by another hash than sha1"):
        sync_branches(synced, str(sha256))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_another_user_s_clone_is_read_only_when_git_trusts_it(synced, upstream, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for path in [upstream, *upstream.rglob("*")]:
        os.chown(path, 12345, 12345)
    with pytest.raises(Fa4AsvError, match="belongs to another user, so git does not trust it") as told:
        sync_branches(synced, str(upstream))
    (home / ".gitconfig").write_text(f"[safe]\n\tdirectory = {upstream}\n")
    assert f"--add safe.directory {upstream}" in str(told.value)
    assert sync_branches(synced, str(upstream)).branches[0].commits == 5


def test_a_dirty_tree_is_told_and_does_not_matter(synced, upstream, capsys):
    (upstream / "flash_attn" / "cute" / "interface.py").write_text("VERSION = 'dirty'\n")
    run_sync(synced, str(upstream), code=0)
    assert "has changes that are not committed; only commits are measured" in capsys.readouterr().err


def test_a_linked_work_tree_and_a_clone_that_borrows_are_as_good(synced, upstream, tmp_path):
    upstream_fake.git(upstream, "checkout", "-q", "--detach")
    with pytest.raises(Fa4AsvError, match="has no default branch; choose one with --branch"):
        sync_branches(synced, str(upstream))
    upstream_fake.git(upstream, "worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"), "main~1")
    sync_branches(synced, str(tmp_path / "linked"))
    assert resolve(synced, "linked") == upstream_fake.git(upstream, "rev-parse", "main~1")
    upstream_fake.git(tmp_path, "clone", "-q", "--shared", str(upstream), str(tmp_path / "shared"))
    sync_branches(synced, str(tmp_path / "shared"))
    assert resolve(synced, "main") == upstream_fake.git(upstream, "rev-parse", "main")


def test_neither_hooks_nor_submodules_of_the_source_run(synced, upstream, tmp_path):
    owned = tmp_path / "owned"
    for hook in ("post-checkout", "reference-transaction", "pre-receive", "fsmonitor"):
        path = upstream / ".git" / "hooks" / hook
        path.write_text(f"#!/bin/sh\ntouch {owned}\n")
        path.chmod(0o755)
    upstream_fake.git(upstream, "config", "core.fsmonitor", str(path))
    (upstream / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = x\n\turl = ext::touch {owned}\n')
    link = f"160000,{'1' * 40},csrc/x"
    upstream_fake.git(upstream, "update-index", "--add", "--cacheinfo", link)
    upstream_fake.git(upstream, "add", ".gitmodules")
    owned.unlink(missing_ok=True)
    upstream_fake.git(upstream, "-c", "core.hooksPath=/dev/null", "commit", "-q", "-m", "submodule")
    owned.unlink(missing_ok=True)
    assert sync_branches(synced, str(upstream)).branches[0].commits == 6
    assert not owned.exists()


@pytest.fixture
def served(upstream):
    """The upstream behind git's own daemon; the URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        "git",
        "daemon",
        "--reuseaddr",
        "--export-all",
        f"--port={port}",
        f"--base-path={upstream.parent}",
    ]
    daemon = subprocess.Popen([*words, "--listen=127.0.0.1"], start_new_session=True)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"git://127.0.0.1:{port}/"
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait()


@pytest.mark.parametrize("filters", ["true", "false"])
def test_a_url_gives_what_its_clone_gives(synced, upstream, served, filters):
    upstream_fake.git(upstream, "config", "uploadpack.allowFilter", filters)
    sync_branches(synced, f"{served}flash-attention")
    commit(upstream, 6, "more", cute__interface="VERSION = 'third'\n")
    (main,) = sync_branches(synced, f"{served}flash-attention").branches
    assert (main.commits, main.new) == (1, upstream_fake.git(upstream, "rev-parse", "main"))
    bundle = upstream.parent / "upstream.bundle"
    upstream_fake.git(upstream, "bundle", "create", "-q", str(bundle), "main")
    assert sync_branches(synced, str(bundle), ["main"]).branches[0].commits == 0


def test_a_shallow_server_is_one_line(synced, upstream, served):
    upstream_fake.git(
        upstream.parent, "clone", "-q", "--depth=2", f"file://{upstream}", str(upstream.parent / "half")
    )
    with pytest.raises(Fa4AsvError, match="half is a shallow clone"):
        sync_branches(synced, f"{served}half")
    with pytest.raises(Fa4AsvError, match="nosuch cannot be read"):
        sync_branches(synced, f"{served}nosuch")


def test_without_git_it_is_said(synced, upstream, monkeypatch):
    monkeypatch.setenv("PATH", "/nosuch")
    with pytest.raises(Fa4AsvError, match="git is not installed"):
        remote.find_remote(str(upstream))
