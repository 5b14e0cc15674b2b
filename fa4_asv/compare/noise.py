"""How noisy one machine's sweeps are: false alarms, spread and smallest visible change of each call; two cards' agreement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any, TypeVar

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog.metrics import SHORT_CALL
from fa4_asv.compare.along import CONTROLLED, Call, Pool, pool_of, visible
from fa4_asv.compare.false_alarms import ALARMS, rate_interval, same_release
from fa4_asv.compare.sweeps import CallKey, calls_of, name_of, sidecars_of
from fa4_asv.compare.verdicts import NOTICED
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.schema import Sidecar

T = TypeVar("T")
Series = tuple[str, str, str, str]  # group, case, flavour, toolchain policy
AGREED = 0.95  # the share of ratios of two cards for which `Agreement` states a bound


@dataclass(frozen=True)
class CallNoise:
    """One call of one sweep. `spread` and `visible` are shares, NaN where no release has two processes.

    `alarms` of `pairs` are false: the two processes of a release compared as two releases. `widest` is the release
    whose processes differ most, by the share `apart`.
    """

    key: CallKey
    seconds: float
    releases: int
    spread: float
    freedom: int
    visible: float
    alarms: int
    pairs: int
    widest: str
    apart: float


@dataclass(frozen=True)
class ClassNoise:
    """Calls of one class of length: median and 90th percentile of their spread, and false alarms of their pairs.

    `noticed` of them show a change of NOTICED in SEEN of all cases.
    """

    title: str
    calls: int
    median: float
    p90: float
    noticed: int
    alarms: int
    pairs: int


@dataclass(frozen=True)
class Agreement:
    """Ratios to the newest release common to two machines, compared with each other, of one class of calls.

    `median` and `bound` (of AGREED of them) are shares by which the two machines' ratios differ; `beyond` are the
    calls of which more than 1 - AGREED of the ratios differ by more than NOTICED.
    """

    title: str
    ratios: int
    median: float
    bound: float
    beyond: tuple[str, ...]


def noise_of(project: Project, machine: str, controlled: bool = CONTROLLED) -> list[CallNoise]:
    """Each call that a sweep timed on a machine. Raises Fa4AsvError where there is none."""
    return noise_among(_timed(project, machine), controlled)


def noise_among(sidecars: Sequence[Sidecar], controlled: bool = CONTROLLED) -> list[CallNoise]:
    """The same of some releases of a machine alone."""
    titles = {name_of(sidecar): title_of(sidecar) for sidecar in sidecars}
    calls = sorted(calls_of(sidecars).items(), key=lambda entry: _order(entry[0]))
    return [_call_noise(key, call, pool_of(call, controlled), titles) for key, call in calls]


def _order(key: CallKey) -> tuple[str, str, str, str]:
    return key.group, key.case, key.origin.sweep, key.origin.card


def _timed(project: Project, machine: str) -> list[Sidecar]:
    if not (project.results / machine).is_dir():
        known = sorted(path.name for path in project.results.glob("*") if path.is_dir())
        raise Fa4AsvError(f"machine {machine!r} has no record; results/ holds {', '.join(known) or 'none'}")
    sidecars = sidecars_of(project.results, machine)
    if not calls_of(sidecars):
        raise Fa4AsvError(f"no sweep is recorded of machine {machine!r}: see `fa4-asv sweep --help`")
    return sidecars


def title_of(sidecar: Sidecar) -> str:
    """A release as people name it: "4.0.0b36 cu13"."""
    return f"{sidecar.release or sidecar.commit[:10]} {sidecar.toolchain.flavour}"


def _call_noise(key: CallKey, call: Call, pool: Pool, titles: Mapping[str, str]) -> CallNoise:
    verdicts = same_release(pool)
    apart = {name: max(levels) - min(levels) for name, levels in pool.levels.items()}
    widest = max(apart, key=lambda name: apart[name])
    return CallNoise(
        key,
        median(turn.seconds for turns in call.values() for turn in turns),
        len(pool.levels),
        pool.spread,
        pool.freedom,
        visible(pool),
        sum(verdict.name in ALARMS for verdict in verdicts.values()),
        len(verdicts),
        titles[widest],
        math.expm1(apart[widest]),
    )


def classes_of(calls: Sequence[CallNoise]) -> list[ClassNoise]:
    """Short and long calls, where there are any with a spread."""
    return [
        ClassNoise(
            title,
            len(found_calls),
            median(call.spread for call in found_calls),
            percentile([call.spread for call in found_calls], 0.9),
            sum(call.visible <= NOTICED for call in found_calls),
            *totals(found_calls),
        )
        for title, found_calls in _by_class(
            [call for call in calls if call.freedom], lambda call: call.seconds
        )
    ]


def _by_class(items: Sequence[T], seconds_of: Callable[[T], float]) -> list[tuple[str, list[T]]]:
    limit = f"{SHORT_CALL * 1e3:g} ms"
    parts = (
        (f"below {limit}", [item for item in items if seconds_of(item) < SHORT_CALL]),
        (f"{limit} and longer", [item for item in items if seconds_of(item) >= SHORT_CALL]),
    )
    return [(title, part) for title, part in parts if part]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed."""
    return sorted(values)[max(math.ceil(share * len(values) - 1e-9) - 1, 0)]


