"""SASS as instructions and as a graph of blocks: the text of `nvdisasm -c`, nothing of FA4.

What cannot be followed (a jump to an address in a register, an unknown label) raises NotUnderstood with the
reason: a wrong graph would give wrong figures without a sign.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from fa4_asv.measure.kernels.flow import NotUnderstood

# .text.NAME: opens a function; /*offset*/ [@predicate] OPCODE[.MODIFIER...] operands ; with braces around pairs
_SECTION = re.compile(r"^\.text\.(\S+):$")
_LABEL = re.compile(r"^(\.L_[A-Za-z0-9_]+|\$\S+):$")
_INSTRUCTION = re.compile(
    r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@(!?U?P[T0-9]+)\s+)?([A-Z][A-Z0-9_]*)((?:\.[A-Za-z0-9_]+)*)\s*([^;]*)"
)
_TARGET = re.compile(r"`\(([^)]+)\)")
# What nvdisasm writes behind an indirect branch whose table it has found: all that it may jump to.
_TABLE = re.compile(r'\(\*"BRANCH_TARGETS ([^"]+)"\*\)')
_ALWAYS = {"", "PT", "UPT"}
_INDIRECT = {"BRX", "BRXU", "JMX", "JMXU"}
_ENDS = {"EXIT", "RET", "KILL"}
MOST_INSTRUCTIONS = 200_000  # FA4's largest kernel has 12,000


@dataclass(frozen=True)
class Instruction:
    """`guard` is the predicate without @, "" for none; `targets` are the labels among the operands."""

    opcode: str
    modifiers: tuple[str, ...] = ()
    guard: str = ""
    operands: str = ""
    targets: tuple[str, ...] = ()

    @property
    def guarded(self) -> bool:
        """Whether it is executed or not by a predicate."""
        return self.guard not in _ALWAYS


@dataclass(frozen=True)
class Function:
    """`labels` maps each label to the index of the instruction behind it."""

    name: str
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Blocks as ranges of instructions; `after` are the successors of each; `roots` are where execution may begin."""

    function: Function
    blocks: tuple[range, ...]
    after: tuple[tuple[int, ...], ...]
    roots: tuple[int, ...]

    def instructions(self, blocks: Iterable[int]) -> list[Instruction]:
        return [self.function.instructions[place] for block in sorted(blocks) for place in self.blocks[block]]


def functions(sass: str) -> list[Function]:
    """The kernels of `nvdisasm -c` output, each with the subroutines that stand in its section."""
    found_functions: list[Function] = []
    for line in sass.splitlines():
        if opened := _SECTION.match(line):
            found_functions.append(Function(opened[1]))
        elif found_functions and (label_match := _LABEL.match(line)):
            found_functions[-1].labels[label_match[1]] = len(found_functions[-1].instructions)
        elif found_functions and (match := _INSTRUCTION.match(line)):
            found_functions[-1].instructions.append(_instruction(*match.groups()))
    for function in found_functions:
        while (
            function.instructions and function.instructions[-1].opcode == "NOP"
        ):  # padding up to the next 128 bytes
            function.instructions.pop()
    return [function for function in found_functions if function.instructions]


def _instruction(guard: str | None, opcode: str, modifiers: str, operands: str) -> Instruction:
    operand_text = " ".join(operands.rstrip("}").split())
    targets = _TARGET.findall(operand_text)
    if table := _TABLE.search(operand_text):
        targets += table[1].replace(" ", "").split(",")
    return Instruction(opcode, tuple(modifiers.split(".")[1:]), guard or "", operand_text, tuple(targets))


def graph_of(function: Function) -> Graph:
    """The blocks of a function and how they follow one another. Raises NotUnderstood."""
    if len(function.instructions) > MOST_INSTRUCTIONS:
        raise NotUnderstood(f"more than {MOST_INSTRUCTIONS:,} instructions")
    jumps = [_jump(function, place) for place in range(len(function.instructions))]
    starts = _starts(function, jumps)
    block_of = {start: number for number, start in enumerate(starts)}
    ends = [*starts[1:], len(jumps)]
    blocks = tuple(range(start, end) for start, end in zip(starts, ends, strict=True))
    after = []
    for block in blocks:
        targets, falls = jumps[block[-1]]
        follows = (block.stop,) if falls else ()
        if falls and block.stop == len(jumps):
            raise NotUnderstood("the code goes on behind its last instruction")
        after.append(tuple(dict.fromkeys(block_of[place] for place in (*follows, *targets))))
    roots = tuple(block_of[place] for place in dict.fromkeys((0, *_called(function))))
    return Graph(function, blocks, tuple(after), roots)


def _jump(function: Function, place: int) -> tuple[tuple[int, ...], bool]:
    """Where an instruction may jump to, and whether the next one may follow it."""
    instruction = function.instructions[place]
    if instruction.opcode in _INDIRECT:
        return _table_of(function, instruction), instruction.guarded
    if instruction.opcode in _ENDS:
        return (), instruction.guarded
    if instruction.opcode == "BSYNC":
        _refuse_far_join(function, place)
    if instruction.opcode in ("BRA", "JMP"):
        return (_place_of(function, instruction),), _may_fall_through(instruction)
    return (), True


def _may_fall_through(branch: Instruction) -> bool:
    """Predicates stand before the opcode, or as an operand before the target (BRA.U UP0, `(label))."""
    before = branch.operands.partition("`")[0].replace(" ", "").strip(",").lstrip("~!")
    return branch.guarded or before not in _ALWAYS


def _table_of(function: Function, branch: Instruction) -> tuple[int, ...]:
    if not branch.targets:
        raise NotUnderstood(f"an indirect branch ({branch.opcode}) whose targets are not in the code")
    return tuple(_place_of(function, branch, target) for target in branch.targets)


def _place_of(function: Function, branch: Instruction, target: str = "") -> int:
    """The instruction at `target`, or at the only label among the operands."""
    target = target or (branch.targets[0] if len(branch.targets) == 1 else "")
    place = function.labels.get(target)
    if place is None or place >= len(function.instructions):
        raise NotUnderstood(
            f"{branch.opcode} to {target or branch.operands or 'nowhere'}: no label of this kernel"
        )
    return place


def _refuse_far_join(function: Function, place: int) -> None:
    """A BSYNC goes on at the label of its BSSY: the next instruction, in all that compilers were seen to write."""
    barrier = function.instructions[place].operands
    joins = [
        instruction
        for instruction in function.instructions
        if instruction.opcode == "BSSY" and instruction.operands.partition(",")[0].strip() == barrier
    ]
    if place + 1 in (_place_of(function, instruction) for instruction in joins):
        return
    raise NotUnderstood(f"BSYNC {barrier} does not stand before the label of its BSSY")


def _called(function: Function) -> list[int]:
    """Where subroutines of this kernel begin; a call outside of it is of no matter to its graph."""
    values = []
    for instruction in function.instructions:
        if instruction.opcode == "CALL":
            values += [function.labels[target] for target in instruction.targets if target in function.labels]
    return [place for place in values if place < len(function.instructions)]


def _starts(function: Function, jumps: list[tuple[tuple[int, ...], bool]]) -> list[int]:
    """The first instruction of each block."""
    values = {0, *_called(function)}
    for place, (targets, falls) in enumerate(jumps):
        values |= set(targets)
        if (targets or not falls or function.instructions[place].opcode in _ENDS) and place + 1 < len(jumps):
            values.add(place + 1)
    return sorted(values)
