"""The rule that says what moved a figure: source, toolchain, or only both together. Standard library only."""

from __future__ import annotations

from typing import TypeVar

CAUSES = ("source", "toolchain", "both together", "either alone", "unknown")
# A side explains a change when it alone gets within a tenth of it: of a change below 10, all of it.
NEAR = 0.1

T = TypeVar("T", int, str)


def decide(base: T, head: T, source: T | None, toolchain: T | None) -> str:
    """What moved a figure from `base` to `head`: which side alone gets it there (see NEAR).

    One of CAUSES: "source", "toolchain", "either alone" (each gets it there), "both together" (neither does).
    Swapping base with head and source with toolchain answers the same for exact moves.
    """
    if source is None or toolchain is None:
        return "unknown"
    by_source, by_toolchain = arrives(base, head, source), arrives(base, head, toolchain)
    if by_source and by_toolchain:
        return "either alone"
    if by_source or by_toolchain:
        return "source" if by_source else "toolchain"
    return "both together"


def arrives(base: int | str, head: int | str, alone: int | str) -> bool:
    """Whether `alone` is where `head` is: words exactly, counts to within NEAR of the change."""
    if isinstance(base, str) or isinstance(head, str) or isinstance(alone, str):
        return alone == head
    return abs(alone - head) <= NEAR * abs(head - base)
