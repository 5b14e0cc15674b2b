"""How often what the machine code says agrees with the clock, from the record alone: whole kernels, and the policy's rule on loops.

    python tools/loop_calibration.py            # a minute: the tables of docs/loops.md
    python tools/loop_calibration.py --write    # into that page, between their markers

The clock is `results/h200-sxm`: verdicts on neighbouring releases of one sweep, and the profiler's times of a backward's
kernels. Thresholds are chosen on the steps to even betas and judged on those to odd ones, and the other way round.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from statistics import pstdev

from history_codegen import kernels_of
from history_record import (
    ARCH,
    LARGE,
    SECOND,
    Call,
    History,
    Release,
    Swept,
    load,
    loops_of,
    percent,
    shape_of,
    short,
    table,
)
from history_tables import filled

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import write_atomic
from fa4_asv.base.project import Project
from fa4_asv.catalog.metrics import METRICS
from fa4_asv.compare.changes import Record, recorded
from fa4_asv.compare.policy import (
    BETTER,
    MAIN_TURN,
    MASKED_TURN,
    NEITHER,
    WORSE,
    effect_of_figures,
    effect_of_ratio,
    overall,
)
from fa4_asv.compare.rows import Measured, Row, compare
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.schema import CaseRecord

PAGE = "docs/loops.md"
SMALLEST = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05)  # thresholds to choose from
CLOCKED = {"faster": BETTER, "slower": WORSE, "same": NEITHER}
_NOISE = 3.0  # standard deviations of a kernel's time between neighbours with the same machine code
_TURNS = (MAIN_TURN, MASKED_TURN)
_OF_NO_SIZE = {"other-turn", "other-tile"}  # reasons why no size of a turn's change counts


@dataclass(frozen=True)
class Pair:
    """What a call runs in two releases: `records` of its kernels, the older release first, and `rows` of their comparison.

    `clock` is BETTER, WORSE or NEITHER (the same); `change` is that of time.
    """

    release: Release
    call: Call
    records: tuple[tuple[CaseRecord, CaseRecord], ...]
    rows: tuple[Row, ...]
    clock: str
    change: float

    @property
    def even(self) -> bool:
        return int(short(self.release).lstrip("b")) % 2 == 0


def by_whole_kernels(pair: Pair) -> str:
    """The rule before loops were recorded: spills, loads, stores and instructions of every kernel of the call, from 1 %;
    NEITHER where they differ."""
    return _one(
        effect_of_figures(name, old.figures[name], new.figures[name])
        for old, new in pair.records
        for name in METRICS
    )


def by_policy(pair: Pair, smallest: float) -> str:
    """What `compare` says of the call's kernels, were `smallest` the threshold of turns; NEITHER where figures differ."""
    return _one(_effect(row, smallest) for row in pair.rows)


def _effect(row: Row, smallest: float) -> str:
    if row.metric not in _TURNS or row.base is None or row.head is None or row.reason in _OF_NO_SIZE:
        return row.effect
    low, high = sorted((row.base, row.head))
    if low == high or (low and high / low - 1 < smallest):
        return NEITHER
    return WORSE if row.head > row.base else BETTER


def _one(effects: Iterable[str]) -> str:
    result = overall(effects)
    return result if result in (WORSE, BETTER) else NEITHER


@dataclass(frozen=True)
class Agreement:
    """Counts of pairs: where the clock tells a change, and (`alarms`) where the rule speaks of what stayed the same."""

    agree: int = 0
    disagree: int = 0
    silent: int = 0
    alarms: int = 0
    quiet: int = 0

    @property
    def score(self) -> int:
        """What a threshold is chosen by."""
        return self.agree - self.disagree - self.alarms

    @property
    def cells(self) -> tuple[str, ...]:
        spoke, told = self.agree + self.disagree, self.agree + self.disagree + self.silent
        return (
            str(self.agree),
            str(self.disagree),
            str(self.silent),
            _share(self.agree, spoke),
            _share(spoke, told),
            f"{self.alarms} of {self.alarms + self.quiet}",
        )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def agreement(told: Iterable[tuple[str, str]]) -> Agreement:
    """Of (clock, rule) pairs."""
    count = Counter(_kind(*pair) for pair in told)
    return Agreement(*(count[name] for name in ("agree", "disagree", "silent", "alarm", "quiet")))


def _kind(clock: str, rule: str) -> str:
    if clock == NEITHER:
        return "alarm" if rule else "quiet"
    return "silent" if not rule else "agree" if rule == clock else "disagree"


def judged(pairs: Iterable[Pair], smallest: float) -> Agreement:
    return agreement((pair.clock, by_policy(pair, smallest)) for pair in pairs)


def chosen(pairs: Sequence[Pair]) -> float:
    """The threshold with the best score; of several the smallest, which speaks most."""
    return max(SMALLEST, key=lambda smallest: (judged(pairs, smallest).score, -smallest))


