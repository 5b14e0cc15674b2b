"""Is the record sound? Each result file against its shape, its name, its sidecar and the releases."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.project import Project
from fa4_asv.history.commits import load_commits
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.repository import git
from fa4_asv.integrity import explanations
from fa4_asv.integrity.figures import AGAIN, POOLED, is_repeated, wrong_figures
from fa4_asv.record.schema import SUITE, Sidecar, toolchain_digest
from fa4_asv.record.store import Result, iter_results, load_result, read_sidecar, sidecar_path

# asv's get_filename: longer environment names are replaced by their digest.
_LONGEST_ENVIRONMENT = 127
_LONGEST_LINE = 1000
_MACHINE_VERSION = 1  # asv.machine.Machine of asv 0.6


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one file, and what to do, in one line that steers no terminal."""

    path: Path
    what: str

    def __post_init__(self) -> None:
        # A damaged file is other people's words, and they are repeated here.
        object.__setattr__(self, "what", one_line(self.what, _LONGEST_LINE))


def verify(project: Project) -> list[Problem]:
    """Everything wrong in `results/`, in the order of the files; empty when the record is sound.

    Raises Fa4AsvError when nothing can be checked: no results folder, a damaged list of releases.
    """
    root = project.results
    if not root.is_dir():
        raise Fa4AsvError(f"{root} does not exist; run `asv run` or restore it from git")
    # A checkout that never synced has no list; then any commit may be a release.
    manifest = Manifest.load(project.manifest) if project.manifest.is_file() else None
    upstream = upstream_commits(project)
    problems = [
        Problem(path, "left behind by a write that was killed; delete it")
        for path in sorted(root.rglob("*.tmp"))
    ]
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        problems += [Problem(folder / "machine.json", what) for what in _machine(folder)]
        for path in iter_results(root, folder.name):
            problems += [Problem(path, what) for what in _result(path, manifest, upstream)]
        for path in sorted(folder.glob("*.sidecar")):
            problems += [Problem(path, what) for what in _sidecar(path, manifest)]
        for path in sorted(folder.glob("*.cause")):
            problems += [Problem(path, what) for what in explanations.problems(path, manifest)]
    return problems


def sound_files(project: Project, problems: Sequence[Problem]) -> list[Path]:
    """Result files that no problem touches: their own, their sidecar's, or their machine's."""
    bad = {problem.path for problem in problems}
    return [
        path
        for path in iter_results(project.results)
        if not bad & {path, sidecar_path(path), path.parent / "machine.json"}
    ]


def upstream_commits(project: Project) -> set[str]:
    """Commits that are no releases and are known: listed when they were recorded, or on a branch here."""
    try:
        here = git(project.repository, "rev-list", "--exclude=releases", "--branches").decode().split()
    except Fa4AsvError:  # no history, or no git to ask
        here = []
    return {*load_commits(project.upstream), *here}


def _machine(folder: Path) -> Iterator[str]:
    path = folder / "machine.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        name, version = data["machine"], data.get("version")
    except FileNotFoundError:
        if any(iter_results(folder.parent, folder.name)):
            yield f"missing, so asv drops the results of {folder.name}; restore it from git"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        yield f"is no asv machine file ({type(error).__name__}: {error}); restore it from git"
    else:
        if name != folder.name:
            yield f"describes machine {name!r} in the folder of {folder.name!r}; restore it from git"
        # asv leaves a machine without this version out of half of its pages.
        if version != _MACHINE_VERSION:
            yield f"has version {version!r}, asv reads {_MACHINE_VERSION}; restore it from git"


def _result(path: Path, manifest: Manifest | None, upstream: Collection[str]) -> Iterator[str]:
    try:
        result = load_result(path)
    except Fa4AsvError as error:
        yield _without_path(path, error)
        return
    yield from _identity(path, result)
    if manifest is not None and manifest.by_commit(result.commit) is None and result.commit not in upstream:
        yield (
            f"commit {result.commit} is no release of the history and not in history/upstream.json; run "
            "`fa4-asv history sync` (with --source for its branch), or delete the file with its sidecar"
        )
    for (name, params), value in result.figures.items():
        if isinstance(value, float) and math.isinf(value):
            yield f"{_named(name, params)} is {value}, expected a finite number; measure it again"
    for (name, params), samples in result.samples.items():
        if is_repeated(samples):
            yield f"{_named(name, params)} has {len(samples)} {POOLED}; measure it again with --interleave-rounds"
    if not sidecar_path(path).is_file():
        yield "has no sidecar, so no toolchain stands behind its figures; " + AGAIN


def _identity(path: Path, result: Result) -> Iterator[str]:
    """The file's name and folder against what it says of itself."""
    environment = result.environment
    if len(environment) > _LONGEST_ENVIRONMENT:
        environment = "env-" + hashlib.md5(environment.encode(), usedforsecurity=False).hexdigest()
    expected = f"{result.commit[:8]}-{environment}.json"
    if path.name != expected:
        yield f"holds the results that belong in {expected}; restore or rename it"
    if result.machine != path.parent.name:
        yield f"was measured on machine {result.machine!r} but stands in {path.parent.name!r}; move it back"


def _sidecar(path: Path, manifest: Manifest | None) -> Iterator[str]:
    try:
        sidecar = read_sidecar(path)
    except Fa4AsvError as error:
        yield _without_path(path, error)
        return
    if sidecar.suite != SUITE:
        yield f"was written by suite {sidecar.suite!r}, this is suite {SUITE!r}; measure again"
    release = manifest.by_commit(sidecar.commit) if manifest else None
    version = release.version if release else ""
    if manifest is not None and version != sidecar.release:
        yield f"says release {sidecar.release!r}, but its commit is {version or 'no release'!r}; {AGAIN}"
    toolchain = sidecar.toolchain
    # An unsupported flavour has none.
    digest = toolchain_digest(toolchain.flavour, toolchain.packages) if toolchain.packages else ""
    if digest != toolchain.digest:
        yield f"says toolchain {toolchain.digest!r}, but its packages are those of {digest!r}; {AGAIN}"
    result_path = path.with_suffix(".json")
    if not result_path.is_file():
        yield f"has no {result_path.name} beside it; measure again or delete it"
        return
    try:
        result = load_result(result_path)
    except Fa4AsvError:
        return  # told already, under the result file's own name
    yield from _same_origin(result, sidecar)
    yield from wrong_figures(result, sidecar.groups)


def _same_origin(result: Result, sidecar: Sidecar) -> Iterator[str]:
    pairs = {
        "machine": (sidecar.machine, result.machine),
        "commit": (sidecar.commit, result.commit),
        "environment": (sidecar.environment, result.environment),
    }
    for name, said in (("flavour", sidecar.toolchain.flavour), ("toolchain", sidecar.toolchain.policy)):
        pairs[name] = (said, result.requirements.get(name, said))
    for name, (said, recorded) in pairs.items():
        if said != recorded:
            yield f"says {name} {said!r}, the result file {recorded!r}; {AGAIN}"


def _named(name: str, params: tuple[str, ...]) -> str:
    return f"{name}({', '.join(params)})"


def _without_path(path: Path, error: Fa4AsvError) -> str:
    return str(error).removeprefix(str(path)).lstrip(": ")
