"""What the record holds of a kernel's loops: figures, the reason where there is none, and what a turn does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from fa4_asv.catalog.metrics import LOOP_DIGITS, NO_KERNEL, OF_ALL_LOOPS
from fa4_asv.measure.kernels.flow import NotUnderstood
from fa4_asv.measure.kernels.loops import KernelLoops
from fa4_asv.record.schema import CaseRecord

_READ: dict[str, Callable[[KernelLoops], int]] = {
    "turn_instructions": lambda loops: loops.main().instructions,
    "masked_instructions": lambda loops: loops.main(masked=True).instructions,
    "spills_inside": lambda loops: loops.understood().spills_inside,
    "spills_outside": lambda loops: loops.understood().spills_outside,
    "slots_per_100_products": lambda loops: loops.slots_per_100_products(),
}


def loop_record(whole: CaseRecord, loops: KernelLoops | None) -> CaseRecord:
    """The loops of the kernel whose other figures are `whole`; None where there is no kernel.

    A metric whose part of the code is not understood has the reason in `notes`; where that is all of it, the case is unsupported.
    """
    if loops is None:
        return CaseRecord(whole.state, why=NO_KERNEL)
    figures: dict[str, int] = {}
    notes: dict[str, str] = {}
    for metric, read in _READ.items():
        try:
            figures[metric] = read(loops)
        except NotUnderstood as why:
            notes[metric] = str(why)
    digest = whole.sha256[:LOOP_DIGITS]
    if not figures:
        return CaseRecord("unsupported", why=f"loops: {loops.why}", sha256=digest)
    return CaseRecord("measured", figures=figures, notes=notes, parts=_parts(loops), sha256=digest)


def with_loops(whole: CaseRecord, loops: KernelLoops | None) -> CaseRecord:
    """One record of a kernel and its loops, without the histogram of opcodes: a third of the bytes.

    Where no loop is understood, one note says why for all metrics of loops.
    """
    if loops is None:
        return whole
    of_loops = loop_record(whole, loops)
    notes = of_loops.notes if of_loops.figures else {OF_ALL_LOOPS: loops.why}
    figures = {**whole.figures, **of_loops.figures}
    return replace(whole, figures=figures, opcodes={}, notes=notes, parts=of_loops.parts)


def _parts(loops: KernelLoops) -> dict[str, int]:
    """Of what a turn is made: exp2 and registers of the main one, and the products of the loop that issues them, with
    its instructions (`slots`) where that is another loop."""
    parts: dict[str, int] = {}
    main = None
    with suppress(NotUnderstood):
        main = loops.main()
        parts |= {"exp2": main.exp2, "registers": main.registers}
    with suppress(NotUnderstood):
        matrix = loops.matrix()
        parts |= matrix.products
        if not matrix.why and matrix is not main:
            parts["slots"] = matrix.instructions
    return parts
