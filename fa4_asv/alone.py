"""The machine to itself: a lock between our own processes, and a look at what all others consume.

A timing holds the lock exclusively, a compile whose figures are exact shares it with other compiles.
Strangers hold no lock; what they used meanwhile is read from the kernel's counters, and the caller
repeats a sample that they disturbed.
"""

from __future__ import annotations

import fcntl
import os
import resource
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.errors import Fa4AsvError

# Cores that others may use: an editor and a browser at rest stay below, a compile or a video does not.
OTHERS = 0.2
VARIABLE = "FA4_ASV_OTHERS"  # another bound, for a machine that is never that quiet
PATIENCE = 3600.0
PROC_STAT = Path("/proc/stat")
_TELL_AFTER, _POLL = 3.0, 0.25

Say = Callable[[str], None]


def lock_path() -> Path:
    """One lock a user and machine, whatever the checkout."""
    return Path(tempfile.gettempdir()) / f"fa4_asv-{os.getuid()}.lock"


@contextmanager
def exclusive(say: Say, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock alone. Raises Fa4AsvError where `patience` seconds of waiting were not enough."""
    handle = _open(lock_path())
    try:
        if not _acquire(handle, fcntl.LOCK_EX, say, patience):
            raise Fa4AsvError(f"waited {patience:g} s for other fa4_asv runs on this machine to end")
        yield
    finally:
        os.close(handle)


@contextmanager
def shared(say: Say, patience: float = PATIENCE) -> Iterator[None]:
    """Wait until no timing runs, and let none begin. A courtesy: without a lock to be had, just go on."""
    try:
        handle = _open(lock_path())
    except Fa4AsvError:
        yield
        return
    try:
        _acquire(handle, fcntl.LOCK_SH, say, patience)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """The lock file. The folder is everybody's: a link or another's file there is refused, with words."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        raise Fa4AsvError(f"cannot lock {path}: {error.strerror}") from None
    found = os.fstat(handle)
    private = stat.S_ISREG(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
    if private and found.st_uid == os.getuid() and found.st_nlink == 1:
        return handle
    os.close(handle)
    raise Fa4AsvError(f"cannot lock {path}: it is no private file of this user; remove it")


def _acquire(handle: int, kind: int, say: Say, patience: float) -> bool:
    begin, told = time.monotonic(), False
    try:
        while True:
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                waited = time.monotonic() - begin
            if waited >= patience:
                return False
            if waited >= _TELL_AFTER and not told:
                say("waiting for another fa4_asv run on this machine")
                told = True
            time.sleep(_POLL)
    finally:
        if told:
            say("")


@dataclass(frozen=True)
class Reading:
    """Processor seconds at one moment: of everybody (`busy`, and with idle time `total`), and ours (`own`).

    `busy` and `total` are None where the kernel does not count them.
    """

    clock: float
    own: float
    busy: float | None
    total: float | None


def read_usage(path: Path = PROC_STAT) -> Reading:
    """What has been used up to now. `own` holds this process and those of its children that have ended."""
    own = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        own += usage.ru_utime + usage.ru_stime
    try:
        name, *fields = path.read_text().split("\n", 1)[0].split()
        # user nice system idle iowait irq softirq steal; guests are part of user and nice.
        jiffies = [int(field) for field in fields[:8]]
    except (OSError, ValueError):
        name, jiffies = "", []
    if name != "cpu" or len(jiffies) < 5:
        return Reading(time.monotonic(), own, None, None)
    tick = 1 / os.sysconf("SC_CLK_TCK")
    total, idle = sum(jiffies) * tick, (jiffies[3] + jiffies[4]) * tick
    return Reading(time.monotonic(), own, total - idle, total)


def others_used(before: Reading, after: Reading) -> float | None:
    """Cores that others used between two readings; None where the kernel does not tell.

    Stolen time counts: what a neighbour on the same host took was not ours either.
    """
    if before.busy is None or after.busy is None or before.total == after.total:
        return None  # some sandboxes have the file, but its counters stand still
    wall = max(after.clock - before.clock, 1e-9)
    return max(0.0, (after.busy - before.busy - (after.own - before.own)) / wall)


def allowed() -> float:
    """Cores that others may use during a sample. Raises Fa4AsvError where the variable is no number."""
    text = os.environ.get(VARIABLE, "")
    try:
        bound = float(text or OTHERS)
    except ValueError:
        bound = -1.0
    if not bound >= 0:
        raise Fa4AsvError(f"{VARIABLE} is {text!r}, expected a number of cores")
    return bound


def processor() -> str:
    """Model and number of this machine's cores, as "AMD EPYC 9575F, 2 cores"."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else os.uname().machine}, {os.cpu_count()} cores"
