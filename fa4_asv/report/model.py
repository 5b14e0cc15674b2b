"""The record as series of points: what every page of the report is made from. Pure data, no rendering."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median

from fa4_asv.base.escape import without_colours
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.project import Project
from fa4_asv.catalog.flavours import label
from fa4_asv.compare.changes import Record
from fa4_asv.compare.model import BARRIER
from fa4_asv.history.commits import Commit, load_commits
from fa4_asv.history.manifest import Manifest, Release
from fa4_asv.record.schema import CaseRecord, Sidecar
from fa4_asv.record.store import Pair, load_result, read_sidecar, sidecar_path
from fa4_asv.record.threads import Thread, load_threads
from fa4_asv.record.turns import is_history

RELEASES, UPSTREAM = "releases", "upstream"  # the two histories
_MAIN = "main"  # upstream's own branch
_WITH_PARTS = ("loops", "launch")


@dataclass(frozen=True)
class Key:
    """What makes a series: figures of different keys are never put on one line."""

    machine: str
    history: str
    flavour: str
    policy: str
    environment: str
    branch: str = ""  # of upstream's commits, where it is not upstream's own

    @property
    def title(self) -> str:
        """Flavour as whose it is, and the toolchain policy and the branch where they are not the usual ones."""
        flavour = label(self.flavour, on_card=self.machine != NOGPU)
        policy = "" if self.policy == "day" else f"toolchain {self.policy}"
        return ", ".join(filter(None, (flavour, policy, self.branch and f"branch {self.branch}")))


@dataclass(frozen=True)
class Point:
    """One commit in one series; `date` in ms since 1970; `release` is None for an upstream commit.

    `listed` is what the list of upstream's commits says of it: its subject is foreign text.
    """

    record: Record
    date: int
    release: Release | None
    listed: Commit | None = None

    @property
    def commit(self) -> str:
        return self.record.sidecar.commit

    @property
    def label(self) -> str:
        """Short name: the release's version, or the commit's first 8 digits."""
        return self.release.version if self.release else self.commit[:8]

    @property
    def subject(self) -> str:
        """The first line of an upstream commit's message, where it is listed."""
        return self.listed.subject if self.listed else ""

    @property
    def turn(self) -> tuple[int, int, str]:
        """Upstream commits in the order of their branch."""
        return self.date, self.listed.position if self.listed else 0, self.commit

    @property
    def measures(self) -> bool:
        """Whether anything could be measured."""
        groups = self.record.sidecar.groups.values()
        return any(record.state == "measured" for cases in groups for record in cases.values())

    def cases(self, group: str) -> dict[str, CaseRecord]:
        return self.record.sidecar.groups.get(group, {})

    def figure(self, group: str, case: str, metric: str) -> int | None:
        """None where it was not measured."""
        record = self.cases(group).get(case)
        return record.figures.get(metric) if record else None


@dataclass(frozen=True)
class Series:
    """Points of one key, oldest first."""

    key: Key
    points: tuple[Point, ...]

    @cached_property
    def measured(self) -> tuple[Point, ...]:
        """The points that this flavour has at all: a release without its extra is none."""
        return tuple(point for point in self.points if point.measures)

    def pairs(self) -> Iterable[tuple[Point, Point]]:
        """Neighbours: each measured commit with the one measured before it."""
        return zip(self.measured, self.measured[1:], strict=False)

    def since(self, point: Point, group: str) -> Point:
        """The oldest of the neighbours before a point that have its figures of a group; the point itself where none has."""
        if group not in self._oldest:
            self._oldest[group] = self._oldest_of(group)
        return self._oldest[group][point.commit]

    @cached_property
    def _oldest(self) -> dict[str, dict[str, Point]]:
        return {}

    def _oldest_of(self, group: str) -> dict[str, Point]:
        found: dict[str, Point] = {}
        before: tuple[object, Point] | None = None
        for point in self.points:
            told = {
                case: (record.figures, record.state, record.why)
                for case, record in point.cases(group).items()
            }
            oldest = before[1] if before and told and before[0] == told else point
            found[point.commit] = oldest
            before = told, oldest
        return found

    def at(self, label: str) -> Point | None:
        at = self.places.get(label)
        return None if at is None else self.points[at]

    def column(self, group: str, case: str) -> list[CaseRecord | None]:
        """The record of one case in each point."""
        if (group, case) not in self._columns:
            self._columns[group, case] = [point.cases(group).get(case) for point in self.points]
        return self._columns[group, case]

    @cached_property
    def _columns(self) -> dict[tuple[str, str], list[CaseRecord | None]]:
        return {}

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each label stands among the points."""
        return {point.label: at for at, point in enumerate(self.points)}

    def has(self, group: str, case: str) -> bool:
        """Whether some point was asked for a case of a group."""
        return case in self._cases.get(group, ())

    @cached_property
    def _cases(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for point in self.points:
            for group, cases in point.record.sidecar.groups.items():
                found.setdefault(group, set()).update(cases)
        return found


@dataclass(frozen=True)
class Model:
    """Everything that is recorded, and the releases in the order of the history."""

    releases: tuple[Release, ...]
    series: tuple[Series, ...]
    threads: tuple[Thread, ...] = ()

    @property
    def versions(self) -> list[str]:
        """Of all releases, oldest first: the x axis of every chart over the releases."""
        return [release.version for release in self.releases]

    @cached_property
    def kernels(self) -> frozenset[str]:
        """Every kernel ("sm_100/fwd_d128_full") that some release was asked for."""
        return frozenset(
            case for series in self.exact() for point in series.points for case in point.cases("codegen")
        )

    def exact(self, history: str = RELEASES, policy: str = "day") -> list[Series]:
        """The series of machine `nogpu` of one policy, cu13 first."""
        return [
            series
            for series in self.series
            if (series.key.machine, series.key.history, series.key.policy) == (NOGPU, history, policy)
        ]

    @property
    def machines(self) -> list[str]:
        """Those whose clock measured something, sorted."""
        return sorted({series.key.machine for series in self.series} - {NOGPU})

    def of_machine(self, machine: str) -> list[Series]:
        return [series for series in self.series if series.key.machine == machine]

    def of_release(self, version: str) -> list[tuple[Series, Point]]:
        """Every series that holds the release, with its point."""
        pairs = ((series, series.at(version)) for series in self.series if series.key.history == RELEASES)
        return [(series, point) for series, point in pairs if point]


@dataclass(frozen=True)
class Kept:
    """What the report needs of a result file and its sidecar: the record without what no page shows, the commit's date in ms,
    and the versions of the benchmarks."""

    sidecar: Sidecar
    date: int
    versions: Mapping[str, str]


def kept(pair: Pair) -> Kept:
    """A tenth of a pair."""
    return Kept(_slim(pair.sidecar), pair.result.date, pair.result.versions)


def load(project: Project, files: Iterable[Path]) -> Model:
    """The model of `files`, which `verify` has found sound. Raises Fa4AsvError naming a file."""
    commits = {release.commit for release in Manifest.load(project.manifest).releases}
    return model_of(project, [_read(path, commits) for path in files])


def _read(path: Path, releases: Container[str]) -> Kept:
    """Without the result file, which may hold a hundred thousand samples, where nothing of it is shown."""
    sidecar = read_sidecar(sidecar_path(path))
    if sidecar.commit in releases and not _is_compared(sidecar):
        return Kept(_slim(sidecar), 0, {})
    return kept(Pair(path, load_result(path), sidecar))


def _is_compared(sidecar: Sidecar) -> bool:
    """Whether figures of a release are compared with others: exact ones, and a sweep's."""
    return sidecar.machine == NOGPU or is_swept(sidecar)


