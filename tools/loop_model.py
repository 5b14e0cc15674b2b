"""A time of Hopper's forwards from their loops: fitted on one release of one card, tested on all others.

    python tools/loop_model.py FOLDER       # seconds; FOLDER as tools/loop_calibration.py --compile fills it

    time = a * tensor cycles + b * issue slots + c * tiles

over the SMs and the clock. Tensor cycles: N / 2 for each 64xNx16 of a turn, times turns. Issue slots: instructions of a turn, times turns,
those of masked blocks by the masked loop. A turn of a warp group handles 64 rows and as many keys as its exp2 say; a tile has 128 rows. What
the model cannot tell (order of instructions, memory, power) it takes as unchanged. A step's time is predicted as the last release's
times the model's ratio.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from history_codegen import kernels_of
from history_record import (
    FORWARD,
    LARGE,
    LAST,
    SECOND,
    Call,
    History,
    Release,
    Swept,
    load,
    shape_of,
    short,
    table,
)
from loop_calibration import CLOCKED
from loop_cubins import Cubins

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.kernels.flow import NotUnderstood
from fa4_asv.measure.kernels.loops import KernelLoops, LoopFigures

_SMS, _HERTZ = 132, 1.7e9  # of an H100 or H200; what they are in truth is in the coefficients
_ROWS, _THREADS = 64, 128  # of a warp group
_TILE = 128  # rows of queries that a block of threads handles, in most kernels
_OTHER_EXP2 = 2  # per turn: the rescaling of the rows
Terms = tuple[float, float, float]


def terms(loops: KernelLoops, one: SdpaShape) -> Terms:
    """Seconds of tensor cycles and issue slots, and tiles, each per SM. Raises NotUnderstood."""
    main = loops.main(one.window is not None)
    keys = (main.exp2 - _OTHER_EXP2) * _THREADS // _ROWS
    tiles = one.tokens * one.num_heads / _TILE
    turns = one.pairs * one.num_heads / (_ROWS * keys)
    masked = (
        min(turns, tiles * _TILE / _ROWS * max(1.0, _TILE / keys))
        if one.causal or one.window is not None
        else 0.0
    )
    slots = (turns - masked) * main.instructions + masked * _masked(loops, main)
    return turns * _tensor_cycles(main) / (_SMS * _HERTZ), slots / (_SMS * _HERTZ), tiles / (_SMS * _HERTZ)


def _masked(loops: KernelLoops, main: LoopFigures) -> int:
    try:
        return loops.main(masked=True).instructions
    except NotUnderstood:
        return main.instructions


def _tensor_cycles(turn: LoopFigures) -> float:
    """Of 64xNx16 in 16 bits: 4,096 floating point operations per cycle and SM."""
    return sum(int(name.split(".")[1].split("x")[1]) * count / 2 for name, count in turn.products.items())


def fitted(rows: Sequence[tuple[Terms, float]]) -> Terms:
    """Coefficients with the least relative squares; rows of terms and seconds. Raises ValueError where they do not suffice."""
    scaled = [[term / seconds for term in found] for found, seconds in rows]
    matrix = [[sum(row[i] * row[j] for row in scaled) for j in range(3)] for i in range(3)]
    a, b, c = _solved(matrix, [sum(row[i] for row in scaled) for i in range(3)])
    return a, b, c


def _solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Cramer's rule. Raises ValueError on a matrix without an inverse."""
    whole = _determinant(matrix)
    if not whole:
        raise ValueError("too few different rows to fit three coefficients")
    parts = []
    for column in range(3):
        swapped = [
            [*row[:column], value, *row[column + 1 :]] for row, value in zip(matrix, right, strict=True)
        ]
        parts.append(_determinant(swapped) / whole)
    return parts


def _determinant(m: list[list[float]]) -> float:
    return sum(
        m[0][i] * (m[1][(i + 1) % 3] * m[2][(i + 2) % 3] - m[1][(i + 2) % 3] * m[2][(i + 1) % 3])
        for i in range(3)
    )


def predicted(coefficients: Terms, found: Terms) -> float:
    """Seconds."""
    return sum(one * term for one, term in zip(coefficients, found, strict=True))


@dataclass(frozen=True)
class Step:
    """A call from one release to the next: the clock's change of time, and the model's."""

    release: Release
    call: Call
    clock: float
    model: float
    told: bool


