"""Memory that the processes of a session use, held to a limit: for those that no limit of the system fits.

CUDA maps memory by the terabyte, so that limits of address space cannot be used. What counts is resident memory, read from
/proc by the process that waits for an answer. Memory that processes share, libraries above all, counts in each of them.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError

VARIABLE = "FA4_ASV_MEMORY"
_MOST = 64.0  # GiB; a worker with a card takes up to 6: torch, FA4, the DSL and tensors that references keep on the host
_EVERY = 1.0  # seconds between two looks; a look takes some milliseconds of the parent, nothing of the worker
_GIB = 1 << 30
_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SESSION, _RESIDENT = 3, 21  # columns of /proc/PID/stat behind the program's name


def limit() -> int:
    """Bytes that a worker may use: FA4_ASV_MEMORY in GiB, else half of the memory here, at most 64 GiB.

    Raises Fa4AsvError where the variable is not a positive number.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return min(int(_MOST * _GIB), _memory_here() // 2)
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or not float(text):
        raise Fa4AsvError(f"{VARIABLE} is {text!r}, expected GiB per worker such as 64")
    return int(float(text) * _GIB)


def _memory_here() -> int:
    """Bytes of this machine, or of the container where it has less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, _CONTAINER):
        with suppress(OSError, ValueError):  # "max" is no number
            limits.append(int(path.read_text()))
    return min(limits)


def resident(session: int) -> int:
    """Bytes of all processes of a session. One that made a session of its own is not seen."""
    pages = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):  # ended meanwhile
                columns = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
                pages += int(columns[_RESIDENT]) if int(columns[_SESSION]) == session else 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Watch:
    """Holds a session to `most` bytes, for as long as somebody calls `excess`."""

    def __init__(self, session: int, most: int) -> None:
        self._session, self._limit = session, most
        self._next = time.monotonic() + _EVERY

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        return max(0.0, self._next - time.monotonic())

    def excess(self) -> str:
        """What to say where the session uses more than its limit; looks once per second at most, "" in between."""
        if self.pause:
            return ""
        used = resident(self._session)
        self._next = time.monotonic() + _EVERY
        if used <= self._limit:
            return ""
        return f"used {used / _GIB:.3g} GiB of memory, more than the limit of {self._limit / _GIB:.3g} GiB ({VARIABLE})"
