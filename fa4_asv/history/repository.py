"""The local git repository that asv walks, and questions to it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import only_one
from fa4_asv.base.project import Project

CUTE = "flash_attn/cute"
BRANCH = "refs/heads/releases"
TAG = "fa4-v"  # and the version: the tag of a release
_BUSY = "another `fa4-asv history sync` is running here; wait for it"
NO_HISTORY = "no FA4 history here yet; run `fa4-asv history sync` first"


# FA4 of November 2026 has 64 files of 3 MB in all.
MOST_FILES, MOST_BYTES = 2000, 64 << 20
_LARGEST_FILE = 16 << 20


class GitFailed(Fa4AsvError):
    """Git ended with `code` (negative: by a signal); `message` are all that it said."""

    def __init__(self, command: str, code: int, message: str) -> None:
        lines = message.strip().splitlines()
        super().__init__(f"git {command} failed: {one_line(lines[-1]) if lines else code}")
        self.code, self.message = code, message


def git(folder: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Output of a git command in `folder`. Raises GitFailed, an Fa4AsvError with git's last line.

    A person's own configuration is left out: hooks, signing or another hash would change the history. Nothing is
    fetched and no hook is run, whatever the repository's own configuration says.
    """
    # Inside a git hook GIT_INDEX_FILE, GIT_OBJECT_DIRECTORY and others point at the hook's repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_DIR": str(folder),
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "LC_ALL": "C",
    }
    # The history is ours even where another user made the folder (a shared machine, a container).
    nowhere = (f"core.attributesFile={os.devnull}", f"core.hooksPath={os.devnull}")
    settings = ("safe.directory=*", "core.fsmonitor=false", *nowhere)
    command = ["git", *(word for setting in settings for word in ("-c", setting)), *arguments]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, env=environment)
    except FileNotFoundError:
        raise Fa4AsvError("git is not installed; the history is a git repository") from None
    if done.returncode != 0:
        raise GitFailed(arguments[0], done.returncode, done.stderr.decode(errors="replace"))
    return done.stdout


def history_lock(project: Project) -> AbstractContextManager[None]:
    """Held by whoever changes the history. Raises Fa4AsvError where another one does."""
    project.work.mkdir(parents=True, exist_ok=True)
    return only_one(project.work / "history.lock", _BUSY)


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


