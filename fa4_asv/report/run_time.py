"""The run-time history: a page per machine that a sweep was run on, and one per call, from what `swept` holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from fa4_asv.compare.along import CONFIDENCE, SEEN
from fa4_asv.compare.false_alarms import rate_interval
from fa4_asv.compare.noise import AGREED, agreement_among, classes_of, totals
from fa4_asv.compare.policy import UNCHANGED, effect_of_ratio, overall
from fa4_asv.compare.verdicts import RELEVANT
from fa4_asv.record.formatting import counted
from fa4_asv.record.schema import package_changes
from fa4_asv.record.turns import YARDSTICKS
from fa4_asv.report import wording
from fa4_asv.report.call_history import Glance, glances, keys_of
from fa4_asv.report.machines import peak_of, tflops
from fa4_asv.report.model import RELEASES, Point
from fa4_asv.report.multiples import short
from fa4_asv.report.parts import Cell, Table
from fa4_asv.report.parts import Row as TableRow
from fa4_asv.report.run_time_cells import (
    MOST_ROWS,
    NAMES,
    NONE,
    named,
    newest_of,
    origins_of,
    state_cell,
    state_of,
    times,
)
from fa4_asv.report.swept import (
    BACKWARD,
    DIRECTIONS,
    FASTER,
    SLOWER,
    Call,
    ClockStep,
    Rows,
    Swept,
    beside,
    case_of,
    css_of,
    reason_of,
    seconds_of,
    speed,
)

_QUIET = Cell("·", css="same", spoken="no change told")


@dataclass(frozen=True)
class Part:
    """Tables under one heading, in order; `folded` ones open on request."""

    title: str
    note: str
    tables: Sequence[Table]
    folded: Sequence[Table] = ()


@dataclass(frozen=True)
class SweptPage:
    """A series of a machine: what changed when, what it costs to stay behind, every call."""

    swept: Swept
    lead: str
    parts: Sequence[Part]
    glances: Sequence[Glance]

    @property
    def keys(self) -> list[str]:
        """The legend of the small charts."""
        return keys_of(glance.chart for glance in self.glances)


def swept_page(swept: Swept, others: Sequence[Swept]) -> SweptPage:
    """Of a series, with the figures of the `others` that can be compared with it."""
    parts = [
        _changed(swept),
        _behind(swept),
        _calls(swept),
        _broken(swept),
        _noise(swept),
        _beside_others(swept, others),
    ]
    return SweptPage(swept, _lead(swept), [part for part in parts if part.tables], glances(swept))


def _lead(swept: Swept) -> str:
    points = swept.points
    span = points[0].label if len(points) == 1 else f"{points[0].label} to {points[-1].label}"
    cards = len({origin.card for origin in swept.origins})
    card_names = ", ".join(swept.values_of("card name")) or "of unknown name"
    torch = ", ".join(swept.values_of("torch"))
    what = "releases" if swept.key.history == RELEASES else "commits"
    several = (
        f" Each call was timed on one of them, for all {what}." if cards > 1 and _each_on_one(swept) else ""
    )
    return (
        f"{len(points)} {what}, {span}, {len(swept.calls)} calls; {counted(cards, 'card')} ({card_names}).{several} "
        f"{f'cuDNN and FA2 are those of torch {torch}. ' if torch else ''}Each against the one before that was timed here, by the rule for "
        f"releases of one sweep: faster or slower where the {CONFIDENCE * 100:g}\xa0% interval excludes no change and "
        f"the change is {RELEVANT * 100:g}\xa0% or more."
    )


def _each_on_one(swept: Swept) -> bool:
    return all(len(origins_of(swept, call)) <= 1 for call in swept.calls)


# When did run time change


def _changed(swept: Swept) -> Part:
    note = (
        "A row per release in which a call was faster, slower or in another state than in the release before. A cell shows the "
        "largest change of its class and, in brackets, the number of calls. · means: no call changed by the rule."
    )
    tables = [_changed_table(swept, direction) for direction in DIRECTIONS if swept.of(direction)]
    return Part("When did run time change?", note, tables, [_verdicts(swept)] if swept.steps else [])


def _changed_table(swept: Swept, direction: str) -> Table:
    kinds = swept.kinds(direction)
    rows: list[TableRow] = []
    for step in reversed(swept.steps):
        if step.told(direction):
            cells = [_told_cell(swept, step.rows, calls) for calls in kinds.values()]
            rows.append([named(step.after), wording.day(step.after.date), *cells, _compiler(step)])
    title, quiet = newest_of(f"{direction}, against the one before", len(rows)), len(swept.steps) - len(rows)
    rows = rows[:MOST_ROWS]
    if quiet:
        name = f"{'the other ' if rows else ''}{quiet}"
        rows.append([Cell(name), "", *([_QUIET] * len(kinds)), ""])
    return Table(title, ["", "date", *kinds, wording.COMPILER], rows, "dated")


def _told_cell(swept: Swept, rows: Rows, calls: Sequence[Call]) -> Cell:
    """ "−4.9 % (2)" where two calls of a class are faster; "broken" where one became so."""
    pairs = sorted(
        ((call, rows[call]) for call in calls if call in rows and rows[call].effect),
        key=lambda each: (-each[1].weight, each[0].turn),
    )
    if not pairs:
        return _QUIET
    told = []
    for verdict in dict.fromkeys(row.verdict for _, row in pairs):
        same = [row for _, row in pairs if row.verdict == verdict]
        many = f" ({len(same)})" if len(calls) > 1 else ""
        told.append((speed(same[0]) or verdict.removeprefix("newly ")) + many)
    effects = {row.effect for _, row in pairs}
    css = "mixed" if len(effects) > 1 else css_of(pairs[0][1])
    spoken = "; ".join(f"{call.name} {row.verdict}" for call, row in pairs)
    return Cell("; ".join(told), pairs[0][0].page(swept.key.machine), css, spoken)


def _compiler(step: ClockStep) -> str:
    old, new = (point.record.sidecar.toolchain.packages for point in (step.before, step.after))
    moved = package_changes(old, new)
    if wording.COMPILER in moved:
        was, now = moved[wording.COMPILER]
        return f"{was or 'absent'} → {now or 'absent'}"
    return new.get(wording.COMPILER, NONE) + ("; others moved" if moved else "")


def _verdicts(swept: Swept) -> Table:
    """How many calls of every step got which verdict."""
    names = list(dict.fromkeys((FASTER, SLOWER, "same", "unclear")))
    names += sorted({row.verdict for step in swept.steps for row in step.rows.values()} - set(names))
    rows: list[TableRow] = []
    for step in swept.steps[: -MOST_ROWS - 1 : -1]:
        counts = Counter(row.verdict for row in step.rows.values())
        cells = [
            Cell(str(counts[name] or NONE), css=_effect_of(step, name) if counts[name] else "same")
            for name in names
        ]
        rows.append(
            [
                named(step.after),
                short(step.before.label),
                wording.day(step.after.date),
                *cells,
                _compiler(step),
            ]
        )
    title = newest_of("Every release: calls by verdict", len(swept.steps))
    return Table(title, ["", "against", "date", *names, wording.COMPILER], rows, "dated")


def _effect_of(step: ClockStep, verdict: str) -> str:
    """What the calls with a verdict are: worse, better, mixed, or "" where the verdict has no effect."""
    effect = overall(row.effect for row in step.rows.values() if row.verdict == verdict)
    return "" if effect == UNCHANGED else effect


# What it costs to stay behind


def _behind(swept: Swept) -> Part:
    newest = short(swept.newest.label)
    note = (
        f"Time over that of {newest}, the geometric mean over the calls that both have and over the releases of a row, between "
        f"which no call changed by the rule: 1.05 takes 5\xa0% longer than {newest}. Coloured if it is further from 1 than the smallest change "
        f"that is detected in {wording.share(SEEN, 0)} of cases in the noisiest call of the class (last row)."
    )
    directions = [each for each in DIRECTIONS if swept.of(each)] if len(swept.points) > 1 else []
    tables = [_behind_table(swept, each, _spans(swept, each), "releases") for each in directions]
    each = [[point] for point in swept.points]
    folded = [_behind_table(swept, direction, each, "every release") for direction in directions]
    return Part("What an older release costs", note, tables, folded)


def _spans(swept: Swept, direction: str) -> list[list[Point]]:
    """Neighbours between which no call of a direction was told to differ, together."""
    points = [[swept.points[0]]]
    for step in swept.steps:
        if step.told(direction):
            points.append([])
        points[-1].append(step.after)
    return points


def _behind_table(swept: Swept, direction: str, spans: Sequence[Sequence[Point]], what: str) -> Table:
    kinds = swept.kinds(direction)
    every = {**kinds, "all": swept.of(direction)}
    least = {kind: _least(swept, calls) for kind, calls in every.items()}
    rows: list[TableRow] = [
        [_span(span), *(_ratio(swept, span, calls, least[kind]) for kind, calls in every.items())]
        for span in spans[: -MOST_ROWS - 1 : -1]
    ]
    seen = [NONE if math.isnan(share) else wording.share(share, 1) for share in least.values()]
    rows.append(["seen from", *seen[:-1], ""])
    title = f"{direction}, {what}: time over that of {short(swept.newest.label)}"
    return Table(newest_of(title, len(spans)), ["", *every], rows, "dated")


def _span(span: Sequence[Point]) -> Cell:
    names = [short(point.label) for point in span]
    return named(span[0]) if len(span) == 1 else Cell(f"{names[0]} to {names[-1]}")


def _least(swept: Swept, calls: Sequence[Call]) -> float:
    """The smallest change that is seen in the noisiest of some calls; NaN where one has no spread."""
    values = [noise.visible if (noise := swept.noise_of(call)) else math.nan for call in calls]
    return math.nan if any(map(math.isnan, values)) else max(values)


def _ratio(swept: Swept, span: Sequence[Point], calls: Sequence[Call], least: float) -> Cell:
    """The geometric mean; in brackets of how many calls where some have no time."""
    logs = {
        call: [math.log(ratio) for point in span if (ratio := swept.behind(point, call))] for call in calls
    }
    known = [values for values in logs.values() if values]
    if not known:
        states = {record.state for point in span for call in calls if (record := case_of(point, call))}
        return state_cell("broken") if "broken" in states else Cell(NONE, spoken="no time")
    mean = fmean(value for values in known for value in values)
    css = effect_of_ratio(mean, least) or "same"
    missing = len(known) < len(calls)
    return Cell(f"{math.exp(mean):.3f}" + (f" ({len(known)} of {len(calls)})" if missing else ""), css=css)


# Every call


def _calls(swept: Swept) -> Part:
    point, peak = swept.newest, peak_of(swept.key.machine)
    rows: list[TableRow] = []
    for call in swept.calls:
        seconds = seconds_of(point, call)
        rate = tflops(seconds, call.shape, call.direction == BACKWARD) if seconds and call.shape else None
        rows.append(
            [
                Cell(call.title, call.page(swept.key.machine)),
                wording.seconds(seconds) if seconds else state_of(point, call),
                wording.rate(rate),
                f"{rate / peak:.0%}" if rate and peak else NONE,
                *(times(beside(point, call, name)) for name in YARDSTICKS),
                *_noise_cells(swept, call),
            ]
        )
    head = ["call", "seconds", "TFLOP/s", "of peak", *(f"against {name}" for name in NAMES.values())]
    head += ["spread", "seen from", "false alarms"]
    note = (
        "Against cuDNN and FA2: their time over FA4's in the same round, median over the rounds; above 1 FA4 is faster. Spread: "
        f"between two processes of a release. Seen from: the smallest change that is detected in {wording.share(SEEN, 0)} of cases. False alarms: releases whose own two "
        "processes the rule calls different, and the number of releases."
    )
    table = Table(f"Every call in {point.label}", head, rows, "wide")
    return Part(f"Every call in {short(point.label)}", note, [table] if rows else [])


def _noise_cells(swept: Swept, call: Call) -> list[str]:
    noise = swept.noise_of(call)
    if noise is None or not noise.freedom:
        return [NONE] * 3
    return [
        wording.share(noise.spread, 2),
        wording.share(noise.visible, 1),
        f"{noise.alarms} of {noise.pairs}",
    ]


def _broken(swept: Swept) -> Part:
    """Calls without a time, by neighbours that share a reason."""
    rows: list[TableRow] = []
    for call in swept.calls:
        states = [(point, case_of(point, call)) for point in swept.points]
        reasons = [
            (point, (record.state, reason_of(record)) if record else ("", "")) for point, record in states
        ]
        for (state, why), group in groupby(reasons, key=lambda each: each[1]):
            if state in ("broken", "unsupported"):
                span = [point for point, _ in group]
                rows.append(
                    [
                        Cell(call.title, call.page(swept.key.machine)),
                        _span(span),
                        state_cell(state),
                        why,
                    ]
                )
    table = Table("Calls without a time", ["call", "releases", "state", "reason"], rows)
    return Part("What does not run", "", [table] if rows else [])


# Noise


def _noise(swept: Swept) -> Part:
    calls = list(swept.noise.values())
    rows: list[TableRow] = [
        [
            each.title,
            str(each.calls),
            wording.share(each.median, 2),
            wording.share(each.p90, 2),
            f"{each.noticed} of {each.calls}",
            *_alarms(each.alarms, each.pairs),
        ]
        for each in classes_of(calls)
    ]
    rows.append(["all", str(len(calls)), NONE, NONE, NONE, *_alarms(*totals(calls))])
    head = ["calls", "number", "spread, median", "spread, 90th percentile", "1\xa0% is seen in"]
    head += ["false alarms", "rate", "95\xa0% interval"]
    note = (
        f"Of the whole machine {swept.key.machine}. Spread: between the processes of a release. False alarms: the two processes of a "
        "release compared as if they were two releases, by the spread of the others."
    )
    return Part("How noisy the timings are", note, [Table("Noise by the length of a call", head, rows)])


def _alarms(alarms: int, pairs: int) -> list[str]:
    if not pairs:
        return [NONE] * 3
    low, high = rate_interval(alarms, pairs)
    return [
        f"{alarms} of {pairs}",
        wording.share(alarms / pairs, 1),
        f"{wording.share(low, 1)} to {wording.share(high, 1)}",
    ]


# Other cards


def _beside_others(swept: Swept, others: Sequence[Swept]) -> Part:
    """Each other series of the same kind as ratios: never one card's seconds beside another's."""
    tables = []
    for other in others:
        common = [
            point.label for point in swept.points if point.label in {each.label for each in other.points}
        ]
        if other.key.machine == swept.key.machine or not common or other.key.flavour != swept.key.flavour:
            continue
        tables += [_against_yardsticks(swept, other, common[-1]), *_agreement(swept, other)]
    note = (
        "Seconds of two cards are never compared. Only ratios are: to cuDNN and FA2 timed in the same round on the same card, and "
        "of each release to the newest that both machines timed."
    )
    return Part("Other machines, as ratios", note, tables)


def _against_yardsticks(swept: Swept, other: Swept, label: str) -> Table:
    sides = [next(point for point in each.points if point.label == label) for each in (swept, other)]
    rows: list[TableRow] = []
    for call in swept.calls:
        cells = [times(beside(point, call, name)) for name in YARDSTICKS for point in sides]
        if any(cell.text != NONE for cell in cells):
            rows.append([Cell(call.title, call.page(swept.key.machine)), *cells])
    machines = (swept.key.machine, other.key.machine)
    head = ["call", *(f"{NAMES[name]}, {machine}" for name in YARDSTICKS for machine in machines)]
    return Table(
        f"{label}: time of a yardstick over FA4's on {machines[0]} and {machines[1]}", head, rows, "wide"
    )


def _agreement(swept: Swept, other: Swept) -> list[Table]:
    order = [point.commit for point in swept.points]
    mine, theirs = ([point.record.sidecar for point in each.points] for each in (swept, other))
    common = {point.commit for point in swept.points} & {point.commit for point in other.points}
    if len(common) < 2:
        return []
    rows: list[TableRow] = [
        [
            each.title,
            str(each.ratios),
            wording.share(each.median, 2),
            wording.share(each.bound, 2),
            ", ".join(
                " ".join(name.replace("-history", "").replace("fa4/", "").split()[:2]) for name in each.beyond
            )
            or "none",
        ]
        for each in agreement_among(mine, theirs, order)
    ]
    head = ["calls", "ratios", "differ by, median", f"at most, in {wording.share(AGREED, 0)}"]
    head.append("calls of which more than 5\xa0% of the ratios differ by more than 1\xa0%")
    title = f"Ratios of releases to the newest of both, on {swept.key.machine} and {other.key.machine}"
    return [Table(title, head, rows, "wide")] if rows else []
