"""What the bounds of a compile worker cost: its start, and one compile with it, within them and without.

    python -m tools.suite_benchmarks isolation               # 10 pairs, the newest release, cu13, a small kernel
    python -m tools.suite_benchmarks isolation --pairs 30 --case fwd_d128_full --json

Within: started by `base.isolation` with few variables, folders of its own, limits and no network. Without: the same program
with all variables. Each pair starts both, one after the other, in alternating order. The start ends where the worker says that
it has imported FA4; the compile is the first of the process. Aim: at most 0.05 more seconds per second, in the median of the
pairs. Exit code 1 where it is missed. On a busy machine look at the CPU seconds, of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median

from fa4_asv.asv_plugin.base_environments import base_here
from fa4_asv.base import isolation, scratch
from fa4_asv.base.project import Project
from fa4_asv.catalog.kernels import CASES
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Policy, install
from fa4_asv.measure.driver_stubs import target_environment

MORE = 0.05
_ARCH = "sm_90"
_STEPS = ("start", "start and compile")


@dataclass(frozen=True)
class Asked:
    """What is started and asked: a worker's command, its variables, and the call to compile."""

    command: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    call: str


def asked(project: Project, commit: str, flavour: str, case: str) -> Asked:
    """The compile worker of a commit as `asv run` starts it. Raises Fa4AsvError."""
    source = lay_source(project, commit)
    python = install(project, source.lock(project, flavour, Policy("day")), base_here(project, ""))
    path = os.pathsep.join([str(source.folder), str(project.root)])
    variables = (*target_environment(_ARCH, flavour), ("CUTE_DSL_KEEP_CUBIN", "1"), ("PYTHONPATH", path))
    command = (str(python), "-m", "fa4_asv.measure.kernels.worker")
    return Asked(command, variables, CASES[case].call.name)


def once(what: Asked, bounded: bool) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds until the worker is ready, and until it has compiled. Raises RuntimeError where it fails."""
    with scratch.folder("cost") as folder:
        (folder / "dumps").mkdir()
        variables = dict(what.variables) | {"FA4_ASV_DUMPS": str(folder / "dumps")}
        before, begin = _cpu(), time.perf_counter()
        command = isolation.command(what.command, isolation.COMPILE) if bounded else list(what.command)
        environment = isolation.environment(folder, variables) if bounded else os.environ | variables
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert process.stdin and process.stdout
        ready = process.stdout.readline()
        start = time.perf_counter() - begin
        question = {"call": what.call, "into": str(folder / "into"), "around": False}
        answer, errors = process.communicate(json.dumps(question) + "\n")
        wall, cpu = time.perf_counter() - begin, _cpu() - before
        if not ready or not answer or json.loads(answer)["error"]:
            raise RuntimeError(f"the worker failed: {(answer or errors)[-400:]}")
        return {"start": (start, 0.0), "start and compile": (wall, cpu)}


def _cpu() -> float:
    """CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compared(what: Asked, pairs: int) -> dict[str, dict[str, float]]:
    """For each step: median seconds within and without, and the median of what a pair's first has more, as a share."""
    once(what, bounded=True)  # warm: files are read, caches of the interpreter are made
    rows = []
    for number in range(pairs):
        order = (True, False) if number % 2 else (False, True)
        taken = {bounded: once(what, bounded) for bounded in order}
        rows.append((taken[True], taken[False]))
    return {
        **{step: summary([(within[step][0], bare[step][0]) for within, bare in rows]) for step in _STEPS},
        "CPU of both": summary([(within[_STEPS[1]][1], bare[_STEPS[1]][1]) for within, bare in rows]),
    }


def summary(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Of (within, without): the medians, and the median of the differences and of the shares."""
    return {
        "within": median(within for within, _ in pairs),
        "without": median(bare for _, bare in pairs),
        "more": median(within - bare for within, bare in pairs),
        "share": median(within / bare - 1 for within, bare in pairs),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--release", default="", help="default: the newest")
    parser.add_argument("--flavour", default="cu13")
    parser.add_argument("--case", default="fwd_d64_full", choices=sorted(CASES))
    parser.add_argument("--json", action="store_true")


def main(arguments: argparse.Namespace) -> int:
    project = Project.find()
    releases = [release for release in Manifest.load(project.manifest).releases if release.commit]
    named = [each for each in releases if arguments.release in ("", each.version)]
    if not named:
        sys.exit(f"no release {arguments.release!r}; `fa4-asv history list` names them")
    what = asked(project, named[-1].commit, arguments.flavour, arguments.case)
    figures = compared(what, arguments.pairs)
    if arguments.json:
        print(json.dumps({"release": named[-1].version, "case": arguments.case, **figures}, indent=1))
    else:
        print("| | within, s | without, s | more, ms | share |\n|---|---|---|---|---|")
        for step, row in figures.items():
            print(
                f"| {step} | {row['within']:.2f} | {row['without']:.2f} | {row['more'] * 1e3:+.0f} | {row['share']:+.1%} |"
            )
    return int(any(figures[step]["share"] > MORE for step in _STEPS))
