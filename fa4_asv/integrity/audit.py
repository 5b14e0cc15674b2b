"""A random sample of the record against figures that were made anew: what is drawn, what differs, which file is wrong.

A file that was edited in all places at once contradicts nothing that stands in the record; only compiling tells. The
unit is a case: a kernel, a call, a family or a route. A draw takes one result file, by chance in proportion to its
kernels, and of it some kernels and all cases that cost next to nothing, so that an environment is built once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fa4_asv.base.escape import one_line
from fa4_asv.catalog.benchmarks import BY_TORCH, GROUPS, key_of
from fa4_asv.catalog.kernels import BEYOND
from fa4_asv.record.explanation import Explanation
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import Pair, Value, is_number, sidecar_path

KERNELS = "codegen"  # the group that takes time: the others of a file are traced and asked in seconds
EXACT = tuple(group.name for group in GROUPS.values() if group.exact)
READ_FROM_KERNELS = tuple(group.name for group in GROUPS.values() if group.read_from == KERNELS)
PER_DRAW = 10  # kernels: both architectures' processes take ten seconds to start, a kernel takes a few
_SELDOM = (*BY_TORCH, "launch")  # these take as long as all the memory traces, or longer
FEW = 2  # kernels of each further group
_EVERY = 4  # draws
WRONG = 0.01  # the share of wrong cases that a sample is judged by
_WHY_COUNTS = "unsupported"  # in FA4's own words; those of a broken case may name places and times


@dataclass(frozen=True)
class Draw:
    """One result file and the cases of it to make anew, by group."""

    pair: Pair
    cases: Mapping[str, tuple[str, ...]]

    def counts(self) -> dict[str, int]:
        return {group: len(cases) for group, cases in self.cases.items()}


@dataclass
class Draws:
    """The order in which the record is drawn, fixed by `seed`; no case is drawn twice.

    The first files hold the benchmarks that are not covered yet. `torches` can be asked for their route here.
    """

    pairs: Sequence[Pair]
    seed: int
    torches: Sequence[str] = ()
    left: dict[Path, dict[str, list[str]]] = field(init=False)
    covered: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.left = {pair.path: recorded_cases(pair, self.torches) for pair in self.pairs}
        self.population = {group: sum(len(left[group]) for left in self.left.values()) for group in EXACT}

    def next(self, kernels: int = PER_DRAW) -> Draw | None:
        """The next draw, of at most `kernels` kernels; None when every case was drawn."""
        candidates = self._candidates()
        if not candidates:
            return None
        weights = [max(1, len(self.left[pair.path][KERNELS])) for pair in candidates]
        (pair,) = self._random.choices(candidates, weights)
        left = self.left[pair.path]
        chosen = self._random.sample(left[KERNELS], min(kernels, len(left[KERNELS])))
        drawn = {**left, KERNELS: chosen}
        for group in BEYOND:
            drawn[group] = self._random.sample(left[group], min(FEW, len(left[group])))
        for group in READ_FROM_KERNELS:  # the same compile gives them
            drawn[group] = [case for case in left[group] if case in chosen]
        if chosen and "route" in self.covered and self._random.randrange(_EVERY):
            drawn |= dict.fromkeys(self.covered.intersection(_SELDOM), [])
        self.left[pair.path] = {
            group: [case for case in left[group] if case not in drawn[group]] for group in left
        }
        cases = {group: tuple(keys) for group, keys in drawn.items() if keys}
        self.covered |= cases.keys()
        return Draw(pair, cases)

    def _candidates(self) -> list[Pair]:
        """The files that still have a case; while benchmarks are not covered, those that hold most of these."""
        lacking = {group for group, count in self.population.items() if count} - self.covered
        left = [pair for pair in self.pairs if any(self.left[pair.path].values())]
        held = [sum(bool(self.left[pair.path][group]) for group in lacking) for pair in left]
        return [pair for pair, count in zip(left, held, strict=True) if count == max(held)]


def recorded_cases(pair: Pair, torches: Sequence[str] = ()) -> dict[str, list[str]]:
    """The cases of a pair that can be made anew, by exact group: of today's table, with a state, of a torch at hand."""
    names: dict[str, list[str]] = {}
    for name in EXACT:
        group, records = GROUPS[name], pair.sidecar.groups.get(name, {})
        current = all(
            pair.result.versions.get(group.benchmark(metric), group.version) == group.version
            for metric in group.metrics
        )
        known = _can_be_made(name, tuple(torches))
        names[name] = [
            key for key, record in records.items() if current and key in known and record.state != "not run"
        ]
    return names


@cache
def _can_be_made(name: str, torches: tuple[str, ...]) -> frozenset[str]:
    """Of today's table of a group."""
    return frozenset(
        key_of(case) for case in GROUPS[name].cases if name not in BY_TORCH or case[0] in torches
    )


