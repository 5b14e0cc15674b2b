"""Clocks that pass only while something works: a card, a torch to hand to CudaTimer, a count of multiplications."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from types import SimpleNamespace

from fa4_asv.measure.runtime.clocks import Reading
from fa4_asv.measure.runtime.timing import Burst


class SimulatedCard:
    """Implements `timing.Timer`. Calls made by `kernel` advance `now`; `disturb` multiplies each duration.

    `reading` answers for the card's state at a moment.
    """

    def __init__(
        self,
        seed: int = 0,
        within: float = 0.003,
        disturb: Callable[[float], float] = lambda now: 1.0,
        reading: Callable[[float], Reading] = lambda now: Reading(1980.0, 400.0, 50.0),
    ) -> None:
        self.now = 0.0
        self.rested = 0.0
        self.log: list[str] = []
        self.random = random.Random(seed)
        self._within, self._disturb, self._reading = within, disturb, reading

    def kernel(self, seconds: float, name: str = "call") -> Callable[[], None]:
        def call() -> None:
            noise = math.exp(self.random.gauss(0, self._within)) if self._within else 1.0
            self.now += seconds * noise * self._disturb(self.now)
            self.log.append(name)

        return call

    def burst(
        self, call: Callable[[], object], calls: int, wake: Callable[[], object] | None = None
    ) -> Burst:
        begin, seconds = self.now, []
        if wake:
            wake()
        for _ in range(calls):
            start = self.now
            call()
            seconds.append(self.now - start)
        return Burst(tuple(seconds), self.now - begin, self._reading(self.now))

    def rest(self, seconds: float) -> None:
        self.now += seconds
        self.rested += seconds
        self.log.append("rest")


class SimulatedCuda:
    """`torch` as far as CudaTimer uses it: a host that queues, a card that works the queue off in order.

    `launch` is what queuing a call costs the host, `work` what the card then does.
    """

    FLUSH, HERTZ, L2 = 30e-6, 2e9, 50 << 20

    def __init__(self, launch: float, work: float, waits: bool = False) -> None:
        self.host = self.card = 0.0
        self.order: list[str] = []
        self.flushed = 0
        self._launch, self._work, self._waits = launch, work, waits
        self.uint8 = "uint8"
        self.cuda = SimpleNamespace(
            Event=lambda enable_timing: SimulatedEvent(self),
            _sleep=lambda cycles: self._queue("spin", cycles / self.HERTZ),
            synchronize=self.synchronize,
            get_device_properties=lambda device: SimpleNamespace(L2_cache_size=self.L2),
        )

    def empty(self, size: int, dtype: str, device: str) -> SimpleNamespace:
        self.flushed = size
        return SimpleNamespace(zero_=lambda: self._queue("flush", self.FLUSH))

    def call(self) -> None:
        self.host += self._launch
        if self._waits:
            self.synchronize()
        self._queue("call", self._work)

    def synchronize(self) -> None:
        self.host = self.card = max(self.host, self.card)

    def _queue(self, name: str, seconds: float) -> None:
        self.card = max(self.card, self.host) + seconds
        self.order.append(name)


class SimulatedEvent:
    def __init__(self, torch: SimulatedCuda) -> None:
        self._torch, self.at = torch, math.nan

    def record(self) -> None:
        self.at = max(self._torch.card, self._torch.host)
        self._torch.order.append("event")

    def query(self) -> bool:
        return self.at <= self._torch.host

    def elapsed_time(self, end: SimulatedEvent) -> float:
        return (end.at - self.at) * 1000


class WorkTimer:
    """A clock that counts multiplications: the same work takes the same time, but for seeded noise.

    A call is counted when it is first seen, since counting costs more than calling. `within` is the noise of a call, `between` that of a process, which the control shares.
    """

    RATE = 5e9  # a second; a call of a CPU shape then takes some 20 ms

    def __init__(self, seed: int, within: float = 0.003, between: float = 0.015) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        self._counter = FlopCounterMode
        self._work: dict[Callable[[], object], int] = {}
        self._random, self._within = random.Random(seed), within
        self._luck = math.exp(self._random.gauss(0, between))

    def burst(
        self, call: Callable[[], object], calls: int, wake: Callable[[], object] | None = None
    ) -> Burst:
        seconds = []
        for _ in range(calls):
            if call in self._work:
                call()
            else:
                with self._counter(display=False) as counter:
                    call()
                self._work[call] = counter.get_total_flops()
            noise = math.exp(self._random.gauss(0, self._within))
            seconds.append(self._work[call] / self.RATE * self._luck * noise)
        return Burst(tuple(seconds), sum(seconds))
