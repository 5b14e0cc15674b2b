"""Seconds of a call on Hopper (sm_90) from the machine code of its main kernel: a sum of terms. docs/model.md explains them.

A term is an amount of work in seconds of the part of the card that does it; its coefficient, fitted to times of a card, says how
much of that the clock shows. Forwards and backwards have coefficients of their own. Pure: no clock is read here, and
where the model cannot tell, it raises `Silent` with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fa4_asv.catalog.kernels import TARGETS
from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.record.schema import CaseRecord

ARCH = "sm_90"
_SMS = TARGETS[ARCH][1]
# Of an H200, roughly: what the card really does is in the coefficients.
_HERTZ = 1.7e9
_MEMORY = 4.8e12  # bytes per second
_SHARED = 128  # bytes of shared memory per cycle and SM
_GROUP_ROWS, _GROUP_THREADS = 64, 128  # of a warp group; a product (HGMMA) is its 64 rows by N columns by 16
BARRIER = "SYNCS.EXCH"  # the opcode that announces an arrival; in `codegen`
_PRODUCT = re.compile(r"HGMMA\.64x([0-9]{1,3})x16")
_GROUPS = {240: 2, 160: 3}  # registers per thread of the consumers -> how many warp groups of them there are
_RESCALES = 2  # exp2 of a forward's turn that are not of scores: one per row of a thread
# mbarriers of a backward, two per stage: one block of Q and one of dO at a time; two of Q; two of both.
_ONE_STAGE, _STAGES = 4, frozenset({4, 6, 8})

# Cycles of an issue slot: about half of a turn's instructions (compares, selects, conversions) take two. Of 1.2 to 1.8 the
# one with which the forwards of 4.0.0b36 come out best.
_SLOT = 1.4

FORWARD = ("turns", "tiles", "spills")
BACKWARD = ("tensor", "slots", "shared", "loads", "spills", "memory")
Terms = tuple[float, ...]


class Silent(Exception):
    """Why the model says nothing."""


@dataclass(frozen=True)
class MachineCode:
    """What the model reads of a main kernel. Of a turn of a consumer warp: instructions (`turn`, `masked_turn`), `exp2`, and
    `products` by their columns. Of the kernel: warp `groups` of consumers, mbarriers, `spilled` accesses outside of loops per warp.
    """

    turn: int
    masked_turn: int
    exp2: int
    products: Mapping[int, int]
    groups: int
    barriers: int
    spilled: int


def machine_code(loops: CaseRecord | None, code: CaseRecord | None) -> MachineCode:
    """From the records of a kernel in the groups `loops` and `codegen`. Raises Silent."""
    if loops is None or code is None or loops.state != "measured" or code.state != "measured":
        why = next((record.why for record in (code, loops) if record and record.why), "not recorded")
        raise Silent(f"no loops: {why}")
    turn = loops.figures.get("turn_instructions")
    if turn is None:
        raise Silent(f"loops not understood: {loops.notes.get('turn_instructions', 'no reason recorded')}")
    if loops.figures.get("spills_inside"):
        raise Silent("spills inside its loop: no kernel that was timed does")
    groups = _GROUPS.get(loops.parts.get("registers", 0))
    products = {
        int(match[1]): count for name, count in loops.parts.items() if (match := _PRODUCT.fullmatch(name))
    }
    if groups is None or not products or loops.parts.get("exp2", 0) <= _RESCALES:
        raise Silent("another kind of kernel than those that were timed")
    masked = loops.figures.get("masked_instructions", turn)
    barriers, spilled = code.opcodes.get(BARRIER, 0), loops.figures.get("spills_outside", 0)
    return MachineCode(turn, masked, loops.parts["exp2"], products, groups, barriers, spilled)


def terms_of(code: MachineCode, shape: SdpaShape, backward: bool) -> Terms:
    """In the order of BACKWARD or FORWARD."""
    return _backward(code, shape) if backward else _forward(code, shape)


def _forward(code: MachineCode, shape: SdpaShape) -> Terms:
    """A turn handles `keys` keys for the 64 queries of each warp group; a tile is the queries of all groups.

    The groups take turns, so that one's exp2 hides behind another's products, in part: the root of the sum of squares lies
    between the larger and the sum.
    """
    keys = (code.exp2 - _RESCALES) * _GROUP_THREADS / _GROUP_ROWS
    queries = _GROUP_ROWS * code.groups
    tiles = _tiles(shape, queries)
    turns = shape.pairs * shape.num_heads / (queries * keys) + tiles * _cut(shape, queries / keys)
    turns *= _waves(shape, tiles)
    masked = turns if shape.window is not None else tiles * max(1.0, queries / keys) if shape.causal else 0.0
    masked = min(masked, turns)
    slots = (turns - masked) * code.turn + masked * code.masked_turn
    return (
        _cycles(code.groups * math.hypot(turns * _tensor_cycles(code), _SLOT * slots)),
        _cycles(tiles),
        _cycles(tiles * code.spilled),
    )


def _backward(code: MachineCode, shape: SdpaShape) -> Terms:
    """A turn handles `queries` queries for the keys of a tile, of which there are 128 at most.

    The groups of a tile wait for one another in each turn, so that little of one hides behind another: a sum.
    """
    area = code.exp2 * _GROUP_THREADS * code.groups
    keys = min(area / _GROUP_ROWS, 128.0)
    queries = area / keys
    tiles = _tiles(shape, keys)
    turns = shape.pairs * shape.num_heads / area + tiles * _cut(shape, keys / queries, backward=True)
    turns *= _waves(shape, tiles)
    loaded = queries * (shape.head_dim + shape.head_dim_v) * 2  # bytes of Q and dO
    added = queries * shape.head_dim * 4  # bytes of dQ: written to shared memory, and read to be added in L2
    return (
        _cycles(turns * code.groups * _tensor_cycles(code)),
        _cycles(turns * code.groups * code.turn),
        _cycles(turns * (loaded + 2 * added) / _SHARED),
        _cycles(turns * loaded) if code.barriers == _ONE_STAGE else 0.0,
        _cycles(tiles * code.spilled),
        _around(shape) / _MEMORY,
    )


def _cycles(work: float) -> float:
    """Seconds of a cycle each, spread over the SMs."""
    return work / (_SMS * _HERTZ)


def _tensor_cycles(code: MachineCode) -> float:
    """N / 2 for a product of N columns, more where its operands take longer out of shared memory: 16 for the rows, N / 4."""
    return sum(count * max(columns / 2, 16 + columns / 4) for columns, count in code.products.items())


def _tiles(shape: SdpaShape, rows: float) -> int:
    return shape.num_heads * sum(math.ceil(length / rows) for length in shape.lengths)


def _cut(shape: SdpaShape, sides: float, backward: bool = False) -> float:
    """Turns per tile whose block the mask cuts: work that is done for nothing; `sides` of a tile, over a turn's."""
    if shape.window is not None:
        return 1 + sides if backward else (1 + sides) / 2
    return (sides if backward else 1) / 2 if shape.causal else 0.0