def chance(count: int, population: int, wrong: float = WRONG) -> float:
    """The chance that a sample of `count` out of `population` holds one of the share `wrong` of it, at least one.

    Drawn without putting back. That holds where wrong cases are strewn over the record; see `Draws`.
    """
    bad = math.ceil(wrong * population)
    if not count or not population:
        return 0.0
    if count > population - bad:
        return 1.0
    missed = sum(math.log1p(-bad / (population - drawn)) for drawn in range(count))
    return 1 - math.exp(missed)


@dataclass(frozen=True)
class Finding:
    """One place of one file that differs from what was made anew."""

    path: Path
    group: str
    case: str
    what: str


def compared(
    pair: Pair, causes: Mapping[Path, Explanation], group: str, case: str, anew: CaseRecord
) -> Iterator[Finding]:
    """Every place that says something of a case: the result file, the sidecar and the causes of its commit."""
    recorded = pair.sidecar.groups[group][case]
    for what in record_differs(recorded, anew):
        yield Finding(sidecar_path(pair.path), group, case, what)
    for what in _result_differs(pair, group, case, anew):
        yield Finding(pair.path, group, case, what)
    if group == KERNELS:
        for path, explanation in causes.items():
            yield from (
                Finding(path, group, case, what) for what in _cause_differs(pair, explanation, case, anew)
            )


def record_differs(recorded: CaseRecord, anew: CaseRecord) -> Iterator[str]:
    """What of a sidecar's record is not as it was made anew."""
    if recorded.state != anew.state:
        message = f" ({one_line(anew.why, 200)})" if anew.why else ""
        yield f"state: recorded {recorded.state}, anew {anew.state}{message}"
        return
    if recorded.state == _WHY_COUNTS and recorded.why != anew.why:
        yield f"reason: recorded {one_line(recorded.why, 200)!r}, anew {one_line(anew.why, 200)!r}"
    if recorded.state != "measured":
        return
    for name in ("figures", "opcodes", "parts", "notes"):
        old, made = getattr(recorded, name), getattr(anew, name)
        different = sorted(key for key in old | made if old.get(key) != made.get(key))
        different = [key for key in different if name != "figures" or key in old]  # `asv rm` took it
        for key in different[:3]:
            label = key if name == "figures" else f"{name} {key}"
            yield f"{one_line(label)}: recorded {_shown(old.get(key))}, anew {_shown(made.get(key))}"
        if len(different) > 3:
            yield f"{name}: {len(different) - 3} more"
    for name in ("sha256", "kernel"):
        if getattr(recorded, name) != getattr(anew, name):
            yield f"{name}: recorded {_shown(getattr(recorded, name))}, anew {_shown(getattr(anew, name))}"


def _shown(value: object) -> str:
    return "nothing" if value in (None, "") else one_line(str(value), 80)


def _result_differs(pair: Pair, group: str, case: str, anew: CaseRecord) -> Iterator[str]:
    parameters = tuple(case.split("/"))
    for metric in GROUPS[group].metrics:
        key = (GROUPS[group].benchmark(metric), parameters)
        if key in pair.result.figures:
            value, expected = pair.result.figures[key], anew.figures.get(metric)
            state = "unsupported" if anew.says_why_not(metric) else anew.state
            if not _agrees(value, state, expected):
                shown = expected if state == "measured" else state
                yield f"{metric}: recorded {_in_words(value)}, anew {shown}"


def _agrees(value: Value, state: str, expected: int | None) -> bool:
    """asv: a number is measured, None is failed, NaN is n/a."""
    if value is None:
        return state == "broken"
    return value == expected if is_number(value) else state not in ("measured", "broken")


def _in_words(value: Value) -> str:
    return "failed" if value is None else str(value) if is_number(value) else "n/a"


def _cause_differs(pair: Pair, explanation: Explanation, case: str, anew: CaseRecord) -> Iterator[str]:
    """What a cause says of this commit under this flavour and policy, at its side."""
    side = pair.sidecar
    if (explanation.flavour, explanation.policy) != (side.toolchain.flavour, side.toolchain.policy):
        return
    for name, index, of in (("base", 0, explanation.base), ("head", 1, explanation.head)):
        if of.commit != side.commit:
            continue
        for metric, verdict in explanation.cases.get(case, {}).items():
            figure, made = getattr(verdict, name), anew.figures.get(metric)
            if figure != made:
                yield f"{metric} at {name}: recorded {figure}, anew {_shown(made)}"
        counted = sum(pair[index] for pair in explanation.opcodes.get(case, {}).values())
        if case in explanation.opcodes and anew.opcodes and counted != sum(anew.opcodes.values()):
            yield f"opcodes at {name}: recorded {counted}, anew {sum(anew.opcodes.values())}"
        if case in explanation.states and getattr(explanation.states[case], name) != anew.state:
            yield f"state at {name}: recorded {getattr(explanation.states[case], name)}, anew {anew.state}"
