"""What the search of the pages finds: kernels, calls, releases, events, known threads by their numbers. Pure data."""

from __future__ import annotations

from collections.abc import Sequence

from fa4_asv.report import wording
from fa4_asv.report.chronicle import step_title
from fa4_asv.report.events import Timeline
from fa4_asv.report.install import CARDS
from fa4_asv.report.model import Model
from fa4_asv.report.multiples import kernel_page, short
from fa4_asv.report.plots import Plot

SEARCH_JS = "data/search.js"
Entry = list[str]  # what is shown, more words that are searched, the page


def entries(
    model: Model,
    timeline: Timeline,
    groups: Sequence[tuple[str, Sequence[Plot]]],
    nav: Sequence[tuple[str, str]],
) -> list[Entry]:
    """In the order in which equally good answers are shown."""
    threads = [
        [f"{thread.thread}: {thread.line}", "", _page_of(thread.group, thread.cases)]
        for thread in model.threads
    ]
    releases = [
        [
            f"{short(release.version)}, {release.uploaded[:10]}",
            release.version,
            f"releases/{release.version}.html",
        ]
        for release in reversed(model.releases)
    ]
    plots = [
        [plot.title, f"{plot.note} {CARDS.get(plot.kind, '')}", plot.page]
        for _, plots in groups
        for plot in plots
    ]
    events = [
        [f"event: {step_title(step)}", step.after.subject, f"events/{step.page}"]
        for step in reversed(timeline.steps)
        if step.weight
    ]
    return [*threads, *([name, "", page] for name, page in nav), *releases, *plots, *events]


def _page_of(group: str, cases: Sequence[str]) -> str:
    """Of the first case that a thread names; of one that names none what to install."""
    if not cases:
        return "index.html#install"
    if group == "route":
        return "route.html"
    return kernel_page(wording.arch_of(group, cases[0]), wording.kernel_of(group, cases[0]))