def _waves(shape: SdpaShape, tiles: int) -> float:
    """Of tiles that all take as long: the last wave keeps some SMs idle."""
    uneven = shape.causal or shape.window is not None
    return 1.0 if uneven else math.ceil(tiles / _SMS) * _SMS / tiles


def _around(shape: SdpaShape) -> int:
    """Bytes of the kernels before and after a backward: O, dO, dQ in fp32 twice and in bf16 once, three figures per row; with
    fewer heads of K and V, dK and dV as dQ."""
    rows, dims = shape.tokens * shape.num_heads, shape.head_dim + shape.head_dim_v
    grouped = shape.tokens * shape.kv_heads * dims * 10 if shape.kv_heads != shape.num_heads else 0
    return rows * (4 * shape.head_dim_v + 10 * shape.head_dim + 12) + grouped


@dataclass(frozen=True)
class Timed:
    """A call that a card timed."""

    code: MachineCode
    shape: SdpaShape
    seconds: float

    @cached_property
    def forward(self) -> Terms:
        """Of its work, kept: a report fits a model for each release that it leaves out."""
        return _forward(self.code, self.shape)

    @cached_property
    def backward(self) -> Terms:
        """The same as a backward."""
        return _backward(self.code, self.shape)


@dataclass(frozen=True)
class Model:
    """Coefficients of one direction by term, None where no kernel of the fit has that work; `barriers` are those that it saw."""

    backward: bool
    coefficients: tuple[float | None, ...]
    barriers: frozenset[int]

    @property
    def named(self) -> dict[str, float | None]:
        return dict(zip(BACKWARD if self.backward else FORWARD, self.coefficients, strict=True))

    def seconds(self, code: MachineCode, shape: SdpaShape) -> float:
        """Raises Silent for work that no kernel of the fit has."""
        if code.barriers not in self.barriers | (_STAGES if self.backward else frozenset()):
            raise Silent(
                f"stages of another number than in the kernels that were timed ({code.barriers} mbarriers)"
            )
        total = 0.0
        terms = terms_of(code, shape, self.backward)
        for (name, coefficient), term in zip(self.named.items(), terms, strict=True):
            if term and coefficient is None:
                raise Silent(f"no kernel that was timed has {WORK[name]}")
            total += (coefficient or 0.0) * term
        return total

    def change(self, base: MachineCode, head: MachineCode, shape: SdpaShape) -> float:
        """Of time from `base` to `head`: -0.05 takes 5 % less. Raises Silent."""
        return self.seconds(head, shape) / self.seconds(base, shape) - 1


