"""One recorded release: where its result file is, how it is damaged, what `verify` says then."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from fa4_asv.catalog.metrics import METRICS
from fa4_asv.history.manifest import Manifest, Release
from fa4_asv.integrity.verify import verify
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import sidecar_path, write_sidecar
from tests.support.results import BENCHMARKS_TEXT, FIGURES, MEASURED, REFUSED, make, result

COMMIT = "c" * 40
DATE = 1772733373000  # in ms, the day of the recorded release
BROKEN = CaseRecord("broken", "killed by SIGSEGV")
COLUMNS = ["result", "params", "version", "samples"]


def rows() -> dict[str, list[object]]:
    """All metrics of four cases: measured, not run, unsupported, broken."""
    params = [["'sm_90'", "'sm_100'"], ["'x'", "'y'"]]
    return {
        f"codegen.Kernels.track_{metric}": [[FIGURES[metric], math.nan, math.nan, None], params, "1"]
        for metric in METRICS
    }


@pytest.fixture
def sound(project):
    """A checkout with one release, recorded."""
    folder = project.results / "nogpu"
    folder.mkdir(parents=True)
    (folder / "machine.json").write_text('{"machine": "nogpu", "version": 1}')
    path = folder / "cccccccc-fa4-pyany-flavourcu13-toolchainday.json"
    path.write_text(json.dumps(result(COMMIT, results=rows(), result_columns=COLUMNS, date=DATE)))
    (project.results / "benchmarks.json").write_text(BENCHMARKS_TEXT)
    cases = {"sm_90/x": MEASURED, "sm_100/x": REFUSED, "sm_100/y": BROKEN}
    write_sidecar(sidecar_path(path), make(cases=cases))
    release = Release("4.0.0b36", "flash_attn_4-4.0.0b36.tar.gz", "0" * 64, "2026-03-05T17:56:13Z", COMMIT)
    Manifest((release,)).save(project.manifest)
    return project


def result_file(project) -> Path:
    return project.results / "nogpu" / "cccccccc-fa4-pyany-flavourcu13-toolchainday.json"


def edit(path: Path, change: Callable[[dict], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def told(project) -> list[str]:
    lines = [f"{problem.path.name}: {problem.what}" for problem in verify(project)]
    assert not any("\n" in line for line in lines)
    return lines
