"""Timed cases of the stand-in, run as the worker runs them but in this process: milliseconds instead of seconds."""

from __future__ import annotations

import importlib
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fa4_asv.base import core_locks
from fa4_asv.catalog.benchmarks import GROUPS, Case
from fa4_asv.measure import cached_jobs
from fa4_asv.measure.context import Context
from fa4_asv.measure.pool import Outcome
from fa4_asv.measure.runtime import sampling, timing
from fa4_asv.measure.runtime import worker as runtime_worker
from fa4_asv.measure.runtime.collect import next_record
from fa4_asv.record.schema import CaseRecord
from tests.support.contexts import a_context
from tests.support.mutants import MUTANTS, lay

FORWARD, BACKWARD = False, True
D64, D128 = "b2_s256_h4_d64_causal", "b1_s256_h2_d128_causal"
FULL, GQA, LONG = "b2_s256_h4_d64_full", "b1_s256_h4kv2_d128_causal_fp16", "b1_s4352_h1_d64_causal"
_STANDIN = ("flash_attn", "cutlass")


def context(root: Path, *cases: Case) -> Context:
    """A context that selects these cases."""
    return a_context(root, select=[re.escape(str(case)) for case in cases])


def forget() -> None:
    """What was imported of a stand-in, so that the next one is imported anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] in _STANDIN]:
        del sys.modules[name]
    importlib.invalidate_caches()


@dataclass
class Runner:
    """Lays a stand-in or a mutant and asks for records of its cases, round after round."""

    torch: Any
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    timer: Any = field(default_factory=timing.CpuTimer)
    control: Any = None
    name: str = ""

    def use(self, name: str) -> None:
        """Put a mutant (no mutant's name: the stand-in itself) in the place of FA4."""
        self.name = name
        root = self.folder / (name or "standin")
        if not root.exists():
            lay(root, MUTANTS.get(name))
        forget()
        self.monkeypatch.syspath_prepend(str(root))
        runtime_worker.count_compiles()

    def rounds(self, name: str, backward: bool, shape: str, count: int = 1) -> list[CaseRecord]:
        """What asv would be told of a case in `count` rounds."""
        self.use(name)
        return [self.another(name, backward, shape) for _ in range(count)]

    def another(self, name: str, backward: bool, shape: str) -> CaseRecord:
        """One more round of what is in use."""
        return self.ask(name, "backward-cpu" if backward else "forward-cpu", ("fa4", shape))

    def ask(self, name: str, group: str, case: Case, metric: str = "") -> CaseRecord:
        """The next record of a case of what is in use; `name` tells the roots of mutants apart."""
        root = self.folder / "-".join(("root", name, group, *case))
        return next_record(context(root, case), GROUPS[group], case, metric)

    def together(self, name: str, *shapes: str, **command: tuple[str, ...]) -> dict[str, CaseRecord]:
        """What asv would be told of several cases of one round of the forward."""
        self.use(name)
        cases = [("fa4", shape) for shape in shapes]
        chosen = context(self.folder / f"together-{name}", *cases)
        return {case[1]: next_record(chosen, GROUPS["forward-cpu"], case, **command) for case in cases}

    def passes(self, name: str, backward: bool, shape: str) -> None:
        """A mutant that is right here must not be caught here: the catch elsewhere is about its fault."""
        (record,) = self.rounds(name, backward, shape)
        assert record.state == "measured", record.why

    def run_jobs(self, jobs: Any, processes: int, finished: Any) -> None:
        """In the place of `compile_pool.run_jobs`."""
        for job in jobs:
            answer = runtime_worker.answer(self.torch, job.payload, self.timer, self.control)
            finished(Outcome(job.key, json.loads(json.dumps(answer))))


def quick(call: Any, timer: Any, control: Any = None, compiles: Any = lambda: 0) -> timing.Timing:
    """`timing.measure` with one sample and no rest: for tests of what stands before the clock."""
    rule, pace = sampling.Rule(1, 0.0, 60.0, 10.0, fewest=1), timing.Pace(warm_ups=1)
    return timing.measure(call, timer, control, compiles, rule, lambda _: None, pace)


def runner_of(torch: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A Runner in this process, on one thread."""
    runner = Runner(torch, folder, monkeypatch)
    monkeypatch.setattr(cached_jobs, "run_jobs", runner.run_jobs)
    monkeypatch.setattr(runtime_worker, "measure", quick)
    return runner


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """Runs cases in this process, on one thread: where cores are scarce, more would wait for one another."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(core_locks, "lock_path", lambda: tmp_path / "test.lock")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield runner_of(torch, tmp_path, monkeypatch)
    torch.set_num_threads(threads)
    forget()


@pytest.fixture
def note(record_property):
    """Writes a line of the table that tests/proofs/mutants.py prints."""

    def write(name: str, catcher: str, message: str) -> None:
        for key, value in (("mutant", MUTANTS[name].description), ("catcher", catcher), ("words", message)):
            record_property(key, value)

    return write


@pytest.fixture
def caught(runner, note):
    """Asserts that a mutant's case has words and no time, in the first round and in the next."""

    def check(name: str, catcher: str, backward: bool, shape: str, message: str) -> None:
        first, later = runner.rounds(name, backward, shape, 2)
        for record in (first, later):
            assert (record.state, record.samples, record.figures) == ("broken", {}, {}), record
            assert re.search(message, record.why), record.why
        if catcher.startswith("guard"):
            assert later.why.startswith(f"{first.why} (failed before; remove "), "not even asked again"
        note(name, catcher, first.why)

    return check
