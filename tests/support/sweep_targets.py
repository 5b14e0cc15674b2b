"""What a sweep is planned for, and what is recorded of it."""

from __future__ import annotations

import json
from dataclasses import replace

from fa4_asv.backfill.sweep import plan as planning
from fa4_asv.backfill.sweep.engine import Subject
from fa4_asv.backfill.sweep.plan import Target
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import sidecar_path, write_sidecar
from tests.support.results import make

MACHINE = "box"
ENVIRONMENT = "fa4-py3.11-flavourcu13-toolchainday"
COMMITS = {"x": "a" * 40, "y": "b" * 40}
FILES = {name: f"{commit[:12]}-{ENVIRONMENT}.jsonl" for name, commit in COMMITS.items()}
CALLS = planning.calls_of_sets(["history"], ())


def recorded(project: Project, name: str, cases: dict[str, CaseRecord], version: str = "") -> None:
    """A sidecar of a commit beside a result file of the groups' benchmarks in `version`, or as they are now."""
    path = project.results / MACHINE / f"{COMMITS[name][:8]}-{ENVIRONMENT}.json"
    rows = {}
    for key in cases:
        group = GROUPS[key.partition("/")[0]]
        rows[group.benchmark("seconds")] = [[None], [["'fa4'"], ["'shape'"]], version or group.version, None]
    result = {
        "version": 2,
        "commit_hash": COMMITS[name],
        "env_name": ENVIRONMENT,
        "date": 1,
        "python": "3.11",
    }
    result |= {"params": {"machine": MACHINE}, "requirements": {}, "env_vars": {}, "durations": {}}
    result |= {"result_columns": ["result", "params", "version", "samples"], "results": rows}
    path.write_text(json.dumps(result))
    sidecar = replace(make(commit=COMMITS[name]), environment=ENVIRONMENT, machine=MACHINE)
    groups = {key.partition("/")[0]: {} for key in cases}
    for key, record in cases.items():
        groups[key.partition("/")[0]][key.partition("/")[2]] = record
    write_sidecar(sidecar_path(path), replace(sidecar, groups=groups))


def target(name: str) -> Target:
    subject = Subject(name, FILES[name], "python", (), "")
    return Target(COMMITS[name], name, "cu13", ENVIRONMENT, subject)
