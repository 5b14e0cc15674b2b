"""A checkout of its own beside the real one: asv works there, and only what is sound is moved back.

Sources, history, toolchains and caches are shared by links; `results/` and `html/` are its own.
"""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import only_one, read_text, same_bytes, write_atomic
from fa4_asv.base.project import Project
from fa4_asv.integrity.additions import changes
from fa4_asv.integrity.provenance import note
from fa4_asv.integrity.verify import is_sound, verify
from fa4_asv.record.descriptions import BENCHMARKS, MACHINE_FILE, read_benchmarks
from fa4_asv.record.store import Pair, iter_results, load_result, read_sidecar, sidecar_path

_SHARED = ("benchmarks", "fa4_asv", "requirements", "history", ".asv")
# Files of a results folder that describe what asv found, not what was measured.
_DESCRIPTIONS = (MACHINE_FILE,)
_ANEW = "to measure it anew, raise its version in catalog/benchmarks.py or delete the two files"


def results_lock(project: Project) -> AbstractContextManager[None]:
    """The lock of `results/`: held while pairs are moved in, and while they are read as pairs."""
    return only_one(project.work / "results.lock")


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
    """Copy what is known of `commit` in `environment` ("" for nothing), so that asv merges into it.

    An unsound pair is left out: merged into, it would keep what is measured now out of the record.
    """
    known = _benchmarks(project.results / BENCHMARKS)
    if known:
        write_atomic(staged.results / BENCHMARKS, _as_asv(known))
    for path in iter_results(project.results) if environment else ():
        if path.name.startswith(commit[:8]) and path.name.endswith(f"-{environment}.json"):
            folder = staged.results / path.parent.name
            folder.mkdir(exist_ok=True)
            names = [path.name, sidecar_path(path).name, *_DESCRIPTIONS]
            for name in names:
                if (path.parent / name).is_file():
                    shutil.copyfile(path.parent / name, folder / name)
    for problem in verify(staged, arriving=True):
        if problem.path.name in (*_DESCRIPTIONS, BENCHMARKS):
            problem.path.unlink(missing_ok=True)  # asv writes it anew
        else:
            for each in (".json", ".sidecar"):
                problem.path.with_suffix(each).unlink(missing_ok=True)


def take(staged: Project, project: Project, foreign: bool = False) -> list[Path]:
    """Move the staged record into the real one; the files that were moved.

    Raises Fa4AsvError, with nothing moved, where `verify` finds a problem, and where an exact figure that is recorded
    would change or go (of a `foreign` record: anything that is recorded; see `acceptance`). Of each pair the sidecar
    goes first: a kill in between leaves reasons without figures, which the next run completes.
    """
    problems = verify(staged, arriving=True)
    if problems:
        first = problems[0]
        more = f" and {len(problems) - 1} more problems" if len(problems) > 1 else ""
        raise Fa4AsvError(f"{first.path.name}: {first.what}{more}; not moved into results/")
    moved: list[Path] = []
    project.work.mkdir(exist_ok=True)
    with results_lock(project):
        _refuse_changes(staged, project, foreign)
        for path in iter_results(staged.results):
            target = project.results / path.parent.name
            for name in _DESCRIPTIONS:
                _copy(path.parent / name, target / name)
            note(project, [read_sidecar(sidecar_path(path))])
            for each in (sidecar_path(path), path):
                moved.append(_move(each, target / each.name))
        if moved:
            _take_benchmarks(staged.results / BENCHMARKS, project.results / BENCHMARKS)
    return moved


def _refuse_changes(staged: Project, project: Project, foreign: bool) -> None:
    """Raises Fa4AsvError on the first figure that would change. A recorded pair that is unsound may be replaced, but
    not by a `foreign` one."""
    for path in iter_results(staged.results):
        target = project.results / path.parent.name / path.name
        if not target.is_file() or not (foreign or is_sound(project, target)):
            continue
        old, new = (
            Pair(each_path, load_result(each_path), read_sidecar(sidecar_path(each_path)))
            for each_path in (target, path)
        )
        for what in changes(old, new, strict=foreign):
            raise Fa4AsvError(f"{path.name}: {what}; not moved into results/ ({_ANEW})")


def _take_benchmarks(source: Path, target: Path) -> None:
    """asv writes what it discovered; benchmarks that only the other side knows stay."""
    old, new = _benchmarks(target), _benchmarks(source)
    if new and {**old, **new} != old:
        write_atomic(target, _as_asv({**old, **new}))


def _benchmarks(path: Path) -> dict[str, Any]:
    """What stands in a benchmarks.json; {} where it is absent or damaged."""
    try:
        return read_benchmarks(path)
    except Fa4AsvError:
        return {}


def _as_asv(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=4, sort_keys=True)


def _copy(source: Path, target: Path) -> None:
    """As asv does at each run: what describes the machine now replaces what did. The same touches nothing."""
    if source.is_file() and not same_bytes(source, target):
        write_atomic(target, read_text(source))


def _move(source: Path, target: Path) -> Path:
    """An atomic copy, synced, then the source goes. The same bytes touch nothing."""
    if same_bytes(source, target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, read_text(source))
    source.unlink()
    return target
