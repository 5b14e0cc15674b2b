"""Seconds of a callable on a card or a CPU, as samples with the card's state beside them.

It knows nothing of attention, and nothing of torch until it is handed one. A *sample* is a *burst*: a few
calls in a row, each timed on its own, whose median is the sample.

The power policy is *cool-down*: a burst is short, and the machine rests as long as it was busy before the next
one. Back to back, FA4 on a B200 falls from 1425 to 1237 TFLOP/s within 80 runs, and what it falls to depends
on the room, the neighbours and the order of the cases. Rested, the card stays below its power limit, a case
does not feel the one before, and a point is done in two seconds instead of waiting for a steady state.
A training step that runs hot for hours is slower than what stands here.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any, Protocol

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.metrics import SHORT_CALL
from fa4_asv.measure.runtime.clocks import ClockReader, Reading, no_clocks
from fa4_asv.measure.runtime.sampling import Rule, Sample, Samples, collect, judge

POLICY = "cool-down"
REST = 1.0  # seconds of rest for each second of work
LONGEST_REST = 0.5
BURST = 0.010  # seconds of a burst; power controllers average over longer
CONTROL_BURST = 0.002
LONG = SHORT_CALL  # seconds; such calls bring a card to its power limit
MOST_CALLS = 64  # a burst is queued as a whole, and a CUDA stream holds about a thousand launches
WARM_UPS = 3  # bursts; the first one loads modules and grows the allocator's pool
MOST_WARM_UPS = 8  # for a timer that still learns how long a launch takes

Call = Callable[[], object]


@dataclass(frozen=True)
class Pace:
    """Seconds of a burst of the call and of its control, how many bursts warm up at least, and how long the card rests.

    `rest` and `long_rest` are seconds for each second of work, of calls below LONG and of others. Where `control_wakes`, the
    untimed call before each burst is the control's, and the card rests before the first: a long call that is called again and
    again before it is timed brings the card to its power limit.
    """

    burst: float = BURST
    control_burst: float = CONTROL_BURST
    warm_ups: int = WARM_UPS
    most_calls: int = MOST_CALLS
    rest: float = REST
    long_rest: float = REST
    control_wakes: bool = False

    def rest_of(self, burst: Burst, busy: float) -> float:
        """Seconds of rest after a burst that kept the card `busy` for so many, its control's included."""
        each = self.long_rest if median(burst.seconds) >= LONG else self.rest
        return min(each * busy, LONGEST_REST)


@dataclass(frozen=True)
class Counts:
    """How many calls fill a burst of the call and of its control: learned once, then known."""

    call: int
    control: int


@dataclass(frozen=True)
class Burst:
    """Seconds of each call, those that passed from first to last, and the card's state in between."""

    seconds: tuple[float, ...]
    busy: float
    reading: Reading = field(default_factory=Reading)
    exposed: int = 0  # calls whose launch could not be hidden


class Timer(Protocol):
    """What turns calls into seconds; tests bring a simulated one."""

    def burst(self, call: Call, calls: int, wake: Call | None = None) -> Burst:
        """Time `calls` calls in a row, one by one. `wake` (else the call itself) runs untimed before them on a card."""
        ...


@dataclass(frozen=True)
class Timing:
    """The samples of a call and of its control, and words about the machine meanwhile."""

    samples: Samples
    control: float | None  # median seconds of the control; None without one, or where it was throttled
    notes: dict[str, str]
    counts: Counts


