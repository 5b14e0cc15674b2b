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
from fa4_asv.report.charts import Line, lines
from fa4_asv.report.multiples import short, spoken_line
from fa4_asv.report.parts import Cell, Chart, Panel, Table
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


def against_yardsticks(swept: Swept | None) -> list[Panel]:
    """FA4 against cuDNN and FA2 by release, a panel a direction: the geometric mean over the calls of one sweep's card.

    Calls that some release lacks are left out, so that a line never moves because a call comes or goes.
    """
    if swept is None:
        return []
    return [panel for direction in DIRECTIONS if (panel := _yardstick_panel(swept, direction))]


def _yardstick_panel(swept: Swept, direction: str) -> Panel | None:
    points = swept.points
    drawn = []
    for at, name in enumerate(YARDSTICKS):
        ratios = {call: [beside(point, call, name) for point in points] for call in swept.of(direction)}
        whole = [values for values in ratios.values() if all(values)]
        if whole:
            means = [_mean([values[place] for values in whole]) for place in range(len(points))]
            drawn.append((Line(NAMES[name], (1, 2)[at], means), len(whole)))
    if not drawn:
        return None
    labels = [short(point.label) for point in points]
    lines_ = [line for line, _ in drawn]
    title = f"{direction}, {counted(drawn[0][1], 'call')}: times as fast as"
    told = "; ".join(spoken_line(line, [point.label for point in points], "{:.2f}".format) for line in lines_)
    svg = lines(labels, lines_, f"{title} cuDNN and FA2. {told}", "{:.2f}".format, (300, 110), tips=True)
    rows = [[label, *(f"{line.values[at]:.2f}" for line in lines_)] for at, label in enumerate(labels)]
    table = Table(f"{title} cuDNN and FA2", ["release", *(line.name for line in lines_)], rows[::-1])
    legend = ["", *(line.name for line in lines_)]
    return Panel(f"against-{direction}", title, [Chart("", svg)], table, legend=legend)


def _mean(ratios: Sequence[float | None]) -> float:
    return math.exp(fmean(math.log(ratio) for ratio in ratios if ratio))


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
