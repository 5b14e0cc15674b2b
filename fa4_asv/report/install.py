"""*Install this*: for each kind of card which release, extra and compiler, what it costs, and what to avoid. Pure data.

The rules are those of docs/report.md, "Install this"; every word comes from the record or from the known threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from fa4_asv.base.machine import NOGPU
from fa4_asv.catalog.benchmarks import TORCHES
from fa4_asv.catalog.flavours import INSTALLED
from fa4_asv.catalog.kernels import ARCHES, CASES
from fa4_asv.compare.prediction import (
    CARD,
    LARGE,
    Predictions,
    can_predict,
    predictions_from,
)
from fa4_asv.compare.wording import predicted_line
from fa4_asv.record.formatting import counted
from fa4_asv.record.turns import YARDSTICKS
from fa4_asv.report import wording
from fa4_asv.report.cards import CardReport, Cards
from fa4_asv.report.model import RELEASES, Model, Point, Series
from fa4_asv.report.multiples import kernel_page, short
from fa4_asv.report.parts import Cell
from fa4_asv.report.predicted import samples_of
from fa4_asv.report.route_table import Pair, pair_of
from fa4_asv.report.run_time_cells import NAMES, page_of
from fa4_asv.report.standing import Standing
from fa4_asv.report.swept import DIRECTIONS, Swept, beside, first_of, speed

CARDS = {"sm_90": "H100, H200 (Hopper)", "sm_100": "B200 (Blackwell)"}
# A release spills more where its kernels together spill twice as much and this much more.
_TIMES_MORE, _MORE = 2.0, 64
_EXTRA = {"cu13": "[cu13]", "cu12": ""}
_TORCH = {"cu13": "torch on CUDA 13", "cu12": "torch on CUDA 12"}
_HOT = ("loops", "spills_inside", "spilled accesses inside loops")
_STACK = ("codegen", "spill_bytes", "spilled bytes per thread")


@dataclass(frozen=True)
class Advice:
    """One kind of card: what to install, facts with a name each, what to avoid; each a list of cells in a row."""

    cards: str
    arch: str
    release: Cell
    command: str
    facts: Sequence[tuple[str, Sequence[Cell]]]
    avoid: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class _Choice:
    """A release under one flavour, for one architecture."""

    series: Series
    point: Point
    arch: str


def advice(model: Model, swept: Sequence[Swept], cards: Cards, found: Sequence[Standing]) -> list[Advice]:
    """One per architecture that has a release to recommend."""
    chosen = [(arch, _choose(model, cards, arch)) for arch in ARCHES]
    return [_advice(model, swept, cards, found, choice) for _, choice in chosen if choice]


# The choice


def _choose(model: Model, cards: Cards, arch: str) -> _Choice | None:
    """The newest release that nothing speaks against and that spills not much more than an older such release under the
    same flavour; of its flavours the one that spills least, then cu13."""
    choices = [
        _Choice(series, point, arch)
        for series in model.exact()
        if series.key.flavour in INSTALLED
        for point in series.measured
        if _kernels(point, arch) and not _against(cards, _Choice(series, point, arch))
    ]
    # From the newest on, so that a long history is not compared with itself.
    for label in reversed(model.versions):
        same = [
            each
            for each in choices
            if each.point.label == label
            and not any(_spills_more(each, older) for older in choices if _is_older(model, older, each))
        ]
        if same:
            return _least(same)
    return None


def _least(same: Sequence[_Choice]) -> _Choice:
    """Of one release's flavours the one that spills least, then cu13."""
    shared = set.intersection(*(_kernels(each.point, each.arch) for each in same))
    kind = _kind([each.point for each in same], shared)
    return min(same, key=lambda each: (_sum(each.point, shared, kind), -_rank(each)))


def _is_older(model: Model, older: _Choice, than: _Choice) -> bool:
    """Of one flavour."""
    order = model.versions
    same = older.series.key == than.series.key
    return same and order.index(older.point.label) < order.index(than.point.label)


def _rank(choice: _Choice) -> int:
    return INSTALLED.index(choice.series.key.flavour)


def _kernels(point: Point, arch: str) -> set[str]:
    """The main kernels that compile."""
    return {
        case
        for case, record in point.cases("codegen").items()
        if record.state == "measured" and case.startswith(f"{arch}/") and _is_main(case)
    }


def _is_main(case: str) -> bool:
    named = CASES.get(case.partition("/")[2])
    return named is not None and named.role == "main"


