"""A checkout of its own beside the real one: asv works there, and only what is sound is moved back.

Sources, history, toolchains and caches are shared by links; `results/` and `html/` are its own.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fa4_asv.errors import Fa4AsvError
from fa4_asv.files import only_one, write_atomic
from fa4_asv.project import Project
from fa4_asv.results import iter_results, sidecar_path
from fa4_asv.verify import verify

_SHARED = ("benchmarks", "fa4_asv", "requirements", "history", ".asv")
# Files of a results folder that describe what asv found, not what was measured.
_DESCRIPTIONS = ("machine.json",)
_BENCHMARKS = "benchmarks.json"


def stage(project: Project, folder: Path) -> Project:
    """Make `folder` (absent before) a checkout whose record is empty. Raises Fa4AsvError."""
    try:
        folder.mkdir(parents=True)
        project.work.mkdir(exist_ok=True)
        shutil.copyfile(project.root / "asv.conf.json", folder / "asv.conf.json")
        for name in _SHARED:
            if (project.root / name).exists():
                (folder / name).symlink_to(project.root / name)
        for name in ("results", "html"):
            (folder / name).mkdir()
    except OSError as error:
        raise Fa4AsvError(f"cannot make {folder}: {error.strerror}") from None
    return Project(folder.resolve())


def seed(project: Project, staged: Project, commit: str, environment: str) -> None:
    """Copy what is known of `commit` in `environment` ("" for nothing), so that asv merges into it."""
    if (project.results / _BENCHMARKS).is_file():
        shutil.copyfile(project.results / _BENCHMARKS, staged.results / _BENCHMARKS)
    for path in iter_results(project.results) if environment else ():
        if path.name.startswith(commit[:8]) and path.name.endswith(f"-{environment}.json"):
            machine = staged.results / path.parent.name
            machine.mkdir(exist_ok=True)
            names = [path.name, sidecar_path(path).name, *_DESCRIPTIONS]
            for name in names:
                if (path.parent / name).is_file():
                    shutil.copyfile(path.parent / name, machine / name)


def take(staged: Project, project: Project) -> list[Path]:
    """Move the staged record into the real one; the files that were moved.

    Raises Fa4AsvError, with nothing moved, where `verify` finds a problem. Of each pair the sidecar goes
    first: a kill in between leaves reasons without figures, which the next run completes.
    """
    problems = verify(staged)
    if problems:
        first = problems[0]
        more = f" and {len(problems) - 1} more problems" if len(problems) > 1 else ""
        raise Fa4AsvError(f"{first.path.name}: {first.what}{more}; not moved into results/")
    moved: list[Path] = []
    project.work.mkdir(exist_ok=True)
    with only_one(project.work / "results.lock"):
        for path in iter_results(staged.results):
            target = project.results / path.parent.name
            for name in _DESCRIPTIONS:
                _copy_if_new(path.parent / name, target / name)
            for each in (sidecar_path(path), path):
                moved.append(_move(each, target / each.name))
        if moved:
            _take_benchmarks(staged.results / _BENCHMARKS, project.results / _BENCHMARKS)
    return moved


def _take_benchmarks(source: Path, target: Path) -> None:
    """asv writes what it discovered; benchmarks that only the other side knows stay."""
    if not source.is_file():
        return
    new = json.loads(source.read_text(encoding="utf-8"))
    try:
        old = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old = {}
    write_atomic(target, json.dumps({**old, **new}, indent=4, sort_keys=True))


def _copy_if_new(source: Path, target: Path) -> None:
    if source.is_file() and not target.is_file():
        write_atomic(target, source.read_text(encoding="utf-8"))


def _move(source: Path, target: Path) -> Path:
    """An atomic copy, synced, then the source goes. The same bytes touch nothing."""
    if target.is_file() and target.read_bytes() == source.read_bytes():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, source.read_text(encoding="utf-8"))
    source.unlink()
    return target
