"""On a node: measure one order in a staged checkout and answer, leave nothing behind.

A process of its own beside the engine's worker (`node_launcher` starts it). Its standard input is the order, then
silence; when that ends, the worker is gone, killed perhaps: so is everything here.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fa4_asv.backfill.cluster.archive import pack, unpack
from fa4_asv.backfill.cluster.order import Answer, Order
from fa4_asv.backfill.tasks import one_flavour, reason_in
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import only_one, read_text, tail, write_atomic
from fa4_asv.base.processes import end_left, run_bounded
from fa4_asv.base.project import Project
from fa4_asv.integrity.staging import stage
from fa4_asv.record.store import iter_results, sound_pairs

# What can be rebuilt and serves every task on a node; the history comes with the sources.
_KEPT = ("base", "toolchains", "toolchain-locks", "sources", "cache")
# A base with torch, a toolchain and what a compile leaves in passing; with less a task would only break.
LEAST_FREE = 2 << 30
_NO_SPACE = ("No space left on device", "Disk quota exceeded")
_LOG_TAIL = 64 << 10


class NodeFault(Fa4AsvError):
    """What is wrong is wrong with this node, and would be with any task here."""


def measure(order: Order, source: Project, folder: Path, log: Path) -> bytes:
    """The parcel of what `order` recorded; `folder` (absent before) is where. Raises Fa4AsvError, NodeFault."""
    work = _work(order, source)
    for path in (folder.parent, Path(tempfile.gettempdir())):
        _check_space(path)
    staged = lay(source, work, folder)
    one_flavour(staged, order.flavour)
    if order.known:
        unpack(order.known, staged.results)
    for name, text in order.locks.items():
        _write_lock(staged, name, text)
    before = _reasons(staged, order.machine)
    code = run_bounded([sys.executable, *order.arguments], staged.root, log, order.timeout, order.variables)
    _blame_the_disk([*(_reasons(staged, order.machine) - before), _tail(log)])
    if not any(iter_results(staged.results, order.machine)):
        raise Fa4AsvError(f"asv recorded nothing (exit code {code}){reason_in(log)}")
    return pack(staged.results)


def _work(order: Order, source: Project) -> Path:
    return Path(order.work).expanduser() if order.work else source.work


def lay(source: Project, work: Path, folder: Path) -> Project:
    """A staged checkout over `source`, whose caches and toolchains stand in `work`."""
    staged = stage(source, folder)
    if work.resolve() == source.work.resolve():
        return staged
    try:
        staged.work.unlink(missing_ok=True)
        staged.work.mkdir()
        (staged.work / "history.git").symlink_to(source.repository)
        for name in _KEPT:
            (work / name).mkdir(parents=True, exist_ok=True)
            (staged.work / name).symlink_to(work / name)
    except OSError as error:
        raise NodeFault(f"cannot work in {work}: {error.strerror}") from None
    return staged


def _write_lock(staged: Project, name: str, text: str) -> None:
    path = staged.root / name
    if not (path.is_file() and read_text(path) == text):
        write_atomic(path, text)


def _check_space(path: Path) -> None:
    free = shutil.disk_usage(path).free
    if free < LEAST_FREE:
        raise NodeFault(f"full disk: {free >> 20} MiB free in {path}, a task needs {LEAST_FREE >> 20}")


def _reasons(staged: Project, machine: str) -> set[str]:
    """Why cases of the staged record are broken or unsupported."""
    names = set()
    for pair in sound_pairs(staged.results, machine):  # the driver verifies, and names what is damaged
        names |= {record.why for cases in pair.sidecar.groups.values() for record in cases.values()}
    return names


def _blame_the_disk(parts: list[str]) -> None:
    """A disk that ran full while asv worked is not a property of FA4: raises NodeFault, nothing is recorded."""
    for reason in _NO_SPACE:
        if any(reason in text for text in parts):
            raise NodeFault(f"full disk: {reason.lower()}")


@contextmanager
def workplace(tasks: Path) -> Iterator[Path]:
    """A folder of one's own below `tasks`, which is this host's; what killed tasks left there is cleared first."""
    tasks.mkdir(parents=True, exist_ok=True)
    folder = tasks / uuid.uuid4().hex
    with only_one(tasks / ".lock"):
        for lock in tasks.glob("*.alive"):
            _clear_if_dead(lock)
        alive = folder.with_suffix(".alive").open("w")
        fcntl.flock(alive, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for suffix in (".alive", ".log"):
            folder.with_suffix(suffix).unlink(missing_ok=True)
        alive.close()


def _clear_if_dead(lock: Path) -> None:
    try:
        with lock.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end_left(lock.with_suffix(""))
            lock.with_suffix(".log").unlink(missing_ok=True)
            lock.unlink()
    except OSError:
        pass  # its task is alive


def answer(order: Order, source: Project) -> Answer:
    """Do the order; whatever happens is an answer."""
    host, begin = socket.gethostname(), time.monotonic()
    work = _work(order, source)
    fault, why, results, text = "", "", b"", ""
    try:
        with workplace(work / "tasks" / host) as folder:
            _end_with_input(folder)
            log = folder.with_suffix(".log")
            try:
                results = measure(order, source, folder, log)
            finally:
                text = _tail(log)
    except NodeFault as error:
        fault, why = "node", str(error)
    except (Fa4AsvError, OSError) as error:
        full = any(reason in str(error) for reason in _NO_SPACE)
        fault = "node" if full or isinstance(error, OSError) else "task"
        why = ("full disk: " if full else "") + str(error)
    return Answer(fault, why, host, time.monotonic() - begin, text, results)


def _tail(log: Path) -> str:
    return tail(log, _LOG_TAIL)


def _end_with_input(folder: Path) -> None:
    def watch() -> None:
        sys.stdin.buffer.read()
        end_left(folder)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _detach() -> None:
    """Go on in a child with a session of its own. Ray kills the children of a worker that it ends, at once; a
    grandchild notices the end of its input, and has the time to clear up."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
    os.setsid()


def main() -> None:
    """Order on standard input, answer on standard output."""
    _detach()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed must not mix with the answer
    try:
        source = Project.find()
        found_answer = answer(Order.load(sys.stdin.buffer.readline()), source)
    except Fa4AsvError as error:
        found_answer = Answer("node", str(error), socket.gethostname())
    answers.write(found_answer.dump())
    answers.flush()
    os._exit(0)  # the watching thread is blocked in a read


if __name__ == "__main__":
    main()
