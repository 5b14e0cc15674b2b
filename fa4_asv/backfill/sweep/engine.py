"""Many commits timed on one card in turns: processes that live for many rounds, one of them on the card at a time.

Phases that never overlap: the guard (with it everything is compiled), the start of one process per commit, its rounds, the
same with a second process, and the profiler. Several cards of one machine share the calls among them: each call belongs to
one card. The engine knows no asv and no results: what it measures goes into journals (measure.runtime.journal).
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fa4_asv.catalog.benchmarks import GROUPS, Case, key_of
from fa4_asv.measure.pool import Job, LastingWorker, Outcome
from fa4_asv.measure.runtime import journal, kernel_cache
from fa4_asv.measure.runtime.card import Card
from fa4_asv.measure.runtime.collect import payload_of, record_of_outcome
from fa4_asv.measure.runtime.journal import Entry, Plan

# Seconds that one question may take. The guard of a backward compiles up to nine kernels beside other compiles; 15 s seen.
FIRST, LOAD, TURN = 120.0, 120.0, 60.0
_WORKER = ("-m", "fa4_asv.measure.runtime.worker")
# Shapes that one process guards at most, and from how many subjects for each core on it guards all: cores end together.
_GUARD_SHAPES, _GUARDS_A_CORE = 7, 1.5


@dataclass(frozen=True)
class Call:
    """One benchmark case: `group` is one of the table's, `case` its (backend, shape)."""

    group: str
    case: Case

    @property
    def key(self) -> str:
        return f"{self.group}/{key_of(self.case)}"

    def payload(self, what: str, **more: Any) -> dict[str, Any]:
        return payload_of(GROUPS[self.group], self.case, what) | more


@dataclass(frozen=True)
class Subject:
    """What is timed: an interpreter with its toolchain, and the folders of its sources.

    `file` is the name of its journal. `cache` is the folder of its compiled kernels: FA4's key knows no CUDA flavour, so each
    toolchain has its own. `added` is work put in by hand, as a share of each call (0 but in experiments).
    """

    name: str
    file: str
    python: str
    path: tuple[str, ...]
    cache: str
    added: float = 0.0


@dataclass(frozen=True)
class Station:
    """A card, the folder of its journals, and for each call which subjects (by file) lack it there."""

    card: Card
    folder: Path
    wanted: Mapping[Call, frozenset[str]]
    notes: Mapping[str, str] = field(default_factory=dict)  # of every record that is made here
    loaders: int = 1 << 10  # processes that may have inputs there at once
    seed: int = 0  # of the order in each round

    def calls_of(self, subject: Subject) -> list[Call]:
        return [call for call, files in self.wanted.items() if subject.file in files]


class Book:
    """The journals of one run: what was read at the start, and every line added since."""

    def __init__(self) -> None:
        self._entries: dict[Path, list[Entry]] = {}
        self._lock = threading.Lock()

    def entries(self, station: Station, subject: Subject) -> list[Entry]:
        path = station.folder / subject.file
        with self._lock:
            if path not in self._entries:
                self._entries[path] = journal.read(path)
            return self._entries[path]

    def add(self, station: Station, subject: Subject, kind: str, **values: Any) -> None:
        """One line, on disk before it counts."""
        entries = self.entries(station, subject)
        entry = {"kind": kind, **values}
        if "call" in values:
            entry["version"] = journal.version_of(values["call"])
        journal.append(station.folder / subject.file, entry)
        entries.append(entry)


class Stopped(Exception):
    """The run was told to end: what a killed process answers then is nobody's result."""


