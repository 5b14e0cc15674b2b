"""What a timed case says of its rounds, against its samples and against other cases of the same sweep.

Two protocols stand in the record. A sweep says how many samples each round `kept`. The older one does not: asv pools the rounds,
so the samples are cut where each round's own figures come out.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from fa4_asv.record.modes import FEWEST, two_modes
from fa4_asv.record.schema import CaseRecord, Sidecar
from fa4_asv.record.turns import BESIDE, NEEDED, PER_TURN, WHOLE, is_of_a_sweep, origin_of

Samples = Mapping[str, Sequence[float]]

_PARTS = "kernel "  # how the profiler's samples of a backward are named: "kernel main"
# The profiler's seconds of all kernels over those of the whole call: 0.96 to 1.14 in 523 recorded backwards.
_LEAST, _MOST = 2 / 3, 3 / 2
_LARGEST = 1e18  # of any second, byte or count; what is larger overflows
_CONTROL = 2.0  # how many times slower or faster than usual; 1.15 in 6,800 recorded rounds
_POSITIVE = ("control", "first_seconds", "peak_bytes", *BESIDE)
_BLOCK = 512  # bytes; torch's allocator gives whole blocks
_NEAR = 0.1  # of a peak; traced and on two cards differ by up to 0.002 in 436 recorded calls
_STEPS = 200_000  # how many samples the search for the rounds of one case looks at; recorded cases take up to 2,500


def usual_control(groups: Mapping[str, Mapping[str, CaseRecord]]) -> float:
    """The median of all control kernels of a sidecar, which are one and the same kernel; 0.0 where there is none."""
    controls = [
        value
        for cases in groups.values()
        for record in cases.values()
        for value in record.samples.get("control", ())
        if 0 < value < _LARGEST
    ]
    return median(controls) if controls else 0.0


def wrong_rounds(record: CaseRecord, usual: float = 0.0) -> str:
    """What is wrong with the samples that a timed case keeps beside its seconds, "" for nothing and for other cases.

    `usual` is the sidecar's usual control (0: unknown).
    """
    samples = record.samples
    if "centre" not in samples and "process" not in samples:
        return ""
    of_a_sweep = is_of_a_sweep(record)
    return (
        _lengths(samples, of_a_sweep)
        or _values(samples)
        or (_sweep(samples) if of_a_sweep else _pooled(samples))
        or _parts(samples)
        or _control(samples, usual)
    )


def _lengths(samples: Samples, of_a_sweep: bool) -> str:
    """Whether every list is there and has one value per round."""
    needed = (*NEEDED, "kept", "order", "seconds") if of_a_sweep else ("centre", "two modes", "seconds")
    missing = [name for name in needed if name not in samples]
    if missing:
        return f"the sidecar says rounds, but has no samples {missing[0]!r}"
    lengths = {name: len(samples[name]) for name in PER_TURN if name in samples}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        return f"the sidecar's samples are of different numbers of rounds: {told}"
    return ""


def _values(samples: Samples) -> str:
    """Whether what counts is whole, and what takes time or memory positive."""
    for name, values in samples.items():
        for value in values:
            if abs(value) > _LARGEST:
                return f"the sidecar has {name} {value:.3g}, expected less than {_LARGEST:.0g}"
            if name in WHOLE and (value != int(value) or value < 0):
                return f"the sidecar has {name} {value}, expected a whole number"
            if name == "two modes" and value not in (0, 1):
                return f"the sidecar has two modes {value}, expected 0 or 1"
            if (name in _POSITIVE or name.startswith(_PARTS)) and value <= 0:
                return f"the sidecar has {name} {value}, expected more than 0"
    return ""


def _sweep(samples: Samples) -> str:
    """Each round's centre and modes against the samples that it kept, and the rounds' numbers against their order."""
    counts, seconds = [int(value) for value in samples["kept"]], samples["seconds"]
    if sum(counts) != len(seconds):
        return f"the sidecar has {len(seconds)} samples, its rounds kept {sum(counts)}"
    begin = 0
    for number, (count, centre) in enumerate(zip(counts, samples["centre"], strict=True)):
        own, begin = seconds[begin : begin + count], begin + count
        if not own or not math.isclose(median(own), centre):
            expected = f"{median(own):.6g}" if own else "none"
            return f"the sidecar has centre {centre} of its round {number + 1}, the samples {expected}"
        if samples["two modes"][number] and len(own) < 2 * FEWEST:
            return f"the sidecar has two modes in round {number + 1}, of {len(own)} samples"
    return _sequence(samples)


def _sequence(samples: Samples) -> str:
    """Rounds are numbered upwards, and a process that was replaced does not come back."""
    pairs = list(zip(samples["round"], samples["process"], strict=True))
    for before, after in zip(pairs, pairs[1:], strict=False):
        if after[0] <= before[0] or after[1] < before[1]:
            return (
                f"the sidecar has round {after[0]:g} by process {after[1]:g} after round {before[0]:g} "
                f"by process {before[1]:g}"
            )
    return ""


def _pooled(samples: Samples) -> str:
    """Whether the pooled samples can be cut into as many rounds, each with its own centre and modes.

    `reached`: how many samples the rounds so far may have taken. Seldom more than one number.
    """
    seconds, steps = samples["seconds"], 0
    rounds = list(zip(samples["centre"], samples["two modes"], strict=True))
    reached = {0}
    for number, (centre, modes) in enumerate(rounds):
        ends: set[int] = set()
        for begin in reached:
            steps += len(seconds) - begin
            if steps > _STEPS:
                return _within(samples)
            last = number + 1 == len(rounds)
            ends.update(end for end in _ends(seconds, begin, centre, last) if _has(seconds[begin:end], modes))
        if not ends:
            return f"the sidecar has centre {centre} of its round {number + 1}, which no run of its samples gives"
        reached = ends
    return ""


def _ends(seconds: Sequence[float], begin: int, centre: float, last: bool) -> Iterator[int]:
    """Where a round may end that begins at `begin` and whose median is `centre`; the last takes all that is left."""
    if last:
        if seconds[begin:] and math.isclose(median(seconds[begin:]), centre):
            yield len(seconds)
        return
    ordered: list[float] = []
    for end in range(begin + 1, len(seconds)):
        insort(ordered, seconds[end - 1])
        half = len(ordered) // 2
        middle = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
        if math.isclose(middle, centre):
            yield end


def _has(seconds: Sequence[float], modes: float) -> bool:
    return bool(two_modes(seconds)) is bool(modes)


def _within(samples: Samples) -> str:
    """What can be said of very many samples: a median is none of the outside."""
    least, most = min(samples["seconds"]), max(samples["seconds"])
    outside = [centre for centre in samples["centre"] if not least <= centre <= most]
    return f"the sidecar has centre {outside[0]}, its samples {least} to {most}" if outside else ""


def _parts(samples: Samples) -> str:
    """The kernels of a backward against the whole call: another clock, so only roughly."""
    whole = sum(sum(values) for name, values in samples.items() if name.startswith(_PARTS))
    centre = median(samples["centre"])
    if whole and not _LEAST * centre <= whole <= _MOST * centre:
        return f"the sidecar's kernels take {whole:.4g} s, the whole call {centre:.4g}"
    return ""


def _control(samples: Samples, usual: float) -> str:
    """The control kernel is the same everywhere on a card: half or twice its usual time is none that it took."""
    for value in samples.get("control", ()) if usual else ():
        if not 1 / _CONTROL <= value / usual <= _CONTROL:
            return f"the sidecar has control {value}, its others take {usual:.4g}"
    return ""


Place = tuple[Path, str]  # a sidecar and one of its cases
Round = tuple[str, str, str, float]  # machine, sweep, card, number


@dataclass
class Sweeps:
    """What the cases of a sweep share: a yardstick's seconds of one call and round, and who came when in a round."""

    beside: dict[tuple[Round, str, str], dict[float, list[Place]]] = field(default_factory=dict)
    places: dict[Round, dict[Path, dict[float, list[Place]]]] = field(default_factory=dict)

    def add(self, path: Path, sidecar: Sidecar) -> None:
        for group, cases in sidecar.groups.items():
            for case, record in cases.items():
                if is_of_a_sweep(record) and not wrong_rounds(record):
                    self._add((path, f"{group} {case}"), path, record)

    def _add(self, place: Place, path: Path, record: CaseRecord) -> None:
        origin, samples = origin_of(record), record.samples
        for at, number in enumerate(samples["round"]):
            key = (path.parent.name, origin.sweep, origin.card, number)
            came = self.places.setdefault(key, {}).setdefault(path, {})
            came.setdefault(samples["order"][at], []).append(place)
            for name in BESIDE:
                if name in samples:
                    values = self.beside.setdefault((key, name, place[1]), {})
                    values.setdefault(samples[name][at], []).append(place)

    def wrong(self) -> Iterator[tuple[Path, str]]:
        """The files that say something else than most do of the same thing; where none is in most, all of them."""
        for (key, name, _), values in self.beside.items():
            for (path, case), value in _fewer(values):
                yield (
                    path,
                    f"{case}: {name} took {value} s in round {key[3]:g}, other commits of the sweep say otherwise",
                )
        for key, files in self.places.items():
            for orders in files.values():
                for (path, case), value in _fewer(orders):
                    yield (
                        path,
                        f"{case}: its turn in round {key[3]:g} is {value:g}, other calls of the commit say otherwise",
                    )
            yield from _same_turn(key, files)