def _against(cards: Cards, choice: _Choice) -> list[str]:
    """Why nobody should install it, in short; empty where nothing speaks against it."""
    point, release = choice.point, choice.point.release
    reasons = [f"yanked: {release.yanked}"] if release and release.yanked else []
    broken = [
        case
        for case, record in point.cases("codegen").items()
        if record.state == "broken" and case.startswith(f"{choice.arch}/")
    ]
    if broken:
        reasons.append(f"{counted(len(broken), 'broken kernel')}")
    reasons += [report.short for report in cards.against(point.commit) if _is_of(report, choice)]
    return reasons


def _is_of(report: CardReport, choice: _Choice) -> bool:
    return report.arch in ("", choice.arch) and report.key.flavour == choice.series.key.flavour


def _kind(points: Sequence[Point], kernels: Iterable[str]) -> tuple[str, str, str]:
    """What stands for spills: in hot loops where every point has that of all of these kernels, else the stack frame."""
    group, metric, _ = _HOT
    known = all(point.figure(group, case, metric) is not None for point in points for case in kernels)
    return _HOT if known else _STACK


def _sum(point: Point, kernels: Iterable[str], kind: tuple[str, str, str]) -> int:
    return sum(point.figure(kind[0], case, kind[1]) or 0 for case in kernels)


# What is said of it


def _advice(
    model: Model, swept: Sequence[Swept], cards: Cards, found: Sequence[Standing], choice: _Choice
) -> Advice:
    point, flavour = choice.point, choice.series.key.flavour
    compiler = point.record.sidecar.toolchain.packages.get(wording.COMPILER, "")
    command = f"pip install 'flash-attn-4{_EXTRA.get(flavour, '')}=={point.label}'"
    command += f" '{wording.COMPILER}{_EXTRA.get(flavour, '')}=={compiler}'" if compiler else ""
    facts = [
        ("with", [Cell(f"{_TORCH.get(flavour, flavour)}, compiler {compiler or 'not recorded'}")]),
        ("spills", [_spills(choice)]),
        ("speed", _speed(swept, choice)),
        ("PyTorch", [_torches(choice)]),
        ("known problems", _problems(model, cards, found, choice)),
    ]
    return Advice(
        CARDS.get(choice.arch, choice.arch),
        choice.arch,
        Cell(short(point.label), f"releases/{point.label}.html"),
        command,
        [(name, cells) for name, cells in facts if cells],
        [*_compilers_to_avoid(model, choice), *_releases_to_avoid(cards, choice)],
    )


def _spills(choice: _Choice) -> Cell:
    kernels = sorted(_kernels(choice.point, choice.arch))
    kind = _kind([choice.point], kernels)
    total = _sum(choice.point, kernels, kind)
    text = f"{total:,} {kind[2]} in {counted(len(kernels), 'main kernel')} together"
    if not total:
        return Cell(text)
    worst = max(kernels, key=lambda case: _sum(choice.point, [case], kind)).partition("/")[2]
    return Cell(f"{text}; most in {worst}", kernel_page(choice.arch, worst))


def _speed(swept: Sequence[Swept], choice: _Choice) -> list[Cell]:
    """Of the cards of the architecture that timed the release, from the series that the first page shows."""
    timed = [
        each
        for each in swept
        if each.arch == choice.arch
        and each.key.history == RELEASES
        and each.key.flavour == choice.series.key.flavour
        and any(point.commit == choice.point.commit for point in each.points)
    ]
    each = first_of(swept, timed)
    if each is None:
        return _untimed(swept, choice)
    point = next(point for point in each.points if point.commit == choice.point.commit)
    page = page_of(each.key.machine)
    cells = [Cell(f"measured on {each.key.machine}: {_against_before(each, point)}", page)]
    return cells + [Cell(text) for text in _against_yardsticks(each, point)]


def _untimed(swept: Sequence[Swept], choice: _Choice) -> list[Cell]:
    """Which of the architecture's cards timed which release last, and what the model says since; none where there is no
    such card."""
    last = [each for each in swept if each.arch == choice.arch and each.key.history == RELEASES]
    if not last:
        return [Cell("not timed here: no card of this kind is in the record")]
    newest = max(last, key=lambda each: (each.newest.date, each.key.machine))
    told = f"not timed yet: {newest.key.machine} timed {short(newest.newest.label)} last"
    return [Cell(told, page_of(newest.key.machine)), *_predicted(last, choice)]


