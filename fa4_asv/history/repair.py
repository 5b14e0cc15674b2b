"""A history that a kill or a disk damaged: what is proven damaged is replaced, once its successor stands.

Git fails for other reasons, too: no memory, too many open files, an old version, another's permissions. None of them
proves anything; then the history stays as it is, and what git said is told.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import read_bytes
from fa4_asv.base.project import Project
from fa4_asv.history.objects import borrow, copy_objects, missing_objects
from fa4_asv.history.repository import BRANCH, GitFailed, git, move_refs, scratch_repository

# The refs of releases, and those of a sync that was killed. Upstream's branches can be synced again.
OURS = ("--tags", "--glob=refs/fa4-asv")
_HEADS = "refs/heads/"
# What git says (in English, see `git`) of a file that is not what it should be.
_DAMAGED = re.compile(
    r"missing (?:blob|tree|commit|object)|bad (?:tree |commit |tag )?object|bad sha1 file|not a valid object|valid object!"
    r"|is corrupt|corrupt(?:ed)? (?:loose|pack|object|tree)|is empty|garbage at end|inflate|file too short|unable to unpack"
    r"|unexpected line in|unterminated line in|unable to (?:read|parse) (?:tree|sha1|object|commit)|could not (?:read|parse) "
    r"|does not match index|bad signature|is too small|checksum mismatch|bad config line|not a git repository|broken",
    re.IGNORECASE,
)
# What it says, perhaps beside that, when the machine and not the file is at fault.
_REFUSED = re.compile(
    r"memory|cannot allocate|malloc|mmap|too many open files|no space|denied|not permitted|input/output error"
    r"|temporarily unavailable|create thread|cannot fork|unknown (?:option|switch)|usage:|dubious|timed out|stale",
    re.IGNORECASE,
)


def repair(project: Project) -> None:
    """Remove what a killed sync left: lock files, packs it did not finish, a replacement that it did not complete."""
    git(project.work, "--version")  # without git nothing can be told
    for left in project.work.glob(".history.*"):
        shutil.rmtree(left, ignore_errors=True)
    old = _replaced(project)
    if os.path.lexists(old):
        if os.path.lexists(project.repository):
            _remove(old)
        else:  # killed between the two renames
            old.rename(project.repository)
    for pattern in ("**/*.lock", "objects/pack/tmp_*", "objects/??/tmp_obj_*", "fast_import_crash_*"):
        for left in project.repository.glob(pattern):
            left.unlink()


def damage_of(repository: Path) -> str:
    """What proves that a history is damaged, "" where it is whole as far as the releases reach.

    Raises Fa4AsvError where git fails for another reason, or a file may not be read.
    """
    for name, there in (("HEAD", Path.is_file), ("objects", Path.is_dir), ("refs", Path.is_dir)):
        if not there(repository / name):
            _refuse_unreadable(repository)
            return f"it has no {name}"
    try:
        git(repository, "rev-parse", "--is-bare-repository")
        git(repository, "for-each-ref", "--count=1")
        git(repository, "rev-list", "--quiet", "--objects", *OURS)
    except GitFailed as error:
        return _proof(repository, error)
    return ""


def _proof(repository: Path, error: GitFailed) -> str:
    """What git said, where that proves damage. Raises Fa4AsvError where it does not."""
    _refuse_unreadable(repository)
    proven = error.code in (1, 128) and _DAMAGED.search(error.message) and not _REFUSED.search(error.message)
    if not proven:
        raise Fa4AsvError(
            f"{error}; that does not prove that {repository} is damaged, so nothing was changed: try again, or "
            "remove that folder yourself (its releases come back with `fa4-asv history sync`, its branches with --source)"
        ) from None
    return str(error)


def _refuse_unreadable(repository: Path) -> None:
    """Raises Fa4AsvError for a file that this user may not read: to git it looks like one that is missing."""
    for folder, folders, files in os.walk(repository, onerror=_raise):
        for name in (*folders, *files):
            if not os.access(Path(folder, name), os.R_OK):
                raise Fa4AsvError(
                    f"{Path(folder, name)} may not be read; make it readable, nothing was changed"
                )


def _raise(error: OSError) -> None:
    if not isinstance(error, NotADirectoryError):
        raise Fa4AsvError(
            f"{error.filename} may not be read: {error.strerror}; nothing was changed"
        ) from None


def rescue_branches(project: Project, successor: Path) -> list[str]:
    """Copy upstream's branches from the damaged history; the names of those that are not whole in it.

    Raises Fa4AsvError where git fails for another reason than damage.
    """
    lost: list[str] = []
    whole: dict[str, str] = {}
    lender = scratch_repository(project)
    try:
        borrow(lender, project.repository, successor)
        for name, tip in sorted(_tips(project.repository).items()):
            try:
                if missing_objects(lender, [tip]):
                    lost.append(name)
                    continue
                copy_objects(lender, successor, [tip], list(whole.values()))
                whole[name] = tip
            except GitFailed as error:
                _proof(project.repository, error)
                lost.append(name)
    finally:
        shutil.rmtree(lender, ignore_errors=True)
    move_refs(successor, [f"update {_HEADS}{name} {tip}" for name, tip in whole.items()])
    return lost


def _tips(repository: Path) -> dict[str, str]:
    """Branches and their tips, read without git: one bad line must not hide the others."""
    lines = []
    packed = repository / "packed-refs"
    if packed.is_file():
        lines += _text(packed).splitlines()
    heads = repository / "refs" / "heads"
    for path in sorted(heads.rglob("*")):
        if path.is_file():
            name = path.relative_to(heads).as_posix()
            lines.append(f"{_text(path).strip()} {_HEADS}{name}")
    matches = (re.fullmatch(rf"([0-9a-f]{{40}}) {_HEADS}(\S+)", line) for line in lines)
    return {match[2]: match[1] for match in matches if match and _HEADS + match[2] != BRANCH}


def _text(path: Path) -> str:
    return read_bytes(path).decode("utf-8", errors="replace")


def put_in_place(project: Project, successor: Path) -> None:
    """Make a whole repository the history, and only then remove the damaged one."""
    old = _replaced(project)
    project.repository.rename(old)
    successor.rename(project.repository)
    _remove(old)


def _replaced(project: Project) -> Path:
    return project.repository.with_name(f"{project.repository.name}.replaced")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
