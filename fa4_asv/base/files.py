"""Atomic writes: a reader sees the old file or the new one, never half of either."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError


def write_atomic(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` through a synced temporary file beside it.

    Creates the parent folder. Raises Fa4AsvError when the file cannot be written (disk full, no
    permission); what stood at `path` before is untouched then.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name ends in neither .json nor anything asv reads, should a kill leave it behind.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's 0600 would hide results from a web server
        Path(temporary).replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Fa4AsvError(f"cannot write {path}: {reason}; nothing was changed") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


@contextmanager
def only_one(path: Path, busy: str = "") -> Iterator[None]:
    """One process at a time holds the lock file `path`; it goes with the process, however that ends.

    Waits for the other, or raises Fa4AsvError with the words `busy`, where they are given.
    """
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise Fa4AsvError(busy) from None
        yield


def link_tree(source: Path, target: Path) -> None:
    """The files of `source` below `target` as hard links, or as copies where the file system makes none."""
    shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, too many links, or links not allowed
        shutil.copy2(source, target)
    return target
