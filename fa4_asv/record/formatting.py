"""How figures and counts are worded, for all that is printed."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """As people count: 1 kernel, 2 kernels."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
