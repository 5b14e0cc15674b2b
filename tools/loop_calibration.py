"""How often what the machine code says agrees with the clock: today's rule on whole kernels, and one on loops.

    python tools/loop_calibration.py FOLDER --compile    # an hour of one core, once; FOLDER stays outside of the checkout
    python tools/loop_calibration.py FOLDER              # seconds: the tables

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
from pathlib import Path
from statistics import pstdev

from history_codegen import kernels_of
from history_record import (
    ARCH,
    FLAVOUR,
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
from loop_cubins import Cubins, Kernels, compile_missing

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog.metrics import METRICS
from fa4_asv.compare.policy import BETTER, NEITHER, WORSE, effect_of_figures, effect_of_ratio, overall
from fa4_asv.measure.kernels.flow import NotUnderstood
from fa4_asv.measure.kernels.loops import KernelLoops
from fa4_asv.record.schema import CaseRecord

SMALLEST = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05)  # thresholds to choose from
CLOCKED = {"faster": BETTER, "slower": WORSE, "same": NEITHER}
_NOISE = 3.0  # standard deviations of a kernel's time between neighbours with the same machine code


@dataclass(frozen=True)
class Pair:
    """What a call runs in two releases: `records` of its kernels and `loops` of the main one, the older release first.

    `clock` is BETTER, WORSE or NEITHER (the same); `change` is that of time.
    """

    release: Release
    call: Call
    records: tuple[tuple[CaseRecord, CaseRecord], ...]
    loops: tuple[KernelLoops, KernelLoops]
    clock: str
    change: float

    @property
    def even(self) -> bool:
        return int(short(self.release).lstrip("b")) % 2 == 0

    @property
    def masked(self) -> bool:
        """Whether the mask cuts all blocks of keys, so that the loop without it never runs: a window of one block."""
        return shape_of(self.call).window is not None


def by_policy(pair: Pair) -> str:
    """Today's rule: every judged figure of every kernel of the call; NEITHER where they differ."""
    return _one(
        effect_of_figures(name, old.figures[name], new.figures[name])
        for old, new in pair.records
        for name in METRICS
    )


def by_loops(pair: Pair, smallest: float) -> str:
    """Accesses to spilled values inside loops, and the instructions of a turn; NEITHER where they differ or are not known."""
    old, new = (side.spills_inside for side in pair.loops)
    spills = _effect(old, new, 0)
    return _one((spills, _turns(pair, smallest)))


def _turns(pair: Pair, smallest: float) -> str:
    try:
        old, new = (side.main(pair.masked) for side in pair.loops)
    except NotUnderstood:
        return NEITHER
    if old.products != new.products:
        return NEITHER  # a turn does other work: its instructions say nothing
    return _effect(old.instructions, new.instructions, smallest)


def _effect(old: int, new: int, smallest: float) -> str:
    low, high = sorted((old, new))
    if low == high or (low and high / low - 1 < smallest):
        return NEITHER
    return WORSE if new > old else BETTER


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
    return agreement((pair.clock, by_loops(pair, smallest)) for pair in pairs)


def chosen(pairs: Sequence[Pair]) -> float:
    """The threshold with the best score; of several the smallest, which speaks most."""
    return max(SMALLEST, key=lambda smallest: (judged(pairs, smallest).score, -smallest))


def neighbours(history: History, swept: Swept, cubins: Cubins) -> Iterator[Pair]:
    """Neighbouring releases of which the clock tells anything, and whose machine code is not the same."""
    for step in swept.steps:
        for call, row in swept.rows(*step).items():
            if row.verdict in CLOCKED and row.ratio is not None and _changed(history, step, kernels_of(call)):
                yield _pair(history, cubins, step, call, CLOCKED[row.verdict], row.ratio - 1)


def all_pairs(history: History, swept: Swept, cubins: Cubins) -> Iterator[Pair]:
    """Any two kinds of machine code of a main kernel, each by the newest release that has it; no two pairs are independent."""
    rows = cache(swept.rows)
    for call in filter(kernels_of, swept.calls):
        newest = {history.code(name, kernels_of(call)[0]).sha256: name for name in swept.records}
        for step in combinations(sorted(newest.values(), key=list(swept.records).index), 2):
            row = rows(*step).get(call)
            if row and row.verdict in CLOCKED and row.ratio is not None:
                yield _pair(history, cubins, step, call, CLOCKED[row.verdict], row.ratio - 1)


