"""A history of three releases, what a run records of them, and a stand-in for asv in a backfill."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from fa4_asv.backfill.tasks import Attempt, BackfillRequest
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS, key_of
from fa4_asv.history.commits import load_commits
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.registry import Registry
from fa4_asv.history.repository import commit_date
from fa4_asv.history.sync import sync
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import iter_results, sidecar_path, write_sidecar
from tests.support import ROOT
from tests.support.results import BENCHMARKS_TEXT, FIGURES, json_of, make, result

ENVIRONMENT = "fa4-pyany-flavourcu13-toolchainday"
CODEGEN = BackfillRequest(flavours=("cu13",), bench=("^codegen.Kernels",))
KERNELS = len(GROUPS["codegen"].cases)  # that `record` measures of a commit
MEASURED = CaseRecord("measured", figures=FIGURES)
PACKAGES = {"nvidia-cutlass-dsl": "4.8.1"}  # of `record`


@pytest.fixture
def history(project, registry):
    """Three releases, nothing recorded; folders that a staged checkout links to."""
    sync(project, Registry())
    (project.root / "requirements").mkdir()
    shutil.copy(ROOT / "requirements" / "base.txt", project.root / "requirements")
    return project


def commits(project) -> list[str]:
    return [release.commit for release in Manifest.load(project.manifest).releases]


# Whole seconds of the uploads in the registry of the tests (conftest).
UPLOADED = {
    "4.0.0b3": "2026-03-05T17:56:13",
    "4.0.0b4": "2026-03-05T19:00:00",
    "4.0.0b10": "2026-04-22T08:43:17",
}


def record(project, commit: str, version: str, record: CaseRecord = MEASURED, **changed: CaseRecord) -> Path:
    """A sound pair of files for all codegen cases of a commit, as asv and its plugin write them."""
    keys = [key_of(case) for case in GROUPS["codegen"].cases]
    cases = dict.fromkeys(keys, record) | {name.replace("__", "/"): value for name, value in changed.items()}
    params = [list(map(repr, axis)) for axis in axes()]
    values = {"measured": 1, "broken": None, "unsupported": float("nan"), "not run": float("nan")}
    rows = {
        GROUPS["codegen"].benchmark(metric): [
            [FIGURES[metric] if cases[key].state == "measured" else values[cases[key].state] for key in keys],
            params,
            "1",
        ]
        for metric in FIGURES
    }
    folder = project.results / "nogpu"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "machine.json").write_text('{"machine": "nogpu", "version": 1}')
    (project.results / "benchmarks.json").write_text(BENCHMARKS_TEXT)
    path = folder / f"{commit[:8]}-{ENVIRONMENT}.json"
    durations = {"<setup_cache codegen.Kernels>": 100.0, "<build>": 0.1}
    date = int(_day(project, commit, version).timestamp()) * 1000
    path.write_text(json.dumps(result(commit, results=rows, durations=durations, date=date)))
    write_sidecar(sidecar_path(path), make(commit=commit, release=version, cases=cases))
    return path


def _day(project: Project, commit: str, version: str) -> datetime:
    """The moment that asv records of a commit: a release's upload (as the registry of the tests has it)."""
    if listed := load_commits(project.upstream).get(commit):
        return listed.time
    if version in UPLOADED:
        return datetime.fromisoformat(UPLOADED[version] + "+00:00")
    return commit_date(project, commit)


def axes() -> list[list[str]]:
    cases = GROUPS["codegen"].cases
    return [list(dict.fromkeys(case[axis] for case in cases)) for axis in (0, 1)]


def asv_that(records, monkeypatch, code=0):
    """In place of asv: `records(staged, task)` writes what a run would."""

    def stand_in(self, staged):
        records(staged, self.task)
        return code

    monkeypatch.setattr(Attempt, "_asv", stand_in)


def write_lock(project: Project, version: str, packages: dict[str, str]) -> None:
    path = project.locks / "day" / "cu13" / f"{version}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}=={held}\n" for name, held in packages.items()))


def as_asv_writes(project: Project) -> None:
    """Give the recorded pairs the columns and parameters that asv writes for machine nogpu, each kernel its own cubin."""
    params = {"machine": "nogpu", "os": "any", "arch": "any", "cpu": "any", "num_cpu": "any", "ram": "any"}
    series = {"python": "any", "flavour": "cu13", "toolchain": "day"}
    for path in iter_results(project.results, "nogpu"):
        data = json.loads(path.read_text())
        data["params"], data["env_vars"] = params | series, {}
        data["result_columns"] = [
            "result",
            "params",
            "version",
            "started_at",
            "duration",
            "samples",
            "profile",
        ]
        for row in data["results"].values():
            row[3:] = [1795486978829, 0.7]
        path.write_text(json.dumps(data))
        side = json_of(sidecar_path(path))
        for case, each in side["groups"]["codegen"].items():
            if each["state"] == "measured":
                each["sha256"] = hashlib.sha256(f"{path.name} {case}".encode()).hexdigest()
        sidecar_path(path).write_text(json.dumps(side))
