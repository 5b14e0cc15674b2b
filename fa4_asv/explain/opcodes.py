"""What SASS opcodes do in an attention kernel: a role for each, so that two histograms can be compared."""

from __future__ import annotations

import re

# role: the opcodes (of `nvdisasm -c`, as `cubin` counts them) that play it, matched from their start to a dot.
# IMAD multiplies addresses, and moves; its modifiers are not counted apart, so it stays with the addresses.
ROLES = {
    "matrix": r"HGMMA|HMMA|IMMA|QGMMA|IGMMA|OMMA|QMMA|UTC[A-Z]*MMA",
    "exp2": r"MUFU\.EX2",
    "FMA": r"FFMA2?|FHFMA|HFMA2",
    "multiply and add": r"FMUL2?|FADD2?",
    "max and select": r"FMNMX3?|FSEL|FSETP|SEL|USEL",
    "convert": r"F2FP|F2I|I2F|I2FP|F2F|PRMT|UPRMT",
    "moves": r"MOV|UMOV|R2UR|UP2UR|S2R|S2UR|CS2R|R2P|P2R|SHFL|RPCMOV",
    "local loads": r"LDL",
    "local stores": r"STL",
    "barriers": r"BAR|SYNCS|UTCBAR|WARPSYNC|MEMBAR|FENCE|DEPBAR|LDGDEPBAR|WARPGROUP|ELECT|"
    r"UCGABAR_ARV|UCGABAR_WAIT|ARRIVES|ACQBULK|BSSY|BSYNC|NANOSLEEP|YIELD|ERRBAR|CGAERRBAR|UTMACMDFLUSH",
    "tensor and shared memory": r"LDTM|STTM|LDS|STS|STSM|LDSM|STAS|ATOMS|UTMALDG|UTMASTG|UTMACCTL|UBLKCP|UBLKRED",
    "global memory": r"LDG|STG|REDG|ATOMG|LDGSTS|CCTL",
    "addresses and integers": r"U?IMAD|U?IADD3|U?LEA|U?LOP3|U?SHF|VIADD|VIADDMNMX|VIMNMX3?|U?ISETP|U?PLOP3|LDCU?|"
    r"ULDC|IABS|U?POPC|U?FLO|REDUX|IDP",
    "branches": r"BRA|BRX|CALL|RET|EXIT|BREAK|VOTEU?|PREEXIT",
    "padding": r"NOP",
}
OTHER = "other"
_PATTERNS = {role: re.compile(rf"(?:{opcodes})(?=\.|$)") for role, opcodes in ROLES.items()}


def role_of(opcode: str) -> str:
    """The role of one opcode, OTHER where it has none here."""
    return next((role for role, pattern in _PATTERNS.items() if pattern.match(opcode)), OTHER)


def by_role(opcodes: dict[str, int]) -> dict[str, int]:
    """Instructions by role, in the order of ROLES; every instruction is in exactly one."""
    counts = dict.fromkeys([*ROLES, OTHER], 0)
    for opcode, count in opcodes.items():
        counts[role_of(opcode)] += count
    return counts
