"""How long a backfill will take, by what asv recorded of earlier runs."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.backfill.tasks import BackfillRequest, Task
from fa4_asv.catalog.benchmarks import GROUPS, Group, group_of
from fa4_asv.record.store import Result, sound_pairs

_CACHED = 3.0  # seconds: what collects faster took its figures from the disk


@dataclass(frozen=True)
class Estimate:
    """Seconds of what could be counted, None where nothing could; `unknown` are the groups left out."""

    seconds: float | None
    unknown: tuple[str, ...]

    def describe(self, machine: str) -> str:
        """The end of a sentence about what is to be measured on `machine`."""
        about = "" if self.seconds is None else f", about {minutes(self.seconds)} by what was recorded so far"
        lacking = ", ".join(self.unknown)
        return about + (f"; not counted, as {machine} has no record of them: {lacking}" if lacking else "")


def estimate(results: Path, tasks: Sequence[Task], request: BackfillRequest) -> Estimate:
    """What `tasks` will take: per group the median of what is recorded below `results` for the machine."""
    spent: dict[str, list[float]] = {}
    for pair in sound_pairs(results, request.machine):
        for name, seconds in _recorded(pair.result):
            spent.setdefault(name, []).append(seconds)
    wanted = [group for task in tasks for group in task.groups]
    counted = [statistics.median(spent[_key(GROUPS[name])]) for name in wanted if _key(GROUPS[name]) in spent]
    unknown = dict.fromkeys(name for name in wanted if _key(GROUPS[name]) not in spent)
    return Estimate(sum(counted) if counted else None, tuple(unknown))


def _key(group: Group) -> str:
    """Exact groups are collected before their figures are read, and asv knows that by the file's name alone."""
    return group.stem.partition(".")[0] if group.exact else group.name


def _recorded(result: Result) -> Iterator[tuple[str, float]]:
    """Seconds of collecting, cached repetitions left out, and of groups that are measured figure by figure."""
    direct: dict[str, float] = {}
    for name, seconds in result.durations.items():
        match = re.match(r"<setup_cache (\w+)[.:]", name)  # its class, or in older files its line
        if match and seconds > _CACHED:
            yield match[1], seconds
        found_group = group_of(name)
        if found_group and not found_group[0].exact and seconds:
            key = _key(found_group[0])
            direct[key] = direct.get(key, 0.0) + seconds
    yield from direct.items()


def minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