class Seat:
    """The process of a subject at a station: started when it is first asked, replaced when it is lost or poisoned."""

    def __init__(
        self, station: Station, subject: Subject, numbers: Iterator[int], stop: threading.Event
    ) -> None:
        self.station, self.subject = station, subject
        self.number = -1  # of the process that answered last
        self._numbers, self._stop = numbers, stop
        self._worker = LastingWorker()
        self._seen = 0

    def ask(self, payload: dict[str, Any], timeout: float) -> Outcome:
        """The answer; only what fails as the first question of a process is held against it. Raises Stopped."""
        job = Job("", payload, (self.subject.python, *_WORKER), self._environment(), timeout, again=True)
        self._raise_if_stopped()
        outcome = self._worker.ask(job)
        self._raise_if_stopped()
        if self._worker.started != self._seen:
            self._seen, self.number = self._worker.started, next(self._numbers)
        return outcome

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _environment(self) -> tuple[tuple[str, str], ...]:
        card = self.station.card
        visible = () if card.uuid == "cpu" else (("CUDA_VISIBLE_DEVICES", card.uuid),)
        path = ("PYTHONPATH", os.pathsep.join(self.subject.path))
        return (path, *visible, *kernel_cache.variables(self.subject.cache))

    def close(self) -> None:
        self._worker.close()

    def kill(self) -> None:
        """From another thread: whoever waits for an answer gets one at once."""
        self._worker.kill()