def measure(
    call: Call,
    timer: Timer,
    control: Call | None = None,
    compiles: Callable[[], int] = lambda: 0,
    rule: Rule | None = None,
    rest: Callable[[float], object] = time.sleep,
    pace: Pace | None = None,
    beside: Timer | None = None,
    warm: Timer | None = None,
    counts: Counts | None = None,
) -> Timing:
    """Time `call`, with `control` (a fixed GEMM, say) in turns beside it.

    `warm` is the timer of warm-ups and `beside` that of the control, where they are others. `counts` are those of an earlier timing in
    this process: then nothing is left to learn. `compiles` counts the kernels compiled so far. Raises Fa4AsvError where it moves after
    the warm-up: such seconds are a compiler's. What `call` raises passes through.
    """
    pace, warm, beside = pace or Pace(), warm or timer, beside or timer
    wake = control if pace.control_wakes else None
    counts = counts or _counts(call, warm, control, beside, pace, rest)
    if pace.control_wakes:
        first = warm.burst(call, 1, wake)
        rest(pace.rest_of(first, first.busy))
    compiled = compiles()
    bursts: list[Burst] = []
    controls: list[Burst] = []

    def draw() -> Sample:
        burst = timer.burst(call, counts.call, wake)
        bursts.append(burst)
        busy = burst.busy
        if control:
            controls.append(beside.burst(control, counts.control))
            busy += controls[-1].busy
        if compiles() != compiled:
            new = compiles() - compiled
            raise Fa4AsvError(
                f"compiled {new} more times while timing: repeated calls must find their kernels"
            )
        rest(pace.rest_of(burst, busy))
        return _sample(burst)

    samples = collect(draw, rule)
    beside_samples = judge([_sample(burst) for burst in controls], rule or Rule()) if controls else None
    centre = None if beside_samples is None or beside_samples.broken else beside_samples.centre
    return Timing(samples, centre, _words(samples, beside_samples, bursts, counts.call), counts)


def _counts(
    call: Call,
    timer: Timer,
    control: Call | None,
    beside: Timer,
    pace: Pace,
    rest: Callable[[float], object],
) -> Counts:
    """How many of each fill a burst. Where the control wakes, the card rests after every burst of this, too."""
    wake = control if pace.control_wakes else None
    calm = rest if pace.control_wakes else _no_rest
    return Counts(
        _warm(call, timer, pace.burst, pace, wake, calm),
        _warm(control, beside, pace.control_burst, pace, wake, calm) if control else 0,
    )


def _no_rest(_seconds: float) -> None:
    pass


def _warm(
    call: Call,
    timer: Timer,
    aim: float,
    pace: Pace,
    wake: Call | None,
    rest: Callable[[float], object],
) -> int:
    """How many calls fill a burst of `aim` seconds, after enough of them that all is loaded."""
    count = 1
    for done in range(1, MOST_WARM_UPS + 1):
        burst = timer.burst(call, count, wake)
        rest(pace.rest_of(burst, burst.busy))
        hidden = 2 * burst.exposed <= count
        seconds = median(burst.seconds)
        count = max(1, min(pace.most_calls, round(aim / seconds))) if seconds > 0 else pace.most_calls
        if done >= pace.warm_ups and hidden:
            break
    return count


def _sample(burst: Burst) -> Sample:
    reading = burst.reading
    return Sample(median(burst.seconds), burst.busy, reading.sm_mhz, reading.throttled)


def _words(samples: Samples, control: Samples | None, bursts: list[Burst], count: int) -> dict[str, str]:
    """What a sidecar keeps beside the figure."""
    details = {"power": POLICY, "calls a sample": str(count), "rejected": str(len(samples.rejected))}
    readings = [burst.reading for burst in bursts]
    for name, unit, values in (
        ("sm clock", "MHz", [reading.sm_mhz for reading in readings]),
        ("power draw", "W", [reading.watts for reading in readings]),
        ("temperature", "C", [reading.celsius for reading in readings]),
    ):
        known = [value for value in values if value is not None]
        if known:
            details[name] = f"{min(known):.0f} to {max(known):.0f} {unit}, median {median(known):.0f}"
    capped = sum(reading.capped for reading in readings)
    if capped:
        details["power cap"] = f"reported for {capped} of {len(readings)} samples"
    if samples.rejected:
        details["rejected for"] = "; ".join(dict.fromkeys(why for _, why in samples.rejected))
    notes = [note for note in (samples.two_modes, *samples.notes) if note]
    exposed, calls = sum(burst.exposed for burst in bursts), count * len(bursts)
    if 2 * exposed > calls:
        notes.append(
            "the launch could not be hidden: the call waits for the card, host time is in the figure"
        )
    if control is not None:
        notes += [f"control: {note}" for note in (control.broken, control.two_modes, *control.notes) if note]
    if notes:
        details["notes"] = "; ".join(notes)
    return details


