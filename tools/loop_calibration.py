"""How often what the machine code says agrees with the clock, from the record alone: whole kernels, and the policy's rule on loops.

    python tools/loop_calibration.py    # seconds: the tables of docs/loops.md

The clock is `results/h200-sxm`: verdicts on neighbouring releases of one sweep, and the profiler's times of a backward's
kernels. Thresholds are chosen on the steps to even betas and judged on those to odd ones, and the other way round.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from statistics import pstdev

from history_codegen import kernels_of
from history_record import (
    ARCH,
    LARGE,
    MACHINE,
    SECOND,
    Call,
    History,
    Release,
    Swept,
    load,
    shape_of,
    short,
    table,
)

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog.metrics import METRICS
from fa4_asv.compare.policy import (
    BETTER,
    MAIN_TURN,
    MASKED_TURN,
    NEITHER,
    WORSE,
    effect_of_figures,
    effect_of_ratio,
    overall,
)
from fa4_asv.compare.rows import Measured, Row, compare
from fa4_asv.record.schema import CaseRecord

SMALLEST = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05)  # thresholds to choose from
CLOCKED = {"faster": BETTER, "slower": WORSE, "same": NEITHER}
_NOISE = 3.0  # standard deviations of a kernel's time between neighbours with the same machine code
_TURNS = (MAIN_TURN, MASKED_TURN)
_OF_NO_SIZE = {"other-turn", "other-tile"}  # reasons why no size of a turn's change counts


@dataclass(frozen=True)
class Pair:
    """What a call runs in two releases: `records` of its kernels, the older release first, and `rows` of their comparison.

    `clock` is BETTER, WORSE or NEITHER (the same); `change` is that of time.
    """

    release: Release
    call: Call
    records: tuple[tuple[CaseRecord, CaseRecord], ...]
    rows: tuple[Row, ...]
    clock: str
    change: float

    @property
    def even(self) -> bool:
        return int(short(self.release).lstrip("b")) % 2 == 0


def by_whole_kernels(pair: Pair) -> str:
    """The rule before loops were recorded: spills, loads, stores and instructions of every kernel of the call, from 1 %;
    NEITHER where they differ."""
    return _one(
        effect_of_figures(name, old.figures[name], new.figures[name])
        for old, new in pair.records
        for name in METRICS
    )


def by_policy(pair: Pair, smallest: float) -> str:
    """What `compare` says of the call's kernels, were `smallest` the threshold of turns; NEITHER where figures differ."""
    return _one(_effect(row, smallest) for row in pair.rows)


def _effect(row: Row, smallest: float) -> str:
    if row.metric not in _TURNS or row.base is None or row.head is None or row.reason in _OF_NO_SIZE:
        return row.effect
    low, high = sorted((row.base, row.head))
    if low == high or (low and high / low - 1 < smallest):
        return NEITHER
    return WORSE if row.head > row.base else BETTER


def _one(effects: Iterable[str]) -> str:
    found = overall(effects)
    return found if found in (WORSE, BETTER) else NEITHER


@dataclass(frozen=True)
class Agreement:
    """Counts of pairs: where the clock tells a change, and (`alarms`) where the rule speaks of what stayed the same."""

    agree: int = 0
    disagree: int = 0
    silent: int = 0
    alarms: int = 0
    quiet: int = 0

    @property
    def score(self) -> int:
        """What a threshold is chosen by."""
        return self.agree - self.disagree - self.alarms

    @property
    def cells(self) -> tuple[str, ...]:
        spoke, told = self.agree + self.disagree, self.agree + self.disagree + self.silent
        return (
            str(self.agree),
            str(self.disagree),
            str(self.silent),
            _share(self.agree, spoke),
            _share(spoke, told),
            f"{self.alarms} of {self.alarms + self.quiet}",
        )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def agreement(told: Iterable[tuple[str, str]]) -> Agreement:
    """Of (clock, rule) pairs."""
    count = Counter(_kind(*pair) for pair in told)
    return Agreement(*(count[name] for name in ("agree", "disagree", "silent", "alarm", "quiet")))


