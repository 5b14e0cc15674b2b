"""What sweeps timed, by machine: the releases of each series, what the rule says of neighbours, and the noise. Pure data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.flavours import INSTALLED
from fa4_asv.catalog.shapes import CLASSES, SHAPES, SdpaShape, class_of
from fa4_asv.compare.neighbours import rows_between
from fa4_asv.compare.noise import CallNoise, noise_among
from fa4_asv.compare.policy import BETTER, WORSE
from fa4_asv.compare.rows import Row
from fa4_asv.compare.sweeps import CallKey, Pools, pools_of
from fa4_asv.record.schema import SUITE, CaseRecord, Sidecar
from fa4_asv.record.turns import Origin, is_history, is_of_a_sweep, origin_of, turns_of
from fa4_asv.report import wording
from fa4_asv.report.machines import arch_of_card
from fa4_asv.report.model import Key, Model, Point, Series, is_swept

FORWARD, BACKWARD = "forward", "backward"
DIRECTIONS = (FORWARD, BACKWARD)
FASTER, SLOWER = "faster", "slower"
_DETAIL = re.compile(r" ?\([^()]*\)$")


@dataclass(frozen=True)
class Call:
    """One call that sweeps time: its group and its case, as a sidecar names them."""

    group: str
    case: str

    @property
    def direction(self) -> str:
        return BACKWARD if GROUPS[self.group].backward else FORWARD

    @property
    def name(self) -> str:
        """The shape's name; that of another backend than FA4 with it."""
        return self.case.removeprefix("fa4/")

    @property
    def shape(self) -> SdpaShape | None:
        return SHAPES.get(self.name)

    @property
    def kind(self) -> str:
        """Its column in a table of classes: forwards are told apart by their mask, backwards are not."""
        shape = self.shape
        if shape is None:
            return "other"
        masked = self.direction == FORWARD and shape.window is None
        return class_of(shape) + ((" causal" if shape.causal else " full") if masked else "")

    @property
    def turn(self) -> tuple[bool, int, int, bool, str]:
        shape = self.shape
        place = CLASSES.index(class_of(shape)) if shape and class_of(shape) in CLASSES else len(CLASSES)
        return (
            self.direction == BACKWARD,
            place,
            shape.head_dim if shape else 0,
            "full" in self.kind,
            self.case,
        )

    @property
    def title(self) -> str:
        return f"{self.direction} {self.name}"

    @property
    def description(self) -> str:
        """Such as "head dim 128, 16 heads, causal; 4 × 8,192 tokens"."""
        shape = self.shape
        return f"{wording.shape_title(shape)}; {shape.batch} × {shape.seq_len:,} tokens" if shape else ""

    def page(self, machine: str) -> str:
        return f"run-time/{machine}/{wording.file_name(f'{self.direction}-{self.name}')}.html"


Rows = Mapping[Call, Row]


@dataclass(frozen=True)
class ClockStep:
    """Two neighbours, and what the rule says of each call that a sweep was asked to time of either."""

    before: Point
    after: Point
    rows: Rows

    def told(self, direction: str = "") -> list[tuple[Call, Row]]:
        """The calls that are faster, slower or in another state, the furthest apart first."""
        pairs = [(call, row) for call, row in self.rows.items() if row.effect]
        pairs = [each for each in pairs if direction in ("", each[0].direction)]
        return sorted(pairs, key=lambda each: (-each[1].weight, each[0].turn))


@dataclass(frozen=True)
class Swept:
    """The commits of one series that sweeps were asked to time, oldest first.

    `to_newest` holds, by commit, each call's row against the newest of them; `noise` is the whole machine's.
    """

    key: Key
    points: tuple[Point, ...]
    steps: tuple[ClockStep, ...]
    to_newest: Mapping[str, Rows]
    pools: Pools
    noise: Mapping[CallKey, CallNoise]

    @property
    def newest(self) -> Point:
        return self.points[-1]

    @cached_property
    def calls(self) -> list[Call]:
        found_calls = {
            Call(group, case)
            for point in self.points
            for group, cases in point.record.sidecar.groups.items()
            if group in GROUPS and is_history(group)
            for case in cases
        }
        return sorted(found_calls, key=lambda call: call.turn)

    def of(self, direction: str) -> list[Call]:
        return [call for call in self.calls if call.direction == direction]

    def kinds(self, direction: str) -> dict[str, list[Call]]:
        """The classes of one direction in the order of their columns, each with its calls."""
        calls: dict[str, list[Call]] = {}
        for call in self.of(direction):
            calls.setdefault(call.kind, []).append(call)
        return calls

    def step_to(self, commit: str) -> ClockStep | None:
        return next((step for step in self.steps if step.after.commit == commit), None)

    def noise_of(self, call: Call) -> CallNoise | None:
        """Of the sweep that timed the newest commit that has a time."""
        for point in reversed(self.points):
            record = case_of(point, call)
            if record and is_of_a_sweep(record):
                return self.noise.get(CallKey(call.group, call.case, origin_of(record)))
        return None

    def behind(self, point: Point, call: Call) -> float | None:
        """Its time over the newest's by the rule: of two cards the ratio of what both are to a yardstick; None where a
        side has no time."""
        if point is self.newest:
            return 1.0 if seconds_of(point, call) else None
        row = self.to_newest[point.commit].get(call)
        return 1 / row.ratio if row and row.ratio else None

    @cached_property
    def origins(self) -> list[Origin]:
        """Every sweep and card that timed something, sorted."""
        found_origins = {
            origin_of(record)
            for point in self.points
            for call in self.calls
            if (record := case_of(point, call)) and is_of_a_sweep(record)
        }
        return sorted(found_origins, key=lambda origin: (origin.sweep, origin.card))

    @cached_property
    def arch(self) -> str:
        """What its cards are, by their own name or the machine's."""
        names = (record.notes.get("card name", "") for record in self._records())
        return arch_of_card(next(filter(None, names), "")) or arch_of_card(self.key.machine)

    def values_of(self, word: str) -> list[str]:
        """The values of one of a record's words, sorted."""
        return sorted({record.notes.get(word, "") for record in self._records()} - {""})

    def _records(self) -> Iterable[CaseRecord]:
        records = (case_of(point, call) for point in self.points for call in self.calls)
        return (record for record in records if record)