class CpuTimer:
    """Wall seconds of calls on the CPU: for CPU benchmarks and stand-ins."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter, read: ClockReader = no_clocks) -> None:
        self._clock, self._read = clock, read

    def burst(self, call: Call, calls: int, wake: Call | None = None) -> Burst:
        """Nothing has to wake a processor."""
        begin = self._clock()
        seconds = []
        for _ in range(calls):
            start = self._clock()
            call()
            seconds.append(self._clock() - start)
        return Burst(tuple(seconds), self._clock() - begin, self._read())


FLUSH = 2  # times the size of L2
FIRST_SPIN = 50_000  # cycles, about 25 us: what a plain launch costs the host
MOST_SPIN = 4_000_000  # cycles, about 2 ms: a call that takes longer to launch waits for the card


class CudaTimer:
    """CUDA events around each call on the current stream. `torch` is handed in, `read` tells the clocks.

    Before each call L2 is overwritten, then the card spins until the host has queued start, call and end: the
    events then bracket the card's work alone, however short. The spin is checked, not guessed: a call whose
    start had already passed when its end was queued is left out, and the spin doubles.
    """

    def __init__(self, torch: Any, read: ClockReader, device: int = 0) -> None:
        self._cuda, self._read = torch.cuda, read
        size = FLUSH * torch.cuda.get_device_properties(device).L2_cache_size
        self._flush = torch.empty(size, dtype=torch.uint8, device=f"cuda:{device}")
        self._spins = [FIRST_SPIN]  # of the call that is timed now; shared with `quiet`

    @property
    def spin(self) -> int:
        """Cycles of the spin that hid the last call's launch; to be given back before the same call is timed again."""
        return self._spins[0]

    @spin.setter
    def spin(self, cycles: int) -> None:
        self._spins[0] = cycles

    def quiet(self) -> CudaTimer:
        """The same timer without a look at the clocks, which takes milliseconds: for warm-ups."""
        twin = copy.copy(self)
        twin._read = no_clocks
        return twin

    @cached_property
    def beside(self) -> CudaTimer:
        """`quiet` with a spin of its own, which lasts: the control is launched faster than most calls."""
        twin = self.quiet()
        twin._spins = [FIRST_SPIN]
        return twin

    def burst(self, call: Call, calls: int, wake: Call | None = None) -> Burst:
        """Times what `call` queues on the current stream; one untimed call (of `wake`) first, which wakes the clock."""
        first, last = self._event(), self._event()
        first.record()
        (wake or call)()
        brackets = [self._bracket(call) for _ in range(calls)]
        last.record()
        # Read while the card works through the queue: afterwards it would be idle.
        reading = self._read()
        self._cuda.synchronize()
        hidden = [(start, end) for start, end, exposed in brackets if not exposed]
        exposed = calls - len(hidden)
        if 2 * exposed > calls:
            self.spin = min(2 * self.spin, MOST_SPIN)
        used = hidden or [(start, end) for start, end, _ in brackets]
        seconds = tuple(start.elapsed_time(end) / 1000 for start, end in used)
        return Burst(seconds, first.elapsed_time(last) / 1000, reading, exposed)

    def _bracket(self, call: Call) -> tuple[Any, Any, bool]:
        """Start and end of one call, and whether the card had passed the start before all was queued."""
        start, end = self._event(), self._event()
        self._flush.zero_()
        self._cuda._sleep(self.spin)
        start.record()
        call()
        end.record()
        return start, end, bool(start.query())

    def _event(self) -> Any:
        return self._cuda.Event(enable_timing=True)
