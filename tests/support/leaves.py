"""Every number of a sidecar, edited in turn: which of these edits does `verify` see?

A leaf is one number of one case: a figure, a sample, an opcode's count, a part's bytes, or a number in a note. Only the sidecar
is edited; the result file beside it stays, and so do all other sidecars.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import group_of, key_of
from fa4_asv.integrity.consistency import Cubins
from fa4_asv.integrity.rounds import Peaks, Sweeps
from fa4_asv.integrity.verify import Known, _locks, _of_pair
from fa4_asv.record.schema import CaseRecord, Sidecar
from fa4_asv.record.store import Entry, Pair, Result, sidecar_path, sound_pairs
from tests.support import ROOT

_FIELDS = ("figures", "samples", "opcodes", "parts", "notes")
_MOST_INDICES = 8  # of a list; the first and last are among them
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Kind:
    """One shape of record: `group`, and which fields it has. `pair` and `case` are the first of it in the record."""

    group: str
    names: tuple[str, ...]
    pair: Pair
    case: str

    @property
    def protocol(self) -> str:
        """Whose rules hold: "sweep", "rounds" (timed by the older protocol), or the group."""
        if "process" in self.names:
            return "sweep"
        return "rounds" if "centre" in self.names else self.group.partition("-")[0]


@cache
def pairs() -> list[Pair]:
    return list(sound_pairs(ROOT / "results"))


@cache
def known() -> Known:
    result = Known.of(Project(ROOT), arriving=False)
    list(_locks(result))
    return result


def kinds() -> list[Kind]:
    """One of each kind that is measured, in the order of the record."""
    result: dict[tuple[str, tuple[str, ...], bool], Kind] = {}
    for pair in pairs():
        for group, cases in pair.sidecar.groups.items():
            for case, record in cases.items():
                names = tuple(sorted(record.samples))
                if record.state == "measured":
                    result.setdefault((group, names, bool(record.why)), Kind(group, names, pair, case))
    return list(result.values())


def sidecar_of(pair: Pair, group: str, cases: set[str]) -> Sidecar:
    """With these cases of one group and nothing else."""
    records = pair.sidecar.groups.get(group, {})
    return replace(pair.sidecar, groups={group: {case: records[case] for case in cases & records.keys()}})


def result_of(pair: Pair, group: str, cases: set[str]) -> Result:
    """The same of the result file."""

    def is_ours(key: tuple[str, tuple[str, ...]]) -> bool:
        group_and_metric = group_of(key[0])
        if group_and_metric is None or group_and_metric[0].name != group:
            return False
        return (key_of(key[1]) or group_and_metric[0].only_case) in cases

    return replace(
        pair.result,
        figures={key: value for key, value in pair.result.figures.items() if is_ours(key)},
        samples={key: value for key, value in pair.result.samples.items() if is_ours(key)},
    )


class Bench:
    """What `verify` says of one case of a kind, with its siblings as they are recorded."""

    def __init__(self, kind: Kind) -> None:
        self.record = kind.pair.sidecar.groups[kind.group][kind.case]
        self._kind = kind
        self._cases = self._with_siblings(kind)
        self._result = result_of(kind.pair, kind.group, self._cases)
        self._sidecar = sidecar_of(kind.pair, kind.group, self._cases)
        self._others = [
            (sidecar_path(pair.path), sidecar)
            for pair in pairs()
            for group, call in ((kind.group, kind.case), ("memory", self._traced()))
            if pair.path != kind.pair.path
            and any((sidecar := sidecar_of(pair, group, self._cases | {call})).groups.values())
        ]

    def _with_siblings(self, kind: Kind) -> set[str]:
        """The case, and some others that were timed beside it."""
        cases = kind.pair.sidecar.groups[kind.group]
        mine = {"control", "process"} & self.record.samples.keys()
        alike = [case for case, each in cases.items() if mine and each.samples.keys() >= mine]
        return {kind.case, *alike[:4]}

    def _traced(self) -> str:
        """The same call as the memory benchmark names it, on Hopper."""
        direction = "bwd" if self._kind.group.startswith("backward") else "fwd"
        return f"sm_90/{direction}_{self._kind.case.partition('/')[2]}"

    def sees(self, record: CaseRecord) -> bool:
        """Whether anything is said with `record` in the place of what is recorded."""
        group = self._kind.group
        groups = {group: {**self._sidecar.groups[group], self._kind.case: record}}
        entry = Entry(self._kind.pair.path, self._result, replace(self._sidecar, groups=groups))
        return any(True for _ in _of_pair(entry, known())) or self._contradicts(record)

    def _contradicts(self, record: CaseRecord) -> bool:
        path, group = sidecar_path(self._kind.pair.path), self._kind.group
        mine = replace(
            self._sidecar, groups={group: {**self._sidecar.groups[group], self._kind.case: record}}
        )
        sweeps, peaks, cubins = Sweeps(), Peaks(), Cubins()
        for each_path, sidecar in ((path, mine), *self._others):
            sweeps.add(each_path, sidecar)
            peaks.add(each_path, sidecar)
            for name in ("codegen", "loops"):
                cubins.add(each_path, sidecar.groups.get(name, {}))
        wrong = (*sweeps.wrong(), *peaks.wrong(), *cubins.wrong())
        return any(each_path == path for each_path, _ in wrong)


@dataclass(frozen=True)
class Edit:
    """One edit of one leaf: `name` is "samples centre", `at` its index; `far` is ten times the value, else a little."""

    name: str
    at: int
    far: bool
    record: CaseRecord


def edits(record: CaseRecord) -> Iterator[Edit]:
    """Each leaf a little larger, and ten times as large."""
    for field in _FIELDS:
        for name, value in getattr(record, field).items():
            for at, far, new in _changed(value):
                changed = replace(record, **{field: {**getattr(record, field), name: new}})
                yield Edit(f"{field} {name}", at, far, changed)


def _changed(value: object) -> Iterator[tuple[int, bool, object]]:
    for far in (False, True):
        if isinstance(value, str):
            for at, match in enumerate(list(_NUMBER.finditer(value))):
                new = f"{float(match[0]) * 10:g}" if far else f"{float(match[0]) + 1:g}"
                yield at, far, value[: match.start()] + new + value[match.end() :]
        elif isinstance(value, list):
            step = max(1, -(-len(value) // _MOST_INDICES))
            for at in sorted({*range(0, len(value), step), len(value) - 1}):
                yield at, far, [*value[:at], _larger(value[at], far), *value[at + 1 :]]
        else:
            yield 0, far, _larger(value, far)


def _larger(value: float, far: bool) -> float:
    if value == int(value) and abs(value) < 1e6:
        return type(value)(value * 10 + 7 if far else value + 1)
    return type(value)(value * (10 if far else 1.02))
