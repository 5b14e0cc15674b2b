"""Is the record sound? Every committed file that something reads, against its shape, its name and the others."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.project import Project
from fa4_asv.base.side_by_side import in_order
from fa4_asv.catalog.kernels import BEYOND
from fa4_asv.history.commits import load_commits
from fa4_asv.history.manifest import Manifest, Release
from fa4_asv.history.repository import commit_date, git
from fa4_asv.history.toolchain import can_name_locks, read_lock
from fa4_asv.integrity import explanations
from fa4_asv.integrity.consistency import AsCu12, Cubins, checks
from fa4_asv.integrity.figures import AGAIN, POOLED, is_repeated, wrong_figures
from fa4_asv.integrity.rounds import Peaks, Sweeps
from fa4_asv.record.descriptions import BENCHMARKS, MACHINE_FILE, read_benchmarks, read_machine
from fa4_asv.record.formatting import counted
from fa4_asv.record.schema import SUITE, Sidecar, toolchain_digest
from fa4_asv.record.store import (
    Entry,
    Place,
    Result,
    entries,
    iter_results,
    places,
    read_entry,
    sidecar_path,
    without_path,
)

# asv's get_filename: longer environment names are replaced by their digest.
_LONGEST_ENVIRONMENT = 127
_LONGEST_LINE = 1000


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one file, and what to do, in one line that steers no terminal."""

    path: Path
    what: str

    def __post_init__(self) -> None:
        # What a damaged file holds is foreign text, and parts of it are repeated here.
        object.__setattr__(self, "what", one_line(self.what, _LONGEST_LINE))

    def place(self, root: Path) -> str:
        """The file below `root`, in one line: whoever made it chose its name."""
        return one_line(self.path.relative_to(root).as_posix(), _LONGEST_LINE)


@dataclass(frozen=True)
class Known:
    """What is committed beside the record. `here` are commits of the local history that may be in no list;
    `arriving`: of a staged checkout, whose commits and toolchains are listed when it is taken over."""

    manifest: Manifest
    dates: Mapping[str, datetime]
    here: Collection[str]
    locks: Path
    arriving: bool
    releases: Mapping[str, Release] = field(default_factory=dict)
    packages: dict[Path, dict[str, str] | None] = field(default_factory=dict)
    history: Project | None = None

    @classmethod
    def of(cls, project: Project, arriving: bool) -> Known:
        """Raises Fa4AsvError where the list of releases is missing or a list is damaged."""
        if not project.manifest.is_file() and any(iter_results(project.results)):
            raise Fa4AsvError(
                f"{project.manifest} is missing, so no result file belongs to a release; restore it from git"
            )
        manifest = Manifest.load(project.manifest)
        releases = {release.commit: release for release in manifest.releases if release.commit}
        dates = {commit: each.time for commit, each in load_commits(project.upstream).items()}
        dates |= {commit: release.time for commit, release in releases.items()}
        return cls(manifest, dates, _branches(project), project.locks, arriving, releases, history=project)

    def date_of(self, commit: str) -> datetime | None:
        """Of a listed commit as it is listed, of one that stands on a branch only as git has it."""
        if commit in self.dates or commit not in self.here or self.history is None:
            return self.dates.get(commit)
        return commit_date(self.history, commit)

    def lock_of(self, sidecar: Sidecar) -> Path:
        """Where the toolchain of a recorded commit is committed."""
        release, chain = self.releases.get(sidecar.commit), sidecar.toolchain
        key = release.version if release else sidecar.commit
        return self.locks / chain.policy / chain.flavour / f"{key}.txt"


