"""The local git repository that asv walks, and questions to it."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import only_one
from fa4_asv.base.project import Project

CUTE = "flash_attn/cute"
BRANCH = "refs/heads/releases"
TAG = "fa4-v"  # and the version: the tag of a release
_BUSY = "another `fa4-asv history sync` is running here; wait for it"
NO_HISTORY = "no FA4 history here yet; run `fa4-asv history sync` first"


def git(folder: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Output of a git command in `folder`. Raises Fa4AsvError with git's last line.

    A person's own configuration is left out: hooks, signing or another hash would change the history.
    """
    # Inside a git hook GIT_INDEX_FILE, GIT_OBJECT_DIRECTORY and others point at the hook's repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_DIR": str(folder),
    }
    # The history is ours even where another user made the folder (a shared machine, a container).
    command = ["git", "-c", "safe.directory=*", "-c", f"core.attributesFile={os.devnull}", *arguments]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, env=environment)
    except FileNotFoundError:
        raise Fa4AsvError("git is not installed; the history is a git repository") from None
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise Fa4AsvError(f"git {arguments[0]} failed: {words[-1] if words else done.returncode}")
    return done.stdout


def history_lock(project: Project) -> AbstractContextManager[None]:
    """Held by whoever changes the history. Raises Fa4AsvError where another one does."""
    project.work.mkdir(parents=True, exist_ok=True)
    return only_one(project.work / "history.lock", _BUSY)


def repair(project: Project) -> None:
    """Remove what a killed sync left: lock files and packs it did not finish; a folder that is no repository."""
    git(project.work, "--version")  # no git at all must not look like a damaged repository
    for left in project.work.glob(".history.*"):
        shutil.rmtree(left, ignore_errors=True)
    if not project.repository.is_dir():
        return
    try:
        git(project.repository, "rev-parse", "--is-bare-repository")
        git(project.repository, "for-each-ref", "--count=1")
    except Fa4AsvError:
        shutil.rmtree(project.repository)
        return
    for pattern in ("**/*.lock", "objects/pack/tmp_*", "objects/??/tmp_obj_*", "fast_import_crash_*"):
        for left in project.repository.glob(pattern):
            left.unlink()


def create(project: Project) -> None:
    """An empty history, whole or absent."""
    aside = scratch_repository(project)
    try:
        git(aside, "symbolic-ref", "HEAD", BRANCH)
        aside.rename(project.repository)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def scratch_repository(project: Project) -> Path:
    """An empty bare repository beside the history; the caller removes it, or the next sync does."""
    aside = Path(tempfile.mkdtemp(dir=project.work, prefix=".history."))
    git(aside, "init", "--bare", "--quiet", "--object-format=sha1", "--template=")
    return aside


def move_refs(project: Project, lines: Sequence[str]) -> None:
    """All of `lines` ("update REF HASH", "delete REF") in one transaction, synced to the disk."""
    words = "\n".join(["start", *lines, "prepare", "commit", ""])
    git(project.repository, "update-ref", "--stdin", stdin=words.encode())
    handle = os.open(project.repository, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def branches(project: Project) -> dict[str, str]:
    """Branches beside the releases, with the hashes of their tips."""
    found = git(
        project.repository, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads"
    ).decode()
    pairs = (line.split(" ", 1) for line in found.splitlines())
    return {name.removeprefix("refs/heads/"): tip for tip, name in pairs if name != BRANCH}


def has_history(project: Project) -> bool:
    """Whether a sync completed here: a killed first one leaves a repository without the branch."""
    if not (project.repository / "HEAD").is_file():
        return False
    try:
        git(project.repository, "rev-parse", "--verify", "--quiet", f"{BRANCH}^{{commit}}")
    except Fa4AsvError:
        return False
    return True


def resolve(project: Project, ref: str) -> str:
    """The full hash of a release (its version or tag), branch or commit. Raises Fa4AsvError for an unknown one."""
    if not has_history(project):
        raise Fa4AsvError(NO_HISTORY)
    for name in (ref, TAG + ref):
        words = ("--verify", "--end-of-options", f"{name}^{{commit}}")
        try:
            return git(project.repository, "rev-parse", *words).decode().strip()
        except Fa4AsvError:
            continue
    raise Fa4AsvError(
        f"unknown release or commit {ref!r}; `fa4-asv history list` shows what there is, "
        "`fa4-asv history sync --source` brings upstream's branches"
    )


def in_hashes(project: Project, words: str) -> str:
    """A range (a..b, a...b, a^! or a alone) with hashes for its names: git knows no release by its version.

    Raises Fa4AsvError for an unknown name.
    """
    names = words.removesuffix("^!")
    parts = re.split(r"(\.\.\.?)", names)
    hashes = "".join(resolve(project, part) if part.strip(".") else part for part in parts)
    return hashes + words[len(names) :]


def tree_of(project: Project, commit: str) -> str:
    """The git tree of flash_attn/cute: commits with the same tree are the same FA4.

    Raises Fa4AsvError for an unknown commit, and for one without FA4.
    """
    try:
        return git(project.repository, "rev-parse", "--verify", f"{commit}:{CUTE}").decode().strip()
    except Fa4AsvError:
        resolve(project, commit)
        raise Fa4AsvError(f"commit {commit[:12]} has no {CUTE}: it is older than FA4") from None


def commit_date(project: Project, commit: str) -> datetime:
    """Committer date, UTC. A release's is the second of its upload."""
    seconds = git(project.repository, "show", "-s", "--format=%ct", commit).decode().strip()
    return datetime.fromtimestamp(int(seconds), timezone.utc)


def read_file(project: Project, commit: str, path: str) -> str:
    """Text (UTF-8) of `path`, relative to the commit's root. Raises Fa4AsvError when it is not there."""
    found = resolve(project, commit)
    try:
        return git(project.repository, "cat-file", "blob", f"{found}:{path}").decode()
    except (Fa4AsvError, UnicodeDecodeError):
        raise Fa4AsvError(f"commit {found[:12]} has no text file {path}") from None


def changed_files(project: Project, base: str, head: str) -> list[str]:
    """Paths below flash_attn/cute, from the repository's root, that differ between two commits.

    What the build of an sdist leaves there (PKG-INFO, setup.cfg) is no source, and left out.
    """
    trees = [tree_of(project, commit) for commit in (base, head)]
    names = git(project.repository, "diff", "--name-only", "-z", "--no-renames", *trees).decode(
        errors="replace"
    )
    return [f"{CUTE}/{name}" for name in names.split("\0") if name not in ("", "PKG-INFO", "setup.cfg")]


def archive_cute(project: Project, commit: str, folder: Path) -> None:
    """Lay flash_attn/cute of `commit` as `folder`; made aside and renamed, left alone if it exists.

    Raises Fa4AsvError, and leaves nothing, when the commit has no FA4 or the folder cannot be written.
    """
    if folder.is_dir():
        return
    tar = git(project.repository, "archive", "--format=tar", tree_of(project, commit))
    aside = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        _unpack(tar, aside)
        aside.chmod(0o755)
        aside.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster, and its folder is the same
            reason = error.strerror or str(error)
            raise Fa4AsvError(f"cannot lay the sources of {commit[:12]} as {folder}: {reason}") from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _unpack(tar: bytes, folder: Path) -> None:
    """Plain files of git's tar below `folder`."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive.getmembers():
            target = (folder / member.name).resolve()
            if not target.is_relative_to(folder.resolve()) or not member.isfile():
                continue  # upstream's links lead out of the sub-tree and are no Python
            target.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            target.write_bytes(content.read() if content else b"")
