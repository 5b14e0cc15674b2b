"""What the record says of a kernel's loops against what it says of the kernel: one compile gave both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fa4_asv.catalog.metrics import LOOP_DIGITS
from fa4_asv.record.loops import products_of, stem
from fa4_asv.record.schema import CaseRecord

_PARTS = {"exp2": "MUFU.EX2"}  # part of a turn: its opcode
_BYTES = 16  # of an instruction, on every architecture since sm_70
_TURNS = ("turn_instructions", "masked_instructions")
_SPILLS = ("spills_inside", "spills_outside")


def wrong_loops(record: CaseRecord, kernel: CaseRecord) -> Iterator[str]:
    """One entry per check: "" where it holds, else what is wrong with the `record` of a `kernel`'s loops."""
    if "not run" in (kernel.state, record.state):
        return
    yield _wrong_state(record, kernel)
    if record.state == kernel.state == "measured":
        for name in record.figures.keys() & {"turn_instructions", "masked_instructions"}:
            yield _at_most(name, record.figures[name], kernel.figures, "instructions")
        if kernel.opcodes:  # a kernel of plain that is cu12's leaves them there
            yield _wrong_spills(record.figures, kernel.opcodes)
            for name, count in {**products_of(record), **_exp2_of(record)}.items():
                yield _at_most(name, count, kernel.opcodes, _opcode_of(name, kernel.opcodes))
        yield _wrong_slots(record)


def wrong_whole(record: CaseRecord) -> Iterator[str]:
    """The same of a record that holds a kernel and its loops, without a histogram of opcodes."""
    figures = record.figures
    code = _BYTES * figures.get("instructions", 0)
    text = figures.get("text_bytes", code)
    yield (
        "" if text >= code and text % _BYTES == 0 else f"text_bytes is {text}, its instructions have {code}"
    )
    local = sum(figures.get(name, 0) for name in ("local_loads", "local_stores"))
    for name, value in (("local accesses", local), *((name, figures.get(name, 0)) for name in _TURNS)):
        yield _at_most(name, value, figures, "instructions")
    spills = sum(figures.get(name, 0) for name in _SPILLS)
    yield _at_most("spilled accesses", spills, {"local accesses": local}, "local accesses")
    issued = sum({**products_of(record), **_exp2_of(record)}.values())
    yield _at_most("matrix instructions and exp2", issued, figures, "instructions")
    yield _wrong_slots(record)


def _wrong_state(record: CaseRecord, kernel: CaseRecord) -> str:
    """A kernel that was read has its digest here, and loops or a reason; without one there is nothing to read."""
    if kernel.state != "measured":
        return (
            "" if record.state == kernel.state else f"loops are {record.state}, the kernel is {kernel.state}"
        )
    if record.state not in ("measured", "unsupported"):
        return f"loops are {record.state}, the kernel is measured"
    digest = kernel.sha256[:LOOP_DIGITS]
    return "" if record.sha256 == digest else f"loops of cubin {record.sha256!r}, the kernel's is {digest!r}"


def _wrong_spills(figures: Mapping[str, int], opcodes: Mapping[str, int]) -> str:
    count = sum(figures.get(name, 0) for name in _SPILLS)
    most = opcodes.get("LDL", 0) + opcodes.get("STL", 0)
    return "" if count <= most else f"spilled accesses are {count}, the kernel has {most} LDL and STL"


def _exp2_of(record: CaseRecord) -> dict[str, int]:
    return {name: count for name, count in record.parts.items() if name in _PARTS}


def _opcode_of(part: str, opcodes: Mapping[str, int]) -> str:
    """The histogram's name for a part of a turn: not every opcode keeps its shape there."""
    return _PARTS.get(part, part if part in opcodes else stem(part))


def _at_most(name: str, value: int, counts: Mapping[str, int], key: str) -> str:
    most = counts.get(key, 0)
    return "" if value <= most else f"{name} is {value}, the kernel has {most} {key}"


def _wrong_slots(record: CaseRecord) -> str:
    """Slots per 100 products against the products and instructions of the turn that they are counted in."""
    figure = record.figures.get("slots_per_100_products")
    if figure is None:
        return ""
    products = sum(products_of(record).values())
    slots = record.parts.get("slots", record.figures.get("turn_instructions", 0))
    expected = (100 * slots + products // 2) // products if products else None
    return "" if figure == expected else f"slots_per_100_products is {figure}, its parts give {expected}"
