"""Where branches may come from: clones and URLs, and one clear line for each that cannot serve."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.history import remote
from fa4_asv.history.bounded_git import GitLimits, call_bounded
from fa4_asv.history.branches import sync_branches
from fa4_asv.history.repository import git, resolve
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Policy
from tests.support import upstream_fake
from tests.support.index_fake import FakeIndex
from tests.support.upstream_fake import commit, lose_file, refs, run_sync


@pytest.mark.fault(
    kind="a source that is no repository",
    inputs="`--upload-pack=`, `ext::`, `fd::`, `http:`, absent folders, a folder without git",
    happens="one line; nothing is fetched",
)
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("--upload-pack=touch owned", "looks like an option"),
        ("ext::sh -c touch% owned", "asks for a remote helper"),
        ("fd::17", "asks for a remote helper"),
        ("http://example.invalid/x", "is not a path and none of https, ssh, git, file"),
        ("/nosuch/flash-attention", "source '/nosuch/flash-attention' does not exist"),
        ("file:///nosuch", "does not exist"),
        (".", "is not a git repository"),
    ],
)
def test_sources_that_cannot_serve_are_one_line(synced, capsys, source, message):
    before = refs(synced)
    run_sync(synced, source, code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fa4-asv: ")
    assert message in line
    assert refs(synced) == before
    assert not (synced.root / "owned").exists()


@pytest.mark.fault(
    kind="an address with a password",
    inputs="a source that cannot be reached",
    happens="one line, without the password",
)
def test_a_password_is_not_repeated(synced):
    with pytest.raises(Fa4AsvError) as told:
        sync_branches(synced, "git://someone:secret@127.0.0.1:9/x")
    assert "secret" not in str(told.value)
    assert "git://127.0.0.1:9/x cannot be read" in str(told.value)


@pytest.mark.fault(
    kind="a clone that lacks objects",
    inputs="shallow and partial clones",
    happens="one line; nothing is fetched",
)
def test_half_clones_are_one_line(synced, upstream, tmp_path):
    before = refs(synced)
    upstream_fake.git(upstream, "config", "uploadpack.allowFilter", "true")
    for arguments, reason in (
        (["--depth=2"], "is a shallow clone, and ranges need the whole history; run `git fetch --unshallow`"),
        (["--filter=blob:none"], "is a partial clone .--filter.: 3 objects of flash_attn/cute are missing"),
        (["--filter=tree:0"], "is a partial clone .--filter."),
    ):
        half = tmp_path / arguments[0]
        upstream_fake.git(tmp_path, "clone", "-q", "--bare", *arguments, f"file://{upstream}", str(half))
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


@pytest.mark.fault(
    kind="a source with hooks and submodules",
    inputs="four hooks, fsmonitor, a submodule with `ext::`",
    happens="none runs",
)
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


@pytest.mark.fault(
    kind="a clone's `.git/config` names programs",
    inputs="filters, hooks, ssh command, helpers, fsmonitor, a partial clone",
    happens="none runs, nothing is fetched",
)
def test_no_program_of_a_clones_configuration_runs(synced, upstream, tmp_path):
    """Filters, a ssh command that a lazy fetch would start, helpers of every kind: git in a clone obeys its .git/config."""
    owned = tmp_path / "owned"
    (upstream / ".gitattributes").write_text("*.py filter=evil diff=evil\n")
    path = upstream / "flash_attn" / "cute" / "interface.py"
    path.write_text("VERSION = 'dirty'\n")
    run = f"touch {owned}"
    for name in ("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv"):
        upstream_fake.git(upstream, "config", name, run)
    for name in (
        "core.sshCommand",
        "core.gitProxy",
        "core.pager",
        "core.editor",
        "core.alternateRefsCommand",
    ):
        upstream_fake.git(upstream, "config", name, run)
    for name in ("diff.external", "gpg.program", "credential.helper", "uploadpack.packObjectsHook"):
        upstream_fake.git(upstream, "config", name, f"!{run}" if name.startswith("cred") else run)
    for name, value in (
        ("filter.evil.required", "true"),
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.url", "ssh://127.0.0.1/x"),
        ("remote.origin.promisor", "true"),
        ("url.ext::touch /x .insteadOf", "https://"),
        ("protocol.allow", "always"),
        ("alias.status", f"!{run}"),
    ):
        upstream_fake.git(upstream, "config", name, value)
    owned.unlink(missing_ok=True)
    done = sync_branches(synced, str(upstream))
    assert (done.branches[0].commits, done.dirty) == (5, True)
    lose_file(upstream, "flash_attn/cute/interface.py")
    with pytest.raises(Fa4AsvError, match="is a partial clone|is not whole"):
        sync_branches(synced, str(upstream), ["main:again"])
    tip = upstream_fake.git(upstream, "rev-parse", "main")
    (upstream / ".git" / "objects" / tip[:2] / tip[2:]).unlink()
    with pytest.raises(Fa4AsvError, match="has no branch 'main~1'"):
        sync_branches(synced, str(upstream), ["main~1:before"])
    assert not owned.exists()


def test_a_filter_that_cannot_be_switched_off_is_not_asked(synced, upstream, tmp_path):
    owned = tmp_path / "owned"
    (upstream / ".gitattributes").write_text("*.py filter=a=b\n")
    (upstream / "flash_attn" / "cute" / "interface.py").write_text("VERSION = 'dirty'\n")
    upstream_fake.git(upstream, "config", "filter.a=b.clean", f"touch {owned}")
    assert sync_branches(synced, str(upstream)).dirty is False
    assert not owned.exists()


@pytest.mark.fault(
    kind="a rewritten address",
    inputs="`url.ext::.insteadOf`",
    happens="one line: remote helpers are not allowed",
)
def test_a_rewritten_address_starts_no_helper(synced, tmp_path, monkeypatch):
    """`insteadOf` is the person's own, and still no remote helper may come of it."""
    owned = tmp_path / "owned"
    (tmp_path / "gitconfig").write_text(
        f'[url "ext::touch {owned} "]\n\tinsteadOf = https://evil.invalid/\n[protocol]\n\tallow = always\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    with pytest.raises(Fa4AsvError, match="transport 'ext' not allowed"):
        sync_branches(synced, "https://evil.invalid/x")
    assert not owned.exists()


# What other tools read of a folder they work in. None of it is obeyed, all of it is laid out as it was committed.
FOREIGN = {
    ".gitattributes": "*.py export-ignore\n* text eol=crlf ident working-tree-encoding=UTF-16 export-subst filter=evil\n",
    "interface.py": "VERSION = 'evil'\n# $Id$ $Format:%H$\n",
    "asv.conf.json": '{"version": 1, "repo": "/nowhere", "plugins": ["evil"]}\n',
    "uv.toml": 'index-url = "http://127.0.0.1:9"\n',
    "pip.conf": "[global]\nindex-url = http://127.0.0.1:9\n",
    "sitecustomize.py": "raise SystemExit('evil')\n",
    "evil.pth": "import evil\n",
    ".env": "UV_DEFAULT_INDEX=http://127.0.0.1:9\n",
    ".python-version": "2.7\n",
    "setup.py": "raise SystemExit('evil')\n",
    "setup.cfg": "[easy_install]\nindex_url = http://127.0.0.1:9\n",
    ".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = ext::touch /x\n',
    ".config/git/attributes": "* export-ignore\n",
}


@pytest.mark.fault(
    kind="a commit's files for git, asv, pip, uv, Python",
    inputs="13 files, `.gitattributes` among them",
    happens="laid out byte by byte, obeyed by nobody",
)
def test_a_commits_own_files_for_other_tools_are_laid_out_and_not_obeyed(synced, upstream, monkeypatch):
    cute = upstream / "flash_attn" / "cute"
    for name, text in FOREIGN.items():
        (cute / name).parent.mkdir(parents=True, exist_ok=True)
        (cute / name).write_text(text)
    (cute / "link.py").symlink_to("/etc/passwd")
    (upstream / "asv.conf.json").write_text(FOREIGN["asv.conf.json"])
    quiet = ["-c", "core.attributesFile=/dev/null"]
    for path in (*FOREIGN, "link.py", "pyproject.toml"):
        content = b"/etc/passwd" if path == "link.py" else (cute / path).read_bytes()
        blob = upstream_fake.git(upstream, "hash-object", "-w", "--no-filters", "--stdin", stdin=content)
        mode = "120000" if path == "link.py" else "100644"
        upstream_fake.git(
            upstream, "update-index", "--add", "--cacheinfo", f"{mode},{blob},flash_attn/cute/{path}"
        )
    upstream_fake.git(upstream, *quiet, "commit", "-q", "-m", "evil", day=6)
    sync_branches(synced, str(upstream))
    source = lay_source(synced, resolve(synced, "main"))
    laid = {
        path.relative_to(source.folder / "flash_attn" / "cute").as_posix(): path.read_text()
        for path in (source.folder / "flash_attn" / "cute").rglob("*")
        if path.is_file()
    }
    assert laid == {**FOREIGN, "pyproject.toml": upstream_fake.PYPROJECT}
    assert sorted(path.name for path in source.folder.iterdir()) == [
        "flash_attn",
        f"flash_attn_4-0+g{source.commit[:10]}.dist-info",
    ], "what stands beside the package is ours: no sitecustomize, no .pth, no entry point"
    with FakeIndex() as index:
        index.add("nvidia-cutlass-dsl", "4.6.2")
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        monkeypatch.setenv("UV_CACHE_DIR", str(synced.root / "cache"))
        index_fake_free(monkeypatch)
        lock = source.lock(synced, "cu12", Policy("day"))
    assert lock.packages == {"nvidia-cutlass-dsl": "4.6.2"}
    assert Project.find(source.folder).root == synced.root


def index_fake_free(monkeypatch) -> None:
    for name in ("UV_FIND_LINKS", "UV_INDEX", "UV_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.fault(
    kind="a tree that leads out of its folder",
    inputs="`..`, `.git`",
    happens="one line; nothing is laid out",
)
@pytest.mark.parametrize("name", ["..", ".git"])
def test_a_tree_that_leads_out_of_its_folder_is_not_laid_out(synced, name):
    def write(kind: str, text: bytes) -> bytes:
        return git(
            synced.repository, "hash-object", "-t", kind, "-w", "--literally", "--stdin", stdin=text
        ).strip()

    blob = bytes.fromhex(write("blob", b"x").decode())
    inner = bytes.fromhex(write("tree", b"100644 evil.py\0" + blob).decode())
    for folder in (name, "cute", "flash_attn"):
        inner = bytes.fromhex(write("tree", f"40000 {folder}\0".encode() + inner).decode())
    person = b"A <a@b> 1780000000 +0000"
    made = write(
        "commit", b"tree %s\nauthor %s\ncommitter %s\n\nevil\n" % (inner.hex().encode(), person, person)
    )
    with pytest.raises(
        Fa4AsvError, match=f"holds a file named '{name}/evil.py'; its sources are not laid out"
    ):
        lay_source(synced, made.decode())
    assert not list(synced.root.parent.rglob("evil.py"))


@pytest.fixture
def served(upstream):
    """The upstream behind git's own daemon; the URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [
        "git",
        "daemon",
        "--reuseaddr",
        "--export-all",
        f"--port={port}",
        f"--base-path={upstream.parent}",
    ]
    daemon = subprocess.Popen([*arguments, "--listen=127.0.0.1"], start_new_session=True)
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


# What is told of it: a git that asks a server which never ends; $2 is the repository that is fetched into.
ENDLESS = {
    "it sends more than 100,000": "while :; do echo \"$(printf '%040d' 1)\trefs/heads/x\"; done",
    "it sends more than 3,000,000": 'while :; do head -c 100000 /dev/zero >> "$2/objects/pack/tmp_pack"; done',
    "nothing came for": "sleep 60",
    "did not end within": "while :; do echo; sleep 0.05; done",
}


@pytest.mark.fault(
    kind="a git server without end",
    inputs="refs without end, a pack without end, silence, a byte now and then",
    happens="one line; git is ended: 64 MiB of names, 4 GiB of objects, 300 s without a byte, one hour; "
    "over https less than 2 KiB per second for 60 s",
)
@pytest.mark.parametrize("kind", ENDLESS)
def test_a_server_without_end_is_given_up(tmp_path, kind):
    pack = tmp_path / "x" / "objects" / "pack"
    pack.mkdir(parents=True)
    limits = GitLimits(size=3_000_000, output=100_000, seconds=1.5, silence=0.7)
    command = ["sh", "-c", ENDLESS[kind], "git", "--git-dir", str(tmp_path / "x")]
    with pytest.raises(Fa4AsvError, match=kind):
        call_bounded(command, dict(os.environ), tmp_path / "x", limits)


def test_git_is_given_its_own_floor_and_the_folder_that_is_watched(synced, upstream, served, monkeypatch):
    seen = []

    def watched(command, environment, into=None):
        seen.append((command, into))
        return call_bounded(command, environment, into)

    monkeypatch.setattr("fa4_asv.history.remote.call_bounded", watched)
    sync_branches(synced, f"{served}flash-attention")
    assert all("http.lowSpeedLimit=2048" in command for command, _ in seen)
    assert [into is not None for command, into in seen if "fetch" in command] == [True]


def test_without_git_it_is_said(synced, upstream, monkeypatch):
    monkeypatch.setenv("PATH", "/nosuch")
    with pytest.raises(Fa4AsvError, match="git is not installed"):
        remote.find_remote(str(upstream))