WORK = {
    "turns": "turns",
    "tensor": "matrix instructions",
    "slots": "instructions in its loop",
    "tiles": "tiles",
    "shared": "traffic of shared memory",
    "loads": "loads that nothing hides (one stage)",
    "spills": "spills outside of its loop",
    "memory": "kernels before and after",
}


def fitted(rows: Sequence[Timed], backward: bool) -> Model:
    """The coefficients with the least relative squares, none below zero. Raises Silent where the rows do not suffice."""
    names = BACKWARD if backward else FORWARD
    if not rows:
        raise Silent("no call was timed whose loops are known")
    terms = [row.backward if backward else row.forward for row in rows]
    scaled = [[term / row.seconds for term in each] for each, row in zip(terms, rows, strict=True)]
    chosen = [at for at in range(len(names)) if any(row[at] for row in scaled)]
    known: dict[int, float] = dict.fromkeys(chosen, 0.0)
    while chosen:
        solution = least_squares([[row[at] for at in chosen] for row in scaled])
        if min(solution) >= 0:
            known |= dict(zip(chosen, solution, strict=True))
            break
        chosen = [at for at, value in zip(chosen, solution, strict=True) if value > 0]
    coefficients = tuple(known.get(at) for at in range(len(names)))
    return Model(backward, coefficients, frozenset(row.code.barriers for row in rows))


def least_squares(rows: Sequence[Sequence[float]]) -> list[float]:
    """What to multiply the columns by so that each row adds up to 1, as nearly as can be. Raises Silent where that is not told."""
    width = len(rows[0]) if rows else 0
    scales = [math.sqrt(sum(row[at] ** 2 for row in rows)) for at in range(width)]
    even = [[value / scale for value, scale in zip(row, scales, strict=True)] for row in rows]
    matrix = [
        [*(sum(row[i] * row[j] for row in even) for j in range(width)), sum(row[i] for row in even)]
        for i in range(width)
    ]
    return [value / scale for value, scale in zip(_solved(matrix), scales, strict=True)]


def _solved(matrix: list[list[float]]) -> list[float]:
    """Gauss's elimination of a square matrix with its right side as the last column."""
    size = len(matrix)
    for at in range(size):
        best = max(range(at, size), key=lambda row: abs(matrix[row][at]))
        matrix[at], matrix[best] = matrix[best], matrix[at]
        pivot = matrix[at][at]
        if abs(pivot) < 1e-12:
            raise Silent("too few different calls to fit the coefficients")
        matrix[at] = [value / pivot for value in matrix[at]]
        for row in range(size):
            if row != at:
                factor = matrix[row][at]
                matrix[row] = [
                    value - factor * above for value, above in zip(matrix[row], matrix[at], strict=True)
                ]
    return [row[-1] for row in matrix]
