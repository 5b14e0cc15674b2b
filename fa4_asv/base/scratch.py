"""Temporary folders: one per process, removed at its end; what a killed process left is removed by the next.

A process's folder holds a lock for as long as it lives. A process that we start gets its folders below ours (OWNER): whoever
removes the one removes all.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OWNER = "FA4_ASV_SCRATCH"  # the folder of the process that started this one
LOCKS = "FA4_ASV_LOCKS"  # where locks lie that all processes of a user share, whatever TMPDIR says
PREFIX = "fa4-work-"
_LOCK = "lock"
_YOUNG = 60.0  # seconds in which whoever made a folder has locked it
# Room for what asv puts below it: a socket's path has 107 bytes at most.
_LONGEST = 60

_making = threading.Lock()
_made: dict[int, tuple[Path, int]] = {}  # process id: its folder and the handle of its lock


def own() -> Path:
    """The folder of this process, or of the one that started it. Raises OSError."""
    inherited = os.environ.get(OWNER, "")
    if inherited and Path(inherited).is_dir():
        return Path(inherited)
    with _making:
        if os.getpid() not in _made:
            _made[os.getpid()] = _make_own()
            atexit.register(_remove_own, os.getpid())
        return _made[os.getpid()][0]


def _make_own() -> tuple[Path, int]:
    _clear(Path(tempfile.gettempdir()))
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    handle = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return made, handle


def make(name: str) -> Path:
    """A new folder below this process's. Raises OSError."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=own()))


@contextmanager
def folder(name: str) -> Iterator[Path]:
    """The same, removed at the end."""
    made = make(name)
    try:
        yield made
    finally:
        remove(made)


def lock_folder() -> Path:
    """The folder of the locks that all processes of a user share."""
    return Path(os.environ.get(LOCKS) or tempfile.gettempdir())


def use_for_everything() -> None:
    """Let all temporary files of this process lie in its folder; locks stay where they are."""
    locks, mine = str(lock_folder()), str(own())
    if len(mine) <= _LONGEST:
        os.environ[LOCKS], tempfile.tempdir = locks, mine


def remove(path: Path) -> None:
    """Remove a folder, whatever foreign code has put there: folders without rights, thousands inside each other."""
    with suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, "--", str(path)], capture_output=True)


def _remove_own(process: int) -> None:
    if process == os.getpid() and process in _made:  # not in a forked child
        path, handle = _made.pop(process)
        remove(path)
        os.close(handle)


def _clear(place: Path) -> None:
    """Remove the folders below `place` whose process has ended."""
    for path in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if _is_left(path):
                remove(path)


def _is_left(path: Path) -> bool:
    """Whether a folder is this user's, and nobody holds its lock. Raises OSError."""
    status = path.stat(follow_symlinks=False)
    if path.is_symlink() or not path.is_dir() or status.st_uid != os.getuid():
        return False
    try:
        handle = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return time.time() - status.st_mtime > _YOUNG
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
