"""Files read with limits and written atomically: a reader sees the old file or the new one, never half of either."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from fa4_asv.base.errors import Fa4AsvError

LARGEST = 16 << 20  # bytes of a file; the record's largest has 270 KB
DEEPEST = 32  # brackets of JSON inside each other; the record's deepest has 6
RESTORE = "restore it from git or delete it"

_UNCOUNTED = bytes(set(range(256)) - set(b'[]{}"'))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_PAIR = re.compile(rb"(?<!\\)\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")  # one character


def read_bytes(path: Path, most: int = LARGEST, advice: str = RESTORE) -> bytes:
    """What a regular file holds. Raises Fa4AsvError naming it: absent, unreadable, larger than `most` bytes, or a
    folder, pipe or device, which is not opened (a pipe that nobody writes to would wait for ever)."""
    try:
        # Not blocking, should it become a pipe between the two calls.
        _refuse_odd(path, path.stat(), most, advice)
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            _refuse_odd(path, os.fstat(stream.fileno()), most, advice)
            content = stream.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise Fa4AsvError(f"{path} cannot be read: {reason}; {advice}") from None
    if len(content) > most:  # it grew meanwhile
        raise Fa4AsvError(_too_large(path, most, advice))
    return content


def _refuse_odd(path: Path, status: os.stat_result, most: int, advice: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise Fa4AsvError(f"{path} cannot be read: it is {kind}, expected a file; {advice}")
    if status.st_size > most:
        raise Fa4AsvError(_too_large(path, most, advice))


def _too_large(path: Path, most: int, advice: str) -> str:
    return f"{path} cannot be read: it has more than {most:,} bytes; {advice}"


def read_text(path: Path, most: int = LARGEST, advice: str = RESTORE) -> str:
    """The text of a file (UTF-8). Raises Fa4AsvError, see read_bytes."""
    try:
        return read_bytes(path, most, advice).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Fa4AsvError(f"{path} is not UTF-8 (byte {error.start}); {advice}") from None


def read_json(path: Path, most: int = LARGEST, advice: str = RESTORE) -> Any:
    """The JSON of a file. Raises Fa4AsvError, see read_bytes and parse_json."""
    content = read_bytes(path, most, advice)
    try:
        return parse_json(content)
    except ValueError as error:
        raise Fa4AsvError(f"{path} is not JSON ({error}); {advice}") from None


def parse_json(content: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises ValueError: no JSON, deeper than DEEPEST, or half a character.

    Depth is counted before parsing: parsers and everything that follows a value down would run out of stack.
    """
    _refuse_deep(content)
    try:
        value = json.loads(content.decode("utf-8"))
        if _SURROGATE.search(content) and _SURROGATE.search(_PAIR.sub(b"", content)):
            # Half of a pair cannot be written anywhere; behind a backslash this may be plain text.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    return value


def _refuse_deep(content: bytes) -> None:
    if b"\\" in content:  # an escaped quote ends no string
        content = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Every second part between quotes is a string; one that nobody closed ends with the text.
    brackets = b"".join(content.translate(None, _UNCOUNTED).split(b'"')[::2])
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep")


def refuse_odd_json(path: Path, most: int = LARGEST, advice: str = RESTORE) -> None:
    """Raises Fa4AsvError where another program's reader should not be given the file: kind, size, depth."""
    try:
        _refuse_deep(read_bytes(path, most, advice))
    except ValueError as error:
        raise Fa4AsvError(f"{path} cannot be read: {error}; {advice}") from None


def tail(path: Path, most: int) -> str:
    """The last `most` bytes of a log as text; "" where there is none, or what is there is no file."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                return ""
            stream.seek(max(0, status.st_size - most))
            return stream.read(most).decode("utf-8", errors="replace")
    except OSError:
        return ""


def same_bytes(path: Path, other: Path) -> bool:
    """Whether both are files and hold the same. Raises Fa4AsvError, see read_bytes."""
    return path.is_file() and other.is_file() and read_bytes(path) == read_bytes(other)


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted. Raises Fa4AsvError where it cannot be listed."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise Fa4AsvError(
            f"{folder} cannot be read: {error.strerror}; make it readable (chmod u+rx), or restore it from git"
        ) from None


def write_atomic(path: Path, content: str | bytes, synced: bool = True) -> None:
    """Write `content` (text as UTF-8) to `path` through a temporary file beside it, `synced` to the disk before it is there.

    Creates the parent folder. Raises Fa4AsvError when the file cannot be written (disk full, no
    permission); what stood at `path` before is untouched then.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name ends in neither .json nor anything asv reads, should a kill leave it behind.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            if synced:
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
    """One process at a time holds the lock file `path`; it goes with the process, however that ends, and not with its children.

    Waits for the other, or raises Fa4AsvError with the message `busy`, where they are given.
    """
    try:
        # Not blocking: a pipe in its place would wait for a reader.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Fa4AsvError(f"cannot lock {path}: {error.strerror}; remove it or make it writable") from None
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise Fa4AsvError(busy) from None
        yield
    finally:
        if handle in _held:
            _held.remove(handle)
            os.close(handle)


_held: set[int] = set()  # handles of the locks of this process


def _let_go() -> None:
    """In a child: a lock would outlive its killed parent by what the child needs to notice."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


def link_tree(source: Path, target: Path) -> None:
    """The files of `source` below `target` as hard links, or as copies where the file system makes none."""
    shutil.copytree(source, target, copy_function=link_file, dirs_exist_ok=True)


def link_file(source: str | Path, target: str | Path) -> None:
    """`target` as a hard link of `source`, or as a copy where the file system makes none."""
    try:
        os.link(source, target)
    except OSError:  # another file system, too many links, or links not allowed
        shutil.copy2(source, target)
