"""The first page: what to install, the newest release against any other, the history, what stands, what a clock says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.report import wording
from fa4_asv.report.cards import Cards
from fa4_asv.report.data_files import COMPARE_JS, script
from fa4_asv.report.events import Timeline
from fa4_asv.report.install import advice
from fa4_asv.report.machines import Machine
from fa4_asv.report.model import Model
from fa4_asv.report.on_the_clock import against_yardsticks, on_the_clock
from fa4_asv.report.open_data import json_files
from fa4_asv.report.other_chips import chips
from fa4_asv.report.overview import headline
from fa4_asv.report.pairs import clock_histories, histories, pairs_value, steps_value
from fa4_asv.report.plots import Plot
from fa4_asv.report.standing import TIME, Standing, all_table, short_table, standing
from fa4_asv.report.swept import Swept, first_of

_CSS = {"better": "better", "worse": "worse", "mixed": "mixed"}


def first_page(
    model: Model,
    found_timeline: Timeline,
    swept: Sequence[Swept],
    cards: Cards,
    timed: Sequence[Machine],
    groups: Sequence[tuple[str, Sequence[Plot]]],
    render: Callable[..., tuple[str, str]],
) -> Iterator[tuple[str, str]]:
    """The first page, with the data of its pickers, and the page of all standing regressions."""
    top, first = headline(model, found_timeline), first_of(swept)
    found, clocks = histories(model), clock_histories(swept)
    worse = standing(found, clocks, found_timeline)
    shown = [each for each in clocks if first and each.swept is first]
    own = [each for each in worse if each.what != TIME or (first and _is_of(each, first))]
    yield COMPARE_JS, script(COMPARE_JS, pairs_value(model, found, shown, steps_value(found_timeline)))
    advised = advice(model, swept, cards, worse)
    yield from json_files(model, found_timeline, groups, worse, advised)
    yield render(
        "index.html",
        "index.html",
        title="Summary",
        advice=advised,
        chips=chips(model),
        top=top,
        css=_CSS.get(top.verdict if top else "", "same"),
        first_chart=_first_chart(groups),
        standing=short_table(own),
        standing_count=len(worse),
        machines=timed,
        clock=on_the_clock(first),
        against=against_yardsticks(first),
        broken=cards.broken_releases(),
        steps=len(found_timeline.steps),
        count=len(model.releases),
        kernels=len(GROUPS["codegen"].cases),
        upstream=wording.UPSTREAM_URL,
    )
    table = all_table(worse)
    yield render(
        "standing.html",
        "tables.html",
        title="Standing regressions",
        lead="What is worse in the newest release than it was in its best one, and has not recovered: times first, then the largest change first.",
        parts=[("", [table])] if table else [],
        key=[],
    )


def _is_of(each: Standing, swept: Swept) -> bool:
    return (each.where, each.series) == (swept.key.machine, swept.key.flavour)


def _first_chart(groups: Sequence[tuple[str, Sequence[Plot]]]) -> str:
    """What the first page's chart shows at first: a causal forward at head dim 128 on a card, else the first of all."""
    plots = [plot for _, found in groups for plot in found]
    causal = [plot for plot in plots if "d128_causal" in plot.title and "forward b4_" in plot.title]
    return (causal or plots)[0].data if plots else ""
