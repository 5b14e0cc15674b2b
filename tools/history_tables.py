"""The tables of docs/history.md and docs/history-releases.md: what the clock says of FA4's releases, from `results/` alone, as Markdown.

    python tools/history_tables.py           # every table
    python tools/history_tables.py --write   # into docs/history.md and docs/history-releases.md, between their markers

The pages speak of FIRST to LAST on one kind of card. Releases and machines that are recorded later change nothing here.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from statistics import fmean, median

from history_codegen import crossed, shown, unchanged
from history_record import (
    BACKWARD,
    FIRST,
    FORWARD,
    LARGE,
    LAST,
    MACHINE,
    SECOND,
    STALE,
    Call,
    History,
    Release,
    Swept,
    change,
    direction,
    in_order,
    interval,
    load,
    named,
    percent,
    shape_of,
    short,
    table,
    told,
)

from fa4_asv.base.files import write_atomic
from fa4_asv.base.project import Project
from fa4_asv.catalog.shapes import class_of
from fa4_asv.compare.along import CONFIDENCE, visible
from fa4_asv.compare.false_alarms import rate_interval
from fa4_asv.compare.neighbours import rows_between
from fa4_asv.compare.noise import AGREED, agreement_among, classes_of, noise_among, totals
from fa4_asv.compare.rows import Row
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.turns import YARDSTICKS, turns_of

PAGES = ("docs/history.md", "docs/history-releases.md")
BESIDE = ("4.0.0b7", "4.0.0b20", "4.0.0b31", "4.0.0b32", "4.0.0b33", "4.0.0b36")  # shown with yardsticks


# What the clock shows


def large(history: History) -> list[tuple[Release, Release, Call, Row]]:
    """Changes from neighbour to neighbour that the rule tells and that are LARGE or more."""
    first = history.first
    return [
        (*pair, call, row)
        for pair in first.steps
        for call, row in sorted(first.rows(*pair).items(), key=lambda entry: in_order(entry[0]))
        if told(row) and abs(change(row)) >= LARGE
    ]


def events(history: History) -> list[str]:
    rows = []
    for before, after, call, row in large(history):
        assert row.base is not None
        cells = (
            short(after),
            f"{direction(call)} {named(call)}",
            f"{row.base * 1e3:.3g}",
            percent(change(row)),
        )
        beside = (again(history, before, after, call), profiled(history, before, after, call))
        rows.append((*cells, interval(row), *beside, *shown(history, before, after, call)))
    head = f"release | call | ms before | change | {100 * CONFIDENCE:g} % interval | both H200s over the same releases"
    return table(f"{head} | main kernel, us | instructions | spilled bytes | cause of these", rows)


def again(history: History, before: Release, after: Release, call: Call) -> str:
    """The same step on the second card: it timed fewer releases, so both cards are told over those around the step."""
    names, second = list(history.first.records), list(history.second.records)
    old = [name for name in second if names.index(name) <= names.index(before)][-1]
    new = next(name for name in second if names.index(name) >= names.index(after))
    rows = [swept.rows(old, new)[call] for swept in (history.first, history.second)]
    if any(row.ratio is None for row in rows):
        return "–"
    return f"{short(old)} to {short(new)}: {' and '.join(percent(change(row)) for row in rows)}"


def steps(history: History) -> list[str]:
    rows, quiet = [], Counter[str]()
    for pair in history.first.steps:
        judged = history.first.rows(*pair).values()
        count = Counter(row.verdict for row in judged)
        if not any(map(told, judged)):
            quiet += count
            quiet["steps"] += 1
            continue
        small = sum(told(row) and abs(change(row)) < LARGE for row in judged)
        states = [f"{count[name]} {name}" for name in ("newly broken", "newly working") if count[name]]
        cells = [str(count[name]) for name in ("faster", "slower")] + [str(small)]
        cells += [str(count[name]) for name in ("same", "unclear")]
        rows.append((short(pair[1]), *cells, ", ".join(states) or "–", compiler(history, *pair)))
    cells = [str(quiet[name]) for name in ("faster", "slower")] + [
        "0",
        str(quiet["same"]),
        str(quiet["unclear"]),
    ]
    rows.append((f"the other {quiet['steps']}", *cells, "–", ""))
    head = (
        f"release | faster | slower | of them below {LARGE:.0%} | same | unclear | state | nvidia-cutlass-dsl"
    )
    return _spaced(table(head, rows))


def compiler(history: History, before: Release, after: Release) -> str:
    old, new = (
        history.codegen[name].sidecar.toolchain.packages["nvidia-cutlass-dsl"] for name in (before, after)
    )
    return old if old == new else f"{old} -> {new}"


def broken(history: History) -> list[str]:
    """Calls without a time, by the releases that share a reason."""
    calls_by_reason: dict[tuple[str, str, str], list[str]] = {}
    for call in history.first.calls:
        states = [(name, _reason(history.first.case(name, call))) for name in history.first.records]
        for why, group in groupby(states, key=lambda entry: entry[1]):
            names = [name for name, _ in group]
            if why:
                calls_by_reason.setdefault((span(names), direction(call), why), []).append(named(call))
    rows = [(*key[:2], ", ".join(calls), key[2]) for key, calls in calls_by_reason.items()]
    return table("releases | direction | calls | reason, as recorded", rows)


def _reason(record: CaseRecord) -> str:
    """Why nothing was timed, without what differs from case to case; "" where a time was taken."""
    return re.sub(r" ?\([^()]*\)$", "", record.why) if record.state != "measured" else ""


def profiled(history: History, before: Release, after: Release, call: Call) -> str:
    """Microseconds of the main kernel of a backward, by the profiler, which a sweep asks once per release."""
    if call[0] == FORWARD:
        return "–"
    sides = [history.first.case(name, call).samples for name in (before, after)]
    return " -> ".join(f"{side['kernel main'][0] * 1e6:,.0f}" for side in sides)


# What it costs to stay behind


def plain(history: History) -> list[str]:
    """The plain libraries against [cu13] in the same rounds, release by release; those without [cu13] against the oldest that has it."""
    rows, oldest = [], next(iter(history.first.records))
    for release, record in history.plain.records.items():
        beside = release if release in history.first.records else oldest
        beside_rows = rows_between(history.first.records[beside], record, history.plain.pools)
        counts = Counter(row.verdict for row in beside_rows)
        shown = sorted((row for row in beside_rows if told(row)), key=lambda row: -abs(change(row)))[:2]
        largest = "; ".join(
            f"{direction((row.group, row.case))} {named((row.group, row.case))} {percent(change(row))}"
            for row in shown
        )
        cells = [str(counts.pop(word, 0)) for word in ("faster", "slower", "same", "unclear")]
        rows.append((short(release), short(beside), *cells, str(sum(counts.values())), largest or "–"))
    return table(
        "plain | against cu13 of | faster | slower | same | unclear | no time | largest two", rows, 2
    )


def by_class(history: History) -> dict[tuple[str, str], list[Call]]:
    calls: dict[tuple[str, str], list[Call]] = {}
    for call in history.first.calls:
        calls.setdefault((call[0], class_of(shape_of(call))), []).append(call)
    return calls


def spans(history: History) -> list[list[Release]]:
    """Neighbours between which no call is faster, slower or in another state, together."""
    runs: list[list[Release]] = []
    for pair in [("", FIRST), *history.first.steps]:
        rows = history.first.rows(*pair).values() if pair[0] else ()
        if not runs or any(row.effect for row in rows):
            runs.append([])
        runs[-1].append(pair[1])
    return runs


def behind(history: History) -> list[str]:
    first, classes = history.first, by_class(history)
    rows = [
        (span(names), *(_ratio(first, names, calls) for calls in classes.values()))
        for names in spans(history)
    ]
    least = [max(visible(first.pool(call)) for call in calls) for calls in classes.values()]
    rows.append(("seen from", *(f"{share * 100:.1f} %" for share in least)))
    return table(f"releases | {_titles(classes)}", rows, 1)


def _titles(classes: Iterable[tuple[str, str]]) -> str:
    return " | ".join(f"{'fwd' if group == FORWARD else 'bwd'} {name}" for group, name in classes)


def span(names: Sequence[Release]) -> str:
    return short(names[0]) + (f" to {short(names[-1])}" if len(names) > 1 else "")


def each_release(history: History) -> list[str]:
    first, classes = history.first, by_class(history)
    rows = [
        (short(name), *(_ratio(first, [name], calls) for calls in classes.values())) for name in first.records
    ]
    return table(f"release | {_titles(classes)}", rows, 1)


def _ratio(swept: Swept, releases: Sequence[Release], calls: Sequence[Call]) -> str:
    """Time over that of LAST, the geometric mean of releases and calls; a word where one has no time."""
    every = [(name, call) for name in releases for call in calls]
    reasons = {_reason(swept.case(*each)) for each in every} - {""}
    if reasons:
        return "crash" if "illegal memory access" in " ".join(reasons) else "no time"
    return f"{math.exp(fmean(swept.level(*each) - swept.level(LAST, each[1]) for each in every)):.3f}"


def stale(history: History) -> list[str]:
    rows = []
    compared = history.first.rows(STALE, LAST)
    for call in history.first.calls:
        row = compared[call]
        if row.base is None or row.head is None:
            continue
        seconds = [f"{value * 1e3:.3g}" for value in (row.base, row.head)]
        cells = (direction(call), named(call), *seconds, percent(change(row)), interval(row), row.verdict)
        rows.append((*cells, _h100(history, call)))
    head = f"direction | call | {short(STALE)}, ms | {short(LAST)}, ms | change | {100 * CONFIDENCE:g} % interval | verdict | H100"
    return table(head, rows)


def _h100(history: History, call: Call) -> str:
    """The same of the older protocol, where it has the call."""
    sides = [history.older[name].sidecar.groups[direction(call)].get(call[1]) for name in (STALE, LAST)]
    if not all(side and side.samples for side in sides):
        return "–"
    old, new = (median(side.samples["seconds"]) for side in sides if side)
    return percent(new / old - 1)


def yardsticks(history: History) -> list[str]:
    """Yardstick over FA4, both of the same round, median over the rounds: above 1 FA4 is faster."""
    rows = []
    for call in history.first.calls:
        cells = [_over(history.first.case(name, call), "cudnn") for name in BESIDE]
        more = [_over(history.first.case(name, call), "fa2") for name in (FIRST, LAST)]
        if set(cells) != {"–"}:
            rows.append((direction(call), named(call), *cells, *more))
    head = " | ".join(f"cuDNN, {short(name)}" for name in BESIDE)
    return table(f"direction | call | {head} | FA2, {short(FIRST)} | FA2, {short(LAST)}", rows, 2)


def yardsticks_forward(history: History) -> list[str]:
    return _yardsticks_of(history, FORWARD)


def yardsticks_backward(history: History) -> list[str]:
    return _yardsticks_of(history, BACKWARD)


def _yardsticks_of(history: History, group: str) -> list[str]:
    """Every release: cuDNN and FA2 over FA4."""
    first = history.first
    calls = [
        call for call in first.calls if call[0] == group and _over(first.case(LAST, call), "cudnn") != "–"
    ]
    rows = [
        (
            short(name),
            *(" / ".join(_over(first.case(name, call), each) for each in YARDSTICKS) for call in calls),
        )
        for name in first.records
    ]
    return table(f"release | {' | '.join(map(named, calls))}", rows, 1)


def _over(record: CaseRecord, yardstick: str) -> str:
    ratios = [
        turn.yardsticks[yardstick] / turn.seconds for turn in turns_of(record) if yardstick in turn.yardsticks
    ]
    return f"{median(ratios):.2f}" if ratios else "–"


# Noise


def noise(history: History) -> list[str]:
    rows = []
    for machine, swept in ((MACHINE, history.first), (SECOND, history.second)):
        calls = noise_among([record.sidecar for record in swept.records.values()])
        for each in classes_of(calls):
            cells = (
                f"{each.calls}",
                f"{each.median:.2%}",
                f"{each.p90:.2%}",
                f"{each.noticed} of {each.calls}",
            )
            rows.append((machine, each.title, *cells, _alarms(each.alarms, each.pairs)))
        rows.append((machine, "all", str(len(calls)), "", "", "", _alarms(*totals(calls))))
        rows.append((machine, "the rule, same machine code", *[""] * 4, _alarms(*unchanged(history, swept))))
    head = "machine | calls | number | spread between processes, median | 90th percentile | 1 % is seen in"
    return _spaced(table(f"{head} | false alarms (95 % interval)", rows))


def _spaced(lines: Sequence[str]) -> list[str]:
    return [re.sub(r"(\d)%", r"\1 %", line) for line in lines]


def _alarms(alarms: int, pairs: int) -> str:
    low, high = rate_interval(alarms, pairs)
    return f"{alarms} of {pairs}, {alarms / pairs:.1%} ({low:.1%} to {high:.1%})"


def agreement(history: History) -> list[str]:
    order = [record.sidecar.commit for record in history.first.records.values()]
    first, second = (
        [record.sidecar for record in side.records.values()] for side in (history.first, history.second)
    )
    rows = []
    for each in agreement_among(first, second, order):
        beyond = [(name.split()[0], name.split()[1]) for name in each.beyond]
        calls_beyond = ", ".join(f"{direction(call)} {named(call)}" for call in beyond)
        rows.append((each.title, str(each.ratios), f"{each.median:.2%}", f"{each.bound:.2%}", calls_beyond))
    head = f"calls | ratios to {short(LAST)} | they differ by, median | at most, in {AGREED:.0%}"
    return _spaced(table(f"{head} | calls with more than 5 % of ratios beyond 1 %", rows))


TABLES = {
    "events": events,
    "steps": steps,
    "behind": behind,
    "stale": stale,
    "plain": plain,
    "yardsticks": yardsticks,
    "broken": broken,
    "noise": noise,
    "agreement": agreement,
    "crossed": crossed,
    "each-release": each_release,
    "yardsticks-forward": yardsticks_forward,
    "yardsticks-backward": yardsticks_backward,
}


def tables(project: Project) -> Iterator[tuple[str, str]]:
    """Every table with its name."""
    history = load(project)
    for name, made in TABLES.items():
        yield name, "\n".join(made(history))


def filled(text: str, contents: Mapping[str, str]) -> str:
    """The page with each table between its markers, `<!-- name -->` and `<!-- end -->`."""
    for name, lines in contents.items():
        safe = lines.replace("\\", r"\\")
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", rf"\g<1>{safe}\n\g<2>", text, flags=re.S)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"put them into {' and '.join(PAGES)}")
    write = parser.parse_args().write
    project = Project.find()
    contents = dict(tables(project))
    if not write:
        print("\n".join(f"## {name}\n\n{lines}\n" for name, lines in contents.items()))
        return
    for page in (project.root / name for name in PAGES):
        write_atomic(page, filled(page.read_text(encoding="utf-8"), contents))


if __name__ == "__main__":
    main()
