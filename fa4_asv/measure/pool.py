"""Worker processes that may hang or die: every job ends with an answer or with a reason.

Knows nothing of kernels. A job is a JSON value sent to a worker as one line; the worker answers with
one line of JSON. A worker that hangs or prints without end is killed with its children, one that dies is replaced. So
is one whose answer says {"error": {"fatal": true}}: its process is of no more use. Each costs one job only.
Workers run foreign code: they get what `base.isolation` gives.
"""

from __future__ import annotations

import json
import os
import queue
import re
import selectors
import signal
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from fa4_asv.base import isolation, resident, scratch
from fa4_asv.base.escape import without_places
from fa4_asv.base.files import LARGEST, parse_json

_LAST_MOMENT = 10.0  # a busy machine takes seconds to end a process that holds torch
_ENDED = "the process ended with exit code"
_KILLED = "the process was killed by SIGKILL"
MOST_PRINTED = 64 << 20  # bytes; a chatty compile prints some KB
NO_CARD = "FA4_ASV_NO_CARD"  # in a job's environment: its process needs no card, so it can be bounded more
_LAST_WORDS = 4000  # bytes at the end of what a process printed; they explain its death
START_TIMEOUT = 180.0  # importing torch and a cold DSL from a slow disk takes up to a minute
# Where Python or C++ name an exception that ended a process; CUDA's errors go on with lines of advice.
_EXCEPTION = re.compile(r"\s*(?:what\(\):\s*)?((?:[\w.]+(?:Error|Exception)|CUDA error): .*)")


@dataclass(frozen=True)
class Job:
    """`payload` goes to a worker started as `command` with `environment` added to its own.

    `again`: a job that fails in a process that had others before may be their victim, and is asked once more.
    """

    key: str
    payload: Any
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    timeout: float
    again: bool = False


@dataclass(frozen=True)
class Outcome:
    """The answer, or why there is none (`lost`: timed out, killed, or no start)."""

    key: str
    answer: Any = None
    lost: str = ""

    @property
    def fatal(self) -> bool:
        """Whether its process can do no other job: it is gone, or its answer says so."""
        error = self.answer.get("error") if isinstance(self.answer, dict) else None
        return bool(self.lost or (isinstance(error, dict) and error.get("fatal")))


