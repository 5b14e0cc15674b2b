"""The loops in which a kernel spends its time, read from its SASS.

An *iteration loop* is the innermost loop that does a kind of work and waits for data (a barrier): one turn handles one
block of keys or queries. Kinds of work, one per role of warps: "matrix" (on sm_90 the consumer warp groups, which do all of
it; on sm_100 the warp that issues the products), "exp2" (sm_100's softmax and backward warps), "tensor memory" (those that
rescale or reduce, without exp2). Loops that only spin until a barrier is ready are no part of a turn.

What is not understood has a reason in place of figures, never a guess.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fa4_asv.measure.kernels.flow import Loop, NotUnderstood, dominators, natural_loops
from fa4_asv.measure.kernels.sass import Function, Graph, Instruction, functions, graph_of

MATRIX, EXP2, TENSOR_MEMORY = "matrix", "exp2", "tensor memory"
# HGMMA, QGMMA (sm_90), UTCHMMA, UTCQMMA, UTCOMMA (sm_100), HMMA, QMMA (mma.sync), IMMA and so on.
_MATRIX_ENDS = ("GMMA", "HMMA", "QMMA", "OMMA", "IMMA", "BMMA", "DMMA")
_WAITS = {"SYNCS", "BAR", "NANOSLEEP"}
_BARRIERS = {"SYNCS", "BAR", "WARPSYNC", "WARPGROUP", "DEPBAR", "UTCBAR", "FENCE", "MEMBAR"}
_CONVERSIONS = {"F2F", "F2FP", "F2I", "I2F", "I2FP", "F2IP", "I2I"}
_MOVES = {"MOV", "UMOV", "R2UR", "MOVM"}
_MOST_OF_A_SPIN = 16  # instructions; FA4's have 5 to 8
_MOST_OF_A_WAY = 8  # instructions between a branch and the spin that it leads to; FA4's have 0 to 3


@dataclass(frozen=True)
class LoopFigures:
    """One turn of an iteration loop, in instructions per warp; each takes an issue slot.

    `masked`: at least one select (FSEL) for every two exp2, as where scores outside of the mask are set to -inf.
    `products` counts matrix instructions by shape ("HGMMA.64x128x16": 8). `waiting` are instructions of the spin loops inside,
    which are not in `instructions`. `registers`: what its warps were given (USETMAXREG), 0 where nothing says.
    `why`: why a turn has no count of instructions; "" where it has.
    """

    kernel: str
    role: str
    masked: bool
    instructions: int
    waiting: int
    products: dict[str, int]
    local_loads: int
    local_stores: int
    mufu: int
    exp2: int
    ffma: int
    fsel: int
    moves: int
    barriers: int
    conversions: int
    registers: int
    why: str = ""

    @property
    def spills(self) -> int:
        """Accesses to local memory per turn."""
        return self.local_loads + self.local_stores

    @property
    def slots_per_product(self) -> float | None:
        """Issue slots of a turn per matrix instruction; None where there are none or turns are not counted."""
        products = sum(self.products.values())
        return self.instructions / products if products and not self.why else None


@dataclass(frozen=True)
class KernelLoops:
    """The iteration loops of a cubin in the order of their code, `spills_outside` in the rest of it; or `why` there are none."""

    loops: tuple[LoopFigures, ...] = ()
    spills_outside: int = 0
    why: str = ""

    def main(self, masked: bool = False) -> LoopFigures:
        """The loop that stands for the kernel; `masked`: the one that applies the mask.

        That of the warps which compute exp2. Without a loop of its own for unmasked blocks, the masked ones do both. Which of
        several runs most is not in the code: the longest stands for them. Raises NotUnderstood.
        """
        able = [loop for loop in self.understood().loops if self._computes_exp2(loop)]
        chosen = [loop for loop in able if loop.masked == masked] or ([] if masked else able)
        if not chosen:
            raise NotUnderstood("no loop with a mask" if able else "no loop computes exp2")
        return _counted(_longest(chosen))

    def _computes_exp2(self, loop: LoopFigures) -> bool:
        """Whether it does as much of the exp2 as half of what another loop of its kernel does: a rescaling does one."""
        most = max(other.exp2 for other in self.loops if other.kernel == loop.kernel)
        return bool(loop.exp2) and 2 * loop.exp2 >= most

    def matrix(self) -> LoopFigures:
        """The loop that issues the products, chosen in the same way; its turn may have no count. Raises NotUnderstood."""
        able = [loop for loop in self.understood().loops if loop.products]
        if not able:
            raise NotUnderstood("no loop holds matrix instructions")
        return _longest([loop for loop in able if not loop.masked] or able)

    def slots_per_100_products(self) -> int:
        """Issue slots of the loop that issues the products, per 100 of them. Raises NotUnderstood."""
        loop = _counted(self.matrix())
        products = sum(loop.products.values())
        return (100 * loop.instructions + products // 2) // products

    def understood(self) -> KernelLoops:
        """Itself. Raises NotUnderstood where there are no loops, or a graph that cannot be followed."""
        if self.why:
            raise NotUnderstood(self.why)
        return self

    @property
    def spills_inside(self) -> int:
        """Accesses to local memory in all iteration loops, each loop counted once."""
        return sum(loop.spills for loop in self.loops)


def _longest(loops: Sequence[LoopFigures]) -> LoopFigures:
    if len({loop.kernel for loop in loops}) > 1:
        raise NotUnderstood("loops of several kernels in one cubin")
    return max(loops, key=lambda loop: loop.instructions)


def _counted(loop: LoopFigures) -> LoopFigures:
    if loop.why:
        raise NotUnderstood(loop.why)
    return loop


def read_loops(sass: str) -> KernelLoops:
    """The iteration loops of all kernels in `nvdisasm -c` output."""
    loops: list[LoopFigures] = []
    outside = 0
    try:
        for function in functions(sass):
            inside, left = _loops_of(function)
            loops += inside
            outside += left
    except NotUnderstood as refusal:
        return KernelLoops(why=str(refusal))
    if not loops:
        return KernelLoops(why="no loop holds matrix instructions, exp2 or tensor memory")
    return KernelLoops(tuple(loops), outside)


def _loops_of(function: Function) -> tuple[list[LoopFigures], int]:
    """Figures of a kernel's iteration loops, and its accesses to local memory outside of them."""
    graph = graph_of(function)
    every = natural_loops(graph.after, graph.roots)
    chosen = _iterations(graph, every)
    reached = dominators(graph.after, graph.roots)
    loop_figureses = [_figures(graph, loop, every, reached) for loop in chosen]
    covered = frozenset[int]().union(*(loop.blocks for loop in chosen))
    return loop_figureses, _spills(graph.instructions(reached.keys() - covered))