# Two cards


@dataclass(frozen=True)
class _Ratio:
    """How far two machines differ in one release's ratio to the newest: a share, 0 where they agree."""

    call: str
    seconds: float
    apart: float


def agreement_of(project: Project, machine: str, other: str) -> list[Agreement]:
    """Whether the ratios of each release to the newest one that both machines timed are the same on both."""
    order = [release.commit for release in Manifest.load(project.manifest).releases]
    agreements = agreement_among(_timed(project, machine), _timed(project, other), order)
    if not agreements:
        raise Fa4AsvError(f"sweeps of {machine!r} and {other!r} have no two releases of one call in common")
    return agreements


def agreement_among(
    mine: Sequence[Sidecar], theirs: Sequence[Sidecar], order: Sequence[str]
) -> list[Agreement]:
    """The same of some releases of two machines alone; `order` are their commits, the oldest first.

    Of each machine and call the sweep with most releases is taken; log seconds with effects of rounds removed.
    """
    ours, others = _levels(mine), _levels(theirs)
    ratios = [
        ratio
        for call in sorted(ours.keys() & others.keys())
        for ratio in _ratios(call, ours[call], others[call], order)
    ]
    return [_agreement(title, part) for title, part in _by_class(ratios, lambda ratio: ratio.seconds)]


def _agreement(title: str, ratios: Sequence[_Ratio]) -> Agreement:
    apart = [ratio.apart for ratio in ratios]
    calls: dict[str, list[float]] = {}
    for ratio in ratios:
        calls.setdefault(ratio.call, []).append(ratio.apart)
    beyond = tuple(call for call, values in calls.items() if percentile(values, AGREED) > NOTICED)
    return Agreement(title, len(apart), median(apart), percentile(apart, AGREED), beyond)


def _levels(sidecars: Sequence[Sidecar]) -> dict[Series, dict[str, float]]:
    """Log seconds of each commit, by call, flavour and toolchain policy."""
    known = {name_of(sidecar): sidecar for sidecar in sidecars}
    levels_by_series: dict[Series, dict[str, float]] = {}
    for key, call in sorted(calls_of(sidecars).items(), key=lambda entry: (len(entry[1]), _order(entry[0]))):
        levels: dict[Series, dict[str, float]] = {}
        for name, processes in pool_of(call, controlled=False).levels.items():
            used = known[name].toolchain
            series = (key.group, key.case, used.flavour, used.policy)
            levels.setdefault(series, {})[known[name].commit] = fmean(processes)
        levels_by_series |= levels  # the sweep with most releases comes last
    return levels_by_series


def _ratios(
    series: Series, mine: Mapping[str, float], theirs: Mapping[str, float], order: Sequence[str]
) -> Iterator[_Ratio]:
    common = [commit for commit in order if commit in mine and commit in theirs]
    for commit in common[:-1]:
        newest = common[-1]
        apart = (mine[commit] - mine[newest]) - (theirs[commit] - theirs[newest])
        yield _Ratio(" ".join(series[:3]), math.exp(mine[newest]), math.expm1(abs(apart)))


# JSON


def as_json(machine: str, calls: Sequence[CallNoise], agreement: Sequence[Agreement]) -> dict[str, Any]:
    """All that is printed; what is not known is null."""
    alarms, pairs = totals(calls)
    return {
        "machine": machine,
        "false_alarms": alarms,
        "pairs": pairs,
        "rate_interval": list(rate_interval(alarms, pairs)) if pairs else None,
        "classes": [asdict(each) for each in classes_of(calls)],
        "calls": [_call_json(call) for call in calls],
        "agreement": [asdict(each) for each in agreement],
    }


def _call_json(call: CallNoise) -> dict[str, Any]:
    data = asdict(call)
    key = data.pop("key")
    origin = key.pop("origin")
    known = {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in data.items()
    }
    return {**key, **origin, **known}


def totals(calls: Sequence[CallNoise]) -> tuple[int, int]:
    """False alarms, and of how many pairs."""
    return sum(call.alarms for call in calls), sum(call.pairs for call in calls)
