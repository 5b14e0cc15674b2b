"""How figures, counts and versions are worded, for all that is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COMPILER = "nvidia-cutlass-dsl"


def counted(number: int, noun: str) -> str:
    """As people count: 1 kernel, 2 kernels."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def in_seconds(value: float, units: Sequence[str] = ("s", "ms", "us", "ns")) -> str:
    """Four digits in the first of `units` of which there is one or more; "" where there is less than one of each."""
    for place, unit in enumerate(units):
        if value * 1000**place >= 1:
            return f"{value * 1000**place:.4g} {unit}"
    return ""


def relative(before: float, after: float) -> str:
    """A change in percent, or a word where a percentage says nothing."""
    if not before:
        return "new"
    return f"{after / before - 1:+.1%}" if after else "gone"


def moved(packages: Mapping[str, tuple[str, str]]) -> list[str]:
    """Packages with the versions of both sides, as "nvidia-cutlass-dsl 4.5.2 -> 4.6.0.dev0"."""
    return [f"{name} {old or '-'} -> {new or '-'}" for name, (old, new) in packages.items()]


def compiler_first(moves: Sequence[str]) -> str:
    """Of packages as `moved` words them the compiler, or another where it stayed, and how many more moved; "" for none."""
    ordered = sorted(moves, key=lambda move: not move.startswith(f"{COMPILER} "))
    return shortened(ordered, 1)


def shortened(names: Sequence[str], most: int, rest: str = "") -> str:
    """The first of `names`, and how many more there are (of `rest`)."""
    more = f" and {len(names) - most} more{rest and f' {rest}'}" if len(names) > most else ""
    return ", ".join(names[:most]) + more