def _predicted(swept: Sequence[Swept], choice: _Choice) -> list[Cell]:
    """Against the last release that the model's card timed; nothing where the model is silent on all calls."""
    compiled = {point.commit: point.record.sidecar.groups for point in choice.series.points}
    for each in swept:
        if (each.key.machine, each.key.flavour) != (CARD, choice.series.key.flavour):
            continue
        before, head = each.newest, choice.point.record.sidecar.groups
        base = compiled.get(before.commit, {})
        if can_predict(each.key.flavour, base, head):
            samples = samples_of(each, choice.series.points)
            return _told(predictions_from(samples, base, head, {}), before)
    return []


def _told(found: Predictions, before: Point) -> list[Cell]:
    """In a sentence: how many calls move, and the furthest."""
    known = [one for one in found.calls if one.change is not None and one.error is not None]
    if not known and not found.same:
        return []
    large = [one for one in known if abs(one.change or 0.0) >= LARGE]
    most = f" (most: {' '.join(predicted_line(large[0])[:2])})" if large else ""
    told = f"predicted against {short(before.label)} from machine code, no clock: "
    told += f"{counted(len(large), 'call')} {'changes' if len(large) == 1 else 'change'} by {LARGE:.0%} or more{most}, "
    told += f"{len(known) - len(large) + found.same} by less"
    silent = len(found.calls) - len(known)
    return [Cell(told + (f"; silent on {silent}" if silent else ""))]


def _against_before(swept: Swept, point: Point) -> str:
    step = swept.step_to(point.commit)
    if step is None:
        return "the first release timed"
    told = step.told()
    if not told:
        return f"no call changed against {short(step.before.label)} ({counted(len(step.rows), 'call')})"
    parts = [
        f"{verdict} in {len(rows)}" + (f" (most: {speed(rows[0][1])})" if speed(rows[0][1]) else "")
        for verdict, group in groupby(
            sorted(told, key=lambda each: each[1].verdict), key=lambda e: e[1].verdict
        )
        if (rows := list(group))
    ]
    return f"{', '.join(parts)} of {counted(len(step.rows), 'call')} against {short(step.before.label)}"


def _against_yardsticks(swept: Swept, point: Point) -> list[str]:
    told = []
    for direction in DIRECTIONS:
        parts = []
        for name in YARDSTICKS:
            ratios = [ratio for call in swept.of(direction) if (ratio := beside(point, call, name))]
            if ratios:
                parts.append(f"{math.exp(fmean(map(math.log, ratios))):.2f} × {NAMES[name]}")
        if parts:
            told.append(f"{direction} {', '.join(parts)}")
    return told


def _routes(choice: _Choice) -> list[Pair]:
    cases = choice.point.cases("route")
    pairs = (
        pair_of(choice.point.label, choice.series.key.flavour, cases, torch, choice.arch) for torch in TORCHES
    )
    return [pair for pair in pairs if pair]


def _torches(choice: _Choice) -> Cell:
    """Which torch drives it through SDPA."""
    pairs = _routes(choice)
    if not pairs:
        return Cell("through scaled_dot_product_attention: not recorded", "route.html")
    yes = [pair.torch for pair in pairs if pair.drives == "yes"]
    other = [f"{pair.torch}: {pair.verdict}" for pair in pairs if pair.drives != "yes"]
    told = (
        [f"torch {', '.join(yes)} drives it through SDPA"]
        if yes
        else ["no recorded torch drives it through SDPA"]
    )
    return Cell("; ".join([*told, *([f"not {', '.join(other)}"] if other else [])]), "route.html")


def _problems(model: Model, cards: Cards, found: Sequence[Standing], choice: _Choice) -> list[Cell]:
    """Known threads that stand in this release, calls that no release passes on a card, and how many figures are worse than
    they once were."""
    key, order = choice.series.key, model.versions
    standing = [
        thread
        for thread in model.threads
        if thread.stands(key.flavour, choice.point.label, order)
        and (thread.arch == choice.arch or any(choice.arch in case.split("/") for case in thread.cases))
    ]
    threads = [Cell(f"{thread.line} ({thread.thread})", thread.url) for thread in standing]
    reported = {(thread.group, case) for thread in standing for case in thread.cases}
    for report in filter(lambda each: _is_of(each, choice), cards.broken_everywhere(choice.point.commit)):
        if not report.broken.keys() <= reported:
            threads.append(Cell(f"{report.short}, in every release that a card was asked", "support.html"))
    own = [each for each in found if (each.where, each.series) == (choice.arch, key.flavour)]
    worse = [each for each in own if not each.what.startswith("local")]
    if worse:
        text = f"{counted(len(worse), 'figure')} worse than at {'its' if len(worse) == 1 else 'their'} best"
        threads.append(Cell(text, "standing.html"))
    return threads


