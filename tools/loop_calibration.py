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
from pathlib import Path
from statistics import pstdev

from history_codegen import kernels_of
from history_record import ARCH, FLAVOUR, LARGE, Call, History, Release, Swept, load, shape_of, short, table
from loop_cubins import Cubins, Kernels, compile_missing

from fa4_asv.base.project import Project
from fa4_asv.catalog.metrics import METRICS
from fa4_asv.compare.policy import BETTER, NEITHER, SMALLEST_TIME, WORSE, effect_of_figures, overall
from fa4_asv.measure.kernels.flow import NotUnderstood
from fa4_asv.measure.kernels.loops import KernelLoops
from fa4_asv.record.schema import CaseRecord

SMALLEST = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05)  # thresholds to choose from
CLOCKED = {"faster": BETTER, "slower": WORSE, "same": NEITHER}
_NOISE = 3.0  # standard deviations of a kernel's time between neighbours with the same machine code


@dataclass(frozen=True)
class Kernel:
    """A kernel as both rules see it."""

    record: CaseRecord
    loops: KernelLoops


@dataclass(frozen=True)
class Pair:
    """A call's main kernel in two releases. `clock` is BETTER, WORSE, NEITHER (the same); `change` is that of time."""

    release: Release
    call: Call
    old: Kernel
    new: Kernel
    around: tuple[tuple[CaseRecord, CaseRecord], ...]
    clock: str
    change: float

    @property
    def even(self) -> bool:
        return int(short(self.release).lstrip("b")) % 2 == 0

    @property
    def masked(self) -> bool:
        """Whether all blocks of keys are cut by the mask: a window of one block."""
        return shape_of(self.call).window is not None


def by_policy(pair: Pair) -> str:
    """Today's rule: every judged figure of every kernel of the call; NEITHER where they differ."""
    sides = [(pair.old.record, pair.new.record), *pair.around]
    return _one(
        effect_of_figures(name, old.figures[name], new.figures[name])
        for old, new in sides
        for name in METRICS
    )


def by_loops(pair: Pair, smallest: float) -> str:
    """Accesses to spilled values inside loops, and the instructions of a turn; NEITHER where they differ or are not known."""
    spills = _effect(pair.old.loops.spills_inside, pair.new.loops.spills_inside, 0)
    return _one((spills, _turns(pair, smallest)))


def _turns(pair: Pair, smallest: float) -> str:
    try:
        old, new = (side.loops.main(pair.masked) for side in (pair.old, pair.new))
    except NotUnderstood:
        return NEITHER
    if old.products != new.products:
        return NEITHER  # a turn does other work: its instructions say nothing
    return _effect(old.instructions, new.instructions, smallest)


def by_loops_else_policy(pair: Pair, smallest: float) -> str:
    """Loops; today's rule where no loop is understood."""
    try:
        for side in (pair.old, pair.new):
            side.loops.main(pair.masked)
    except NotUnderstood:
        return by_policy(pair)
    return by_loops(pair, smallest)


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
    """The threshold with the best score; the largest of several, which speaks least of what it has not seen."""
    return max(SMALLEST, key=lambda smallest: (judged(pairs, smallest).score, smallest))


def pairs_of(history: History, swept: Swept, cubins: Cubins) -> Iterator[Pair]:
    """Neighbours of which the clock tells anything, and whose machine code is not the same."""
    for step in swept.steps:
        for call, row in swept.rows(*step).items():
            if row.verdict in CLOCKED and row.ratio is not None and _other_code(history, *step, call):
                yield _pair(history, cubins, step, call, CLOCKED[row.verdict], row.ratio - 1)


def main_kernels(history: History, swept: Swept, cubins: Cubins) -> Iterator[Pair]:
    """The same of the main kernels of backwards, by the profiler."""
    for call in swept.calls:
        noise = _noise(history, swept, call)
        for step in swept.steps:
            change = _kernel_change(swept, step, call)
            if change is not None and noise and _other_code(history, *step, call, most=1):
                clock = (
                    NEITHER if abs(change) < max(SMALLEST_TIME, noise) else WORSE if change > 0 else BETTER
                )
                yield _pair(history, cubins, step, call, clock, change)


def _noise(history: History, swept: Swept, call: Call) -> float:
    """How far the time of a main kernel moves between neighbours whose machine code is the same; 0 where none are."""
    moves = [
        change
        for step in swept.steps
        if (change := _kernel_change(swept, step, call)) is not None
        and kernels_of(call)
        and not _other_code(history, *step, call, most=1)
    ]
    return _NOISE * pstdev(moves) if len(moves) > 1 else 0.0


def _kernel_change(swept: Swept, step: tuple[Release, Release], call: Call) -> float | None:
    sides = [(swept.case(name, call).samples or {}).get("kernel main") for name in step]
    return math.expm1(math.log(sides[1][0] / sides[0][0])) if sides[0] and sides[1] else None


def _other_code(history: History, before: Release, after: Release, call: Call, most: int = 9) -> bool:
    """Whether one of a call's first `most` kernels is other machine code; not where they are not watched."""
    kernels = kernels_of(call)[:most]
    return any(history.code(before, name).sha256 != history.code(after, name).sha256 for name in kernels)


def _pair(
    history: History, cubins: Cubins, step: tuple[Release, Release], call: Call, clock: str, change: float
) -> Pair:
    main, *around = kernels_of(call)
    sides = [history.code(release, main) for release in step]
    old, new = (Kernel(record, cubins.loops(record.sha256)) for record in sides)
    others = tuple((history.code(step[0], name), history.code(step[1], name)) for name in around)
    return Pair(step[1], call, old, new, others, clock, change)


_HEAD = "rule | judged on | threshold | agree | disagree | silent | agrees | speaks | speaks of what stayed the same"


def tables(pairs: Sequence[Pair]) -> list[str]:
    """Both rules on both halves, on all changes and on those of LARGE and more."""
    halves = {
        "even betas": [one for one in pairs if one.even],
        "odd betas": [one for one in pairs if not one.even],
    }
    rows = []
    for name, half in halves.items():
        other = next(those for title, those in halves.items() if title != name)
        rows += _rows(name, half, chosen(other))
    return table(_HEAD, rows, 2)


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
        old, new = (side.loops.main(pair.masked) for side in (pair.old, pair.new))
    except NotUnderstood as why:
        return str(why)
    spills = [side.loops.spills_inside for side in (pair.old, pair.new)]
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
    project = Project.find()
    history, cubins = load(project), Cubins(options.folder)
    if options.compile:
        compile_missing(
            project, cubins, wanted(history), FLAVOUR, ARCH, lambda words: print(words, flush=True)
        )
    for title, pairs in (
        ("Calls, h200-sxm", list(pairs_of(history, history.first, cubins))),
        (
            "Main kernels of backwards, by the profiler, h200-sxm",
            list(main_kernels(history, history.first, cubins)),
        ),
        ("Calls, h200-sxm-2", list(pairs_of(history, history.second, cubins))),
    ):
        smallest = chosen(pairs)
        print("\n".join([f"\n{title}: {len(pairs)} pairs\n", *tables(pairs), "", *listed(pairs, smallest)]))


if __name__ == "__main__":
    main()
