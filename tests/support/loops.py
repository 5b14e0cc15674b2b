"""SASS and loops made by hand."""

from __future__ import annotations

from fa4_asv.measure.kernels.loops import MATRIX, KernelLoops, LoopFigures

PRODUCT = "HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], R24"
WAIT = "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2"


def sass(*lines: str, kernel: str = "kernel") -> str:
    """`nvdisasm -c` text: a line that ends in a colon is a label, every other an instruction."""
    text, offset = [f".text.{kernel}:"], 0
    for line in lines:
        if line.endswith(":"):
            text.append(line)
        else:
            text.append(f"        /*{offset:04x}*/                   {line} ;")
            offset += 16
    return "\n".join(text)


# A turn of 8 instructions: a wait that is tried once, the product, the work on its result, the branch back. The spin
# stands behind the kernel, with an instruction before it and a branch back behind it, as compilers write it.
OUT_OF_LINE = (
    "MOV R1, 0x1",
    ".L_turn:",
    WAIT,
    "@!P0 BRA `(.L_slow)",
    ".L_ready:",
    PRODUCT,
    "MUFU.EX2 R3, R4",
    "FFMA R3, R3, R4, R5",
    "F2FP.BF16.F32.PACK_AB R6, R3, R3",
    "NOP",
    "IMAD.MOV.U32 R7, RZ, RZ, R6",
    "@P1 BRA `(.L_turn)",
    "EXIT",
    ".L_slow:",
    "UMOV UR5, 0x1",
    ".L_spin:",
    WAIT,
    "@!P0 NANOSLEEP.SYNCS 0x989680",
    "@!P0 BRA `(.L_spin)",
    "BRA `(.L_ready)",
    ".L_end:",
    "BRA `(.L_end)",
    "NOP",
    "NOP",
)
# The same turn with its spin in line.
IN_LINE = (
    "MOV R1, 0x1",
    ".L_turn:",
    WAIT,
    "@P0 BRA `(.L_ready)",
    ".L_spin:",
    WAIT,
    "@!P0 NANOSLEEP.SYNCS 0x989680",
    "@!P0 BRA `(.L_spin)",
    ".L_ready:",
    PRODUCT,
    "MUFU.EX2 R3, R4",
    "FFMA R3, R3, R4, R5",
    "F2FP.BF16.F32.PACK_AB R6, R3, R3",
    "IMAD.MOV.U32 R7, RZ, RZ, R6",
    "@P1 BRA `(.L_turn)",
    "EXIT",
)


BLACKWELL = (
    "@P0 BRA `(.L_softmax)",
    "USETMAXREG.DEALLOC.CTAPOOL 0x38",
    ".L_issue:",
    WAIT,
    "UTCQMMA gdesc[UR6], tmem[UR8]",
    "@P1 BRA `(.L_issue)",
    "EXIT",
    ".L_softmax:",
    "@P2 BRA `(.L_rescale)",
    "USETMAXREG.TRY_ALLOC.CTAPOOL UP0, 0xc0",
    ".L_masked:",
    WAIT,
    "LDTM.x32 R4, tmem[UR4]",
    "FSEL R3, R4, -INF , P3",
    "MUFU.EX2 R3, R3",
    "MUFU.EX2 R4, R4",
    "@P1 BRA `(.L_masked)",
    ".L_main:",
    WAIT,
    "LDTM.x32 R4, tmem[UR4]",
    "MUFU.EX2 R3, R3",
    "@P1 BRA `(.L_main)",
    "EXIT",
    ".L_rescale:",
    WAIT,
    "LDTM.x32 R4, tmem[UR4]",
    "STTM.x32 tmem[UR4], R4",
    "@P1 BRA `(.L_rescale)",
    "EXIT",
)


def turn(instructions: int, masked: bool = False, products: int = 8, spills: int = 0) -> LoopFigures:
    return LoopFigures(
        kernel="kernel",
        role=MATRIX,
        masked=masked,
        instructions=instructions,
        waiting=0,
        products={"HGMMA.64x128x16": products},
        local_loads=spills,
        local_stores=0,
        mufu=64,
        exp2=64,
        ffma=64,
        fsel=64 if masked else 0,
        moves=0,
        barriers=0,
        conversions=32,
        registers=240,
    )


def loops(*result: LoopFigures) -> KernelLoops:
    return KernelLoops(result)