def _iterations(graph: Graph, every: Sequence[Loop]) -> list[Loop]:
    """The innermost loops that do any of the work and wait, in the order of the code.

    A loop over tiles holds the iteration loops of all of its warps: what it does itself, it does once per tile.
    """
    able = [loop for loop in every if _work(graph, loop) and _waits(graph, loop)]
    loops = [loop for loop in able if not any(other.blocks < loop.blocks for other in able)]
    return sorted(loops, key=lambda loop: loop.header)


def _work(graph: Graph, loop: Loop) -> set[str]:
    """Every kind of work in a loop."""
    names = set()
    for instruction in graph.instructions(loop.blocks):
        if is_matrix(instruction):
            names.add(MATRIX)
        elif instruction.opcode == "MUFU" and "EX2" in instruction.modifiers:
            names.add(EXP2)
        elif instruction.opcode == "LDTM":
            names.add(TENSOR_MEMORY)
    return names


def _role(graph: Graph, loop: Loop) -> str:
    work = _work(graph, loop)
    return next(role for role in (MATRIX, EXP2, TENSOR_MEMORY) if role in work)


def _waits(graph: Graph, loop: Loop) -> bool:
    """Whether a turn waits for others: a product unrolled over the head dim, a loop that does not, is no iteration."""
    return any(instruction.opcode in _WAITS for instruction in graph.instructions(loop.blocks))


def is_matrix(instruction: Instruction) -> bool:
    return instruction.opcode.endswith(_MATRIX_ENDS)


def _figures(
    graph: Graph, loop: Loop, every: Sequence[Loop], above: dict[int, frozenset[int]]
) -> LoopFigures:
    inner = [each_loop for each_loop in every if each_loop.blocks < loop.blocks]
    spins = [loop for loop in inner if _is_spin(graph, loop)]
    others = [loop for loop in inner if loop not in spins and not _is_election(graph, loop)]
    taken = _turn(graph, loop, [loop.blocks for loop in spins])
    beside = loop.blocks - taken - frozenset[int]().union(*(loop.blocks for loop in spins))
    turn = _without_padding(graph, taken)
    counts = Counter(instruction.opcode for instruction in turn)
    exp2 = sum(instruction.opcode == "MUFU" and "EX2" in instruction.modifiers for instruction in turn)
    return LoopFigures(
        kernel=graph.function.name,
        role=_role(graph, loop),
        masked=bool(exp2) and 2 * counts["FSEL"] >= exp2,
        instructions=len(turn),
        waiting=len(_without_padding(graph, loop.blocks - taken)),
        products=dict(sorted(Counter(map(_shape, filter(is_matrix, turn))).items())),
        local_loads=counts["LDL"],
        local_stores=counts["STL"],
        mufu=counts["MUFU"],
        exp2=exp2,
        ffma=counts["FFMA"] + counts["FFMA2"],
        fsel=counts["FSEL"],
        moves=sum(map(_is_move, turn)),
        barriers=sum(counts[name] for name in _BARRIERS),
        conversions=sum(counts[name] for name in _CONVERSIONS),
        registers=_registers(graph, above[loop.header]),
        why=_not_counted(graph, turn, others, beside),
    )


