"""Mutants of the stand-in in which one case takes the process along: it alone is broken, those behind it are measured.

The worker's own functions run in this process, and a fresh process is the stand-in imported anew: what its module
remembers (that its card is dead, say) is gone with it. One mutant runs in real processes as well.
"""

from __future__ import annotations

import os
import re
import sys
import time
from signal import Signals
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from fa4_asv.measure import cached_jobs, pool  # noqa: E402
from fa4_asv.measure.pool import Job, Outcome  # noqa: E402
from fa4_asv.measure.runtime import worker as runtime_worker  # noqa: E402
from tests.support import ROOT  # noqa: E402
from tests.support.standin_runs import D64, D128, FULL  # noqa: E402

# The worker itself; its clock counts work, since nobody judges the seconds.
COUNTING = """
from fa4_asv.measure.runtime import worker
from tests.support.simulated_clock import WorkTimer
worker.timer_of = lambda *_: WorkTimer(0)
worker.main()
"""
GUILTY = D64
CALL = f"(guard of fa4 forward {GUILTY})"


class _Killed(BaseException):
    """What the pool or the kernel would do to a process, with the words of the outcome."""


@pytest.fixture
def processes(runner, monkeypatch) -> list[list[tuple[str, str]]]:
    """Of each simulated process what it was asked, in the order of their start."""
    started: list[list[tuple[str, str]]] = []

    class Simulated(pool.Worker):
        def __init__(self, job: Job) -> None:
            self.kind, self.asked, self.started = (job.command, job.environment), 0, {"ready": True}
            torch.set_num_threads(1)
            runner.use(runner.name)
            started.append([])

        def ask(self, job: Job) -> Outcome:
            self.asked += 1
            started[-1].append((job.payload["what"], job.payload["shape"]))
            try:
                answer = runtime_worker.answer(torch, job.payload, runner.timer, runner.control)
            except _Killed as killed:
                return Outcome(job.key, lost=str(killed))
            return Outcome(job.key, answer)

        def kill(self) -> None:
            pass

        def close(self) -> None:
            pass

    def end(message: str) -> Any:
        raise _Killed(message)

    monkeypatch.setattr(pool, "Worker", Simulated)
    monkeypatch.setattr(cached_jobs, "run_jobs", pool.run_jobs)
    monkeypatch.setattr(time, "sleep", lambda _: end("timed out after 300 s and was killed"))
    monkeypatch.setattr(
        os, "kill", lambda _, number: end(f"the process was killed by {Signals(number).name}")
    )
    return started


@pytest.fixture
def costs_itself(runner, processes, note):
    """Asserts that of three cases the guilty one is broken, whose words match, and no other is touched."""

    def check(name: str, catcher: str, message: str) -> None:
        records = runner.together(name, FULL, GUILTY, D128)
        result = {shape: record.state for shape, record in records.items()}
        assert result == {FULL: "measured", GUILTY: "broken", D128: "measured"}, records
        why = records[GUILTY].why
        assert re.fullmatch(message, why), why
        assert processes[:3] == [
            [("guard", FULL), ("guard", GUILTY)],
            [("guard", GUILTY)],
            [("guard", D128)],
        ]
        assert processes[3:] == [[("seconds", FULL), ("seconds", D128)]]
        assert not list(runner.folder.glob("**/.asv/guard")), "a crash is no wrong answer"
        note(name, catcher, why)

    return check


def test_mutant_illegal_access(costs_itself):
    pattern = re.escape(f"AcceleratorError: CUDA error: an illegal memory access was encountered {CALL}")
    costs_itself("illegal_access", "fresh process", pattern)


def test_mutant_device_assert(costs_itself):
    pattern = re.escape(f"AcceleratorError: CUDA error: device-side assert triggered {CALL}")
    costs_itself("device_assert", "fresh process", pattern)


def test_mutant_misaligned(costs_itself):
    pattern = re.escape(f"AcceleratorError: CUDA error: misaligned address {CALL}")
    costs_itself("misaligned", "fresh process", pattern)


def test_mutant_no_memory_again(costs_itself):
    pattern = rf"OutOfMemoryError: CUDA out of memory\. Tried .* is free\. {re.escape(CALL)}"
    costs_itself("no_memory_again", "second try, fresh process", pattern)


def test_mutant_no_memory_once(runner, processes, note):
    """What others had left in the allocator's pool was in the way: the same process measures it."""
    records = runner.together("no_memory_once", FULL, GUILTY, D128)
    assert {record.state for record in records.values()} == {"measured"}, records
    # Each process finds no memory once: the guard's, and the clock's.
    assert processes == [[(what, shape) for shape in (FULL, GUILTY, D128)] for what in ("guard", "seconds")]
    note("no_memory_once", "second try", "measured")


def test_mutant_segfault(costs_itself):
    costs_itself("segfault", "fresh process", re.escape(f"the process was killed by SIGSEGV {CALL}"))


def test_mutant_hangs_behind_others(costs_itself):
    pattern = re.escape(f"timed out after 300 s and was killed {CALL}")
    costs_itself("hangs_behind_others", "time limit, fresh process", pattern)


@pytest.mark.nightly  # in one process: the tests above
def test_so_it_is_with_real_processes(runner, monkeypatch):
    monkeypatch.setattr(cached_jobs, "run_jobs", pool.run_jobs)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("FA4_ASV_OTHERS", "1000")
    monkeypatch.setenv("PYTHONPATH", f"{runner.folder / 'illegal_access'}:{ROOT}")
    records = runner.together("illegal_access", FULL, GUILTY, D128, command=(sys.executable, "-c", COUNTING))
    assert {shape: record.state for shape, record in records.items()} == {
        FULL: "measured",
        GUILTY: "broken",
        D128: "measured",
    }, records
    assert records[GUILTY].why == (
        f"AcceleratorError: CUDA error: an illegal memory access was encountered {CALL}"
    )