PARTS = {"main": slice(0, 1), "pre": slice(1, 2), "post": slice(2, None)}  # of kernels_of a backward


def profiled(history: History, swept: Swept, cubins: Cubins, part: str) -> Iterator[Pair]:
    """Neighbouring releases by the profiler's time of a part of a backward, where its noise is known."""
    for call in filter(kernels_of, swept.calls):
        kernels, moves = kernels_of(call)[PARTS[part]], _moves(swept, call, part)
        still = [change for step, change in moves.items() if not _changed(history, step, kernels)]
        least = _NOISE * pstdev(still) if len(still) > 1 else None
        for step, change in moves.items():
            if least is not None and _changed(history, step, kernels):
                clock = effect_of_ratio(math.log1p(change), least)
                yield _pair(history, cubins, step, call, clock, change, part)


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
    history: History,
    cubins: Cubins,
    step: tuple[Release, Release],
    call: Call,
    clock: str,
    change: float,
    part: str = "",
) -> Pair:
    """`part` of a backward alone, or ("") all kernels of a call."""
    kernels = kernels_of(call)[PARTS[part]] if part else kernels_of(call)
    records = tuple((history.code(step[0], name), history.code(step[1], name)) for name in kernels)
    old, new = (
        cubins.loops(one.sha256) if part in ("", "main") else KernelLoops(why=NO_LOOP) for one in records[0]
    )
    return Pair(step[1], call, records, (old, new), clock, change)


NO_LOOP = "pre- and postprocess have no iteration loop"
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
        old = agreement((pair.clock, by_policy(pair)) for pair in pairs)
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
            by_policy(pair) or "silent",
            by_loops(pair, smallest) or "silent",
            _words(pair),
        )
        for pair in pairs
        if pair.clock and (abs(pair.change) >= LARGE or by_loops(pair, smallest) not in (NEITHER, pair.clock))
    ]
    return table("release | call | clock | whole kernels | loops | instructions of a turn", rows)


def _words(pair: Pair) -> str:
    try:
        old, new = (side.main(pair.masked) for side in pair.loops)
    except NotUnderstood as why:
        return str(why)
    spills = [side.spills_inside for side in pair.loops]
    more = f", spills {spills[0]} -> {spills[1]}" if spills[0] != spills[1] else ""
    other = ", another tile" if old.products != new.products else ""
    return f"{old.instructions} -> {new.instructions}{more}{other}"


def wanted(history: History) -> list[tuple[Release, Kernels]]:
    """The main kernels of all watched calls, the newest release first."""
    names = {kernels_of(call)[0] for call in history.first.calls if kernels_of(call)}
    return [
        (release, {name: history.code(release, name).sha256 for name in sorted(names)})
        for release in reversed(history.first.records)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="where disassembled kernels are kept")
    parser.add_argument("--compile", action="store_true", help="compile what the folder lacks first")
    options = parser.parse_args()
    try:
        run(options.folder, options.compile)
    except Fa4AsvError as error:
        parser.exit(2, f"{error}\n")


def run(folder: Path, compile_first: bool) -> None:
    """Print the tables. Raises Fa4AsvError where the folder lacks a kernel, or one cannot be compiled."""
    project = Project.find()
    history, cubins = load(project), Cubins(folder)
    if compile_first:
        compile_missing(
            project, cubins, wanted(history), (FLAVOUR, ARCH), lambda words: print(words, flush=True)
        )
    show(history, cubins)


def show(history: History, cubins: Cubins) -> None:
    first = list(neighbours(history, history.first, cubins))
    smallest = chosen(first)
    _print(
        f"Neighbouring releases, {MACHINE}: {len(first)} pairs",
        [*halves(first), "", *listed(first, smallest)],
    )
    others = {
        f"The second machine, {SECOND}": neighbours(history, history.second, cubins),
        f"Any two kinds of machine code, {MACHINE}": all_pairs(history, history.first, cubins),
        **{f"Kernel {part} of backwards": profiled(history, history.first, cubins, part) for part in PARTS},
    }
    for title, found in others.items():
        pairs = list(found)
        _print(f"{title}: {len(pairs)} pairs, threshold chosen above on all", whole(pairs, smallest))


def _print(title: str, lines: Sequence[str]) -> None:
    print("\n".join((f"\n{title}\n", *lines)))


if __name__ == "__main__":
    main()
