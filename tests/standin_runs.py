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

from fa4_asv import runtime, runtime_worker, sampling, timing
from fa4_asv.compile_pool import Outcome
from fa4_asv.context import Context
from fa4_asv.groups import GROUPS, Case
from fa4_asv.records import CaseRecord
from fa4_asv.runtime import next_record
from tests.mutants import MUTANTS, lay

D64, D128 = "b2_s256_h4_d64_causal", "b1_s256_h2_d128_causal"
FULL, GQA, LONG = "b2_s256_h4_d64_full", "b1_s256_h4kv2_d128_causal_fp16", "b1_s4352_h1_d64_causal"
ROOT = Path(__file__).resolve().parent.parent
_STANDIN = ("flash_attn", "cutlass")


def context(root: Path, case: Case) -> Context:
    """A context that selects one case."""
    names = ("environment", "tree", "release", "policy", "digest", "source", "cuobjdump", "nvdisasm")
    return Context(
        **dict.fromkeys(names, "x"),
        root=str(root),
        spool=str(root / "spool"),
        machine="box",
        commit="c" * 40,
        flavour="cu13",
        packages={},
        select=[re.escape(str(case))],
    )


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

    def use(self, name: str) -> None:
        """Put a mutant (no mutant's name: the stand-in itself) in the place of FA4."""
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
        case, group = ("fa4", shape), GROUPS["backward-cpu" if backward else "forward-cpu"]
        root = self.folder / f"root-{name}-{backward}-{shape}"
        return next_record(context(root, case), group, case)

    def run_jobs(self, jobs: Any, processes: int, finished: Any) -> None:
        """In the place of `compile_pool.run_jobs`."""
        for job in jobs:
            answer = runtime_worker.answer(self.torch, job.payload, self.timer, self.control)
            finished(Outcome(job.key, json.loads(json.dumps(answer))))


def quick(call: Any, timer: Any, control: Any = None, compiles: Any = lambda: 0) -> timing.Timing:
    """`timing.measure` with one sample and no rest: for tests of what stands before the clock."""
    return timing.measure(call, timer, control, compiles, sampling.Rule(1, 0.0, 60.0, 10.0), lambda _: None)


def runner_of(torch: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A Runner in this process, on one thread."""
    runner = Runner(torch, folder, monkeypatch)
    monkeypatch.setattr(runtime, "run_jobs", runner.run_jobs)
    monkeypatch.setattr(runtime_worker, "measure", quick)
    monkeypatch.setattr(timing, "WARM_UPS", 1)
    monkeypatch.setattr(sampling, "FEWEST", 1)
    return runner
