"""Records of invented kernels for the model of times: what `loops` and `codegen` would hold of a forward on sm_90."""

from __future__ import annotations

from collections.abc import Mapping

from fa4_asv.record.schema import CaseRecord
from tests.support.results import FIGURES

PRODUCTS = {"HGMMA.64x128x16": 8}


def loop_record(
    turn: int = 500,
    masked: int = 500,
    spills_inside: int = 0,
    registers: int = 240,
    exp2: int = 66,
    products: Mapping[str, int] = PRODUCTS,
    figures: Mapping[str, int] | None = None,
    notes: Mapping[str, str] | None = None,
) -> CaseRecord:
    known = {"turn_instructions": turn, "masked_instructions": masked}
    known |= {"spills_inside": spills_inside, "spills_outside": 0, "slots_per_100_products": 6250}
    parts = {**products, "exp2": exp2, "registers": registers}
    return CaseRecord(
        "measured", figures=dict(known if figures is None else figures), parts=parts, notes=dict(notes or {})
    )


def code_record(digest: str = "ab" * 32, barriers: int = 10) -> CaseRecord:
    opcodes = {"HGMMA.64x128x16": 8, "SYNCS.EXCH": barriers}
    return CaseRecord("measured", figures=FIGURES, sha256=digest, kernel="Kernel", opcodes=opcodes)
