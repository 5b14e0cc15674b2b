"""What a cubin says of its kernels: spills, instructions, registers.

Read with NVIDIA's own tools, so that a stranger gets the same figures:
`cuobjdump --dump-resource-usage` (REG, STACK), `nvdisasm -c` (SASS) and the ELF section sizes.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import read_bytes
from fa4_asv.measure.kernels.loops import KernelLoops, read_loops

# One SASS line of `nvdisasm -c`: /*offset*/ [@predicate] OPCODE operands ;
_SASS = re.compile(
    r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P[T0-9]+\s+)?([A-Z][A-Z0-9_]*)((?:\.[A-Za-z0-9_]+)*)"
)
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")
# Opcodes whose first modifier names another operation: exp2 against reciprocal, MMA kinds.
_SPLIT = {"MUFU", "HGMMA", "SYNCS"}


@dataclass(frozen=True)
class CubinFigures:
    """Figures of one cubin; summed over its kernels where it holds several, registers the largest.

    Units: spill_bytes (stack frame) bytes per thread; local_loads and local_stores instructions (LDL,
    STL); instructions SASS lines without NOP, which only pads; text_bytes bytes; registers per thread.
    """

    spill_bytes: int
    local_loads: int
    local_stores: int
    instructions: int
    text_bytes: int
    registers: int


@dataclass(frozen=True)
class Cubin:
    """A cubin's figures, opcode histogram, digest and loops."""

    figures: CubinFigures
    opcodes: dict[str, int]
    sha256: str
    loops: KernelLoops


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    except FileNotFoundError:
        raise Fa4AsvError(
            f"cannot run {command[0]}: not found; `fa4-asv doctor` says how to get it"
        ) from None
    except subprocess.TimeoutExpired:
        raise Fa4AsvError(f"{Path(command[0]).name} took more than 120 s on {command[-1]}") from None
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines()
        last = lines[-1] if lines else "no message"
        raise Fa4AsvError(f"{Path(command[0]).name} cannot read {command[-1]}: {last}") from None
    return done.stdout


def opcode_histogram(sass: str) -> dict[str, int]:
    """Opcode counts of `nvdisasm -c` output; MUFU and HGMMA keep their first modifier (MUFU.EX2)."""
    counts: Counter[str] = Counter()
    for line in sass.splitlines():
        match = _SASS.match(line)
        if match:
            opcode, modifiers = match.groups()
            if opcode in _SPLIT and modifiers:
                opcode += "." + modifiers.split(".")[1]
            counts[opcode] += 1
    return dict(sorted(counts.items()))


def read_cubin(path: Path, cuobjdump: str, nvdisasm: str, known: dict[str, Cubin] | None = None) -> Cubin:
    """Figures of the cubin at `path`. Raises Fa4AsvError when a tool is missing or cannot read it.

    `known` are cubins by digest that were read before, kept up: calls share kernels, and a disassembly takes 0.4 s.
    """
    content = read_bytes(path, advice="it is no cubin of FA4's")
    digest = hashlib.sha256(content).hexdigest()
    if known is None:
        return _read(path, content, digest, cuobjdump, nvdisasm)
    if digest not in known:
        known[digest] = _read(path, content, digest, cuobjdump, nvdisasm)
    return known[digest]


def _read(path: Path, content: bytes, digest: str, cuobjdump: str, nvdisasm: str) -> Cubin:
    usage = [
        tuple(map(int, pair))
        for pair in _USAGE.findall(_output([cuobjdump, "--dump-resource-usage", str(path)]))
    ]
    sass = _output([nvdisasm, "-c", str(path)])
    opcodes = opcode_histogram(sass)
    sections = ELFFile(io.BytesIO(content)).iter_sections()
    nbytes = sum(section["sh_size"] for section in sections if section.name.startswith(".text."))
    if not usage or not opcodes or not nbytes:
        raise Fa4AsvError(f"{path} holds no kernel")
    figures = CubinFigures(
        spill_bytes=sum(stack for _, stack in usage),
        local_loads=opcodes.get("LDL", 0),
        local_stores=opcodes.get("STL", 0),
        instructions=sum(count for opcode, count in opcodes.items() if opcode != "NOP"),
        text_bytes=nbytes,
        registers=max(registers for registers, _ in usage),
    )
    return Cubin(figures, opcodes, digest, read_loops(sass))
