"""A site is built beside the old one and put in its place when it is whole: a failure or a kill leaves the old site."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import only_one
from fa4_asv.base.project import Project

_BUSY = "another publish is running in this checkout; wait for it"


@contextmanager
def beside_the_site(project: Project, target: Path) -> Iterator[Path]:
    """A new folder to build the site of `target` in, removed at the end; `swap` puts the site in place before that.

    One publish at a time; what killed ones left is removed first. Raises Fa4AsvError.
    """
    if target != project.html.resolve():
        _refuse_foreign(project, target)
    folder = _folder(project)
    with only_one(folder / ".lock", busy=_BUSY):
        _clear(folder)
        recover(target)
        aside = Path(tempfile.mkdtemp(dir=folder))
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _folder(project: Project) -> Path:
    folder = project.work / "publish"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Fa4AsvError(f"cannot make {folder}: {error.strerror}") from None
    return folder


def _clear(folder: Path) -> None:
    """Remove what killed publishes left; called under the lock."""
    for left in folder.iterdir():
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def _refuse_foreign(project: Project, target: Path) -> None:
    """The swap removes what stood at `target`: only an old site may be there. Raises Fa4AsvError."""
    if project.root.is_relative_to(target):
        raise Fa4AsvError(f"{target} holds this checkout; choose an empty folder for the site")
    if target.exists() and not target.is_dir():
        raise Fa4AsvError(f"{target} is not a folder; choose another one for the site")
    others = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if others and not {"asv.js", "index.json"} <= others:
        raise Fa4AsvError(f"{target} holds {min(others)} but no site of asv; choose an empty folder")


def swap(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of `target`: a reader sees the old site or the new one."""
    aside, old = _beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(new, aside)  # onto the target's file system
        aside.chmod(0o755)
        if not target.exists():
            aside.rename(target)
        elif not _exchange(aside, target):
            target.rename(old)  # killed from here on, `recover` of the next publish puts it back
            aside.rename(target)
    except OSError as error:
        raise Fa4AsvError(f"cannot put the site at {target}: {error.strerror or error}") from None
    finally:
        recover(target)


def recover(target: Path) -> None:
    """After a swap that ended anywhere: `target` is a whole site, and nothing else is left of it."""
    aside, old = _beside(target)
    if old.is_dir() and not target.exists():
        old.rename(target)
    for left in (aside, old):
        shutil.rmtree(left, ignore_errors=True)


def _beside(target: Path) -> tuple[Path, Path]:
    return target.with_name(f".{target.name}.fa4-asv-new"), target.with_name(f".{target.name}.fa4-asv-old")


def _exchange(path: Path, other: Path) -> bool:
    """Swap two names in one step (Linux 3.15); False where the kernel or the file system cannot."""
    current_folder, exchange = -100, 2
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return bool(
        function(current_folder, os.fsencode(path), current_folder, os.fsencode(other), exchange) == 0
    )
