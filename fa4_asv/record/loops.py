"""What stands in the record of a kernel's loops, for those who read it."""

from __future__ import annotations

from fa4_asv.record.schema import CaseRecord


def products_of(record: CaseRecord) -> dict[str, int]:
    """Matrix instructions of a turn, by shape ("HGMMA.64x128x16")."""
    return {name: count for name, count in record.parts.items() if stem(name).endswith("MMA")}


def work_of(record: CaseRecord) -> dict[str, int]:
    """What tells whether turns of two records do the same: products, and exp2 by the special function unit."""
    return {**products_of(record), "exp2": record.parts.get("exp2", 0)}


def stem(name: str) -> str:
    """An opcode without its shape."""
    return name.partition(".")[0]