def _without_padding(graph: Graph, blocks: Iterable[int]) -> list[Instruction]:
    return [instruction for instruction in graph.instructions(blocks) if instruction.opcode != "NOP"]


def _turn(graph: Graph, loop: Loop, spins: Sequence[frozenset[int]]) -> frozenset[int]:
    """The blocks of a turn that finds every barrier ready: without the spins that it can pass by, and the ways to and from them."""
    passed = [spin for spin in spins if loop.header in _through(graph, loop, loop.blocks - spin)]
    return _through(graph, loop, loop.blocks.difference(*passed))


def _through(graph: Graph, loop: Loop, blocks: frozenset[int]) -> frozenset[int]:
    """Those of `blocks` that lie on a way from the header back to it within `blocks`; none where there is no way."""
    after = {block: [number for number in graph.after[block] if number in blocks] for block in blocks}
    before: dict[int, list[int]] = {block: [] for block in blocks}
    for block, following in after.items():
        for number in following:
            before[number].append(block)
    return _reached(loop.header, after) & _reached(loop.header, before)


def _reached(start: int, edges: dict[int, list[int]]) -> frozenset[int]:
    """Blocks at the end of at least one edge of a way from `start`; `start` itself where a way leads back."""
    values: set[int] = set()
    todo = list(edges.get(start, ()))
    while todo:
        block = todo.pop()
        if block not in values:
            values.add(block)
            todo += edges[block]
    return frozenset(values)


def _not_counted(
    graph: Graph, turn: Sequence[Instruction], others: Sequence[Loop], beside: frozenset[int]
) -> str:
    """Why a turn has no count; `beside` are the blocks of the ways to and from a spin."""
    if any(instruction.opcode == "CALL" for instruction in turn):
        return "a call inside the loop"
    if others:
        return "an inner loop whose number of turns is not in the code"
    if any(len(graph.blocks[block]) > _MOST_OF_A_WAY for block in beside):
        return "a part of the turn is done only by those that have to wait"
    return ""


def _is_spin(graph: Graph, loop: Loop) -> bool:
    """A short loop that asks whether it may go on, and does nothing else."""
    held = graph.instructions(loop.blocks)
    return any(map(_asks, held)) and len(held) <= _MOST_OF_A_SPIN


def _asks(instruction: Instruction) -> bool:
    """Whether it looks at a barrier, or at a semaphore in memory that another block sets."""
    return instruction.opcode in ("SYNCS", "NANOSLEEP") or (
        instruction.opcode in ("LD", "LDG") and "STRONG" in instruction.modifiers
    )


def _is_election(graph: Graph, loop: Loop) -> bool:
    """One instruction done by one thread after another of those that ask for it: one turn, as FA4's callers elect one."""
    held = graph.instructions(loop.blocks)
    return held[0].opcode == "ELECT" and held[-1].opcode == "BRA" and "ANY" in held[-1].modifiers


def _shape(instruction: Instruction) -> str:
    """An opcode with the modifier that names its shape, where it has one."""
    return instruction.opcode + "".join(
        f".{word}" for word in instruction.modifiers if word[0].isdigit() and "x" in word
    )


def _is_move(instruction: Instruction) -> bool:
    return instruction.opcode in _MOVES or (
        instruction.opcode == "IMAD" and instruction.modifiers[:1] == ("MOV",)
    )


def _spills(held: Iterable[Instruction]) -> int:
    return sum(instruction.opcode in ("LDL", "STL") for instruction in held)


def _registers(graph: Graph, above: frozenset[int]) -> int:
    """The registers that a role's warps ask for on the only way to it; 0 where none or several are asked for."""
    asked = [instruction for instruction in graph.instructions(above) if instruction.opcode == "USETMAXREG"]
    return int(asked[0].operands.split(",")[-1].strip(), 0) if len(asked) == 1 else 0
