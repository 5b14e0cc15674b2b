"""A sound record of invented figures, written as asv and its plugin write it: for reports and their growth."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS, key_of
from fa4_asv.history.manifest import Manifest, Release
from fa4_asv.record.schema import FORMAT, SUITE, CaseRecord, Sidecar, Toolchain, toolchain_digest
from fa4_asv.record.store import sidecar_path, write_sidecar
from tests.support.backfills import MEASURED
from tests.support.results import BENCHMARKS_TEXT, FIGURES

DAY = 24 * 3600 * 1000
Groups = Mapping[str, Mapping[str, CaseRecord]]


def releases(count: int) -> list[Release]:
    """4.0.0b1, 4.0.0b2, ..., a day apart."""
    return [
        Release(
            f"4.0.0b{number}",
            f"flash_attn_4-4.0.0b{number}.tar.gz",
            f"{number:064x}",
            f"2026-{1 + number // 28 % 12:02}-{1 + number % 28:02}T08:00:00Z",
            f"{number:040x}"[::-1],
        )
        for number in range(1, count + 1)
    ]


def write_releases(project: Project, count: int) -> list[Release]:
    result = releases(count)
    Manifest(tuple(result)).save(project.manifest)
    return result


def write_pair(
    project: Project,
    release: Release,
    groups: Groups,
    flavour: str = "cu13",
    compiler: str = "4.8.1",
    machine: str = "nogpu",
    date: int = 0,
    policy: str = "day",
) -> Path:
    """The result file of one release in one flavour, with its sidecar and the machine's file."""
    environment = f"fa4-pyany-flavour{flavour}-toolchain{policy}"
    folder = project.results / machine
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "machine.json").write_text(json.dumps({"machine": machine, "version": 1}))
    (project.results / "benchmarks.json").write_text(BENCHMARKS_TEXT)
    path = folder / f"{release.commit[:8]}-{environment}.json"
    path.write_text(
        json.dumps(
            {
                "version": 2,
                "commit_hash": release.commit,
                "env_name": environment,
                "date": date or int(release.time.timestamp()) * 1000,
                "python": "any",
                "params": {"machine": machine, "python": "any", "flavour": flavour, "toolchain": policy},
                "requirements": {"flavour": flavour, "toolchain": policy},
                "env_vars": {},
                "result_columns": ["result", "params", "version", "samples"],
                "durations": {},
                "results": _rows(groups),
            }
        )
    )
    packages = {"nvidia-cutlass-dsl": compiler}
    toolchain = Toolchain(policy, flavour, toolchain_digest(flavour, packages), packages)
    sidecar = Sidecar(
        FORMAT,
        SUITE,
        machine,
        release.commit,
        environment,
        release.version,
        toolchain,
        {name: dict(cases) for name, cases in groups.items()},
    )
    write_sidecar(sidecar_path(path), sidecar)
    return path


def _rows(groups: Groups) -> dict[str, list[object]]:
    rows: dict[str, list[object]] = {}
    for name, records in groups.items():
        group = GROUPS[name]
        axes = [list(dict.fromkeys(labels)) for labels in zip(*group.cases, strict=True)]
        params = [[repr(word) for word in axis] for axis in axes]
        keys = [key_of(case) for case in _product(axes)]
        for metric in group.metrics:
            values = [_value(records.get(key), metric) for key in keys]
            samples = [record.samples.get(metric) if (record := records.get(key)) else None for key in keys]
            rows[group.benchmark(metric)] = [values, params, "1", samples if any(samples) else None]
    return rows


def _product(axes: list[list[str]]) -> list[tuple[str, ...]]:
    result: list[tuple[str, ...]] = [()]
    for axis in axes:
        result = [(*case, word) for case in result for word in axis]
    return result


def _value(record: CaseRecord | None, metric: str) -> float | None:
    if record is None or record.state in ("unsupported", "not run") or record.says_why_not(metric):
        return math.nan
    if record.state == "broken":
        return None
    return median(record.samples[metric]) if metric in record.samples else record.figures[metric]


NAME = "sm_100/fwd_d128_full"
HOSTILE = 'AssertionError: <script>alert("x")</script> & <b>'


def kernels(**figures: int) -> dict[str, dict[str, CaseRecord]]:
    """Three kernels, one with other figures; one that FA4 refuses in hostile words."""
    changed = replace(MEASURED, figures={**FIGURES, **figures})
    cases = {NAME: changed, "sm_90/fwd_d128_full": MEASURED, "sm_100/bwd_d128_full": MEASURED}
    return {"codegen": {**cases, "sm_90/bwd_d256_full": CaseRecord("unsupported", HOSTILE)}}


def a_thread(case: str) -> dict[str, object]:
    """A thread upstream about the spills of a kernel, from b3 to b5 under cu13, as history/threads.json has it."""
    return {
        "thread": "flash-attention#7",
        "url": "https://github.com/Dao-AILab/flash-attention/issues/7",
        "line": "it spills",
        **{"group": "codegen", "metric": "spill_bytes", "cases": [case], "compilers": []},
        "spans": {"cu13": ["4.0.0b3", "4.0.0b5"]},
    }