def neighbours(history: History, swept: Swept) -> Iterator[Pair]:
    """Neighbouring releases of which the clock tells anything, and whose machine code is not the same."""
    for step in swept.steps:
        for call, row in swept.rows(*step).items():
            if row.verdict in CLOCKED and row.ratio is not None and _changed(history, step, kernels_of(call)):
                yield _pair(history, step, call, CLOCKED[row.verdict], row.ratio - 1)


def all_pairs(history: History, swept: Swept) -> Iterator[Pair]:
    """Any two kinds of machine code of a main kernel, each by the newest release that has it; no two pairs are independent."""
    rows = cache(swept.rows)
    for call in filter(kernels_of, swept.calls):
        newest = {history.code(name, kernels_of(call)[0]).sha256: name for name in swept.records}
        for step in combinations(sorted(newest.values(), key=list(swept.records).index), 2):
            row = rows(*step).get(call)
            if row and row.verdict in CLOCKED and row.ratio is not None:
                yield _pair(history, step, call, CLOCKED[row.verdict], row.ratio - 1)


PARTS = {"main": slice(0, 1), "pre": slice(1, 2), "post": slice(2, None)}  # of kernels_of a backward


def profiled(history: History, swept: Swept, part: str) -> Iterator[Pair]:
    """Neighbouring releases by the profiler's time of a part of a backward, where its noise is known."""
    for call in filter(kernels_of, swept.calls):
        kernels, moves = kernels_of(call)[PARTS[part]], _moves(swept, call, part)
        still = [change for step, change in moves.items() if not _changed(history, step, kernels)]
        least = _NOISE * pstdev(still) if len(still) > 1 else None
        for step, change in moves.items():
            if least is not None and _changed(history, step, kernels):
                clock = effect_of_ratio(math.log1p(change), least)
                yield _pair(history, step, call, clock, change, part)


def _moves(swept: Swept, call: Call, part: str) -> dict[tuple[Release, Release], float]:
    """How the time of a part changed from one release to the next, where both have one."""
    result = {}
    for step in swept.steps:
        old, new = ((swept.case(name, call).samples or {}).get(f"kernel {part}") for name in step)
        if old and new:
            result[step] = new[0] / old[0] - 1
    return result


def _changed(history: History, step: tuple[Release, Release], kernels: Sequence[str]) -> bool:
    """Whether a watched kernel is other machine code."""
    return any(len({history.code(name, kernel).sha256 for name in step}) > 1 for kernel in kernels)


def _pair(
    history: History, step: tuple[Release, Release], call: Call, clock: str, change: float, part: str = ""
) -> Pair:
    """`part` of a backward alone, or ("") all kernels of a call."""
    kernels = kernels_of(call)[PARTS[part]] if part else kernels_of(call)
    records = tuple((history.code(step[0], name), history.code(step[1], name)) for name in kernels)
    old, new = (_measured(history, release, kernels) for release in step)
    return Pair(step[1], call, records, tuple(compare(old, new, exact=True)), clock, change)


def _measured(history: History, release: Release, kernels: Sequence[str]) -> Measured:
    """What is recorded of `kernels` and of their loops."""
    codegen = {f"{ARCH}/{name}": history.code(release, name) for name in kernels}
    loops = {key: history.loops(release, key) for key in codegen if history.has_loops(key)}
    return Measured({"codegen": codegen, "loops": loops})


_HEAD = "rule | judged on | threshold | agree | disagree | silent | agrees | speaks | speaks of what stayed the same"


def halves(pairs: Sequence[Pair]) -> list[str]:
    """Both rules on each half of the releases, the threshold chosen on the other; all changes, and those of LARGE and more."""
    sides = {
        "even betas": [pair for pair in pairs if pair.even],
        "odd betas": [pair for pair in pairs if not pair.even],
    }
    rows = []
    for name, half in sides.items():
        other = next(those for title, those in sides.items() if title != name)
        rows += _rows(name, half, chosen(other))
    return table(_HEAD, rows, 2)


def elsewhere(history: History, smallest: float) -> list[str]:
    """Both rules where nothing was chosen: another card, any two kinds of machine code, the kernels of a backward."""
    result = {
        SECOND: neighbours(history, history.second),
        "any two kinds of machine code": all_pairs(history, history.first),
        **{f"{part} of backwards": profiled(history, history.first, part) for part in PARTS},
    }
    rows = [row for name, pairs in result.items() for row in _rows(name, list(pairs), smallest)]
    return table(_HEAD, rows, 2)


