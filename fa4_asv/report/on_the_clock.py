"""The run time in short, for the first page: the newest release, the last ones that changed it, the yardsticks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from fa4_asv.compare.policy import BETTER, WORSE, effect_of_ratio
from fa4_asv.compare.rows import Row
from fa4_asv.record.formatting import counted
from fa4_asv.record.turns import YARDSTICKS
from fa4_asv.report.multiples import short
from fa4_asv.report.parts import Cell
from fa4_asv.report.run_time_cells import NAMES, named, page_of
from fa4_asv.report.swept import DIRECTIONS, Call, ClockStep, Swept, beside, speed


@dataclass(frozen=True)
class OnTheClock:
    """Newest against the one before, the last changes, the yardsticks: of one machine, in sentences."""

    machine: str
    flavour: str
    page: str
    newest: Cell
    verdict: str
    css: str
    sentences: Sequence[str]
    recent: Sequence[tuple[Cell, str]]


_RECENT = 3


def on_the_clock(swept: Swept | None) -> OnTheClock | None:
    """None where no sweep timed anything."""
    if swept is None:
        return None
    step = swept.steps[-1] if swept.steps else None
    told = step.told() if step else []
    effects = {row.effect for _, row in told}
    verdict = {frozenset({WORSE}): "slower", frozenset({BETTER}): "faster", frozenset(): "no change told"}
    name = verdict.get(frozenset(effects), "mixed")
    css = {"slower": "worse", "faster": "better", "mixed": "mixed"}.get(name, "same")
    recent = [each for each in reversed(swept.steps) if each.told()][:_RECENT]
    return OnTheClock(
        swept.key.machine,
        swept.key.title,
        page_of(swept.key.machine),
        named(swept.newest),
        name,
        css,
        [*_against_before(step), *_yardsticks(swept)],
        [(named(each.after), _sentence(each)) for each in recent],
    )


def _against_before(step: ClockStep | None) -> list[str]:
    if step is None:
        return ["No release before it was timed here."]
    counts = Counter(row.verdict for row in step.rows.values())
    parts = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return [f"Against {short(step.before.label)}, {counted(len(step.rows), 'call')}: {parts}."]


def _sentence(step: ClockStep) -> str:
    """ "6 faster (forward b4_... −12.5 %), 1 slower (...)": each with the call that is furthest apart."""
    result: dict[str, list[tuple[Call, Row]]] = {}
    for call, row in step.told():
        result.setdefault(row.verdict, []).append((call, row))
    order = sorted(result.items(), key=lambda each: (-len(each[1]), each[0]))
    return "; ".join(
        f"{len(rows)} {verdict} ({'most: ' if len(rows) > 1 and speed(rows[0][1]) else ''}"
        f"{f'{rows[0][0].title} {speed(rows[0][1])}'.rstrip()}{'' if len(rows) == 1 or speed(rows[0][1]) else ', ...'})"
        for verdict, rows in order
    )


def _yardsticks(swept: Swept) -> list[str]:
    """FA4 against each yardstick in the newest release, a sentence a direction."""
    messages = []
    for direction in DIRECTIONS:
        parts = []
        for name in YARDSTICKS:
            values = [ratio for call in swept.of(direction) if (ratio := beside(swept.newest, call, name))]
            if values:
                mean = math.exp(fmean(map(math.log, values)))
                faster = sum(effect_of_ratio(-math.log(ratio)) == BETTER for ratio in values)
                parts.append(
                    f"{mean:.2f} times as fast as {NAMES[name]} ({min(values):.2f} to {max(values):.2f}; faster in {faster} of "
                    f"{counted(len(values), 'call')})"
                )
        if parts:
            messages.append(f"FA4's {direction} in the same rounds: {', '.join(parts)}.")
    return messages
