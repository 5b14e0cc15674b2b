"""The sweep's calls, processes and rounds without the sweep: what of its time is the suite's own.

    python -m tools.suite_benchmarks sweep --flavour cu13 --processes 2 --rounds 3 4.0.0b7..4.0.0b36

No guard, no journals, no asv: a process a release imports FA4, calls everything once (which compiles, cold, into a folder of
its own) and then times each call by CUDA events in rounds over all releases. Needs a card and an interpreter with torch, as the
sweep does. Prints seconds of each phase as JSON, and the median of each call in the last round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from fa4_asv.backfill.sweep import plan as planning
from fa4_asv.backfill.sweep.plan import Target
from fa4_asv.backfill.tasks import commits_of
from fa4_asv.base.project import Project
from fa4_asv.measure.runtime import kernel_cache

# What each process runs. It gets calls as JSON, a line a question, and answers seconds.
WORKER = """
import json, sys
import torch
from flash_attn.cute import interface
from fa4_asv.catalog.shapes import SHAPES
from fa4_asv.measure.runtime.backends.fa4 import Fa4
from fa4_asv.measure.runtime.inputs import make
out, sys.stdout = sys.stdout, sys.stderr
a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
event = lambda: torch.cuda.Event(enable_timing=True)

def seconds(call, repetitions):
    pairs = [(event(), event()) for _ in range(repetitions)]
    for begin, end in pairs:
        begin.record(); call(); end.record()
    torch.cuda.synchronize()
    return sorted(begin.elapsed_time(end) / 1000 for begin, end in pairs)[repetitions // 2]

fa4, prepared = Fa4(), {}
for line in sys.stdin:
    job = json.loads(line)
    results = []
    for name, backward in job["calls"]:
        try:
            if name not in prepared:
                prepared.clear()
                prepared[name] = fa4.prepare(torch, make(torch, SHAPES[name], "cuda"))
            calls = prepared[name]
            call = calls.raw_backward if backward else calls.raw_forward
            call()
            torch.cuda.synchronize()
            if job["timed"]:
                once = seconds(call, 1)
                results.append(seconds(call, max(6, min(30, int(0.02 / once)))))
                seconds(lambda: torch.mm(a, a), 6)
            else:
                results.append(0.0)
        except Exception as error:
            results.append(None)
    prepared.clear()
    torch.cuda.empty_cache()
    out.write(json.dumps(results) + "\\n")
    out.flush()
"""


class Process:
    """One bare process of a release."""

    def __init__(self, target: Target, cache: str) -> None:
        subject = target.subject
        variables = dict(kernel_cache.variables(Path(cache) / Path(subject.cache).name))
        variables["PYTHONPATH"] = os.pathsep.join(subject.path)
        self.target = target
        self._process = subprocess.Popen(
            [subject.python, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **variables},
            text=True,
        )

    def ask(self, calls: list[tuple[str, bool]], timed: bool) -> list[Any]:
        """Seconds of each call; None where it failed, all of them where the process ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"calls": calls, "timed": timed}) + "\n")
            self._process.stdin.flush()
            return list(json.loads(self._process.stdout.readline()))
        except (OSError, ValueError):
            return [None] * len(calls)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ranges", nargs="*")
    parser.add_argument("--flavour", action="append")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))


def main(arguments: argparse.Namespace) -> int:
    project = Project.find()
    commits = commits_of(project, arguments.ranges)
    flavours = arguments.flavour or ["cu13"]
    targets, _ = planning.lay(project, commits, flavours, Path(sys.executable), arguments.cores)
    calls = [
        (call.case[1], call.group.startswith("backward")) for call in planning.calls_of_sets(["history"], ())
    ]
    took: dict[str, float] = {}
    last: dict[str, list[Any]] = {}
    # Linux may end a process with the thread that started it: one pool for all of them.
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(arguments.cores) as threads:
        for slot in range(arguments.processes):
            begin = time.monotonic()
            processes = list(threads.map(lambda target: Process(target, cache), targets))
            list(threads.map(lambda process: process.ask(calls, timed=False), processes))
            took[f"start {slot + 1}"] = time.monotonic() - begin
            begin = time.monotonic()
            for _ in range(arguments.rounds):
                for process in processes:
                    last[process.target.label] = process.ask(calls, timed=True)
            took[f"rounds {slot + 1}"] = time.monotonic() - begin
            for process in processes:
                process.end()
    names = [f"{'bwd' if backward else 'fwd'} {name}" for name, backward in calls]
    columns = {name: [row[at] for row in last.values() if row[at]] for at, name in enumerate(names)}
    medians = {name: median(values) if values else None for name, values in columns.items()}
    print(
        json.dumps(
            {"releases": len(targets), "seconds": took, "total": sum(took.values()), "calls": medians},
            indent=1,
        )
    )
    return 0
