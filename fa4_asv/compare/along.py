"""Whether two releases differ in one call that a sweep timed: effects of rounds removed, processes counted once.

A sweep times many releases on one card in turns. A release usually has two processes of three rounds. The rounds
of a process share its random offset, so the process counts once, and two processes alone would leave one degree of
freedom: the spread between the processes of a release is therefore pooled over all releases of the sweep, call by
call. docs/verdicts.md has the rule, tests/proofs/sweep_power.py computes how often it is wrong. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, median, variance

from fa4_asv.compare.round_effects import linked_rounds, round_effects
from fa4_asv.compare.verdicts import (
    RELEVANT,
    Verdict,
    bimodal,
    critical,
    decided,
    student,
    welch,
)
from fa4_asv.record.turns import YARDSTICKS, Turn

# Whether log(seconds / control) is compared instead of log(seconds). Both have the effects of rounds removed. Not
# by default: a round falls on all releases alike, so its median over the releases says more about the card than
# one more clocked kernel, whose own noise would enter, and a kernel that draws more power would slow the control
# beside it and so hide a part of its own change.
CONTROLLED = False
# Of the interval. Real processes scatter with heavier tails than the normal ones of the simulation: at 0.99 a release's two
# processes were told apart in 9 of 762 pairs on an H200 (1.2 %), at 0.995 in 7 (0.9 %).
CONFIDENCE = 0.995
MIN_PROCESSES = 2  # a side
MIN_OTHERS = 4  # degrees of freedom of the other releases, to tell whether a side's processes are apart
# The processes of a side are apart where the spread of the other releases rules their distance out with this confidence.
APART = 0.999
SEEN = 0.9  # the share of cases in which `visible` tells a change


Call = Mapping[str, Sequence[Turn]]  # one call of one sweep on one card: the turns of each release


@dataclass(frozen=True)
class Pool:
    """What all releases of one sweep say about one call.

    `effects`: log seconds by which a round was slower than the middle one; a round that too few releases have has none. `levels`: log seconds of each process of
    each release, effects removed. `variance`: between the processes of a release, with `freedom` degrees of
    freedom out of `pairs` (the sum of processes - 1). `controlled`: whether the control is divided out.
    """

    effects: Mapping[int, float]
    levels: Mapping[str, tuple[float, ...]]
    variance: float
    freedom: int
    pairs: int
    controlled: bool = False

    @property
    def spread(self) -> float:
        """Standard deviation between processes of one release, as a share; NaN where no release has two."""
        return math.sqrt(self.variance) if self.freedom else math.nan


def pool_of(call: Call, controlled: bool = CONTROLLED) -> Pool:
    """Effects of rounds and the spread between processes, from every release that a sweep timed.

    The control is left out where a turn has none. The effects take a degree of freedom for each process beyond
    the first that a release usually has: where the first processes have the early rounds and the second the late
    ones, the effects absorb what their differences have in common.
    """
    rounds = linked_rounds([turn.round for turn in turns] for turns in call.values())
    call = {name: kept_turns for name, turns in call.items() if (kept_turns := within(rounds, turns))}
    controlled = controlled and all(turn.control for turns in call.values() for turn in turns)
    effects = round_effects(
        {name: [(turn.round, _log(turn, controlled)) for turn in turns] for name, turns in call.items()}
    )
    levels = {name: process_levels(turns, effects, controlled) for name, turns in call.items()}
    counts = [len(values) for values in levels.values() if len(values) > 1]
    pairs = sum(counts) - len(counts)
    freedom = max(pairs - (round(median(counts)) - 1), 0) if counts else 0
    total = math.fsum(sum_of_squares(values) for values in levels.values())
    return Pool(effects, levels, total / freedom if freedom else math.nan, freedom, pairs, controlled)


def within(rounds: Container[int], turns: Sequence[Turn]) -> list[Turn]:
    return [turn for turn in turns if turn.round in rounds]


def process_levels(
    turns: Sequence[Turn], effects: Mapping[int, float], controlled: bool = False
) -> tuple[float, ...]:
    """Log seconds of each process, in the order of their numbers: the median of its rounds, effects removed.

    Not the mean: one round in fifty that is 3 % off would cost a mean most of its power to see a change (docs/verdicts.md).
    """
    values: dict[int, list[float]] = {}
    for turn in turns:
        values.setdefault(turn.process, []).append(_log(turn, controlled) - effects[turn.round])
    return tuple(median(values[process]) for process in sorted(values))


def _log(turn: Turn, controlled: bool) -> float:
    return math.log(turn.seconds / (turn.control if controlled and turn.control else 1.0))


def sum_of_squares(levels: Sequence[float]) -> float:
    centre = fmean(levels)
    return math.fsum((level - centre) ** 2 for level in levels)


def visible(pool: Pool, base: int = 2, head: int = 2) -> float:
    """The smallest slow-down that is called slower in SEEN of all cases, as a share; NaN without a spread.

    `base` and `head` are the processes of each side. By the normal approximation of the noncentral t distribution
    (Abramowitz and Stegun, 26.7.10).
    """
    if not pool.freedom:
        return math.nan
    noise = math.sqrt(pool.variance * (1 / base + 1 / head))
    quantile = NormalDist().inv_cdf(SEEN)
    limit = critical(pool.freedom, CONFIDENCE)
    by_interval = limit * (1 - 0.25 / pool.freedom) + quantile * math.sqrt(1 + limit**2 / (2 * pool.freedom))
    return math.expm1(max(by_interval * noise, math.log1p(RELEVANT) + quantile * noise))


# Two releases


def between(pool: Pool, base: Sequence[Turn], head: Sequence[Turn]) -> Verdict:
    """Whether `head` differs from `base`, both of the sweep behind `pool`. Swapping the sides inverts it.

    The interval is that of the difference of the sides' means over processes, with the pooled variance and
    Student's quantile at its degrees of freedom.
    """
    base, head = (within(pool.effects, turns) for turns in (base, head))
    doubted = _doubt(pool, pool, base, head)
    if doubted:
        return doubted
    old, new = (process_levels(turns, pool.effects, pool.controlled) for turns in (base, head))
    reach = critical(pool.freedom, CONFIDENCE) * math.sqrt(pool.variance * (1 / len(old) + 1 / len(new)))
    verdict = decided(fmean(new) - fmean(old), reach)
    message = f"{verdict.why}; processes differ by {pool.spread:.2%} ({pool.freedom} degrees of freedom)"
    if verdict.name == "unclear":
        least = visible(pool, len(old), len(new))
        message += f", {least:.1%} would be seen in {SEEN:.0%} of cases"
    return _unless_apart(replace(verdict, why=message), reach, (pool, old), (pool, new), pooled=True)


def across(pools: tuple[Pool, Pool], base: Sequence[Turn], head: Sequence[Turn], yardstick: str) -> Verdict:
    """The same of two sweeps or cards, each with its pool: the sides are ratios to `yardstick` in the same round.

    Its noise is in the interval twice: how far its rounds scatter is measured; the offset of its process is not,
    since it has one a sweep, and is taken to be as large as that of this call's own processes. Where one sweep cannot
    tell its spread (a single release), that of the other stands for it.
    """
    pools = (pools[0] if pools[0].freedom else pools[1], pools[1] if pools[1].freedom else pools[0])
    doubted = _doubt(*pools, base, head)
    if doubted:
        return doubted
    sides = [_over(turns, yardstick) for turns in (base, head)]
    old, new = (process_levels(turns, dict.fromkeys((turn.round for turn in turns), 0.0)) for turns in sides)
    mine, theirs = (
        pool.variance / len(levels) + _yardstick_variance(pool, turns, yardstick)
        for pool, levels, turns in zip(pools, (old, new), (base, head), strict=True)
    )
    reach = welch(mine, pools[0].freedom, theirs, pools[1].freedom)
    verdict = decided(fmean(new) - fmean(old), reach)
    message = f"{verdict.why}; as ratios to {yardstick}, whose noise is in the interval"
    return _unless_apart(replace(verdict, why=message), reach, (pools[0], old), (pools[1], new), pooled=False)


def common_yardstick(base: Sequence[Turn], head: Sequence[Turn]) -> str:
    """The first of YARDSTICKS that was timed in every turn of both sides, "" for none."""
    for name in YARDSTICKS:
        if all(turn.yardsticks.get(name) for turn in (*base, *head)):
            return name
    return ""


def _over(turns: Sequence[Turn], yardstick: str) -> list[Turn]:
    return [replace(turn, seconds=turn.seconds / turn.yardsticks[yardstick]) for turn in turns]


def _yardstick_variance(pool: Pool, turns: Sequence[Turn], yardstick: str) -> float:
    """Of the mean of the yardstick's rounds, effects removed where all are known, and of its one process."""
    known = all(turn.round in pool.effects for turn in turns)
    left = [
        math.log(turn.yardsticks[yardstick]) - (pool.effects[turn.round] if known else 0.0) for turn in turns
    ]
    return pool.variance + (variance(left) / len(left) if len(left) > 1 else 0.0)


