"""How much slower a round of a sweep was than the others, from all releases that it timed. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import median

LINKS = 5  # releases that two rounds must share, for the card's drift between them to be told from a release's change
_POLISHES = 25


def linked_rounds(rounds: Iterable[Iterable[int]]) -> frozenset[int]:
    """Of the rounds that each release has: those that are comparable, as the largest set linked by LINKS releases.

    Two rounds are linked where LINKS releases have both, or in a smaller sweep as many as its fullest round has. A round
    taken later of one release alone says nothing: what it differs by may be the card's drift.
    """
    each = [sorted(set(values)) for values in rounds]
    full = Counter(number for values in each for number in values)
    needed = min(LINKS, max(full.values(), default=0))
    shared = Counter(pair for values in each for pair in combinations(values, 2))
    sets = {number: frozenset({number}) for number, count in full.items() if count >= needed}
    for (value, other), count in shared.items():
        if count >= needed and sets[value] is not sets[other]:
            joined = sets[value] | sets[other]
            sets |= dict.fromkeys(joined, joined)
    return max(
        sets.values(), key=lambda linked: (sum(full[n] for n in linked), -min(linked)), default=frozenset()
    )


def round_effects(logs: Mapping[str, Sequence[tuple[int, float]]]) -> dict[int, float]:
    """How much slower each round was, in logs, from (round, log seconds) of each release: Tukey's median polish.

    A round's effect is the median over releases of what is left when each release's own median is taken out, and
    that median is taken with the effects out, in turns until nothing moves: so a round that a release lacks
    distorts neither. A release that changed moves its own median only. The median of the effects is 0.
    """
    effects = dict.fromkeys(sorted({number for values in logs.values() for number, _ in values}), 0.0)
    for _ in range(_POLISHES):
        left: dict[int, list[float]] = {number: [] for number in effects}
        for values in logs.values():
            own = median(value - effects[number] for number, value in values) if values else 0.0
            for number, value in values:
                left[number].append(value - own)
        result = {number: median(values) for number, values in left.items()}
        moved = max((abs(result[number] - effects[number]) for number in effects), default=0.0)
        effects = result
        if moved < 1e-9:
            break
    middle = median(effects.values()) if effects else 0.0
    return {number: effect - middle for number, effect in effects.items()}