def move_refs(repository: Path, lines: Sequence[str]) -> None:
    """All of `lines` ("update REF HASH", "delete REF") in one transaction, synced to the disk."""
    message = "\n".join(["start", *lines, "prepare", "commit", ""])
    git(repository, "update-ref", "--stdin", stdin=message.encode())
    handle = os.open(repository, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def branches(project: Project) -> dict[str, str]:
    """Branches beside the releases, with the hashes of their tips."""
    result = git(
        project.repository, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads"
    ).decode()
    pairs = (line.split(" ", 1) for line in result.splitlines())
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
        fields = ("--verify", "--end-of-options", f"{name}^{{commit}}")
        try:
            return git(project.repository, "rev-parse", *fields).decode().strip()
        except Fa4AsvError:
            continue
    raise Fa4AsvError(
        f"unknown release or commit {ref!r}; `fa4-asv history list` shows what there is, "
        "`fa4-asv history sync --source` brings upstream's branches"
    )


def in_hashes(project: Project, text: str) -> str:
    """A range (a..b, a...b, a^! or a alone) with hashes for its names: git knows no release by its version.

    Raises Fa4AsvError for an unknown name.
    """
    commits = text.removesuffix("^!")
    parts = re.split(r"(\.\.\.?)", commits)
    hashes = "".join(resolve(project, part) if part.strip(".") else part for part in parts)
    return hashes + text[len(commits) :]


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


def commit_dates(project: Project) -> dict[str, datetime]:
    """The same of every commit that a branch or tag leads to, in one call of git."""
    listing = git(project.repository, "log", "--all", "--format=%H %ct").decode()
    pairs = (line.split() for line in listing.splitlines())
    return {commit: datetime.fromtimestamp(int(seconds), timezone.utc) for commit, seconds in pairs}


def read_file(project: Project, commit: str, path: str) -> str:
    """Text (UTF-8) of `path`, relative to the commit's root. Raises Fa4AsvError when it is not there."""
    result = resolve(project, commit)
    try:
        if int(git(project.repository, "cat-file", "-s", f"{result}:{path}")) > _LARGEST_FILE:
            raise Fa4AsvError("too large")
        return git(project.repository, "cat-file", "blob", f"{result}:{path}").decode()
    except (Fa4AsvError, UnicodeDecodeError):
        raise Fa4AsvError(f"commit {result[:12]} has no text file {path}") from None


def changed_files(project: Project, base: str, head: str) -> list[str]:
    """Paths below flash_attn/cute, from the repository's root, that differ between two commits.

    What the build of an sdist leaves there (PKG-INFO, setup.cfg) is not a source, and left out.
    """
    trees = [tree_of(project, commit) for commit in (base, head)]
    listing = git(project.repository, "diff", "--name-only", "-z", "--no-renames", *trees).decode(
        errors="replace"
    )
    return [f"{CUTE}/{name}" for name in listing.split("\0") if name not in ("", "PKG-INFO", "setup.cfg")]


def archive_cute(project: Project, commit: str, folder: Path) -> None:
    """Lay flash_attn/cute of `commit` as `folder`; made aside and renamed, left alone if it exists.

    Raises Fa4AsvError, and leaves nothing, when the commit has no FA4 or the folder cannot be written.
    """
    if folder.is_dir():
        return
    files = _files_of(project, commit)
    aside = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        for name, content in files:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (aside / name).write_bytes(content)
        aside.chmod(0o755)
        aside.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster, and its folder is the same
            reason = error.strerror or str(error)
            raise Fa4AsvError(f"cannot lay the sources of {commit[:12]} as {folder}: {reason}") from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _files_of(project: Project, commit: str) -> list[tuple[str, bytes]]:
    """(path below flash_attn/cute, content) of a commit's plain files, byte by byte as they were committed.

    `git archive` would obey a commit's .gitattributes: leave files out, or write them otherwise. Links and submodules
    are left out: they lead out of the sub-tree and are no Python. Raises Fa4AsvError for what is not FA4.
    """
    listing = git(project.repository, "ls-tree", "-r", "-z", "-l", tree_of(project, commit))
    names: list[str] = []
    blobs: list[str] = []
    size = 0
    for line in os.fsdecode(listing).split("\0")[:-1]:
        head, _, name = line.partition("\t")
        mode, _, blob, length = head.split()
        if mode not in ("100644", "100755"):
            continue
        if any(part in ("", ".", "..") or part.lower() == ".git" for part in name.split("/")):
            raise Fa4AsvError(
                f"commit {commit[:12]} holds a file named {name!a}; its sources are not laid out"
            )
        names.append(name)
        blobs.append(blob)
        size += int(length)
        if len(names) > MOST_FILES or size > MOST_BYTES:
            raise Fa4AsvError(
                f"{CUTE} of commit {commit[:12]} has more than {MOST_FILES} files or {MOST_BYTES >> 20} MiB; "
                "FA4 has 64 of 3 MB"
            )
    return list(zip(names, _contents(project.repository, blobs), strict=True))


def _contents(repository: Path, blobs: Sequence[str]) -> list[bytes]:
    """The content of each blob, in one call of git."""
    answer = git(repository, "cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in blobs).encode())
    entries, start = [], 0
    for _ in blobs:
        end = answer.index(b"\n", start)
        length = int(answer[start:end].split()[2])
        entries.append(answer[end + 1 : end + 1 + length])
        start = end + 1 + length + 1
    return entries