def model_of(project: Project, pairs: Iterable[Kept]) -> Model:
    """The model of what was read. Raises Fa4AsvError where a list of commits or threads is damaged."""
    manifest = Manifest.load(project.manifest)
    known = {release.commit: release for release in manifest.releases if release.commit}
    order = {release.commit: index for index, release in enumerate(manifest.releases)}
    listed = load_commits(project.upstream)
    result: dict[Key, list[Point]] = {}
    for pair in pairs:
        release = known.get(pair.sidecar.commit)
        commit = None if release else listed.get(pair.sidecar.commit)
        point = _point(pair, release, commit)
        result.setdefault(_key(pair.sidecar, release, commit), []).append(point)
    series = [
        Series(key, tuple(sorted(points, key=lambda p: (order.get(p.commit, -1), *p.turn))))
        for key, points in result.items()
    ]
    series.sort(
        key=lambda series: (
            series.key.machine,
            series.key.history,
            series.key.policy,
            _newest_first(series.key.flavour),
        )
    )
    return Model(manifest.releases, tuple(series), load_threads(project.threads))


def _key(sidecar: Sidecar, release: Release | None, commit: Commit | None) -> Key:
    chain, history = sidecar.toolchain, RELEASES if release else UPSTREAM
    branch = commit.branch if commit and commit.branch != _MAIN else ""
    return Key(sidecar.machine, history, chain.flavour, chain.policy, sidecar.environment, branch)


def _point(pair: Kept, release: Release | None, commit: Commit | None) -> Point:
    """The date of a release is its upload's. Versions count where figures are compared."""
    sidecar = pair.sidecar
    label = release.version if release else sidecar.commit[:8]
    date = int(release.time.timestamp() * 1000) if release else pair.date
    versions = pair.versions if not release or _is_compared(sidecar) else {}
    return Point(Record(label, sidecar, versions), date, release, commit)


def is_swept(sidecar: Sidecar) -> bool:
    """Whether a sweep was asked to time something of it."""
    return any(is_history(group) and cases for group, cases in sidecar.groups.items())


def seconds_of(record: CaseRecord | None) -> float | None:
    """The median of a timed case's samples, None where there are none."""
    samples = record.samples.get("seconds") if record else None
    return median(samples) if samples else None


def _newest_first(flavour: str) -> tuple[int, str]:
    digits = "".join(filter(str.isdigit, flavour))
    return -int(digits or 0), flavour


def _slim(sidecar: Sidecar) -> Sidecar:
    """Without what no page shows: histograms and parts are nine tenths of a record, and a compiler's colours.

    The parts of loops stay: whether two turns can be compared stands there. Those of a launch name its kernels. Of the opcodes the
    one stays that predictions count.
    """
    groups = {
        group: {case: _slim_record(record, group) for case, record in cases.items()}
        for group, cases in sidecar.groups.items()
    }
    return replace(sidecar, groups=groups)


def _slim_record(record: CaseRecord, group: str) -> CaseRecord:
    if not (record.opcodes or record.parts or record.why):
        return record
    return CaseRecord(
        record.state,
        why=without_colours(record.why) if record.why else "",
        figures=record.figures,
        sha256=record.sha256,
        kernel=record.kernel,
        opcodes={BARRIER: record.opcodes[BARRIER]} if BARRIER in record.opcodes else {},
        samples=record.samples,
        parts=record.parts if group in _WITH_PARTS else {},
        notes=record.notes,
    )
