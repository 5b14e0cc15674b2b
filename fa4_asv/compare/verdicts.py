"""Whether two commits differ, from the centres of several fresh processes on either side.

The rule is fixed before anything runs: CONFIDENCE and NOTICED stand here, RELEVANT in `policy`, and
tests/proofs/sampler_power.py computes how often it is wrong. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean

from fa4_asv.compare.policy import SMALLEST_TIME

CONFIDENCE = 0.99  # of the interval: at most 1 % of unchanged points are called faster or slower
RELEVANT = SMALLEST_TIME  # a change counts from here, and a verdict needs it as well as the interval
NOTICED = 0.01  # the change that "same" rules out
MIN_ROUNDS = 3  # a side: the interval of two processes is 25 times their spread
NOT_COMPARABLE = "not comparable"
_MANY_ROUNDS = 50


@dataclass(frozen=True)
class Round:
    """One process's answer: its centre, that of the control beside it, and whether it had two modes."""

    seconds: float
    control: float | None = None
    two_modes: str = ""


@dataclass(frozen=True)
class Verdict:
    """`name` is faster, slower, same, unclear or not comparable; `change` is head over base minus 1, between low and high.

    `code` is the branch of the decision tree that was taken (docs/verdicts.md), `why` the same as text.
    """

    name: str
    code: str
    why: str
    change: float = math.nan
    low: float = math.nan
    high: float = math.nan


def verdict(base: Sequence[Round], head: Sequence[Round]) -> Verdict:
    """Whether `head` differs from `base`, from one figure a process: Welch's interval of log(kernel / control).

    A process counts once however many samples it took: samples of one process share its random offset, and pooling
    them takes that offset for a change. Swapping the sides inverts the answer.
    """
    for side, rounds in (("base", base), ("head", head)):
        if len(rounds) < MIN_ROUNDS:
            return Verdict(
                "unclear", "few-rounds", f"{side} has {len(rounds)} rounds, {MIN_ROUNDS} are needed"
            )
        doubted = bimodal(side, [each_round.two_modes for each_round in rounds])
        if doubted:
            return doubted
    controlled = all(each_round.control for each_round in (*base, *head))
    ours, theirs = _logs(head, controlled), _logs(base, controlled)
    centre = fmean(ours) - fmean(theirs)
    reach = _reach(_variance(ours), len(ours), _variance(theirs), len(theirs))
    found_verdict = decided(centre, reach)
    variance = (_variance(ours) + _variance(theirs)) / 2
    why = f"{found_verdict.why}; rounds differ by {math.sqrt(variance):.2%}"
    if found_verdict.name == "unclear":
        why += ", " + _rounds_needed(variance)
    if not controlled:
        why += "; no control beside every round, drift of the card is not cancelled"
    return replace(found_verdict, why=why)


def bimodal(side: str, modes: Sequence[str]) -> Verdict | None:
    """Unclear where most rounds of a side have two modes, in these words; "" is a round with one."""
    doubted = [message for message in modes if message]
    if 2 * len(doubted) <= len(modes):
        return None
    return Verdict("unclear", "two-modes", f"{side}: {doubted[0]}, in {len(doubted)} of {len(modes)} rounds")


def decided(centre: float, reach: float) -> Verdict:
    """The decision on a difference of logs (head minus base) and half its interval; the same for every rule."""
    edges = [math.expm1(edge) for edge in (centre, centre - reach, centre + reach)]
    shown = f"{edges[0]:+.2%} ± {math.expm1(reach):.2%}"
    if abs(centre) > reach and abs(centre) >= math.log1p(RELEVANT):
        return Verdict("slower" if centre > 0 else "faster", "interval-excludes-0", shown, *edges)
    if abs(centre) + reach <= math.log1p(NOTICED):
        message = f"{shown}: a change of {NOTICED:.0%} is ruled out"
        return Verdict("same", "change-ruled-out", message, *edges)
    return Verdict("unclear", "wide-interval", f"{shown}: neither a change nor its absence is shown", *edges)


def _rounds_needed(variance: float) -> str:
    for rounds in range(MIN_ROUNDS, _MANY_ROUNDS + 1):
        if _reach(variance, rounds, variance, rounds) <= math.log1p(NOTICED) / 2:
            return f"{rounds} per side would detect {NOTICED:.0%}"
    return f"{_MANY_ROUNDS} a side would not tell {NOTICED:.0%}"


def _logs(rounds: Sequence[Round], controlled: bool) -> list[float]:
    return [
        math.log(each_round.seconds / (each_round.control if controlled and each_round.control else 1.0))
        for each_round in rounds
    ]


def _variance(values: Sequence[float]) -> float:
    centre = fmean(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)


def _reach(variance: float, count: int, other: float, others: int) -> float:
    return welch(variance / count, count - 1, other / others, others - 1)


def welch(mine: float, freedom: float, theirs: float, others: float) -> float:
    """Half the interval of the difference of two means, from the variance of each with its degrees of freedom.

    No side's noise stands for the other's.
    """
    if not mine + theirs:
        return 0.0
    joint = (mine + theirs) ** 2 / (mine**2 / freedom + theirs**2 / others)
    return critical(joint) * math.sqrt(mine + theirs)


@lru_cache(maxsize=4096)
def student(confidence: float, freedom: int) -> float:
    """Two-sided quantile of Student's t: within it lies `confidence`. By bisection of the closed form."""
    return bisected(1e4, lambda t: _within(t, freedom) < confidence)


def bisected(high: float, is_too_low: Callable[[float], bool]) -> float:
    """Between 0 and `high`, the number above those that are too low: 2**-60 of `high` too large at most."""
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_too_low(middle) else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| < t) for a whole number of degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for index in range(2 + odd, freedom + 1, 2):
        total += term
        term *= square * (index - 1) / index
    series = math.sin(angle) * total
    return 2 / math.pi * (angle + series) if odd else series


def critical(freedom: float, confidence: float = CONFIDENCE) -> float:
    """`student` between whole numbers, straight in 1 / freedom, where the curve is all but straight."""
    whole = math.floor(freedom + 1e-9)
    upper, lower = student(confidence, whole), student(confidence, whole + 1)
    share = (1 / whole - 1 / freedom) / (1 / whole - 1 / (whole + 1))
    return upper + max(share, 0.0) * (lower - upper)
