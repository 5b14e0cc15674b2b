"""Seconds until FA4 is imported, and until one of its calls has compiled its kernels.

Every sample is a process of its own with all caches of compiled kernels off: of the import a fresh interpreter, of a
call a child of one (`worker`) that has imported FA4 and compiled nothing. A first process does what the
others do and is not recorded: it fills the page cache and writes bytecode, which a user pays once per machine.
Each later one is a sample, unless others were busy on these cores meanwhile: then it is repeated, and the record
says how often. It is never repeated for the time it took.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from fa4_asv.base.core_locks import Reading, allowed, exclusive, others_used, processor, read_usage
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.benchmarks import CHILDREN, SAMPLES
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.measure.cached_jobs import failure
from fa4_asv.measure.context import Context
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.kernels.collect import CALL_TIMEOUT
from fa4_asv.measure.pool import Job, Outcome, Worker
from fa4_asv.measure.progress import progress
from fa4_asv.record.schema import CaseRecord

ATTEMPTS = 3 * SAMPLES
_WORKER = (sys.executable, "-m", "fa4_asv.measure.compile_time.worker")


@dataclass(frozen=True)
class Machine:
    """What tells how busy it is, and how many cores others may use; tests bring their own."""

    read: Callable[[], Reading] = read_usage
    bound: float | None = None  # None: `alone.allowed`


# Takes one sample: its seconds, and the processor's seconds of ours that no ended process of ours holds yet.
Take = Callable[[], tuple[float, float]]


class _Failed(Exception):
    """A process that answered without figures."""

    def __init__(self, record: CaseRecord) -> None:
        super().__init__(record.why)
        self.record = record


def measure_call(
    context: Context,
    case: tuple[str, ...],
    machine: Machine | None = None,
    command: tuple[str, ...] = _WORKER,
) -> CaseRecord:
    """Seconds from calling FA4 to its return, for `case` (architecture, name of the call)."""
    arch, call = case
    job = _job(context, arch, {"call": call}, command)

    def samples(title: str, machine: Machine, bound: float) -> CaseRecord:
        calls = _Calls(job)
        try:
            forks = calls.start()
            if not forks:
                calls.close()  # its import is no sample's
            # Once per architecture: its modules are the same for every call.
            warm = Path(context.spool) / f"jit-{arch}.warm"
            if not warm.exists():
                calls.take()
                warm.parent.mkdir(parents=True, exist_ok=True)
                warm.touch()
            record = _samples(context, title, calls.take, machine.read, bound)
        finally:
            calls.close()
        processes = CHILDREN if forks else "each imports FA4 itself"
        return replace(record, notes={**record.notes, "processes": processes})

    return _measure(context, f"{arch}/{call}", samples, machine or Machine())


def measure_import(
    context: Context,
    case: tuple[str, ...],
    machine: Machine | None = None,
    command: tuple[str, ...] = _WORKER,
) -> CaseRecord:
    """Seconds of `import flash_attn.cute` with the DSL, in a process that has torch already."""
    job = _job(context, ARCHES[0], None, command)

    def samples(title: str, machine: Machine, bound: float) -> CaseRecord:
        _import_seconds(job)
        return _samples(context, title, lambda: _import_seconds(job), machine.read, bound)

    return _measure(context, f"import {case[0]}", samples, machine or Machine())


def _job(context: Context, arch: str, payload: Any, command: tuple[str, ...]) -> Job:
    # Empty is unset: bytecode that a person's setting forbids to write would be made in every sample.
    bytecode = (("PYTHONDONTWRITEBYTECODE", ""), ("PYTHONPYCACHEPREFIX", ""))
    environment = (*target_environment(arch, context.flavour, context.torch_cuda), *bytecode)
    return Job("", payload, command, environment, CALL_TIMEOUT)


def _measure(
    context: Context, title: str, samples: Callable[[str, Machine, float], CaseRecord], machine: Machine
) -> CaseRecord:
    """The record of a case, whatever its processes did."""
    try:
        bound = allowed() if machine.bound is None else machine.bound
        with exclusive(lambda message: progress(context, message)):
            progress(context, f"timing {title}: first start")
            return _record(lambda: samples(title, machine, bound))
    except Fa4AsvError as error:
        # The lock or the bound: FA4 was not even asked, so an earlier time stays.
        return CaseRecord("not run", why=str(error))
    finally:
        progress(context, "")


def _record(samples: Callable[[], CaseRecord]) -> CaseRecord:
    """What `samples` gives, or the reason why FA4 and its processes gave none."""
    try:
        return samples()
    except _Failed as failed:
        return failed.record
    except (Fa4AsvError, OSError) as error:
        return CaseRecord("broken", why=str(error))


def _samples(
    context: Context, title: str, take: Take, read: Callable[[], Reading], bound: float
) -> CaseRecord:
    """Six quiet samples, or why there are none. Gives up as soon as six can no longer come together."""
    samples: list[float] = []
    used: list[float | None] = []
    disturbed: list[float] = []
    while len(samples) < SAMPLES and SAMPLES + len(disturbed) <= ATTEMPTS:
        progress(context, f"timing {title}: sample {len(samples) + 1} of {SAMPLES}")
        before = read()
        seconds, ours = take()
        after = read()
        cores = others_used(before, replace(after, own=after.own + ours))
        if cores is not None and cores > bound:
            disturbed.append(cores)
        else:
            samples.append(seconds)
            used.append(cores)
    notes = {"cpu": processor()}
    if len(samples) < SAMPLES:
        why = (
            f"others used {median(disturbed):.1f} cores while it ran: {len(samples)} of "
            f"{len(samples) + len(disturbed)} samples were quiet enough, {SAMPLES} are needed"
        )
        # Nothing is wrong with FA4: an earlier time stays, and backfill tries again.
        return CaseRecord("not run", why=why, notes=notes)
    notes["alone"] = _alone(used, len(disturbed), bound)
    return CaseRecord("measured", samples={"seconds": samples}, notes=notes)


def _alone(used: list[float | None], disturbed: int, bound: float) -> str:
    known = [cores for cores in used if cores is not None]
    if not known:
        return "unknown: this system does not tell what others use"
    sentence = f"others used at most {max(known):.2f} cores, {bound:g} allowed"
    return f"{sentence}; {disturbed} disturbed samples were repeated" if disturbed else sentence


def _import_seconds(job: Job) -> tuple[float, float]:
    worker = Worker(job)
    try:
        return _seconds(_start_of(worker)), 0.0
    finally:
        # Ended and waited for: only then does the kernel count what it used as ours.
        worker.close()


class _Calls:
    """Samples of a call: of children of one process, or, where that may not fork, of a process each."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._worker: Worker | None = None

    def start(self) -> bool:
        """Start a process and import FA4; whether it forks. Raises what it met instead."""
        self._worker = Worker(self._job)
        _seconds(_start_of(self._worker))
        return bool(self._worker.started["forks"])

    def take(self) -> tuple[float, float]:
        if self._worker is None:
            self.start()
        assert self._worker is not None
        outcome = self._worker.ask(self._job)
        seconds = _seconds(outcome)
        if not outcome.answer["kernels"]:
            raise Fa4AsvError("the call returned without compiling a kernel")
        if not self._worker.started["forks"]:
            self.close()
        return seconds, float(outcome.answer["used"])

    def close(self) -> None:
        # Ended and waited for: only then does the kernel count what it used as ours.
        if self._worker is not None:
            self._worker.close()
        self._worker = None


def _start_of(worker: Worker) -> Outcome:
    """What a process said when it had started, as the outcome of a job."""
    return worker.started if isinstance(worker.started, Outcome) else Outcome("", worker.started)


def _seconds(outcome: Outcome) -> float:
    """The seconds in a process's answer. Raises _Failed where it has none."""
    if failed := failure(outcome):
        raise _Failed(failed)
    return float(outcome.answer["seconds"])