class _Printed(threading.Thread):
    """Reads what a process prints, so that it never waits for us: keeps the last output, calls `too_much` once."""

    def __init__(self, stream: IO[bytes], too_much: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._stream, self._too_much = stream, too_much
        self._last, self._count = b"", 0
        self.start()

    @property
    def without_end(self) -> bool:
        return self._count > MOST_PRINTED

    def run(self) -> None:
        with self._stream as stream:
            while chunk := os.read(stream.fileno(), 1 << 16):
                before, self._count = self.without_end, self._count + len(chunk)
                self._last = (self._last + chunk)[-_LAST_WORDS:]
                if self.without_end and not before:
                    self._too_much()

    def last_words(self) -> str:
        """The end of what was printed; the process has ended."""
        self.join(1.0)  # a child that left its session may hold the pipe open
        return self._last.decode(errors="replace").strip()


class Worker:
    """One process: a line in, a line out, bounded in time, memory and output."""

    def __init__(self, job: Job) -> None:
        self.kind = _kind(job)
        bounds = isolation.COMPILE if NO_CARD in dict(job.environment) else isolation.CARD
        command, memory = isolation.command(job.command, bounds), resident.limit()
        self._folder = scratch.make("worker")
        self._process = subprocess.Popen(
            command,
            env=isolation.environment(self._folder, job.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stderr is not None
        self._printed = _Printed(self._process.stderr, self._kill_session)
        self._memory = resident.Watch(self._process.pid, memory)
        self._buffer = bytearray()
        self.asked = 0  # jobs so far
        self.started = self._line(START_TIMEOUT)

    def _line(self, timeout: float) -> Any:
        """The next line as JSON, or the reason why none came, as an Outcome without key."""
        until = time.monotonic() + timeout
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            seen = 0
            while self._buffer.find(b"\n", seen) < 0:
                seen = len(self._buffer)
                left = max(0.0, until - time.monotonic())
                came = selector.select(min(left, self._memory.pause))
                late = "" if came or time.monotonic() < until else f"timed out after {timeout:g} s"
                if why := self._memory.excess() or late:
                    return self._given_up(f"{why} and was killed")
                if not came:
                    continue
                chunk = os.read(stdout.fileno(), 1 << 16)
                if not chunk:
                    return Outcome("", lost=self._death())
                self._buffer += chunk
                if len(self._buffer) > LARGEST:
                    return self._given_up(f"answered more than {LARGEST >> 20} MiB and was killed")
        bytearray, _, self._buffer = self._buffer.partition(b"\n")
        line = bytes(bytearray)
        try:
            return parse_json(line)
        except ValueError:
            return self._given_up(f"the compile process answered no JSON: {line[:80]!r}")

    def _given_up(self, why: str) -> Outcome:
        self.kill()
        return Outcome("", lost=why)

    def _death(self) -> str:
        # Its output closes a moment before it ends: killed in between, it would seem to have been killed by another.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_MOMENT)
        self.kill()
        tail = self._printed.last_words()
        if self._printed.without_end:
            return f"printed more than {MOST_PRINTED >> 20} MiB and was killed"
        code = self._process.returncode
        message = (
            f"the process was killed by {signal.Signals(-code).name}" if code < 0 else f"{_ENDED} {code}"
        )
        if not tail:
            return message
        raised = code >= 0 or -code == signal.SIGABRT  # not where something outside ended it
        last = (_exception(tail) if raised else "") or tail.splitlines()[-1]
        return f"{message}: {without_places(last)[:300]}"

    def ask(self, job: Job) -> Outcome:
        """Send one job and wait for its answer, at most its timeout."""
        assert self._process.stdin is not None
        self.asked += 1
        try:
            self._process.stdin.write(json.dumps(job.payload).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return Outcome(job.key, lost=self._death())
        answer = self._line(job.timeout)
        if isinstance(answer, Outcome):
            return Outcome(job.key, lost=answer.lost)
        return Outcome(job.key, answer)

    def kill(self) -> None:
        """End the process and everything it started."""
        self._kill_session()
        self._process.wait()

    def _kill_session(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with suppress(OSError):  # a job that a dead process did not take is still in the buffer
                    stream.close()
        scratch.remove(self._folder)


def _exception(stderr: str) -> str:
    """The last line that names an exception, "" where none does."""
    named = [match[1] for line in stderr.splitlines() if (match := _EXCEPTION.match(line))]
    return named[-1] if named else ""


class _Starts:
    """Which kinds of worker cannot start, so that a hundred jobs do not each take seconds to find that out."""

    ENOUGH = 2  # a kind that ended by itself so often, and never started, is not tried again in this run

    def __init__(self) -> None:
        self._ended: dict[Any, list[str]] = {}
        self._lock = threading.Lock()

    def hopeless(self, kind: Any) -> str:
        """What it said when it ended, "" for a kind that is worth a try."""
        with self._lock:
            ended = self._ended.get(kind, [])
            return ended[-1] if len(ended) >= self.ENOUGH else ""

    def note(self, kind: Any, lost: str) -> None:
        """A start, and why it failed ("" for a good one). A kill or a slow disk says nothing of the next start."""
        with self._lock:
            if not lost:
                self._ended[kind] = []
            elif lost.startswith(_ENDED):
                self._ended.setdefault(kind, []).append(lost)


class _Pile:
    """Jobs by the kind of worker they need: starting one imports torch and FA4, for seconds.

    A runner goes on with its kind. Where that has no jobs left, it turns to the kind with the most jobs a runner.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._lock = threading.Lock()
        self._left: dict[Any, deque[Job]] = {}
        self._runners: Counter[Any] = Counter()
        for job in jobs:
            self._left.setdefault(_kind(job), deque()).append(job)

    def take(self, kind: Any) -> Job | None:
        """The next job for a runner whose worker is of `kind` (None: it has none); None when all are taken."""
        with self._lock:
            if not self._left.get(kind):
                self._runners[kind] -= 1
                open_kinds = [job for job, jobs in self._left.items() if jobs]
                if not open_kinds:
                    return None
                kind = max(open_kinds, key=lambda job: len(self._left[job]) / (self._runners[job] + 1))
                self._runners[kind] += 1
            return self._left[kind].popleft()


def _kind(job: Job) -> Any:
    return job.command, job.environment


class LastingWorker:
    """A worker for one job after another: started when there is one, replaced when its process is lost.

    A job that fails fatally in a process that had other jobs before may be the victim of one of them. Where the job
    allows it (`again`), it is asked once more, as the first of a fresh process: only what fails there is its own fault.
    The same where it was killed: by a person, or by the kernel for want of memory that others took.
    So a job is asked twice at most, and one that hangs as the first of its process once.
    """

    def __init__(self, starts: _Starts | None = None) -> None:
        self._starts = starts or _Starts()
        self._worker: Worker | None = None
        self._killed = False
        self.started = 0  # processes so far: whoever asks tells by it that another one answered

    def ask(self, job: Job) -> Outcome:
        """The job's outcome; a process that cannot start is one, too. Raises OSError where there is no such command."""
        outcome, first = self._ask_once(job)
        victim = not first or outcome.lost.startswith(_KILLED)
        if outcome.fatal and victim and job.again and not self._killed:
            outcome, _ = self._ask_once(job)
        return outcome

    def _ask_once(self, job: Job) -> tuple[Outcome, bool]:
        """The outcome, and whether no other job can be to blame for it."""
        if lost := self._start(job):
            return Outcome(job.key, lost=lost), True
        assert self._worker is not None
        first = not self._worker.asked
        outcome = self._worker.ask(job)
        if outcome.fatal:
            self.close()
        return outcome, first

    def _start(self, job: Job) -> str:
        """Have a worker of the job's kind; why there is none, "" where there is."""
        kind = _kind(job)
        if self._worker is not None and self._worker.kind != kind:
            self.close()
        if self._worker is not None:
            return ""
        if hopeless := self._starts.hopeless(kind):
            return hopeless
        self.started += 1
        self._worker = Worker(job)
        lost = self._worker.started.lost if isinstance(self._worker.started, Outcome) else ""
        self._starts.note(kind, lost)
        if self._killed:
            lost = lost or "killed while it started"  # `kill` found nothing to kill then
        if lost:
            self.close()
        return lost

    def close(self) -> None:
        """End the process; the next job starts another."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def kill(self) -> None:
        """End the process from another thread: its job is lost and not asked again."""
        self._killed = True
        worker = self._worker
        if worker is not None:
            worker.kill()


class _Runner(threading.Thread):
    """Takes jobs from the pile and keeps one worker alive for as long as the kind stays the same."""

    def __init__(
        self,
        jobs: _Pile,
        done: queue.SimpleQueue[Outcome],
        stop: threading.Event,
        starts: _Starts,
    ) -> None:
        super().__init__(daemon=True)
        self._jobs, self._done, self._stop_event = jobs, done, stop
        self.worker = LastingWorker(starts)

    def run(self) -> None:
        kind = None
        while not self._stop_event.is_set():
            job = self._jobs.take(kind)
            if job is None:
                break
            kind = _kind(job)
            try:
                outcome = self.worker.ask(job)
            except Exception as error:  # a thread that dies silently would hang the run
                outcome = Outcome(job.key, lost=f"could not start a compile process: {error}")
            self._done.put(outcome)
        self.worker.close()


def run_jobs(
    jobs: Sequence[Job], processes: int, finished: Callable[[Outcome], None] | None = None
) -> list[Outcome]:
    """Run all jobs on `processes` workers; every job has an outcome, in the order of completion.

    `finished` is called in this thread after each. On KeyboardInterrupt the workers are killed.
    """
    waiting = _Pile(jobs)
    done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    stop, starts = threading.Event(), _Starts()
    runners = [_Runner(waiting, done, stop, starts) for _ in range(min(processes, len(jobs)))]
    for runner in runners:
        runner.start()
    outcomes: list[Outcome] = []
    try:
        while len(outcomes) < len(jobs):
            outcome = done.get()
            outcomes.append(outcome)
            if finished:
                finished(outcome)
    finally:
        stop.set()
        for runner in runners:
            runner.worker.kill()
            runner.join(timeout=10)
    return outcomes
