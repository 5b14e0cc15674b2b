"""Which package of a toolchain moved the figures, and between which two of its versions.

The old source is compiled under mixtures of the two toolchains: the old one with one package new, or the new
one with one package old. A package's own parts (nvidia-cutlass-dsl-libs-...) go with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.benchmarks import Case, key_of
from fa4_asv.catalog.flavours import PLAIN, RUNTIMES
from fa4_asv.explain.corners import Corner, Tell
from fa4_asv.explain.pairs import Workshop
from fa4_asv.history.registry import versions_between
from fa4_asv.history.toolchain import Policy, lock_for
from fa4_asv.record.explanation import Culprit, explains
from fa4_asv.record.formatting import counted
from fa4_asv.record.schema import CaseRecord, Records

Packages = dict[str, str]
# Compilers first, then what holds device code, then the rest in the order of the alphabet.
_LIKELY = ("nvidia-cutlass-dsl", "quack-kernels", "apache-tvm-ffi")


@dataclass(frozen=True)
class Move:
    """A figure that the toolchain moves, under the old source: metric `metric` from `before` to `after`."""

    case: Case
    metric: str
    before: int
    after: int

    @property
    def key(self) -> str:
        return key_of(self.case)


@dataclass
class Answer:
    """What was named, and as text what could not be."""

    culprits: list[Culprit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def family(name: str, names: set[str]) -> str:
    """The package that `name` is a part of: the shortest of `names` that it starts with.

    The CUDA runtime is torch's: torch pins its exact version, and nothing else asks for it.
    """
    if name in RUNTIMES and "torch" in names:
        return "torch"
    return min((n for n in names if name == n or name.startswith(n + "-")), key=len)


def differing(old: Packages, new: Packages) -> list[str]:
    """The packages, parts left out, whose version differs; the likely ones first."""
    names = set(old) | set(new)
    result = {family(name, names) for name in names if old.get(name) != new.get(name)}
    return [n for n in _LIKELY if n in result] + sorted(result - set(_LIKELY))


def parts(name: str, packages: Packages, names: set[str]) -> Packages:
    """The entries of `packages` that belong to the package `name`."""
    return {part: version for part, version in packages.items() if family(part, names) == name}


def mixed(packages: Packages, name: str, instead: Packages) -> Packages:
    """`packages` with the package `name` and its parts as in `instead`."""
    names = set(packages) | set(instead)
    rest = {part: version for part, version in packages.items() if family(part, names) != name}
    return rest | parts(name, instead, names)


class Walk:
    """The search for packages over one pair of corners; everything is compiled with the old source."""

    def __init__(self, shop: Workshop, base: Corner, head: Corner, tell: Tell) -> None:
        self._shop, self._base, self._tell = shop, base, tell
        self._old, self._new = base.lock.packages, head.lock.packages
        self._day: datetime = head.source.day
        self.answer = Answer()

    def run(self, moves: Sequence[Move]) -> Answer:
        """A culprit for each of `moves`, or a note why not."""
        left = list(moves)
        names = differing(self._old, self._new)
        likely = [name for name in names if name in _LIKELY]
        searches: list[Callable[[list[Move]], list[Move]]] = [partial(self._single, name) for name in likely]
        # A compiler and what is written for it often cannot be taken apart: neither imports without the other.
        searches += [partial(self._pair, likely[0], other) for other in likely[1:]]
        searches += [partial(self._single, name) for name in names if name not in likely]
        for search in searches:
            found_moves = search(left) if left else []
            left = [move for move in left if move not in found_moves]
        if left:
            cases = ", ".join(sorted(move.key for move in left))
            self.answer.notes.append(f"the toolchain moves {cases}, but no single package does")
        return self.answer

    def _single(self, name: str, left: list[Move]) -> list[Move]:
        """Those of `left` that one package moves: new in the old toolchain, or else old in the new one."""
        alone = mixed(self._old, name, self._new)
        forward = self._moved(left, alone, f"the old toolchain with {name} new")
        self._between(name, forward, self._old)
        rest = [move for move in left if move not in forward]
        without = mixed(self._new, name, self._old)
        backward = self._moved(rest, without, f"the new toolchain with {name} old", back=True)
        self._between(name, backward, self._new)
        return forward + backward

    def _pair(self, first: str, second: str, left: list[Move]) -> list[Move]:
        """Those of `left` that two packages move together; `first` alone is named where some version of `second`
        works with both of its versions, and the figure then goes with `first`."""
        both = mixed(mixed(self._old, first, self._new), second, self._new)
        moves = rest = self._moved(left, both, f"the old toolchain with {first} and {second} new")
        for version in (
            self._versions(second, self._old.get(second, ""), self._new.get(second, "")) if rest else []
        ):
            bridge = mixed(self._old, second, self._parts_at(second, version))
            still = self._moved(rest, bridge, f"{second} {version} instead", back=True)
            crossed = self._moved(
                still, mixed(bridge, first, self._new), f"{second} {version} and {first} new"
            )
            self._between(first, crossed, bridge)
            rest = [move for move in rest if move not in crossed]
        if rest:
            old, new = (
                " with ".join(side.get(name, "-") for name in (first, second))
                for side in (self._old, self._new)
            )
            keys = tuple(sorted(move.key for move in rest))
            self.answer.culprits.append(Culprit("package", keys, f"{first} with {second}", old, new))
        return moves

    def _moved(self, moves: Sequence[Move], packages: Packages, what: str, back: bool = False) -> list[Move]:
        """Those of `moves` whose figure is at its new place under `packages`; `back`: at its old one."""
        values = self._values(moves, packages, what)
        return [move for move in moves if _there(move, value_of(values, move), back)]

    def _values(self, moves: Sequence[Move], packages: Packages, what: str) -> Records:
        if moves:
            self._tell(f"{what}: {counted(len(moves), 'kernel')}")
        records = self._shop.records(self._base.source, packages, [move.case for move in moves])
        broken = {record.why for record in records.values() if record.state != "measured"}
        if len(broken) == 1 and all(record.state != "measured" for record in records.values()):
            self.answer.notes.append(f"{what}: {broken.pop()}")
        return records

    def _between(self, name: str, moves: Sequence[Move], background: Packages) -> None:
        """The step of `name`'s versions at which each of `moves` happens, measured over `background`."""
        if not moves:
            return
        old, new = self._old.get(name, ""), self._new.get(name, "")
        steps = [(old, {m.key: m.before for m in moves})]
        for version in self._versions(name, old, new):
            try:
                packages = mixed(background, name, self._parts_at(name, version))
                records = self._values(moves, packages, f"{name} {version}")
            except Fa4AsvError as error:
                self.answer.notes.append(f"{name} {version} cannot be measured: {error}")
                continue
            steps.append((version, {m.key: v for m in moves if (v := value_of(records, m)) is not None}))
        steps.append((new, {m.key: m.after for m in moves}))
        names: dict[tuple[str, str], list[str]] = {}
        for move in moves:
            names.setdefault(_step(steps, move), []).append(move.key)
        self.answer.culprits += [
            Culprit("package", tuple(sorted(keys)), name, before, after)
            for (before, after), keys in names.items()
        ]

    def _versions(self, name: str, old: str, new: str) -> list[str]:
        if not old or not new or name == "torch":
            return []  # of torch only its CUDA counts, which changes once in many versions
        try:
            return versions_between(name, old, new, self._day)
        except Fa4AsvError as error:
            self.answer.notes.append(
                f"the versions of {name} between {old} and {new} were not walked: {error}"
            )
            return []

    def _parts_at(self, name: str, version: str) -> Packages:
        """The package and its parts at another version, as its own requirements say."""
        names = set(self._old) | set(self._new)
        if len(parts(name, self._old, names) | parts(name, self._new, names)) == 1:
            return {name: version}
        pyproject = (
            '[project]\nname = "one-package"\nversion = "0"\n'
            f'dependencies = ["{name}=={version}"]\n'
            f'[project.optional-dependencies]\ncu13 = ["{name}[cu13]=={version}"]\n'
        )
        lock = lock_for(
            self._shop.project,
            f"{name}-{version}",
            pyproject,
            self._day,
            self._shop.flavour if self._shop.flavour != PLAIN else "cu12",  # the same packages but for torch
            Policy("day"),
            False,
        )
        return parts(name, lock.packages, set(lock.packages))


def value_of(records: Records, move: Move) -> int | None:
    record: CaseRecord = records[move.key]
    return record.figures.get(move.metric)


def _there(move: Move, value: int | None, back: bool) -> bool:
    ends = (move.after, move.before) if back else (move.before, move.after)
    return value is not None and explains(*ends, value)


def _step(steps: Sequence[tuple[str, dict[str, int]]], move: Move) -> tuple[str, str]:
    """The neighbouring versions between which the figure goes where it stays; versions without one left out."""
    known = [(version, values[move.key]) for version, values in steps if move.key in values]
    last = max(
        index for index, (_, value) in enumerate(known) if not explains(move.before, move.after, value)
    )
    return known[last][0], known[last + 1][0]
