"""The local git repository that asv walks, and questions to it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from fa4_asv.errors import Fa4AsvError
from fa4_asv.project import Project

CUTE = "flash_attn/cute"
NO_HISTORY = "no FA4 history here yet; run `fa4-asv history sync` first"


def git(folder: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Output of a git command in `folder`. Raises Fa4AsvError with git's last line.

    A person's own configuration is left out: hooks, signing or another hash would change the history.
    """
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_DIR": str(folder),
    }
    # The history is ours even where another user made the folder (a shared machine, a container).
    command = ["git", "-c", "safe.directory=*", *arguments]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, env=environment)
    except FileNotFoundError:
        raise Fa4AsvError("git is not installed; the history is a git repository") from None
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise Fa4AsvError(f"git {arguments[0]} failed: {words[-1] if words else done.returncode}")
    return done.stdout


def has_history(project: Project) -> bool:
    """Whether a sync completed here."""
    return (project.repository / "HEAD").is_file()


def resolve(project: Project, ref: str) -> str:
    """The full hash of a tag, branch or commit. Raises Fa4AsvError for an unknown one."""
    if not has_history(project):
        raise Fa4AsvError(NO_HISTORY)
    try:
        found = git(project.repository, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")
    except Fa4AsvError:
        raise Fa4AsvError(
            f"unknown release or commit {ref!r}; `fa4-asv history list` shows what there is"
        ) from None
    return found.decode().strip()


def tree_of(project: Project, commit: str) -> str:
    """The git tree of flash_attn/cute: commits with the same tree are the same FA4."""
    try:
        return git(project.repository, "rev-parse", "--verify", f"{commit}:{CUTE}").decode().strip()
    except Fa4AsvError:
        raise Fa4AsvError(f"commit {commit[:12]} has no {CUTE}: it is older than FA4") from None


def commit_date(project: Project, commit: str) -> datetime:
    """Committer date, UTC. A release's is the second of its upload."""
    seconds = git(project.repository, "show", "-s", "--format=%ct", commit).decode().strip()
    return datetime.fromtimestamp(int(seconds), timezone.utc)


def archive_cute(project: Project, commit: str, folder: Path) -> None:
    """Lay flash_attn/cute of `commit` as `folder`; made aside and renamed, left alone if it exists."""
    if folder.is_dir():
        return
    tar = git(project.repository, "archive", "--format=tar", f"{commit}:{CUTE}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            for member in archive.getmembers():
                target = (aside / member.name).resolve()
                if not target.is_relative_to(aside.resolve()) or not (member.isfile() or member.isdir()):
                    continue  # upstream's links lead out of the sub-tree and are no Python
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                target.write_bytes(content.read() if content else b"")
        aside.chmod(0o755)
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process was faster: its folder is the same
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
