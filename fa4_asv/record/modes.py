"""Whether samples fall into two groups. Standard library only: who measures asks it, and who checks what was recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median, pstdev

FEWEST = 5  # kept samples, for kernels so long that the cap comes first
# Words only where they matter: a drift or a gap below half a percent changes no verdict.
TOLD = 0.005
# Distance of two halves' means in their spread. The best cut of normal noise gives 2.7, of uniform noise 3.5.
_MODES_APART = 5.0
_MODE_SHARE = 0.15


def two_modes(seconds: Sequence[float]) -> str:
    """Words where the samples fall into two groups, between which a median means nothing; else "".

    The cut is the one that leaves the least spread inside the groups. A few outliers are no mode.
    """
    ordered = sorted(seconds)
    smallest = max(FEWEST, math.ceil(_MODE_SHARE * len(ordered)))
    if len(ordered) < 2 * smallest:
        return ""
    cut = _best_cut(ordered, smallest)
    low, high = ordered[:cut], ordered[cut:]
    apart = fmean(high) - fmean(low)
    if apart <= TOLD * median(ordered):
        return ""  # as most: an exact spread takes the longest here
    inside = len(low) * pstdev(low) ** 2 + len(high) * pstdev(high) ** 2
    spread = math.sqrt(inside / len(ordered))
    if apart <= _MODES_APART * spread:
        return ""
    share, lower = len(high) / len(ordered), median(low)
    slower = (
        f"{median(high) / lower - 1:.1%}" if lower > 0 else f"{median(high) - lower:.3g} s"
    )  # of a difference
    return f"two modes: {share:.0%} of the samples are {slower} slower"


def _best_cut(ordered: Sequence[float], smallest: int) -> int:
    """The cut with the largest variance between its sides (Otsu's criterion), from running sums."""
    # Sums around the first value keep their digits.
    origin = ordered[0]
    total = math.fsum(value - origin for value in ordered)
    count, running, best, result = len(ordered), 0.0, -1.0, smallest
    for index in range(1, count - smallest + 1):
        running += ordered[index - 1] - origin
        if index < smallest:
            continue
        between = (running / index - (total - running) / (count - index)) ** 2 * index * (count - index)
        if between > best:
            best, result = between, index
    return result