@contextmanager
def _timing(took: dict[str, float], phase: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    took[phase] = time.monotonic() - begin


Tell = Callable[[str, int, int], None]  # the phase, how many of its steps are done, how many there are


class Engine:
    """One run of a sweep over its stations. `run` is called once.

    With a plan of no processes it only guards.
    """

    def __init__(
        self,
        stations: Sequence[Station],
        subjects: Sequence[Subject],
        yardsticks: Sequence[Subject],
        plan: Plan,
        cores: int,
        tell: Tell,
        retry_broken: bool = False,
    ) -> None:
        self._stations, self._plan, self._cores = stations, plan, cores
        self._subjects, self._yardsticks = [*subjects, *yardsticks], {subject.file for subject in yardsticks}
        self._tell, self._retry = tell, retry_broken
        self.book = Book()
        self._stop = threading.Event()
        self._seats: list[Seat] = []
        self._numbers: dict[tuple[Path, str], Iterator[int]] = {}
        self._rounds_of: dict[Path, Iterator[int]] = {}
        # One pool for all phases: Linux ends a worker with the thread that started it, not with the process.
        self._threads = ThreadPoolExecutor(max(cores, len(stations)))

    def run(self) -> dict[str, float]:
        """Measure what is lacking; seconds of each phase. Raises Fa4AsvError, KeyboardInterrupt; what is finished stays."""
        took: dict[str, float] = {}
        try:
            self._head()
            with _timing(took, "guard and compile"):
                self._guard()
            for slot in range(self._plan.processes):
                with _timing(took, f"start {slot + 1}"):
                    seats = self._start(slot)
                with _timing(took, f"rounds {slot + 1}"):
                    self._rounds(slot, seats)
                if self._plan.profile and slot + 1 == self._plan.processes:
                    with _timing(took, "profiler"):
                        self._kernels(seats)
                for seat in seats:
                    seat.close()
        finally:
            self._end()
        return took

    def _end(self) -> None:
        self._stop.set()
        for seat in self._seats:
            seat.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _head(self) -> None:
        """Say in each journal which session, card and plan the lines below come from."""
        for station in self._stations:
            for subject in self._subjects:
                if station.calls_of(subject):
                    self.book.add(
                        station, subject, "session", words=dict(station.notes), **asdict(self._plan)
                    )

    # The guard.

    def _guard(self) -> None:
        wanted = [
            (station, subject, self._unguarded(station, subject))
            for subject in self._subjects
            for station in self._stations
        ]
        each = self._shapes_of_a_guard([len({call.case[1] for call in calls}) for _, _, calls in wanted])
        tasks = [
            (station, subject, chunk)
            for station, subject, calls in wanted
            for chunk in _by_shape(calls, each)
        ]
        steps = sum(len(chunk) for _, _, chunk in tasks)
        done = itertools.count(1)

        def guard(station: Station, subject: Subject, calls: Sequence[Call]) -> None:
            seat = self._seat(station, subject, itertools.count())
            try:
                for call in calls:
                    outcome = seat.ask(call.payload("first"), FIRST)
                    record = record_of_outcome(outcome, call.payload("first"))
                    self.book.add(
                        station, subject, "first", call=call.key, record=record.to_json(), at=time.time()
                    )
                    self._tell("guard and compile", next(done), steps)
            finally:
                seat.close()

        self._side_by_side([partial(guard, *task) for task in tasks])

    def _shapes_of_a_guard(self, shapes: Sequence[int]) -> int:
        """How many shapes one process guards, so that all cores work and few processes import for 14 s each."""
        if sum(map(bool, shapes)) >= _GUARDS_A_CORE * self._cores:
            return max(shapes)
        return max(1, min(_GUARD_SHAPES, sum(shapes) // self._cores))

    def _unguarded(self, station: Station, subject: Subject) -> list[Call]:
        entries = self.book.entries(station, subject)
        return [call for call in station.calls_of(subject) if self._is_open(entries, call)]

    def _is_open(self, entries: Sequence[Entry], call: Call) -> bool:
        if journal.verdict_of(entries, call.key) is None:
            return True
        return self._retry and journal.is_broken(entries, call.key)

    # Processes and their rounds.

    def _start(self, slot: int) -> list[Seat]:
        """A process for each subject that lacks rounds in `slot`, with every call of it loaded.

        First the yardsticks', which loads longest.
        """
        seats = [
            self._seat(station, subject)
            for station in self._stations
            for subject in sorted(self._subjects, key=lambda subject: subject.file not in self._yardsticks)
            if self._owed(station, subject, slot)
        ]
        done = itertools.count(1)
        room = {station.folder: threading.Semaphore(station.loaders) for station in self._stations}

        def load(seat: Seat) -> None:
            owed = self._owed(seat.station, seat.subject, slot)
            if owed:  # a yardstick's calls end with those that it stands beside
                seat.ask(owed[0].payload("import"), LOAD)
            with room[seat.station.folder]:
                for call in owed:
                    outcome = seat.ask(call.payload("load"), LOAD)
                    self._note_failure(seat, call, outcome, "load")
                seat.ask(_leave(seat), TURN)
            self._tell(f"start {slot + 1}", next(done), len(seats))

        self._side_by_side([partial(load, seat) for seat in seats])
        return seats

    def _owed(self, station: Station, subject: Subject, slot: int) -> list[Call]:
        """What a subject still has to be timed at; a yardstick at what anybody has to, in the same rounds."""
        entries, calls = self.book.entries(station, subject), station.calls_of(subject)
        if all(call.case[0] == "fa4" for call in calls):
            return [call for call in calls if journal.lacking(entries, call.key, self._plan, slot)]
        others = [subject for subject in self._subjects if subject.file not in self._yardsticks]
        wanted = {(c.group, c.case[1]) for subject in others for c in self._owed(station, subject, slot)}
        return [c for c in calls if (c.group, c.case[1]) in wanted and journal.may_be_timed(entries, c.key)]

    def _rounds(self, slot: int, seats: Sequence[Seat]) -> None:
        """Every station goes through its seats, round by round, in a fresh order each; stations side by side."""
        total = self._plan.rounds * len(seats)
        done = itertools.count(1)

        def at(station: Station) -> None:
            mine = [seat for seat in seats if seat.station is station]
            for _ in range(self._plan.rounds):
                number = self._next_round(station)
                order = list(mine)
                random.Random(f"{station.seed}/{station.card.digest}/{number}").shuffle(order)
                # First: a round that a kill cuts short has them for all that were timed in it.
                order.sort(key=lambda seat: seat.subject.file != journal.YARDSTICK_FILE)
                owed = [self._owed(station, seat.subject, slot) for seat in order]
                for place, seat in enumerate(order):
                    self._turn(seat, owed[place], slot, number, place)
                    self._tell(f"rounds {slot + 1}", next(done), total)

        self._side_by_side([partial(at, station) for station in self._stations])

    def _next_round(self, station: Station) -> int:
        """The number of a round that no journal of the card holds yet, those of other commits among them."""
        if station.folder not in self._rounds_of:
            journals = [journal.read(path) for path in station.folder.glob("*.jsonl")]
            known = [entry["round"] for entries in journals for entry in entries if entry["kind"] == "round"]
            self._rounds_of[station.folder] = itertools.count(max(known, default=-1) + 1)
        return next(self._rounds_of[station.folder])

    def _turn(self, seat: Seat, owed: Sequence[Call], slot: int, number: int, place: int) -> None:
        """One round of every call that the seat owes."""
        added = {"added": seat.subject.added} if seat.subject.added else {}
        for call in owed:
            outcome = seat.ask(call.payload("turn", **added), TURN)
            if self._note_failure(seat, call, outcome, "turn"):
                continue
            error = outcome.answer.get("error")
            self.book.add(
                seat.station,
                seat.subject,
                "round",
                call=call.key,
                slot=slot,
                process=seat.number,
                round=number,
                order=place,
                at=time.time(),
                seconds=[] if error else outcome.answer["samples"]["seconds"],
                control=None if error else outcome.answer["control"],
                words={} if error else outcome.answer["words"],
                why=error["words"] if error else "",
                took=outcome.answer.get("took", []),
            )
        if owed:
            seat.ask(_leave(seat), TURN)

    def _note_failure(self, seat: Seat, call: Call, outcome: Outcome, what: str) -> bool:
        """Whether the call failed; that it did is written down. A noisy round is no failure of the call."""
        error = None if outcome.lost else outcome.answer.get("error")
        if not outcome.lost and (not error or error["kind"] == "noise"):
            return False
        why = record_of_outcome(outcome, call.payload(what)).why
        self.book.add(seat.station, seat.subject, "failed", call=call.key, why=why)
        return True

    def _kernels(self, seats: Sequence[Seat]) -> None:
        """The profiler's view of each backward of FA4, once; a card at a time, as the rounds are."""
        alive = {(seat.station.folder, seat.subject.file): seat for seat in seats}
        owed = [
            # None is alive where an earlier run ended between the rounds and the profiler.
            (alive.get((station.folder, subject.file)) or self._seat(station, subject), calls)
            for station in self._stations
            for subject in self._subjects
            if (calls := self._unprofiled(station, subject))
        ]
        # Its first start takes seconds in each process and needs no card: side by side.
        self._side_by_side([partial(seat.ask, calls[0].payload("profiler"), LOAD) for seat, calls in owed])

        def at(station: Station) -> None:
            for seat, calls in owed:
                if seat.station is station:
                    self._profile(seat, calls)

        self._side_by_side([partial(at, station) for station in self._stations])

    def _unprofiled(self, station: Station, subject: Subject) -> list[Call]:
        entries = self.book.entries(station, subject)
        return [call for call in station.calls_of(subject) if journal.is_unprofiled(entries, call.key)]

    def _profile(self, seat: Seat, calls: Sequence[Call]) -> None:
        """What the profiler has nothing to say of is written down, too, and not asked again."""
        for call in calls:
            outcome = seat.ask(call.payload("kernels"), TURN)
            answered = not outcome.lost and "error" not in outcome.answer
            samples = outcome.answer["samples"] if answered else {}
            self.book.add(seat.station, seat.subject, "kernels", call=call.key, samples=samples)
        seat.ask(_leave(seat), TURN)

    # Threads.

    def _seat(self, station: Station, subject: Subject, numbers: Iterator[int] | None = None) -> Seat:
        """A seat whose processes are numbered on from those that were timed before, or by `numbers`."""
        key = (station.folder, subject.file)
        if numbers is None and key not in self._numbers:
            rounds = [e for e in self.book.entries(station, subject) if e["kind"] == "round"]
            self._numbers[key] = itertools.count(max((e["process"] for e in rounds), default=-1) + 1)
        seat = Seat(station, subject, numbers or self._numbers[key], self._stop)
        self._seats.append(seat)
        return seat

    def _side_by_side(self, steps: Sequence[Callable[[], object]]) -> None:
        """Run all steps, at most as many at once as there are cores; the first that raises ends the others."""
        futures: list[Future[object]] = [self._threads.submit(step) for step in steps]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            self._stop.set()
            for seat in self._seats:
                seat.kill()
            raise


def _leave(seat: Seat) -> dict[str, Any]:
    return {"what": "leave", "device": "cpu" if seat.station.card.uuid == "cpu" else "cuda"}


def _by_shape(calls: Sequence[Call], each: int) -> Iterator[list[Call]]:
    """Calls in pieces of `each` shapes; the directions of a shape stay together, since they share kernels."""
    shapes = list(dict.fromkeys(call.case[1] for call in calls))
    for begin in range(0, len(shapes), each):
        piece = shapes[begin : begin + each]
        yield [call for call in calls if call.case[1] in piece]
