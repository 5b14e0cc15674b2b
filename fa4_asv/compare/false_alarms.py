"""How often the rule of a sweep calls faster or slower what did not change: its releases' own process pairs.

Standard library only.
"""

from __future__ import annotations

import math

from fa4_asv.compare.along import CONFIDENCE, Pool, sum_of_squares
from fa4_asv.compare.verdicts import Verdict, bisected, critical, decided

ALARMS = ("faster", "slower")


def same_release(pool: Pool) -> dict[str, Verdict]:
    """The first two processes of each release compared as if they were two releases: any alarm is false.

    The spread is that of the other releases, so that no pair is judged by itself. The effects of rounds are
    estimated with the pair, as they are for a verdict.
    """
    verdicts = {}
    for name, levels in pool.levels.items():
        extra = len(levels) - 1
        others = pool.freedom - extra
        if extra < 1 or others < 1:
            continue
        spread = (pool.variance * pool.freedom - sum_of_squares(levels)) / others
        reach = critical(others, CONFIDENCE) * math.sqrt(2 * max(spread, 0.0))
        verdicts[name] = decided(levels[1] - levels[0], reach)
    return verdicts


def rate_interval(alarms: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a rate of which `alarms` of `count` were seen (Clopper and Pearson)."""
    tail = (1 - confidence) / 2
    low = bisected(1.0, lambda rate: 1 - _at_most(alarms - 1, count, rate) < tail) if alarms else 0.0
    high = bisected(1.0, lambda rate: _at_most(alarms, count, rate) > tail) if alarms < count else 1.0
    return low, high


def _at_most(successes: int, count: int, rate: float) -> float:
    """P(X <= successes) of a binomial with 0 < rate < 1."""
    parts = (
        math.lgamma(count + 1)
        - math.lgamma(number + 1)
        - math.lgamma(count - number + 1)
        + number * math.log(rate)
        + (count - number) * math.log1p(-rate)
        for number in range(successes + 1)
    )
    return math.fsum(math.exp(part) for part in parts)