def case_of(point: Point, call: Call) -> CaseRecord | None:
    return point.cases(call.group).get(call.case)


def seconds_of(point: Point, call: Call) -> float | None:
    """The median of the rounds."""
    record = case_of(point, call)
    turns = turns_of(record) if record and is_of_a_sweep(record) else []
    return median(turn.seconds for turn in turns) if turns else None


def beside(point: Point, call: Call, yardstick: str) -> float | None:
    """Time of a yardstick over FA4's in the same round, the median of the rounds: above 1 FA4 is faster."""
    record = case_of(point, call)
    turns = turns_of(record) if record and is_of_a_sweep(record) else []
    values = [turn.yardsticks[yardstick] / turn.seconds for turn in turns if yardstick in turn.yardsticks]
    return median(values) if values else None


def reason_of(record: CaseRecord) -> str:
    """Why nothing was timed, without the detail in brackets at its end, which differs from case to case."""
    return _DETAIL.sub("", record.why) or record.why


def sweeps_of(model: Model) -> list[Swept]:
    """Every series of every machine of which sweeps timed something, by machine, in the order of the model."""
    found_series = []
    for machine in model.machines:
        series = [(series, _asked(series)) for series in model.of_machine(machine)]
        timed = [point.record.sidecar for _, points in series for point in points]
        noise = {call.key: call for call in noise_among(timed)}
        if noise:
            pools = pools_of(timed)
            found_series += [
                _swept(each_series, points, pools, noise) for each_series, points in series if points
            ]
    return found_series


def _asked(series: Series) -> tuple[Point, ...]:
    return tuple(point for point in series.points if _is_asked(point.record.sidecar))


def _is_asked(sidecar: Sidecar) -> bool:
    return sidecar.suite == SUITE and is_swept(sidecar)


def _swept(
    series: Series, points: tuple[Point, ...], pools: Pools, noise: Mapping[CallKey, CallNoise]
) -> Swept:
    pairs = zip(points, points[1:], strict=False)
    steps = tuple(ClockStep(*pair, rows_of(*pair, pools)) for pair in pairs)
    to_newest = {point.commit: rows_of(point, points[-1], pools) for point in points[:-1]}
    return Swept(series.key, points, steps, to_newest, pools, noise)


def rows_of(before: Point, after: Point, pools: Pools) -> Rows:
    """Of the calls of the history set: sets on request have a page of their own."""
    rows = rows_between(before.record, after.record, pools)
    return {Call(row.group, row.case): row for row in rows if is_history(row.group)}


def first_of(series: Sequence[Swept], among: Sequence[Swept] | None = None) -> Swept | None:
    """The series for the first page: with the newest commit; of several cu13's, then the one with most of them, then that of the
    machine that timed most under all flavours, then the latest sweep. `among`: the candidates, else all."""
    timed = Counter[str]()
    for each in series:
        timed[each.key.machine] += len(each.points)

    def turn(swept: Swept) -> tuple[int, bool, int, int, str, str]:
        latest = swept.origins[-1].sweep if swept.origins else ""
        usual = swept.key.flavour == INSTALLED[-1]
        machine = swept.key.machine
        return swept.newest.date, usual, len(swept.points), timed[machine], latest, machine

    return max(series if among is None else among, key=turn, default=None)


def speed(row: Row) -> str:
    """ "−12.5 %"; "" where there is no ratio."""
    return wording.percent(1.0, row.ratio) if row.ratio else ""


def css_of(row: Row) -> str:
    return {BETTER: "better", WORSE: "worse"}.get(row.effect, "same")


def by_machine(series: Sequence[Swept]) -> dict[str, list[Swept]]:
    machines: dict[str, list[Swept]] = {}
    for swept in series:
        machines.setdefault(swept.key.machine, []).append(swept)
    return machines
