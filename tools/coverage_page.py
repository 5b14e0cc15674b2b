"""Write docs/coverage.md: FA4's arguments by architecture and by what this suite does with them.

python tools/coverage_page.py            # write it
python tools/coverage_page.py --check    # exit code 1 where it is not what the tables say
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from fa4_asv.base.files import write_atomic
from fa4_asv.catalog.benchmarks import TRACED, TRACED_GROUPS
from fa4_asv.catalog.calls import Call
from fa4_asv.catalog.coverage import ARCHES, ARGUMENTS, NOT_WATCHED, Cell, calls_of, cell
from fa4_asv.catalog.kernels import KERNEL_GROUPS
from fa4_asv.catalog.shapes import (
    SdpaShape,
    core,
    for_accuracy,
    for_features,
    further,
    history,
    serving_on_card,
    shapes_on_card,
)
from fa4_asv.record.tables import markdown_head, markdown_row

PAGE = Path(__file__).parent.parent / "docs" / "coverage.md"
_LANES = ("memory", "time on a card", "time on request", "guard on a CPU")

_HEAD = """# Coverage: which of FA4's arguments are watched

Written by `python tools/coverage_page.py` from the tables of the suite (`fa4_asv/catalog/coverage.py`); do not edit it.
A cell is the number of calls whose kernels are recorded for the architecture. *Refused*: FA4 4.0.0b36 says so, in its
own words [below](#refused-by-fa4). A dash: not watched there; of sm_103 and sm_120 only the core's calls are recorded.
"""
_LANES_TEXT = """## Beside compiled kernels

Calls with the argument. Memory is traced without a GPU. Time is taken on a card, after the guard passed; on request by
`fa4-asv sweep --set serving` and `--set shapes`. The guard has a reference for every argument of the last column, and holds a
stand-in for FA4 to it on a CPU. A Hopper card has run the calls on request: sinks, soft caps, windows, used keys and pages as servers ask
for them. No card has run these yet: score and mask functions called directly, blocks, MLA, FP8 with factors, splits, and anything on Blackwell.
"""


def main() -> None:
    text = page()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == text else f"{PAGE.name} is not what the tables say")
    write_atomic(PAGE, text)


def page() -> str:
    return "\n".join(
        [_HEAD, *_kernels(), "", _LANES_TEXT, *_lanes(), "", *_refused(), "", *_others(), "", *_groups(), ""]
    )


def _row(*cells: object) -> str:
    return markdown_row(map(str, cells))


def _kernels() -> Iterator[str]:
    yield "## Compiled kernels\n"
    yield from markdown_head(("argument", *ARCHES))
    for argument in ARGUMENTS:
        yield _row(_code(argument), *(_word(cell(argument, arch)) for arch in ARCHES))
    yield _row("*calls in all*", *(len(calls_of(arch)) for arch in ARCHES))


def _word(each: Cell) -> str:
    if each.refused:
        return "refused"
    if not each.watched:
        return "-"
    return f"{each.watched}, {each.partly}" if each.partly else str(each.watched)


def _code(argument: str) -> str:
    return ", ".join(f"`{name}`" for name in argument.split(", "))


def _lanes() -> Iterator[str]:
    yield from markdown_head(("argument", *_LANES))
    shapes: tuple[list[Call], ...] = (_traced(), _timed(), _on_request(), _guarded())
    for argument, asks in ARGUMENTS.items():
        yield _row(_code(argument), *(_count(asks, calls) for calls in shapes))


def _count(asks: Callable[[Call], bool], calls: list[Call]) -> str:
    return str(sum(map(asks, calls)) or "-")


def _traced() -> list[Call]:
    dense = [Call(name, backward, shape) for name, (backward, shape) in TRACED.items()]
    further_calls = {
        case.call.name: case.call for name in TRACED_GROUPS for case in KERNEL_GROUPS[name].cases.values()
    }
    return [*dense, *further_calls.values()]


def _timed() -> list[Call]:
    return _both([*core(), *further(), *history()])


def _on_request() -> list[Call]:
    forward = [Call(f"fwd_{shape.name}", False, shape) for shape in serving_on_card()]
    return [*forward, *_both(shapes_on_card())]


def _guarded() -> list[Call]:
    return _both([*for_accuracy(), *for_features()])


def _both(shapes: list[SdpaShape]) -> list[Call]:
    each = {shape.name: shape for shape in shapes}
    return [
        Call(f"{direction}_{name}", direction == "bwd", shape)
        for name, shape in each.items()
        for direction in ("fwd", "bwd")
        if direction == "fwd" or shape.has_backward
    ]


def _refused() -> Iterator[str]:
    yield "## Refused by FA4\n"
    yield from markdown_head(("architecture", "argument", "FA4's message"))
    for arch in ARCHES:
        for argument in ARGUMENTS:
            if reason := cell(argument, arch).refused:
                yield _row(arch, _code(argument), reason)


def _others() -> Iterator[str]:
    yield "## Not watched\n"
    yield from markdown_head(("argument", "why"))
    for argument, why in NOT_WATCHED.items():
        yield _row(_code(argument), why)


def _groups() -> Iterator[str]:
    yield "## Groups\n"
    yield "`-b '^GROUP'` selects a group; without `-b`, only `codegen` is measured.\n"
    yield from markdown_head(("group", "architectures", "calls", "kernels per architecture"))
    for group in KERNEL_GROUPS.values():
        calls = {case.call.name for case in group.cases.values()}
        yield _row(f"`{group.name}`", ", ".join(group.arches), len(calls), len(group.cases))


if __name__ == "__main__":
    main()
