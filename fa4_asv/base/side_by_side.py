"""Work on all cores: children forked from this process share it, and know what this process has read."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Generic, TypeVar

from fa4_asv.base.ending import SIGNALS
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.launcher import end_with

VARIABLE = "FA4_ASV_CORES"
_LEAST = 8  # items per process: a fork takes as long as a few small files
_FORK = multiprocessing.get_context("fork")
Item = TypeVar("Item")
Answer = TypeVar("Answer")


def cores() -> int:
    """How many processes at once: FA4_ASV_CORES, else the cores that this process may run on (taskset, Slurm).

    Raises Fa4AsvError where the variable is not a positive number.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise Fa4AsvError(f"{VARIABLE} is {text!r}, expected a number of cores such as 1")
    return int(text)


def is_one_thread() -> bool:
    """Whether a child of this process would be whole; no where the system does not tell."""
    tasks = Path("/proc/self/task")
    return tasks.is_dir() and len(list(tasks.iterdir())) == 1


def in_order(work: Callable[[Item], Answer], items: Sequence[Item]) -> Iterator[Answer]:
    """What `work` answers to each item, in their order: every n-th is done here, the others by n - 1 children.

    The same answers whatever n is. Answers of children are pickled. A child is never further ahead than a pipe holds.

    Raises what `work` raises here, its Fa4AsvError in a child, and Fa4AsvError where a child dies.
    """
    processes = _processes(len(items) // _LEAST)
    with _children(work, [items[number::processes] for number in range(1, processes)]) as children:
        for place, item in enumerate(items):
            number = place % processes
            yield children[number - 1].answer() if number else work(item)


def spread(work: Callable[[Item], None], items: Sequence[Item]) -> None:
    """Do `work` for each of at most 256 items, whose effect is outside of this process, such as files; whoever is free takes the next.

    Raises as `in_order`.
    """
    source, target = os.pipe()
    os.write(target, bytes(range(len(items))))
    os.close(target)

    def take_all(_: None = None) -> None:
        while number := os.read(source, 1):
            work(items[number[0]])

    try:
        with _children(take_all, [[None]] * (_processes(len(items)) - 1)) as children:
            take_all()
            for child in children:
                child.answer()
    finally:
        os.close(source)


def _processes(most: int) -> int:
    """As many as `cores`; one in a process with threads, whose children would not be whole."""
    return max(1, min(cores(), most)) if is_one_thread() else 1


@contextmanager
def _children(
    work: Callable[[Item], Answer], shares: Sequence[Sequence[Item]]
) -> Iterator[list[_Child[Item, Answer]]]:
    """A child for each share; none is alive afterwards."""
    children: list[_Child[Item, Answer]] = []
    try:
        for share in shares:
            children.append(_Child(work, share))
        yield children
    finally:
        for child in children:
            child.end()


class _Child(Generic[Item, Answer]):
    """A process that does `work` for `items` and hands over one answer after the other."""

    def __init__(self, work: Callable[[Item], Answer], items: Sequence[Item]) -> None:
        self._answers, theirs = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=_serve, args=(os.getpid(), work, items, theirs), daemon=True)
        # Signals stay blocked in the child: they are for this process, which ends the other.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._process.start()
        except OSError as error:
            raise Fa4AsvError(f"cannot start a process: {error.strerror}; set {VARIABLE}=1") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def answer(self) -> Answer:
        """The next one. Raises Fa4AsvError: that of `work`, or because the child died."""
        try:
            answer, error = self._answers.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            how = f"was killed by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
            raise Fa4AsvError(f"a process that shared the work {how}; set {VARIABLE}=1") from None
        if error is not None:
            raise Fa4AsvError(error)
        return answer  # type: ignore[no-any-return]

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._answers.close()


def _serve(parent: int, work: Callable[[Item], Answer], items: Sequence[Item], answers: Connection) -> None:
    end_with(parent)
    for item in items:
        try:
            answers.send((work(item), None))
        except Fa4AsvError as error:
            answers.send((None, str(error)))