def _rows(name: str, half: Sequence[Pair], smallest: float) -> list[tuple[str, ...]]:
    large = [pair for pair in half if not pair.clock or abs(pair.change) >= LARGE]
    results = []
    for title, pairs in ((name, half), (f"{name}, {share(LARGE)} or more", large)):
        old = agreement((pair.clock, by_whole_kernels(pair)) for pair in pairs)
        results.append(("whole kernels", title, "1 %", *old.cells))
        results.append(("loops", title, share(smallest), *judged(pairs, smallest).cells))
    return results


def share(value: float) -> str:
    return f"{value * 100:g} %"


def listed(pairs: Sequence[Pair], smallest: float) -> list[str]:
    """Every change of LARGE and more, and each disagreement, with what both rules say."""
    rows = [
        (
            short(pair.release),
            f"{pair.call[0].partition('-')[0]} `{shape_of(pair.call).name}`",
            percent(pair.change),
            by_whole_kernels(pair) or "silent",
            by_policy(pair, smallest) or "silent",
            _words(pair),
        )
        for pair in pairs
        if pair.clock
        and (abs(pair.change) >= LARGE or by_policy(pair, smallest) not in (NEITHER, pair.clock))
    ]
    return table("release | call | clock | whole kernels | loops | instructions of a turn", rows)


def _words(pair: Pair) -> str:
    """The turn and the spills of the main kernel, before and after."""
    rows = {row.metric: row for row in pair.rows if row.group == "loops"}
    turn = next((rows[name] for name in _TURNS if name in rows and rows[name].reason != "other-turn"), None)
    if turn is None:
        return "loops are not known"
    spills = rows.get("spills_inside")
    more = f", spills {_moved(spills)}" if spills and spills.base != spills.head else ""
    return _moved(turn) + more + (", another tile" if turn.reason == "other-tile" else "")


def _moved(row: Row) -> str:
    return f"{row.base:,.0f} -> {row.head:,.0f}"


# What users reported of kernels on a B200: thread, flavour, releases before and after, kernel, what was reported.
REPORTED = (
    ("#2869", "cu13", "4.0.0b30", "4.0.0b31", "fwd_d128_full", "4.344 -> 3.433 ms, 1.027 -> 0.813 ms"),
    ("#2869", "cu13", "4.0.0b30", "4.0.0b31", "fwd_d128_causal", "1.953 -> 1.922 ms, 0.584 -> 0.580 ms"),
    ("#2461", "cu12", "4.0.0b9", "4.0.0b10", "fwd_d128_full", "about 1,280 -> 1,542 TFLOP/s"),
)


def reported(records: Mapping[str, Mapping[Release, Record]]) -> list[str]:
    """What loops and spills said of each, by flavour and release; the last but one column is the policy's word."""
    rows = []
    for thread, flavour, *releases, kernel, message in REPORTED:
        key = f"sm_100/{kernel}"
        sides = [records[flavour][release] for release in releases]
        groups = [
            {"codegen": {key: side.sidecar.groups["codegen"][key]}, "loops": {key: loops_of(side, key)}}
            for side in sides
        ]
        result = compare(*map(Measured, groups), exact=True)
        of = {row.metric: row for row in result}
        other = ", other exp2 or tile" if of[MAIN_TURN].reason == "other-tile" else ""
        cells = [_moved(of[name]) for name in ("spills_inside", "spills_outside", "instructions")]
        step = f"{' -> '.join(map(short, releases))}, {flavour}"
        turn = _moved(of[MAIN_TURN]) + other
        rows.append(
            (
                thread,
                step,
                f"`{kernel}`",
                turn,
                *cells,
                _one(row.effect for row in result) or "silent",
                message,
            )
        )
    head = "thread | step | kernel of sm_100 | turn | spills inside | spills outside | whole kernel | loops say | reported"
    return table(head, rows)


def tables(project: Project) -> dict[str, str]:
    """Those of the page, by marker. Raises Fa4AsvError where loops of a release are not recorded."""
    history = load(project)
    pairs = list(neighbours(history, history.first))
    smallest = chosen(pairs)
    manifest = Manifest.load(project.manifest)
    records = {
        flavour: {record.release: record for record in recorded(project.results, manifest, flavour)}
        for flavour in {row[1] for row in REPORTED}
    }
    result = {
        "halves": halves(pairs),
        "large": listed(pairs, smallest),
        "elsewhere": elsewhere(history, smallest),
        "reported": reported(records),
    }
    return {name: "\n".join(lines) for name, lines in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help=f"put them into {PAGE}")
    write = parser.parse_args().write
    project = Project.find()
    try:
        result = tables(project)
    except Fa4AsvError as error:
        parser.exit(2, f"{error}\n")
    if not write:
        print("\n\n".join(f"## {name}\n\n{lines}" for name, lines in result.items()))
        return
    page = project.root / PAGE
    write_atomic(page, filled(page.read_text(encoding="utf-8"), result))


if __name__ == "__main__":
    main()
