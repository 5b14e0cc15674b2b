"""What the rule sees: one commit timed once more with work put in by hand, held against itself.

A rule that raises no false alarm may be blind. The commit with added work takes its turns as one more subject among all
others; it stands in a journal of its own and is never recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from fa4_asv.backfill.sweep.engine import Call, Station, Subject
from fa4_asv.compare.along import Pool, between, pool_of, visible
from fa4_asv.measure.runtime import journal
from fa4_asv.record.turns import Turn, turns_of


def file_of(share: float) -> str:
    """The journal of the commit with `share` of work added: rounds of another share are not mixed in."""
    return f"added-work-{share:g}.jsonl"


@dataclass(frozen=True)
class Sight:
    """One call: seconds without the added work, its share as it was measured, the verdict, and what would be seen."""

    call: str
    seconds: float
    added: float
    verdict: str
    visible: float


def with_added_work(subject: Subject, share: float) -> Subject:
    """The same commit as another subject, `share` of each call's time longer."""
    name = f"{subject.name} with {share:.1%} more work"
    return replace(subject, name=name, file=file_of(share), added=share)


def also(station: Station, share: float) -> Station:
    """The station with the subject of the added work in every call of FA4 that is timed there."""
    file = file_of(share)
    return replace(station, wanted={call: files | {file} for call, files in station.wanted.items()})


def sights(
    stations: Sequence[Station], subjects: Sequence[Subject], base: Subject, share: float
) -> list[Sight]:
    """What the rule says of each call that both have finished, the spread pooled over all `subjects`."""
    return [
        sight
        for station in stations
        for call in station.wanted
        for sight in _sight(station, call, subjects, base, file_of(share))
    ]


def _sight(
    station: Station, call: Call, subjects: Sequence[Subject], base: Subject, file: str
) -> Iterator[Sight]:
    turns = {subject.file: _turns(station, subject.file, call) for subject in subjects}
    slower = _turns(station, file, call)
    pool = pool_of({file: found_turns for file, found_turns in turns.items() if found_turns})
    plain = turns.get(base.file, [])
    if plain and slower and pool.freedom:
        yield Sight(
            call.key,
            fmean(turn.seconds for turn in plain),
            _measured(pool, plain, slower),
            between(pool, plain, slower).name,
            visible(pool),
        )


def _measured(pool: Pool, plain: Sequence[Turn], slower: Sequence[Turn]) -> float:
    """How much longer the rounds with added work were, effects of rounds removed."""
    sides = [
        fmean(
            math.log(turn.seconds) - pool.effects[turn.round] for turn in side if turn.round in pool.effects
        )
        for side in (plain, slower)
    ]
    return math.expm1(sides[1] - sides[0])


def _turns(station: Station, file: str, call: Call) -> list[Turn]:
    record = journal.record_of(journal.read(station.folder / file), call.key)
    return turns_of(record) if record and record.state == "measured" else []
