"""The cores to itself: locks between our own processes, and a look at what all others consume.

A timing holds its cores exclusively, a compile whose figures are exact shares them with other compiles. Its cores
are the machine's, or fewer where it is bound to some (taskset, Slurm): several timings then run side by side.
Strangers hold no lock; what they used meanwhile of these cores is read from the kernel's counters, and the
caller repeats a sample that they disturbed.
"""

from __future__ import annotations

import fcntl
import os
import resource
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.base import scratch
from fa4_asv.base.errors import Fa4AsvError

# Cores that others may use: an editor and a browser at rest stay below, a compile or a video does not.
OTHERS = 0.2
VARIABLE = "FA4_ASV_OTHERS"  # another bound, for a machine that is never that quiet
PATIENCE = 3600.0
PROC_STAT = Path("/proc/stat")
CPUS = Path("/sys/devices/system/cpu")
_TELL_AFTER, _POLL = 3.0, 0.25

Say = Callable[[str], None]


def lock_path() -> Path:
    """The lock of a user and machine, whatever the checkout; those of its cores lie beside it."""
    return scratch.lock_folder() / f"fa4_asv-{os.getuid()}.lock"


def own_cores() -> tuple[int, ...]:
    """The processors that this process may run on, and those that share a core with one of them."""
    if not hasattr(os, "sched_getaffinity"):
        return tuple(range(os.cpu_count() or 1))
    cores: set[int] = set()
    for core in os.sched_getaffinity(0):
        cores |= {core, *siblings(core)}
    return tuple(sorted(cores))


def siblings(core: int, cpus: Path = CPUS) -> set[int]:
    """The threads of the core that `core` is one of, as the kernel lists them ("0,64" or "0-1"); none where it does not."""
    cores: set[int] = set()
    try:
        text = (cpus / f"cpu{core}" / "topology" / "thread_siblings_list").read_text()
        for span in text.split(","):
            first, _, last = span.partition("-")
            cores |= set(range(int(first), int(last or first) + 1))
    except (OSError, ValueError):
        return set()
    return cores


def is_bound() -> bool:
    """Whether those are less than the machine."""
    return len(own_cores()) < (os.cpu_count() or 1)


@contextmanager
def exclusive(say: Say, patience: float = PATIENCE, whole: bool = False) -> Iterator[None]:
    """Hold the cores alone; the `whole` machine where more than cores is timed: its card is one.

    Raises Fa4AsvError where `patience` seconds of waiting were not enough.
    """
    kinds = {lock_path(): fcntl.LOCK_EX}
    if is_bound() and not whole:
        # Others may time on other cores, but nobody on the whole machine.
        kinds = {lock_path(): fcntl.LOCK_SH} | dict.fromkeys(map(_core_lock, own_cores()), fcntl.LOCK_EX)
    with ExitStack() as held:
        if not _all(held, kinds, say, patience):
            raise Fa4AsvError(f"waited {patience:g} s for other fa4_asv runs on this machine to end")
        yield


@contextmanager
def shared(say: Say, patience: float = PATIENCE) -> Iterator[None]:
    """Wait until no timing runs here, and let none begin. A courtesy: without a lock to be had, just go on."""
    kinds = dict.fromkeys((lock_path(), *map(_core_lock, own_cores())), fcntl.LOCK_SH)
    with ExitStack() as held:
        try:
            _all(held, kinds, say, patience)
        except Fa4AsvError:
            held.close()
        yield


def _core_lock(core: int) -> Path:
    path = lock_path()
    return path.with_name(f"{path.stem}-core{core}{path.suffix}")


def _all(held: ExitStack, kinds: dict[Path, int], say: Say, patience: float) -> bool:
    """Take every lock, each process in the same order, so that no two wait for each other."""
    until = time.monotonic() + patience
    for path, kind in kinds.items():
        handle = _open(path)
        held.callback(os.close, handle)
        if not _acquire(handle, kind, say, max(0.0, until - time.monotonic())):
            return False
    return True


def _open(path: Path) -> int:
    """The lock file. The folder is everybody's: a link or another's file there is refused, with a message."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        raise Fa4AsvError(f"cannot lock {path}: {error.strerror}") from None
    status = os.fstat(handle)
    private = stat.S_ISREG(status.st_mode) and not stat.S_IMODE(status.st_mode) & 0o077
    if private and status.st_uid == os.getuid() and status.st_nlink == 1:
        return handle
    os.close(handle)
    raise Fa4AsvError(f"cannot lock {path}: it is not a private file of this user; remove it")


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
    """What has been used up to now of our cores. `own` holds this process and those of its children that have ended."""
    own = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        own += usage.ru_utime + usage.ru_stime
    names = {f"cpu{core}" for core in own_cores()} if is_bound() else {"cpu"}
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
        # user nice system idle iowait irq softirq steal; guests are part of user and nice.
        counted = [
            [int(field) for field in columns[1:9]] for columns in rows if columns and columns[0] in names
        ]
    except (OSError, ValueError):
        counted = []
    if len(counted) < len(names) or min(map(len, counted)) < 5:
        return Reading(time.monotonic(), own, None, None)
    tick = 1 / os.sysconf("SC_CLK_TCK")
    total = sum(map(sum, counted)) * tick
    idle = sum(jiffies[3] + jiffies[4] for jiffies in counted) * tick
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
    """Cores that others may use during a sample. Raises Fa4AsvError where the variable is not a number."""
    text = os.environ.get(VARIABLE, "")
    try:
        bound = float(text or OTHERS)
    except ValueError:
        bound = -1.0
    if not bound >= 0:
        raise Fa4AsvError(f"{VARIABLE} is {text!r}, expected a number of cores")
    return bound


def processor() -> str:
    """Model and number of this machine's cores, as "AMD EPYC 9575F, 2 cores" or "AMD EPYC 9575F, 1 of 32 cores"."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    count = f"{len(own_cores())} of {os.cpu_count()}" if is_bound() else str(os.cpu_count())
    return f"{names[0] if names else os.uname().machine}, {count} cores"