def verify(
    project: Project, arriving: bool = False, each: Callable[[Entry], None] | None = None
) -> list[Problem]:
    """Everything wrong in `results/` and `history/`, in the order of the files; empty when the record is sound.

    `arriving` is said of a staged checkout (see Known). `each` gets what was read, sound or not, so that nobody need read it
    again. Raises Fa4AsvError when nothing can be checked: no results folder, or a list of releases that is missing or damaged.
    """
    root = project.results
    if not root.is_dir():
        raise Fa4AsvError(f"{root} does not exist; run `asv run` or restore it from git")
    known = Known.of(project, arriving)
    problems = [*_left_behind(root), *_locks(known), *_benchmarks(root, arriving)]
    causes, cubins, shared, unreleased = explanations.Explanations.of(root), Cubins(), AsCu12(), 0
    sweeps, peaks = Sweeps(), Peaks()
    with_loops = Cubins()  # records of other groups hold more figures of a cubin

    def read(place: Place) -> tuple[Entry, list[Problem]]:
        entry = read_entry(place)
        damaged = [Problem(path, what) for path, what in entry.damaged]
        return entry, [*damaged, *_of_pair(entry, known)]

    for entry, wrong in in_order(read, list(places(root))):
        problems += wrong
        if each:
            each(entry)
        if entry.sidecar:
            unreleased += not entry.sidecar.release
            causes.note(entry.sidecar, entry.path.parent)
            for group in ("codegen", "loops"):
                cubins.add(sidecar_path(entry.path), entry.sidecar.groups.get(group, {}))
            for group in BEYOND:
                with_loops.add(sidecar_path(entry.path), entry.sidecar.groups.get(group, {}))
            shared.add(sidecar_path(entry.path), entry.sidecar)
            sweeps.add(sidecar_path(entry.path), entry.sidecar)
            peaks.add(sidecar_path(entry.path), entry.sidecar)
    pairs = (
        *causes.problems(known.manifest),
        *cubins.wrong(),
        *with_loops.wrong(),
        *shared.wrong(),
        *sweeps.wrong(),
        *peaks.wrong(),
    )
    problems += [Problem(path, what) for path, what in pairs]
    problems += _machines(root)
    if unreleased and not arriving and not project.upstream.is_file():
        what = f"missing, and {counted(unreleased, 'result file')} of upstream's commits need it; restore it from git"
        problems.append(Problem(project.upstream, what))
    return sorted(problems, key=lambda problem: problem.path)


def _left_behind(root: Path) -> Iterator[Problem]:
    for path in root.rglob("*.tmp"):
        yield Problem(path, "left behind by a write that was killed; delete it")


def _locks(known: Known) -> Iterator[Problem]:
    """Each committed toolchain; what it holds is kept for the sidecars."""
    for path in sorted(known.locks.rglob("*.txt")):
        try:
            known.packages[path] = read_lock(path, path.parent.name, path.parent.parent.name).packages
        except Fa4AsvError as error:
            known.packages[path] = None
            yield Problem(path, without_path(path, error))


def _benchmarks(root: Path, arriving: bool) -> Iterator[Problem]:
    path = root / BENCHMARKS
    if arriving and not path.exists():
        return  # asv writes it anew
    if path.exists() or any(iter_results(root)):
        try:
            read_benchmarks(path)
        except Fa4AsvError as error:
            yield Problem(path, without_path(path, error))


def _machines(root: Path) -> Iterator[Problem]:
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        path = folder / MACHINE_FILE
        if not any(iter_results(root, folder.name)):
            continue
        try:
            read_machine(path)
        except Fa4AsvError as error:
            drops = f"; without it asv drops the results of {folder.name}"
            yield Problem(path, without_path(path, error) + drops)


def _of_pair(entry: Entry, known: Known) -> Iterator[Problem]:
    path, side = entry.path, sidecar_path(entry.path)
    damaged = {path for path, _ in entry.damaged}
    if entry.result:
        yield from (Problem(path, what) for what in _result(path, entry.result, known))
        if not entry.sidecar and side not in damaged:
            yield Problem(path, "has no sidecar, so no toolchain stands behind its figures; " + AGAIN)
    if entry.sidecar:
        yield from (Problem(side, what) for what in _sidecar(entry.sidecar, known))
        if not entry.result and path not in damaged:
            yield Problem(side, f"has no {path.name} beside it; measure again or delete it")
    if entry.result and entry.sidecar:
        yield from (Problem(side, what) for what in _same_origin(entry.result, entry.sidecar))
        yield from (Problem(side, what) for what in wrong_figures(entry.result, entry.sidecar.groups))


def is_sound(project: Project, path: Path) -> bool:
    """Whether nothing is wrong with one result file and its sidecar. Raises Fa4AsvError, see verify."""
    known = Known.of(project, arriving=False)
    list(_locks(known))
    found_entries = entries(project.results, path.parent.name, lambda each_path: each_path == path)
    return all(not entry.damaged and not any(_of_pair(entry, known)) for entry in found_entries)


