"""What happened: every change between neighbours of a series, grouped, with its cause where one is proven."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.flavours import PLAIN, torch_cuda, without_torch
from fa4_asv.compare.changes import exact_changes
from fa4_asv.compare.policy import Count, count_of
from fa4_asv.compare.rows import Row
from fa4_asv.record.explanation import Explanation, Verdict
from fa4_asv.record.schema import package_changes
from fa4_asv.report import wording
from fa4_asv.report.model import Key, Model, Point, Series

UNEXPLAINED = "not yet explained"
UNKNOWN = "unknown"  # explained as far as it can be: a cross pair does not compile
SOURCE, TOOLCHAIN = "source", "toolchain"
OF_KERNELS = ("codegen", "loops")  # groups whose cases are kernels


@dataclass(frozen=True)
class Event:
    """One metric of one case that changed, and its cause: one of `cause_rule.CAUSES`, or UNEXPLAINED."""

    change: Row
    cause: str

    @property
    def arch(self) -> str:
        return wording.arch_of(self.change.group, self.change.case)

    @property
    def kernel(self) -> str:
        return wording.kernel_of(self.change.group, self.change.case)

    @property
    def effect(self) -> str:
        """Worse, better or neither, as `compare.policy` says."""
        return self.change.effect

    @property
    def weight(self) -> tuple[bool, float, str]:
        """What to tell first: local loads and stores come after the spills and instructions that cause them."""
        return not self.change.metric.startswith("local"), self.change.weight, self.change.case

    @property
    def percent(self) -> str:
        """In brackets; "" for a state and for what was zero."""
        before, after = self.change.base, self.change.head
        return f" ({wording.percent(before, after)})" if before and after is not None else ""


@dataclass(frozen=True)
class Step:
    """All that changed from one point of a series to the next, on one architecture."""

    key: Key
    arch: str
    before: Point
    after: Point
    events: tuple[Event, ...]
    explanation: Explanation | None = None

    @property
    def page(self) -> str:
        """File name of its page, without folder."""
        policy = "" if self.key.policy == "day" else f"-{wording.file_name(self.key.policy)}"
        return f"{wording.file_name(self.after.label)}-{self.key.flavour}-{self.arch}{policy}.html"

    @property
    def kernels(self) -> int:
        return len({event.change.key for event in self.events})

    @property
    def weight(self) -> float:
        """The largest change with an effect, as a ratio; how a timeline chooses what to tell first."""
        return max(
            (event.change.weight for event in self.events if event.effect and event.weight[0]), default=0.0
        )

    @property
    def packages(self) -> list[str]:
        old, new = (point.record.sidecar.toolchain.packages for point in (self.before, self.after))
        return wording.packages(package_changes(old, new))

    @property
    def first_package(self) -> list[str]:
        """The first of them, the compiler where it moved, and how many more."""
        old, new = (point.record.sidecar.toolchain.packages for point in (self.before, self.after))
        return wording.packages(package_changes(old, new), 1)

    @property
    def causes(self) -> list[tuple[str, int]]:
        """Each cause and how many figures it moved, the commonest first."""
        return sorted(
            Counter(event.cause for event in self.events).items(), key=lambda pair: (-pair[1], pair[0])
        )

    def of(self, group: str, metric: str, effect: str) -> list[Event]:
        """The changes of one metric with an effect (or without, NEITHER), the largest first."""
        wanted = (group, metric, effect)
        events = [
            event
            for event in self.events
            if (event.change.group, event.change.metric, event.effect) == wanted
        ]
        return sorted(events, key=lambda event: event.weight, reverse=True)

    def count(self, effect: str) -> Count:
        """How many figures, of how many cases, have an effect."""
        return count_of(((event.change.key, event.effect) for event in self.events), effect)


@dataclass(frozen=True)
class Timeline:
    """Every step of every exact series, oldest first."""

    steps: tuple[Step, ...] = field(default=())

    def of(self, label: str) -> list[Step]:
        """The steps to a release or a commit."""
        return self._by_label.get(label, [])

    def between(self, before: str, after: str) -> list[Step]:
        """The steps between two commits."""
        return self._by_commits.get((before, after), [])

    def of_kernel(self, key: str) -> list[tuple[Step, list[Event]]]:
        """What each step did to a kernel ("sm_100/fwd_d128_full"): its events with an effect."""
        return self._by_kernel.get(key, [])

    @cached_property
    def _by_label(self) -> dict[str, list[Step]]:
        found: dict[str, list[Step]] = {}
        for step in self.steps:
            found.setdefault(step.after.label, []).append(step)
        return found

    @cached_property
    def _by_commits(self) -> dict[tuple[str, str], list[Step]]:
        found: dict[tuple[str, str], list[Step]] = {}
        for step in self.steps:
            found.setdefault((step.before.commit, step.after.commit), []).append(step)
        return found

    @cached_property
    def _by_kernel(self) -> dict[str, list[tuple[Step, list[Event]]]]:
        found: dict[str, list[tuple[Step, list[Event]]]] = {}
        for step in self.steps:
            own: dict[str, list[Event]] = {}
            for event in step.events:
                if event.effect and event.change.group in OF_KERNELS:
                    own.setdefault(event.change.case, []).append(event)
            for key, events in own.items():
                found.setdefault(key, []).append((step, events))
        return found


def timeline(model: Model, explanations: Sequence[Explanation]) -> Timeline:
    """The steps of all series of machine `nogpu`."""
    causes = {
        (
            explanation.flavour,
            explanation.policy,
            explanation.base.commit,
            explanation.head.commit,
        ): explanation
        for explanation in explanations
    }
    steps: list[Step] = []
    told: dict[tuple[str, str], set[Row]] = {}  # under cu12, which comes before plain
    for series in model.series:
        if not any(GROUPS[group].exact for group in _groups(series)):
            continue
        for before, after in series.pairs():
            pair = before.commit, after.commit
            if series.key.flavour == "cu12":
                told.setdefault(pair, set()).update(map(_bare, exact_changes(before.record, after.record)))
            explanation = causes.get((series.key.flavour, series.key.policy, before.commit, after.commit))
            of_cu12 = told.get(pair, ()) if series.key.flavour == PLAIN else ()
            steps += steps_between(series.key, before, after, explanation, of_cu12)
    order = {release.version: index for index, release in enumerate(model.releases)}

    def turn(step: Step) -> tuple[int, int, int, str]:
        date, position, commit = step.after.turn
        return date, order.get(step.after.label, -1), position, commit

    # Releases and upstream's commits in one line, as they came.
    return Timeline(tuple(sorted(steps, key=turn)))


def _groups(series: Series) -> set[str]:
    return {group for point in series.points for group in point.record.sidecar.groups if group in GROUPS}


def steps_between(
    key: Key,
    before: Point,
    after: Point,
    explanation: Explanation | None = None,
    told: Collection[Row] = (),
) -> list[Step]:
    """A step an architecture; none where nothing changed but what is `told` elsewhere: plain's kernels are mostly cu12's."""
    changes = [change for change in exact_changes(before.record, after.record) if _bare(change) not in told]
    events = [Event(change, _cause(before, after, change, explanation)) for change in changes]
    return [
        Step(key, arch, before, after, tuple(event for event in events if event.arch == arch), explanation)
        for arch in sorted({event.arch for event in events})
    ]


def _cause(before: Point, after: Point, change: Row, explanation: Explanation | None) -> str:
    """From the cross pairs where they were measured; else from what cannot have been the cause."""
    if _compiled_with(before) == _compiled_with(after):
        return SOURCE
    if explanation is None:
        return UNEXPLAINED
    verdict: Verdict[str] | Verdict[int] | None = None
    if change.group == "loops":
        return _of_its_kernel(change, explanation)
    if change.group == "codegen":
        metrics = explanation.cases.get(change.case, {})
        verdict = explanation.states.get(change.case) if change.states else metrics.get(change.metric)
    if verdict and verdict.cause != UNKNOWN:
        return verdict.cause
    if not explanation.files:
        return TOOLCHAIN
    return UNKNOWN if verdict else UNEXPLAINED


def _of_its_kernel(change: Row, explanation: Explanation) -> str:
    """Of loops the cause of their kernel, where one explains all of its figures: the corners compared no loops."""
    causes = {verdict.cause for verdict in explanation.cases.get(change.case, {}).values()}
    if len(causes) == 1 and causes <= {SOURCE, TOOLCHAIN}:
        return causes.pop()
    return TOOLCHAIN if not explanation.files else UNEXPLAINED


def _bare(change: Row) -> Row:
    """Without the words: a compiler that breaks twice does not always say the same."""
    return replace(change, message="", whys=("", ""))


def _compiled_with(point: Point) -> tuple[dict[str, str], str]:
    """Packages, and of torch no more than FA4 reads of it: its CUDA."""
    packages = point.record.sidecar.toolchain.packages
    return without_torch(packages), torch_cuda(packages)
