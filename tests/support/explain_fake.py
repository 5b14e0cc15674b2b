"""A compiler of a few words: what a kernel spills is said by a function of source, packages and case."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fa4_asv.base.project import Project
from fa4_asv.explain.corners import Corner, corner
from fa4_asv.explain.pairs import Records, Workshop
from fa4_asv.history.registry import Registry
from fa4_asv.history.repository import git, resolve
from fa4_asv.history.source import Source, lay_source
from fa4_asv.history.sync import sync
from fa4_asv.record.schema import CaseRecord
from tests.support import ROOT
from tests.support.registry_fake import FakeRegistry
from tests.support.results import FIGURES

# Bytes spilled, or words why the kernel cannot be compiled.
Spills = Callable[[Source, dict[str, str], str], "int | str"]
CASE = ("sm_100", "fwd_d128_full")
OLD = {
    "apache-tvm-ffi": "0.1",
    "nvidia-cutlass-dsl": "4.6.2",
    "nvidia-cutlass-dsl-libs": "4.6.2",
    "quack-kernels": "0.6",
}
NEW = {
    "apache-tvm-ffi": "0.2",
    "nvidia-cutlass-dsl": "4.8.0",
    "nvidia-cutlass-dsl-libs": "4.8.0",
    "quack-kernels": "0.6",
}


def record(spill: int | str) -> CaseRecord:
    if isinstance(spill, str):
        state, _, why = spill.partition(": ")
        return CaseRecord(state, why)
    opcodes = {"UTCHMMA": 8, "MUFU.EX2": 64, "FFMA2": 100, "MOV": 20, "SYNCS.PHASECHK": 5, "NOP": 2}
    opcodes |= {"LDL": spill // 4, "STL": spill // 8} if spill else {}
    figures = {**FIGURES, "spill_bytes": spill, "local_loads": spill // 4, "local_stores": spill // 8}
    return CaseRecord("measured", "", figures, "ab" * 32, "Forward", opcodes)


class FakeShop(Workshop):
    """Compiles nothing; `asked` holds what was asked for, as (release or commit, DSL, cases)."""

    def __init__(self, project: Project, spills: Spills) -> None:
        super().__init__(project, Path("python"), "cu12")
        object.__setattr__(self, "spills", spills)
        object.__setattr__(self, "asked", [])

    def records(self, source: Source, packages: dict[str, str], cases: Sequence[tuple[str, ...]]) -> Records:
        names = ["/".join(case) for case in cases]
        if names:
            self.asked.append((source.release or source.commit[:7], packages["nvidia-cutlass-dsl"], names))
        return {name: record(self.spills(source, packages, name)) for name in names}


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture(scope="session")
def synced(tmp_path_factory) -> Project:
    """A checkout with the history of three releases, made once and copied."""
    root = tmp_path_factory.mktemp("synced")
    shutil.copy(ROOT / "asv.conf.json", root)
    with FakeRegistry() as fake, pytest.MonkeyPatch.context() as patch:
        fake.add("4.0.0b3", "2026-03-05T17:56:13.305233Z")
        fake.add("4.0.0b4", "2026-03-05T19:00:00.5Z")
        fake.add("4.0.0b10", "2026-04-22T08:43:17.179304Z")
        patch.setenv("FA4_ASV_INDEX_URL", fake.url)
        sync(Project(root), Registry())
    return Project(root)


@pytest.fixture
def two(project, synced) -> tuple[Project, Corner, Corner]:
    """The first (4.0.0b3) and the last (4.0.0b10) of three releases, with toolchains OLD and NEW."""
    for name in (".asv", "history"):
        shutil.copytree(synced.root / name, project.root / name)
    lock(project, "4.0.0b3", OLD)
    lock(project, "4.0.0b10", NEW)
    lock(project, "4.0.0b4", OLD)
    return project, at(project, "fa4-v4.0.0b3"), at(project, "fa4-v4.0.0b10")


def at(project: Project, ref: str) -> Corner:
    return corner(project, lay_source(project, resolve(project, ref)), "cu12")


def lock(project: Project, release: str, packages: dict[str, str]) -> None:
    write_lock(project.locks / "day" / "cu12" / f"{release}.txt", packages)


def write_lock(path: Path, packages: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()))


def upstream(project: Project, subjects: Sequence[str]) -> list[str]:
    """A branch `main`: b3's sources, a commit a subject that changes them, b10's sources; their hashes.

    Commits are a second apart, all before b10's upload.
    """
    lines = ["feature done", "reset refs/heads/main", ""]
    first, last = (
        git(project.repository, "rev-parse", f"fa4-v4.0.0{b}^{{tree}}").decode().strip()
        for b in ("b3", "b10")
    )
    for number, subject in enumerate(["start", *subjects, "end"]):
        lines += ["commit refs/heads/main", f"committer U <u@x> {1772700000 + number} +0000"]
        lines += [f"data {len(subject.encode())}", subject]
        if subject in ("start", "end"):
            lines += [f'M 040000 {first if subject == "start" else last} ""']
        else:
            text = f"VERSION = {number}\n"
            lines += ["M 100644 inline flash_attn/cute/interface.py", f"data {len(text)}", text]
    lines += ["done", ""]
    git(project.repository, "fast-import", "--quiet", "--force", stdin="\n".join(lines).encode())
    return git(project.repository, "rev-list", "--reverse", "main").decode().split()