def sound_files(project: Project, problems: Sequence[Problem]) -> list[Path]:
    """Result files that no problem touches: their own, their sidecar's, or their machine's."""
    bad = {problem.path for problem in problems}
    return [
        path
        for path in iter_results(project.results)
        if not bad & {path, sidecar_path(path), path.parent / MACHINE_FILE}
    ]


def upstream_commits(project: Project) -> set[str]:
    """Commits that are no releases and are known: listed when they were recorded, or on a branch here."""
    return {*load_commits(project.upstream), *_branches(project)}


def _branches(project: Project) -> list[str]:
    try:
        return git(project.repository, "rev-list", "--exclude=releases", "--branches").decode().split()
    except Fa4AsvError:  # no history, or no git to ask
        return []


def _result(path: Path, result: Result, known: Known) -> Iterator[str]:
    yield from _identity(path, result)
    date = known.date_of(result.commit)
    if date is None and result.commit not in known.here:
        yield (
            f"commit {result.commit} is not a release of the history and not in history/upstream.json; run "
            "`fa4-asv history sync` (with --source for its branch), or delete the file with its sidecar"
        )
    if date is not None and result.date != int(date.timestamp()) * 1000:
        yield f"has date {result.date}, the history says {int(date.timestamp()) * 1000}; restore it from git"
    for (name, params), value in result.figures.items():
        if isinstance(value, float) and math.isinf(value):
            yield f"{_named(name, params)} is {value}, expected a finite number; measure it again"
    for (name, params), samples in result.samples.items():
        if is_repeated(samples):
            yield f"{_named(name, params)} has {len(samples)} {POOLED}; measure it again with --interleave-rounds"


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


def _sidecar(sidecar: Sidecar, known: Known) -> Iterator[str]:
    if sidecar.suite != SUITE:
        yield f"was written by suite {sidecar.suite!r}, this is suite {SUITE!r}; measure again"
    release = known.releases.get(sidecar.commit)
    version = release.version if release else ""
    if version != sidecar.release:
        yield f"says release {sidecar.release!r}, but its commit is {version or 'no release'!r}; {AGAIN}"
    yield from _toolchain(sidecar, known)
    for case, wrong in checks(sidecar.groups):
        if wrong:
            yield f"{case}: {wrong}; {AGAIN}"


def _toolchain(sidecar: Sidecar, known: Known) -> Iterator[str]:
    """Packages against their digest, and against the committed lock. An unsupported flavour has none."""
    chain = sidecar.toolchain
    digest = toolchain_digest(chain.flavour, chain.packages) if chain.packages else ""
    if digest != chain.digest:
        yield f"says toolchain {chain.digest!r}, but its packages are those of {digest!r}; {AGAIN}"
    if not can_name_locks(chain.flavour, chain.policy):
        yield f"says flavour {chain.flavour!r} and policy {chain.policy!r}, which name no toolchain; {AGAIN}"
        return  # no path is made of them
    path = known.lock_of(sidecar)
    locked = known.packages.get(path)
    if not chain.packages:
        return
    if locked is not None and locked != chain.packages:
        names = sorted(
            n for n in locked.keys() | chain.packages.keys() if locked.get(n) != chain.packages.get(n)
        )
        ours, held = (versions.get(names[0], "none") for versions in (chain.packages, locked))
        yield f"says {names[0]} {ours}, its lock {held}; {AGAIN}"
    # The toolchain of another commit is locked under that one's name.
    elif path not in known.packages and known.packages and not known.arriving and chain.policy[:3] != "as-":
        where = path.relative_to(known.locks.parent.parent)
        yield f"has no lock {where.as_posix()}, so nobody can install its toolchain; restore it from git"


def _same_origin(result: Result, sidecar: Sidecar) -> Iterator[str]:
    pairs = {
        "machine": (sidecar.machine, result.machine),
        "commit": (sidecar.commit, result.commit),
        "environment": (sidecar.environment, result.environment),
    }
    for name, ours in (("flavour", sidecar.toolchain.flavour), ("toolchain", sidecar.toolchain.policy)):
        pairs[name] = (ours, result.requirements.get(name, ours))
    for name, (ours, recorded) in pairs.items():
        if ours != recorded:
            yield f"says {name} {ours!r}, the result file {recorded!r}; {AGAIN}"


def _named(name: str, params: tuple[str, ...]) -> str:
    return f"{name}({', '.join(params)})"