def _doubt(old: Pool, new: Pool, base: Sequence[Turn], head: Sequence[Turn]) -> Verdict | None:
    """Why there is no interval, None where there is one."""
    for side, pool, turns in (("base", old, base), ("head", new, head)):
        count = len({turn.process for turn in turns})
        if count < MIN_PROCESSES:
            message = f"{side} has {count} process{'es' * (count != 1)}, {MIN_PROCESSES} are needed"
            return Verdict("unclear", "few-processes", message)
        if not pool.freedom:
            message = "no other release of the sweep has two processes, so their spread is unknown"
            return Verdict("unclear", "few-processes", message)
        doubted = bimodal(side, ["two modes" if turn.two_modes else "" for turn in turns])
        if doubted:
            return doubted
    return None


def _unless_apart(
    verdict: Verdict, reach: float, *sides: tuple[Pool, tuple[float, ...]], pooled: bool
) -> Verdict:
    """Unclear where a side's own processes are apart, unless the nearest processes of both sides say the same.

    The pooled spread does not stand for such a release: its processes have two modes, or one was disturbed. `pooled`:
    whether the sides' own processes are in the pool.
    """
    names = [name for name, side in zip(("base", "head"), sides, strict=True) if _is_apart(*side, pooled)]
    if not names:
        return verdict
    (_, old), (_, new) = sides
    nearest = min(new) - max(old) if verdict.change > 0 else max(new) - min(old)
    if verdict.name in ("slower", "faster") and decided(nearest, reach).name == verdict.name:
        return verdict
    message = (
        f"the processes of {' and of '.join(names)} differ more than those of other releases; {verdict.why}"
    )
    return replace(verdict, name="unclear", code="processes-apart", why=message)


def _is_apart(pool: Pool, levels: tuple[float, ...], pooled: bool) -> bool:
    squares, extra = sum_of_squares(levels), len(levels) - 1
    others = pool.freedom - (extra if pooled else 0)
    if others < MIN_OTHERS:
        return False
    rest = pool.variance * pool.freedom - (squares if pooled else 0.0)
    return math.sqrt(squares / extra) > student(APART, others) * math.sqrt(max(rest, 0.0) / others)