def _fewer(values: Mapping[float, Sequence[Place]]) -> Iterator[tuple[Place, float]]:
    """Who says something else than most do."""
    if len(values) > 1:
        sizes = Counter(len(places) for places in values.values())
        largest = max(sizes)
        for value, places in values.items():
            if len(places) < largest or sizes[largest] > 1:
                yield from ((place, value) for place in places)


def _same_turn(
    key: Round, files: Mapping[Path, Mapping[float, Sequence[Place]]]
) -> Iterator[tuple[Path, str]]:
    """Commits that most of whose calls have the same turn."""
    by_turn: dict[float, list[Path]] = {}
    for path, orders in files.items():
        by_turn.setdefault(max(orders, key=lambda value: len(orders[value])), []).append(path)
    for value, paths in by_turn.items():
        if len(paths) > 1:
            yield from (
                (path, f"has turn {value:g} in round {key[3]:g} of a sweep, and so has another commit")
                for path in paths
            )


@dataclass
class Peaks:
    """Peak memory of one call under one toolchain, wherever it is recorded: traced, and on each card."""

    by_call: dict[tuple[str, str, str], list[tuple[Place, float, bool]]] = field(default_factory=dict)

    def add(self, path: Path, sidecar: Sidecar) -> None:
        if sidecar.toolchain.policy != "day":
            return
        for group, cases in sidecar.groups.items():
            for case, record in cases.items():
                peak = record.figures.get("peak_bytes") or max(record.samples.get("peak_bytes", [0]))
                if record.state == "measured" and 0 < peak < _LARGEST and (call := _called(group, case)):
                    key = (sidecar.commit, sidecar.toolchain.flavour, call)
                    entry = ((path, f"{group} {case}"), peak, "centre" in record.samples)
                    self.by_call.setdefault(key, []).append(entry)

    def wrong(self) -> Iterator[tuple[Path, str]]:
        """Peaks of a sweep that are near none of the others, or no whole number of the allocator's blocks."""
        for entries in self.by_call.values():
            for at, ((path, case), peak, swept) in enumerate(entries):
                others = [value for number, (_, value, _) in enumerate(entries) if number != at]
                if swept and peak % _BLOCK:
                    yield path, f"{case}: peak_bytes is {peak:.0f}, expected a multiple of {_BLOCK}"
                elif swept and others and not any(abs(peak - value) <= _NEAR * value for value in others):
                    yield (
                        path,
                        f"{case}: peak_bytes is {peak:.0f}, elsewhere {others[0]:.0f}; the same call, the same toolchain",
                    )


def _called(group: str, case: str) -> str:
    """The call of a case without architecture or backend: "bwd_b4_s8192_h16_d128_full"; "" for another kind."""
    if group in ("memory", "allocated"):
        return case.partition("/")[2]
    direction = {"forward": "fwd", "backward": "bwd"}.get(group.partition("-")[0], "")
    return f"{direction}_{case.removeprefix('fa4/')}" if direction and case.startswith("fa4/") else ""