class Forwards:
    """The watched forwards of a machine's sweeps, and their loops."""

    def __init__(self, history: History, swept: Swept, cubins: Cubins) -> None:
        self.history, self.swept, self.cubins = history, swept, cubins
        self.calls = [call for call in swept.calls if call[0] == FORWARD and kernels_of(call)]

    def terms(self, release: Release, call: Call) -> Terms:
        digest = self.history.code(release, kernels_of(call)[0]).sha256
        return terms(self.cubins.loops(digest), shape_of(call))

    def rows(self, releases: Sequence[Release]) -> list[tuple[Terms, float]]:
        """Terms and seconds of every call that was timed."""
        found = []
        for release in releases:
            for call in self.calls:
                level = self.swept.level(release, call)
                if not math.isnan(level):
                    found.append((self.terms(release, call), math.exp(level)))
        return found

    def steps(self, coefficients: Callable[[Release], Terms]) -> Iterator[Step]:
        """Neighbours of which the clock says anything; `coefficients` for a prediction of a release."""
        for before, after in self.swept.steps:
            for call, row in self.swept.rows(before, after).items():
                if call in self.calls and row.verdict in CLOCKED and row.ratio is not None:
                    used = coefficients(after)
                    old, new = (predicted(used, self.terms(name, call)) for name in (before, after))
                    told = row.verdict != "same" and abs(row.ratio - 1) >= LARGE
                    yield Step(after, call, row.ratio - 1, new / old - 1, told)


def errors(steps: Sequence[Step]) -> tuple[float, float, int]:
    """Mean absolute error of the model and of "no change", and how often the sign is right."""
    model = fmean(abs(one.model - one.clock) for one in steps)
    return model, fmean(abs(one.clock) for one in steps), sum(one.model * one.clock > 0 for one in steps)


def judged(title: str, steps: Sequence[Step]) -> list[tuple[str, ...]]:
    rows = []
    for words, chosen in (("2 % or more", [one for one in steps if one.told]), ("all", steps)):
        if chosen:
            model, still, right = errors(chosen)
            sign = f"{right} of {len(chosen)}" if words != "all" else "–"
            rows.append((title, words, str(len(chosen)), f"{model:.2%}", f"{still:.2%}", sign))
    return rows


def show(history: History, cubins: Cubins) -> None:
    first, second = (Forwards(history, swept, cubins) for swept in (history.first, history.second))
    releases = list(history.first.records)
    last = fitted(first.rows([LAST]))
    print(f"Coefficients of {short(LAST)}: {', '.join(f'{one:.3g}' for one in last)}")
    for title, names in ((short(LAST), [LAST]), ("all other releases", releases[:-1])):
        off = [abs(predicted(last, found) / seconds - 1) for found, seconds in first.rows(names)]
        print(f"Time of {title}, {len(off)} calls: mean error {fmean(off):.1%}, largest {max(off):.1%}")
    without = {name: fitted(first.rows([one for one in releases if one != name])) for name in releases}
    earlier = {name: fitted(first.rows(releases[:place])) for place, name in enumerate(releases) if place}
    steps = {
        short(LAST): list(first.steps(lambda _: last)),
        "all releases but the one": list(first.steps(without.__getitem__)),
        "all earlier releases": list(first.steps(earlier.__getitem__)),
        f"{short(LAST)}, judged on {SECOND}": list(second.steps(lambda _: last)),
    }
    head = "fitted on | steps | number | model's error | no change's error | sign right"
    _print(table(head, [row for title, found in steps.items() for row in judged(title, found)], 2))
    rows = [
        (
            short(one.release),
            f"`{shape_of(one.call).name}`",
            *(f"{change:+.1%}" for change in (one.clock, one.model, other.model)),
        )
        for one, other in zip(steps[short(LAST)], steps["all earlier releases"], strict=True)
        if one.told
    ]
    _print(table(f"release | forward | clock | fitted on {short(LAST)} | fitted on all earlier", rows, 2))


def _print(lines: Sequence[str]) -> None:
    print("", *lines, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="where disassembled kernels are kept")
    options = parser.parse_args()
    try:
        show(load(Project.find()), Cubins(options.folder))
    except Fa4AsvError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
