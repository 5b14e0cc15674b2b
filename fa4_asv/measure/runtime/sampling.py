"""Samples of one measured point: when there are enough, which are rejected, and what they say.

Pure statistics over the standard library, of one process; `compare.verdicts` decides between processes.
Seconds go in and come out, never a rate. docs/timing.md says why each rule is what it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from fa4_asv.record.modes import FEWEST, TOLD, two_modes

# nvbench's standard-error rule and its bounds.
MIN_SAMPLES = 20
MIN_BUSY = 0.25  # seconds of GPU time, flushes and spins included
MAX_BUSY = 5.0
PRECISION = 0.005  # relative standard error of the centre
CLOCK_FLOOR = 0.95  # of the run's median SM clock; boost steps are 15 MHz, below 1 %
MAX_REJECTED = 0.5  # share of the samples beyond which a point has no centre to believe

# The median of normal noise wanders sqrt(pi/2) times as far as its mean; MAD times 1.4826 is its sigma.
_MEDIAN_ERROR, _MAD_SIGMA = math.sqrt(math.pi / 2), 1.4826
_DRIFT_ERRORS = 4.0


@dataclass(frozen=True)
class Sample:
    """Seconds per call, the GPU seconds spent on it in all, and the card's state meanwhile."""

    seconds: float
    busy: float
    sm_mhz: float | None = None
    throttled: str = ""  # the reasons, in the card's words; "" for none


@dataclass(frozen=True)
class Rule:
    """When to stop drawing."""

    min_samples: int = MIN_SAMPLES
    min_busy: float = MIN_BUSY
    max_busy: float = MAX_BUSY
    precision: float = PRECISION
    fewest: int = FEWEST


@dataclass(frozen=True)
class Samples:
    """What was drawn: accepted samples, rejected ones each with its reason, and notes on them.

    `broken` says why there is no figure; `two_modes` and `notes` describe a figure that there is.
    """

    accepted: tuple[Sample, ...]
    rejected: tuple[tuple[Sample, str], ...] = ()
    broken: str = ""
    two_modes: str = ""
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> list[float]:
        """Seconds per call of every accepted sample, in the order drawn; empty for a broken point."""
        return [] if self.broken else [sample.seconds for sample in self.accepted]

    @property
    def centre(self) -> float:
        """The median of the accepted samples. ValueError for a broken point."""
        if self.broken:
            raise ValueError(f"a broken point has no centre: {self.broken}")
        return median(self.seconds)


def collect(draw: Callable[[], Sample], rule: Rule | None = None) -> Samples:
    """Draw until the centre is known well enough or the time is used up, and then as often as a figure needs.

    Rejected samples cost time, too: a throttling card cannot keep the caller for ever. A call that takes as long as the
    time allowed is still drawn `fewest` times. The check is made at growing counts, so that its cost stays linear.
    """
    rule = rule or Rule()
    drawn: list[Sample] = []
    busy = 0.0
    check = rule.min_samples
    while busy < rule.max_busy or len(drawn) < rule.fewest:
        sample = draw()
        if not (math.isfinite(sample.seconds) and sample.seconds > 0):
            raise ValueError(f"a sample of {sample.seconds!r} s: the timer is broken")
        drawn.append(sample)
        # A timer that reports no time must not draw for ever.
        busy += max(sample.busy, sample.seconds)
        if len(drawn) < check or busy < rule.min_busy:
            continue
        check = len(drawn) + max(1, len(drawn) // 20)
        seconds = [sample.seconds for sample in split(drawn)[0]]
        if len(seconds) >= rule.min_samples and standard_error(seconds) <= rule.precision:
            break
    return judge(drawn, rule)


def split(drawn: Sequence[Sample]) -> tuple[list[Sample], list[tuple[Sample, str]]]:
    """The samples to keep, and the others with why: throttled, or the clock fell during them."""
    clocks = [s.sm_mhz for s in drawn if s.sm_mhz is not None and not s.throttled]
    usual = median(clocks) if clocks else 0.0
    accepted: list[Sample] = []
    rejected: list[tuple[Sample, str]] = []
    for sample in drawn:
        if sample.throttled:
            rejected.append((sample, sample.throttled))
        elif sample.sm_mhz is not None and sample.sm_mhz < CLOCK_FLOOR * usual:
            rejected.append((sample, f"SM clock {sample.sm_mhz:g} MHz, usually {usual:g} MHz"))
        else:
            accepted.append(sample)
    return accepted, rejected


def judge(drawn: Sequence[Sample], rule: Rule) -> Samples:
    """What the drawn samples are worth, in words."""
    accepted, rejected = split(drawn)
    if len(rejected) > MAX_REJECTED * len(drawn):
        reasons = [why for _, why in rejected]
        commonest = max(dict.fromkeys(reasons), key=reasons.count)
        message = f"throttled: {len(rejected)} of {len(drawn)} samples were rejected ({commonest})"
        return Samples(tuple(accepted), tuple(rejected), broken=message)
    if len(accepted) < rule.fewest:
        message = f"{len(accepted)} samples after {rule.max_busy:g} s of GPU time, {rule.fewest} are needed"
        return Samples(tuple(accepted), tuple(rejected), broken=message)
    seconds = [sample.seconds for sample in accepted]
    notes = [_unsettled(seconds, rule), drift(seconds)]
    return Samples(
        tuple(accepted),
        tuple(rejected),
        two_modes=two_modes(seconds),
        notes=tuple(note for note in notes if note),
    )


def standard_error(seconds: Sequence[float]) -> float:
    """Relative standard error of the median, from the samples' median deviation: outliers do not move it."""
    centre = median(seconds)
    sigma = _MAD_SIGMA * median(abs(value - centre) for value in seconds)
    return _MEDIAN_ERROR * sigma / math.sqrt(len(seconds)) / centre


def drift(seconds: Sequence[float]) -> str:
    """Words where the last third is slower or faster than the first by more than noise; else ""."""
    third = len(seconds) // 3
    if third < FEWEST:
        return ""
    first, last = seconds[:third], seconds[-third:]
    change = median(last) / median(first) - 1
    error = math.hypot(standard_error(first), standard_error(last))
    if abs(change) <= max(TOLD, _DRIFT_ERRORS * error):
        return ""
    return (
        f"drifts: the last third is {abs(change):.1%} {'slower' if change > 0 else 'faster'} than the first"
    )


def _unsettled(seconds: Sequence[float], rule: Rule) -> str:
    if len(seconds) < rule.min_samples:
        return f"only {len(seconds)} samples within {rule.max_busy:g} s of GPU time"
    error = standard_error(seconds)
    if error <= rule.precision:
        return ""
    return f"not settled: known to {error:.1%} after {rule.max_busy:g} s of GPU time"
