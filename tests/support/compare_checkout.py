"""A checkout that holds the recorded releases b15 and b20, and commits beside them for comparisons."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import BY_TORCH, GROUPS, key_of
from fa4_asv.history.manifest import Manifest, Release
from fa4_asv.history.repository import git
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import read_sidecar, sidecar_path, write_sidecar
from tests.support import ROOT

B15, B20 = "28b648d397912d7dc534c2b55c1ae52bf656e413", "8c78acd6e0dfae2584fca7484e2f65a367e3c937"
DAY = "fa4-pyany-flavourcu13-toolchainday"
PYPROJECT = '[project]\nname = "flash-attn-4"\ndependencies = ["nvidia-cutlass-dsl{pin}"]\n[project.optional-dependencies]\ncu13 = []\n'


def lay(project: Project) -> Project:
    """The committed list of releases, and the record of b15 and b20 on nogpu (cu13)."""
    project.manifest.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "history" / "releases.json", project.manifest)
    folder = project.results / "nogpu"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "results" / "nogpu" / "machine.json", folder)
    for commit in (B15, B20):
        for path in (ROOT / "results" / "nogpu").glob(f"{commit[:8]}-{DAY}.*"):
            shutil.copy(path, folder)
        _complete(pair(project, commit))
    return project


def _complete(path: Path) -> None:
    """A case that the catalog has and the committed record lacks is unsupported: only what a test takes away is missing."""
    sidecar, new = read_sidecar(sidecar_path(path)), CaseRecord("unsupported", why="not recorded yet")
    groups = {
        name: dict.fromkeys(map(key_of, group.cases), new)
        for name, group in GROUPS.items()
        if group.exact and not group.on_request and group.is_of("cu13") and name not in BY_TORCH
    }
    known = {name: records | sidecar.groups.get(name, {}) for name, records in groups.items()}
    write_sidecar(sidecar_path(path), replace(sidecar, groups={**sidecar.groups, **known}))


def pair(project: Project, commit: str, policy: str = "day", machine: str = "nogpu") -> Path:
    """The result file of a commit."""
    return project.results / machine / f"{commit[:8]}-{DAY.replace('day', policy)}.json"


def copy_record(project: Project, source: str, commit: str, policy: str = "day", release: str = "") -> Path:
    """What is recorded of `source`, as the record of another commit."""
    data = json.loads(pair(project, source).read_text())
    data["commit_hash"], data["env_name"] = commit, DAY.replace("day", policy)
    data["requirements"]["toolchain"] = policy
    path = pair(project, commit, policy)
    path.write_text(json.dumps(data))
    sidecar = read_sidecar(sidecar_path(pair(project, source)))
    write_sidecar(
        sidecar_path(path),
        replace(
            sidecar,
            commit=commit,
            environment=data["env_name"],
            release=release,
            toolchain=replace(sidecar.toolchain, policy=policy),
        ),
    )
    return path


def edit(path: Path, change) -> None:
    """Change the sidecar of a result file: `change` takes a case's key and record."""
    sidecar = read_sidecar(sidecar_path(path))
    groups = {
        group: {key: change(group, key, record) for key, record in records.items()}
        for group, records in sidecar.groups.items()
    }
    write_sidecar(sidecar_path(path), replace(sidecar, groups=groups))


def add_release(project: Project, version: str, commit: str) -> None:
    releases = Manifest.load(project.manifest).releases
    new = Release(version, "x.tar.gz", "0" * 64, "2026-11-20T00:00:00Z", commit)
    Manifest((*releases, new)).save(project.manifest)


def add_commit(project: Project, branch: str, subject: str, files: dict[str, str], parent: str = "") -> str:
    """A commit of `files` on a branch of the local history; branch "releases" makes it a history."""
    if not (project.repository / "HEAD").is_file():
        project.repository.mkdir(parents=True)
        git(project.repository, "init", "--bare", "--quiet")
    lines = [
        f"commit refs/heads/{branch}",
        "committer t <t@t> 1790000000 +0000",
        f"data {len(subject.encode())}",
        subject,
    ]
    lines += [f"from {parent}"] if parent else []
    for path, text in files.items():
        lines += [f"M 644 inline {path}", f"data {len(text.encode())}", text]
    git(project.repository, "fast-import", "--quiet", "--force", stdin="\n".join([*lines, ""]).encode())
    return git(project.repository, "rev-parse", f"refs/heads/{branch}").decode().strip()


def spill(more: int):
    """A kernel whose loops are not understood, so that all of its code is judged."""

    def change(group: str, key: str, record: CaseRecord) -> CaseRecord:
        if key == "sm_100/fwd_d128_full" and group == "loops":
            return CaseRecord("unsupported", why="loops: an indirect branch")
        if key != "sm_100/fwd_d128_full" or group != "codegen":
            return record
        figures = {**record.figures, "spill_bytes": record.figures["spill_bytes"] + more}
        return replace(record, figures=figures)

    return change