def _kind(clock: str, rule: str) -> str:
    if clock == NEITHER:
        return "alarm" if rule else "quiet"
    return "silent" if not rule else "agree" if rule == clock else "disagree"


def judged(pairs: Iterable[Pair], smallest: float) -> Agreement:
    return agreement((pair.clock, by_policy(pair, smallest)) for pair in pairs)


def chosen(pairs: Sequence[Pair]) -> float:
    """The threshold with the best score; of several the smallest, which speaks most."""
    return max(SMALLEST, key=lambda smallest: (judged(pairs, smallest).score, -smallest))


def neighbours(history: History, swept: Swept) -> Iterator[Pair]:
    """Neighbouring releases of which the clock tells anything, and whose machine code is not the same."""
    for step in swept.steps:
        for call, row in swept.rows(*step).items():
            if row.verdict in CLOCKED and row.ratio is not None and _changed(history, step, kernels_of(call)):
                yield _pair(history, step, call, CLOCKED[row.verdict], row.ratio - 1)


def all_pairs(history: History, swept: Swept) -> Iterator[Pair]:
    """Any two kinds of machine code of a main kernel, each by the newest release that has it; no two pairs are independent."""
    rows = cache(swept.rows)
    for call in filter(kernels_of, swept.calls):
        newest = {history.code(name, kernels_of(call)[0]).sha256: name for name in swept.records}
        for step in combinations(sorted(newest.values(), key=list(swept.records).index), 2):
            row = rows(*step).get(call)
            if row and row.verdict in CLOCKED and row.ratio is not None:
                yield _pair(history, step, call, CLOCKED[row.verdict], row.ratio - 1)


PARTS = {"main": slice(0, 1), "pre": slice(1, 2), "post": slice(2, None)}  # of kernels_of a backward


def profiled(history: History, swept: Swept, part: str) -> Iterator[Pair]:
    """Neighbouring releases by the profiler's time of a part of a backward, where its noise is known."""
    for call in filter(kernels_of, swept.calls):
        kernels, moves = kernels_of(call)[PARTS[part]], _moves(swept, call, part)
        still = [change for step, change in moves.items() if not _changed(history, step, kernels)]
        least = _NOISE * pstdev(still) if len(still) > 1 else None
        for step, change in moves.items():
            if least is not None and _changed(history, step, kernels):
                clock = effect_of_ratio(math.log1p(change), least)
                yield _pair(history, step, call, clock, change, part)


def _moves(swept: Swept, call: Call, part: str) -> dict[tuple[Release, Release], float]:
    """How the time of a part changed from one release to the next, where both have one."""
    found = {}
    for step in swept.steps:
        old, new = ((swept.case(name, call).samples or {}).get(f"kernel {part}") for name in step)
        if old and new:
            found[step] = new[0] / old[0] - 1
    return found


def _changed(history: History, step: tuple[Release, Release], kernels: Sequence[str]) -> bool:
    """Whether a watched kernel is other machine code."""
    return any(len({history.code(name, kernel).sha256 for name in step}) > 1 for kernel in kernels)


def _pair(
    history: History, step: tuple[Release, Release], call: Call, clock: str, change: float, part: str = ""
) -> Pair:
    """`part` of a backward alone, or ("") all kernels of a call."""
    kernels = kernels_of(call)[PARTS[part]] if part else kernels_of(call)
    records = tuple((history.code(step[0], name), history.code(step[1], name)) for name in kernels)
    old, new = (_measured(history, release, kernels) for release in step)
    return Pair(step[1], call, records, tuple(compare(old, new, exact=True)), clock, change)


def _measured(history: History, release: Release, kernels: Sequence[str]) -> Measured:
    """What is recorded of `kernels` and of their loops."""
    codegen = {f"{ARCH}/{name}": history.code(release, name) for name in kernels}
    loops = {key: history.loops(release, key) for key in codegen if history.has_loops(key)}
    return Measured({"codegen": codegen, "loops": loops})