# What to avoid


@dataclass(frozen=True)
class _Spill:
    """That another release or compiler spills much more than the recommended: how much in all, and most in `worst`."""

    worst: str
    theirs: int
    own: int
    what: str


def _releases_to_avoid(cards: Cards, choice: _Choice) -> list[tuple[str, Cell]]:
    """Releases under the same flavour, neighbours with one reason together, the newest first."""
    others = [
        _Choice(choice.series, point, choice.arch)
        for point in reversed(choice.series.measured)
        if point.commit != choice.point.commit and _kernels(point, choice.arch)
    ]
    found = [(each, _against(cards, each), _spills_more(each, choice)) for each in others]
    told = []
    for _, group in groupby(found, key=_alike):
        span = list(group)[::-1]
        points, (_, reasons, spill) = [each.point for each, _, _ in span], span[-1]
        if spill and not reasons:
            reasons = [_spill_words(max((s for _, _, s in span if s), key=lambda s: s.theirs), choice)]
        if reasons:
            name = wording.span([short(point.label) for point in points])
            told.append((name, Cell("; ".join(reasons), f"releases/{points[-1].label}.html")))
    return told


def _alike(found: tuple[_Choice, list[str], _Spill | None]) -> tuple[str, ...]:
    _, reasons, spill = found
    return tuple(reasons) or ((spill.what, spill.worst) if spill else ())


def _spill_words(spill: _Spill, choice: _Choice) -> str:
    return (
        f"up to {spill.theirs:,} {spill.what} ({spill.own:,} in {short(choice.point.label)}), "
        f"most in {spill.worst.partition('/')[2]}"
    )


def _spills_more(other: _Choice, choice: _Choice) -> _Spill | None:
    """Over the kernels that both have; None where it does not spill much more."""
    shared = sorted(_kernels(other.point, other.arch) & _kernels(choice.point, choice.arch))
    if not shared:
        return None
    kind = _kind([other.point, choice.point], shared)
    theirs, own = (_sum(each.point, shared, kind) for each in (other, choice))
    if theirs < max(_TIMES_MORE * own, own + _MORE):
        return None
    worst = max(shared, key=lambda case: _sum(other.point, [case], kind) - _sum(choice.point, [case], kind))
    return _Spill(worst, theirs, own, kind[2])


def _compilers_to_avoid(model: Model, choice: _Choice) -> list[tuple[str, Cell]]:
    """The same release under other compilers, and compilers that a known thread names."""
    found: dict[str, list[tuple[str, str]]] = {}  # what is alike: the versions, each with its reason
    usual = (NOGPU, RELEASES, choice.series.key.flavour)
    for series in model.series:
        key, point = series.key, series.at(choice.point.label)
        if (key.machine, key.history, key.flavour) == usual and key.policy != "day" and point:
            alike, why = _compiler_reason(_Choice(series, point, choice.arch), choice)
            version = point.record.sidecar.toolchain.packages.get(wording.COMPILER, key.policy)
            if why:
                found.setdefault(alike, []).append((version, why))
    page = f"releases/{choice.point.label}.html"
    told = [
        (f"{wording.COMPILER} {', '.join(version for version, _ in pairs)}", Cell(pairs[-1][1], page))
        for pairs in found.values()
    ]
    told += [
        (
            f"{wording.COMPILER} {', '.join(thread.compilers)}",
            Cell(f"{thread.line} ({thread.thread})", thread.url),
        )
        for thread in model.threads
        if thread.compilers and any(choice.arch in case.split("/") for case in thread.cases)
    ]
    return told


def _compiler_reason(other: _Choice, choice: _Choice) -> tuple[str, str]:
    """What reasons are grouped by, and the reason; "" where nothing speaks against the compiler."""
    broken = [
        record.why
        for case, record in other.point.cases("codegen").items()
        if record.state == "broken" and case.startswith(f"{choice.arch}/")
    ]
    if broken and "ModuleNotFoundError" in broken[0]:
        why = f"FA4 does not import: {broken[0].rpartition(': ')[2]}"
        return why, why
    if broken:
        return "broken", f"{counted(len(broken), 'broken kernel')}: {broken[0]}"
    spill = _spills_more(other, choice)
    return (spill.worst, _spill_words(spill, choice)) if spill else ("", "")
