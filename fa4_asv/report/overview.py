"""The first page: is the newest release better or worse, on what and why; and what moved most before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fa4_asv.catalog.benchmarks import GROUPS, TORCHES
from fa4_asv.catalog.flavours import GROUPS_OF_PLAIN, PLAIN
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.compare.policy import BETTER, NEITHER, UNCHANGED, WORSE, count_of, is_judged, overall
from fa4_asv.record.formatting import counted
from fa4_asv.record.schema import package_changes
from fa4_asv.report import wording
from fa4_asv.report.events import UNEXPLAINED, Event, Step, Timeline
from fa4_asv.report.model import Model, Point, Series
from fa4_asv.report.multiples import short
from fa4_asv.report.parts import Cell, Row, Table
from fa4_asv.report.route_table import Pair, pair_of

_AS_CU12 = "as cu12"


@dataclass(frozen=True)
class Headline:
    """The newest release against the one before it."""

    label: str
    before: str
    verdict: str
    sentences: Sequence[str]
    table: Table
    packages: Sequence[str]
    why: str


def headline(model: Model, timeline: Timeline) -> Headline | None:
    """None where fewer than two releases are recorded."""
    series = [series for series in model.exact() if len(series.measured) > 1]
    if not series:
        return None
    newest = max((each_series.measured[-1] for each_series in series), key=lambda point: point.date)
    series = [each_series for each_series in series if each_series.measured[-1].label == newest.label]
    before = max((each_series.measured[-2] for each_series in series), key=lambda point: point.date)
    steps = timeline.of(newest.label)
    steps = [step for step in steps if step.key in {each_series.key for each_series in series}]
    return Headline(
        newest.label,
        before.label,
        verdict(steps),
        [*_sentences(steps), *_routes(series)],
        _table(series, steps),
        list(dict.fromkeys(package for step in steps for package in step.packages)) or _moved(series),
        why(steps),
    )


def verdict(steps: Sequence[Step]) -> str:
    """ "better", "worse", "mixed" or "no relevant change", as `compare.policy` says."""
    return overall(event.effect for step in steps for event in step.events)


def _moved(series: Sequence[Series]) -> list[str]:
    from_to = [
        (each_series.measured[-2].record.sidecar.toolchain, each_series.measured[-1].record.sidecar.toolchain)
        for each_series in series
    ]
    rows = [wording.packages(package_changes(old.packages, new.packages)) for old, new in from_to]
    return list(dict.fromkeys(text for texts in rows for text in texts))


def _sentences(steps: Sequence[Step]) -> list[str]:
    """One per direction: how many figures and cases of each flavour, and the largest change."""
    names = []
    for effect in (BETTER, WORSE):
        events = [(step, e) for step in steps for e in step.events if e.effect == effect]
        if events:
            step, top = max(events, key=lambda pair: pair[1].weight)
            names.append(
                f"{effect.capitalize()}: {_counts(events)}; most of all {top.kernel} on {step.arch}, "
                f"{step.key.title}: {wording.change(top.change)}{top.percent}."
            )
    return names


def _counts(events: Sequence[tuple[Step, Event]]) -> str:
    """As `fa4-asv compare` counts: "4 figures of 2 cases (cu13), 1 figure of 1 case (cu12)"."""
    by_title: dict[str, list[Event]] = {}
    for step, event in events:
        by_title.setdefault(step.key.title, []).append(event)
    told = []
    for title, found_events in by_title.items():
        count = count_of(((event.change.key, event.effect) for event in found_events), found_events[0].effect)
        told.append(f"{counted(count.figures, 'figure')} of {counted(count.cases, 'case')} ({title})")
    return ", ".join(told)


def why(steps: Sequence[Step]) -> str:
    """The causes of all changes, in one line."""
    counts: dict[str, int] = {}
    for step in steps:
        for cause, count in step.causes:
            counts[cause] = counts.get(cause, 0) + count
    causes = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{cause} ({counted(count, 'figure')})" for cause, count in causes) or "nothing changed"


def _table(series: Sequence[Series], steps: Sequence[Step]) -> Table:
    columns = [(arch, each_series) for arch in ARCHES for each_series in series]
    rows: list[Row] = []
    for name, group in GROUPS.items():
        for metric, (_, title) in group.metrics.items() if group.exact else ():
            if is_judged(metric):
                cells = [_cell(arch, series, name, metric, steps) for arch, series in columns]
                if any(cell.text not in ("–", _AS_CU12) for cell in cells):
                    rows.append([title, *cells])
    head = ["less is better", *(f"{arch}, {series.key.title}" for arch, series in columns)]
    return Table("Figures that changed, by architecture and CUDA flavour", head, rows, "summary")


def _cell(arch: str, series: Series, group: str, metric: str, steps: Sequence[Step]) -> Cell:
    cases = {
        case
        for case, record in series.measured[-1].cases(group).items()
        if wording.arch_of(group, case) == arch and metric in record.figures
    }
    cases &= series.measured[-2].cases(group).keys()
    if not cases and series.key.flavour == PLAIN and group not in GROUPS_OF_PLAIN:
        return Cell(_AS_CU12, css="same")  # docs/measuring.md: it cannot be another
    if not cases:
        return Cell("–", spoken="not recorded")
    step = next((step for step in steps if step.key == series.key and step.arch == arch), None)
    if group == "route":
        return _route_cell(series, sorted(cases), step)
    result = {effect: step.of(group, metric, effect) if step else [] for effect in (BETTER, WORSE, NEITHER)}
    if step is None or not any(result.values()):
        # What plain's kernels share with cu12's stands there: the steps of plain tell only its own.
        return Cell(_AS_CU12 if series.key.flavour == PLAIN else f"all {len(cases)} same", css="same")
    told = [
        f"{len(result[effect])} of {len(cases)} {effect}{result[effect][0].percent}"
        for effect in (BETTER, WORSE)
        if result[effect]
    ]
    if result[NEITHER]:
        told.append(f"{len(result[NEITHER])} of {len(cases)} changed too little")
    css = _css(effect for effect, events in result.items() if events)
    return Cell(", ".join(told), f"events/{step.page}", css)


def _css(effects: Iterable[str]) -> str:
    effect = overall(effects)
    return "same" if effect == UNCHANGED else effect


def _pair(point: Point, series: Series, case: str) -> Pair | None:
    """The route of one case ("2.13.0/sm_90"), None where nobody asked."""
    torch, _, arch = case.partition("/")
    return pair_of(point.label, series.key.flavour, point.cases("route"), torch, arch)


def _route_cell(series: Series, cases: Sequence[str], step: Step | None) -> Cell:
    """What each torch makes of it now: that nothing changed does not say that it works."""
    told = []
    for case in cases:
        was, now = (_pair(point, series, case) for point in series.measured[-2:])
        if now is None:
            continue
        told.append(f"torch {now.torch}: {now.verdict}")
        if was and was.verdict != now.verdict:
            told[-1] += f", before: {was.verdict}"
    events = step.events if step else ()
    css = _css(
        event.effect for event in events if event.change.group == "route" and event.change.case in cases
    )
    return Cell("; ".join(told), "route.html", css)


def _routes(series: Sequence[Series]) -> list[str]:
    """What each torch makes of the newest release, in a sentence; none where no route was recorded."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for each_series in series:
        point = each_series.measured[-1]
        for case in point.cases("route"):
            if pair := _pair(point, each_series, case):
                where = reasons.setdefault(pair.torch, {}).setdefault(pair.verdict, [])
                where.append(each_series.key.flavour)
    if not reasons:
        return []
    asked = {flavour for verdicts in reasons.values() for where in verdicts.values() for flavour in where}
    told = []
    for torch in (name for name in reversed(TORCHES) if name in reasons):
        verdicts, parts = reasons[torch], []
        for verdict, where in verdicts.items():
            limited = len(verdicts) > 1 or set(where) != asked
            parts.append(verdict + (f" under {' and '.join(dict.fromkeys(where))}" if limited else ""))
        told.append(f"torch {torch}: {', '.join(parts)}")
    return [f"Does PyTorch's scaled_dot_product_attention drive it? {'; '.join(told)}."]