_HEAD = "rule | judged on | threshold | agree | disagree | silent | agrees | speaks | speaks of what stayed the same"


def halves(pairs: Sequence[Pair]) -> list[str]:
    """Both rules on each half of the releases, the threshold chosen on the other; all changes, and those of LARGE and more."""
    sides = {
        "even betas": [one for one in pairs if one.even],
        "odd betas": [one for one in pairs if not one.even],
    }
    rows = []
    for name, half in sides.items():
        other = next(those for title, those in sides.items() if title != name)
        rows += _rows(name, half, chosen(other))
    return table(_HEAD, rows, 2)


def whole(pairs: Sequence[Pair], smallest: float) -> list[str]:
    """Both rules on all pairs, with a threshold that was chosen elsewhere."""
    return table(_HEAD, _rows("all", pairs, smallest), 2)


def _rows(name: str, half: Sequence[Pair], smallest: float) -> list[tuple[str, ...]]:
    large = [pair for pair in half if not pair.clock or abs(pair.change) >= LARGE]
    found = []
    for title, pairs in ((name, half), (f"{name}, {LARGE:.0%} or more", large)):
        old = agreement((pair.clock, by_whole_kernels(pair)) for pair in pairs)
        found.append(("whole kernels", title, "1 %", *old.cells))
        found.append(("loops", title, f"{smallest:.1%}", *judged(pairs, smallest).cells))
    return found


def listed(pairs: Sequence[Pair], smallest: float) -> list[str]:
    """Every change of LARGE and more, and each disagreement, with what both rules say."""
    rows = [
        (
            short(pair.release),
            f"{pair.call[0].partition('-')[0]} `{shape_of(pair.call).name}`",
            f"{pair.change:+.1%}",
            by_whole_kernels(pair) or "silent",
            by_policy(pair, smallest) or "silent",
            _words(pair),
        )
        for pair in pairs
        if pair.clock
        and (abs(pair.change) >= LARGE or by_policy(pair, smallest) not in (NEITHER, pair.clock))
    ]
    return table("release | call | clock | whole kernels | loops | instructions of a turn", rows)


def _words(pair: Pair) -> str:
    """The turn and the spills of the main kernel, before and after."""
    rows = {row.metric: row for row in pair.rows if row.group == "loops"}
    turn = next((rows[name] for name in _TURNS if name in rows and rows[name].reason != "other-turn"), None)
    if turn is None:
        return "loops are not known"
    spills = rows.get("spills_inside")
    more = f", spills {_moved(spills)}" if spills and spills.base != spills.head else ""
    return _moved(turn) + more + (", another tile" if turn.reason == "other-tile" else "")


def _moved(row: Row) -> str:
    return f"{row.base:.0f} -> {row.head:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.parse_args()
    try:
        show(load(Project.find()))
    except Fa4AsvError as error:
        parser.exit(2, f"{error}\n")


def show(history: History) -> None:
    """Print the tables. Raises Fa4AsvError where loops of a release are not recorded."""
    first = list(neighbours(history, history.first))
    smallest = chosen(first)
    _print(
        f"Neighbouring releases, {MACHINE}: {len(first)} pairs",
        [*halves(first), "", *listed(first, smallest)],
    )
    others = {
        f"The second machine, {SECOND}": neighbours(history, history.second),
        f"Any two kinds of machine code, {MACHINE}": all_pairs(history, history.first),
        **{f"Kernel {part} of backwards": profiled(history, history.first, part) for part in PARTS},
    }
    for title, found in others.items():
        pairs = list(found)
        _print(
            f"{title}: {len(pairs)} pairs, threshold {smallest:.1%}, chosen above on all",
            whole(pairs, smallest),
        )


def _print(title: str, lines: Sequence[str]) -> None:
    print("\n".join((f"\n{title}\n", *lines)))


if __name__ == "__main__":
    main()