def largest(timeline: Timeline, limit: int = 12) -> Table:
    """The releases' steps with the largest changes; a commit's change is in its release's.

    Of a release one row per architecture, that of the flavour it moved most.
    """
    releases = [step for step in timeline.steps if step.after.release and step.weight]
    chosen: dict[tuple[str, str], Step] = {}
    for step in sorted(releases, key=lambda step: (-step.weight, -step.kernels, step.page)):
        chosen.setdefault((step.after.label, step.arch), step)
    return steps_table(list(chosen.values())[:limit], "The largest changes of a release on an architecture")


def steps_table(steps: Sequence[Step], caption: str) -> Table:
    rows: list[Row] = []
    for step in steps:
        rows.append(
            [
                Cell(_named(step), f"events/{step.page}", css="message" if step.after.subject else ""),
                step.key.title,
                step.arch,
                str(step.kernels),
                *(_top(step.events, effect) for effect in (BETTER, WORSE)),
                "; ".join(step.packages) or "the same",
                ", ".join(cause for cause, _ in step.causes) or UNEXPLAINED,
            ]
        )
    head = [
        "release or commit",
        "flavour",
        "arch",
        "changed",
        "largest gain",
        "largest loss",
        "toolchain moved",
        "cause",
    ]
    return Table(caption, head, rows, "wide")


def _named(step: Step) -> str:
    subject = step.after.subject
    return f"{short(step.after.label)} {subject}" if subject else short(step.after.label)


def _top(events: Sequence[Event], effect: str) -> Cell | str:
    found_events = [event for event in events if event.effect == effect]
    if not found_events:
        return "–"
    top = max(found_events, key=lambda event: event.weight)
    return Cell(f"{top.kernel}: {wording.change(top.change)}{top.percent}", css=effect)
