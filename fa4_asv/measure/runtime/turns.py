"""What a sweep asks its processes: each lives for many rounds and takes its turn on the card.

`first`: everything that must hold before a call is timed, with what its first call cost; `import`: load the backend; `load`:
call it once, so that nothing is left to compile; `turn`: one round of one call; `profiler`: start the profiler once, since its first
start takes seconds; `kernels`: seconds of each kernel of a call, by the profiler; `leave`: free the inputs, for the next process.
A call's forward and backward share their inputs while they follow each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from fa4_asv.measure.compile_stubs import compile_counter
from fa4_asv.measure.runtime.allocated import peak_of
from fa4_asv.measure.runtime.answers import Answer, broken, chosen, measured, refused
from fa4_asv.measure.runtime.backends import Backend, Calls
from fa4_asv.measure.runtime.correctness import check_sampled, guard_small, results
from fa4_asv.measure.runtime.inputs import Inputs, make
from fa4_asv.measure.runtime.sampling import Rule
from fa4_asv.measure.runtime.timing import Counts, CudaTimer, Pace, Timing, measure

# A round of a sweep is short: rounds of many processes tell more than many samples of one. A call of 8 ms is one
# call a burst; a call of 0.3 ms fills its 5 ms with fifteen.
RULE = Rule(min_samples=3, min_busy=0.008, max_busy=0.1, precision=0.02, fewest=3)
# Most of a short call's burst is the spin that hides its launch: eight calls say what sixteen do. Rests of long calls: with
# 1.0 the first of three samples of a long backward may be 0.5 % slower than the next, which their median leaves out (H200).
PACE = Pace(
    burst=0.004, control_burst=0.0005, warm_ups=2, most_calls=8, rest=0.25, long_rest=1.0, control_wakes=True
)
# Cycles, about 0.2 ms: what most launches of FA4 take, so that few calls are spent on learning it.
SPIN = 400_000
_CALIBRATIONS, _SPINS = 31, (20_000, 220_000)  # how often, and of how many cycles: 10 and 110 us
PROFILED = 3  # calls under the profiler, whose start and end cost more than they do
# Parts of the names of FA4's kernels around the main one of a backward.
_AROUND = {"pre": "preprocess", "post": "postprocess"}

_learned: dict[
    tuple[str, str, str], tuple[Counts, int]
] = {}  # of a call: how many fill a burst, and its spin
_spin_cost: list[tuple[float, float]] = []  # seconds of a spin's launch and of each of its cycles, once known
_kept: dict[tuple[str, str, str], tuple[Inputs, Calls]] = {}


def prepared(torch: Any, backend: Backend, job: dict[str, Any], shape: Any) -> tuple[Inputs, Calls]:
    """Inputs and calls of a job; those of the job before where shape and backend are the same."""
    key = (backend.name, shape.name, job["device"])
    if key not in _kept:
        leave(torch, job)
        inputs = make(torch, shape, job["device"])
        _kept[key] = (inputs, backend.prepare(torch, inputs))
    return _kept[key]


def forget() -> None:
    """Drop what is kept from call to call; the allocator still holds its memory."""
    _kept.clear()


def leave(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Free what is kept from call to call."""
    forget()
    if job["device"] != "cpu":
        torch.cuda.empty_cache()
    return measured({})


def first_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Seconds of the first call, the peak of its memory, and the whole guard. Raises GuardFailed, and what the backend raises.

    Asked while nothing is timed: others compile beside it, and the seconds hold that.
    """
    backend, shape, why_not = chosen(torch, job)
    if backend is None or why_not:
        return refused(why_not)
    device, backward = job["device"], job["backward"]
    compiles = compile_counter()
    inputs, calls = prepared(torch, backend, job, shape)
    if backward:
        calls.raw_forward()  # of a backward only its own kernels count
        finish(torch, device)
    before, begin = compiles(), time.perf_counter()
    _call(calls, backward)()
    finish(torch, device)
    seconds, compiled = time.perf_counter() - begin, compiles() - before
    errors = {
        f"{name} sampled": value
        for name, value in check_sampled(torch, inputs, results(calls, backward)).items()
    }
    del inputs, calls
    leave(torch, job)
    peak = peak_of(torch, backend, shape, device, backward, compiled=True)
    # Half of the time would go into compiling what is not timed here: asv's own `run` asks for options.
    errors |= guard_small(torch, backend, shape, device, backward, options=False)
    notes = {"first call": f"{compiled} kernels compiled, other processes beside it"}
    answer = measured({"first_seconds": [seconds]}, notes, errors=errors)
    answer["samples"]["peak_bytes"] = [peak]  # exact, whatever `measured` makes of seconds
    return answer


def import_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Import the backend of a job, which takes seconds and no memory of the card."""
    backend, _shape, why_not = chosen(torch, job)
    return measured({}) if backend is not None and not why_not else refused(why_not)


def load_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Call once: what it needs is compiled, or read from FA4's disk cache, before anything is timed."""
    backend, shape, why_not = chosen(torch, job)
    if backend is None or why_not:
        return refused(why_not)
    calls = prepared(torch, backend, job, shape)[1]
    _call(calls, job["backward"])()
    finish(torch, job["device"])
    return measured({})


def turn_case(torch: Any, job: dict[str, Any], timer: Any, control: Any) -> Answer:
    """One round of one call. `added` (a share of the call's own time) is work put in by hand, to see what the rule sees."""
    backend, shape, why_not = chosen(torch, job)
    if backend is None or why_not:
        return refused(why_not)
    begin = time.monotonic()
    calls = prepared(torch, backend, job, shape)[1]
    call = _call(calls, job["backward"])
    if job.get("added"):
        call = _with_added_work(torch, call, job["added"], job["device"])
    ready = time.monotonic()
    timing = _timed(call, timer, control, (backend.name, shape.name, str(job["backward"])))
    if timing.samples.broken:
        return broken("noise", timing.samples.broken)
    answer = measured({"seconds": timing.samples.seconds}, timing.notes, control=timing.control)
    answer["took"] = [
        round(ready - begin, 4),
        round(time.monotonic() - ready, 4),
    ]  # before the clock, and with it
    return answer


def _timed(call: Callable[[], object], timer: Any, control: Any, name: tuple[str, str, str]) -> Timing:
    """Time a call; what was learned of it in an earlier round of this process is known."""
    counts, spin = _learned.get(name, (None, SPIN))
    on_card = isinstance(timer, CudaTimer)
    if on_card:
        timer.spin = spin
    timing = measure(
        call,
        timer,
        control,
        compiles=compile_counter(),
        rule=RULE,
        pace=PACE,
        beside=timer.beside if on_card else timer,
        warm=timer.quiet() if on_card else timer,
        counts=counts,
    )
    _learned[name] = (timing.counts, timer.spin if on_card else spin)
    return timing


def profiler_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Start and end torch's profiler, which loads its libraries the first time: 2 to 6 s on an H200's host."""
    if job["device"] != "cpu":
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]):
            torch.zeros(1, device="cuda")
            torch.cuda.synchronize()
    return measured({})


def kernels_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Seconds of the kernels of a call by the profiler: pre, main and post."""
    backend, shape, why_not = chosen(torch, job)
    if backend is None or why_not:
        return refused(why_not)
    if job["device"] == "cpu":
        return refused("a CPU has no kernels that the profiler tells apart")
    calls = prepared(torch, backend, job, shape)[1]
    call = _call(calls, job["backward"])
    call()
    finish(torch, job["device"])
    return measured({f"kernel {part}": [seconds] for part, seconds in _profiled(torch, call).items()})


def _profiled(torch: Any, call: Callable[[], object]) -> dict[str, float]:
    """Seconds on the card of one call, by what its kernels are for; the mean of PROFILED calls."""
    result: dict[str, float] = {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _number in range(PROFILED):
            call()
        torch.cuda.synchronize()
    for event in profile.events():
        part = part_of(event.name)
        result[part] = result.get(part, 0.0) + event.device_time / 1e6 / PROFILED
    return {part: seconds for part, seconds in result.items() if seconds}


def part_of(kernel: str) -> str:
    """ "pre", "main" or "post" of a kernel of FA4; "other" for what torch runs beside (a fill, a copy)."""
    if "flash_attncute" not in kernel:
        return "other"
    return next((part for part, word in _AROUND.items() if word in kernel.lower()), "main")


def _call(calls: Calls, backward: bool) -> Callable[[], object]:
    return calls.raw_backward if backward else calls.raw_forward


def _with_added_work(
    torch: Any, call: Callable[[], object], share: float, device: str
) -> Callable[[], object]:
    """`call`, and then `share` of its time more: the card spins, or the processor does."""
    seconds = share * _roughly(torch, call, device)
    cycles = _cycles_of(torch, seconds) if device != "cpu" else 0

    def both() -> None:
        call()
        if device != "cpu":
            torch.cuda._sleep(cycles)
            return
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    return both


def _cycles_of(torch: Any, seconds: float) -> int:
    """Cycles of a spin that makes a call longer by `seconds`, its own launch included: at least one.

    A second kernel costs 1 to 3 us before it does anything, so that 1 % of a call of 0.15 ms cannot be added; what was
    added is measured and told beside the verdict.
    """
    if not _spin_cost:
        x = torch.zeros(2048, 2048, device="cuda", dtype=torch.bfloat16)
        alone, short, long = (
            _roughly(torch, partial(_multiply_and_spin, torch, x, cycles), "cuda", _CALIBRATIONS)
            for cycles in (0, *_SPINS)
        )
        each = (long - short) / (_SPINS[1] - _SPINS[0])
        _spin_cost.append((short - _SPINS[0] * each - alone, each))
    launch, each = _spin_cost[0]
    return max(1, round((seconds - launch) / each))


def _multiply_and_spin(torch: Any, x: Any, cycles: int) -> None:
    torch.mm(x, x)
    if cycles:
        torch.cuda._sleep(cycles)


def _roughly(torch: Any, call: Callable[[], object], device: str, times: int = 5) -> float:
    """Seconds of a call, the middle one of some."""
    values = []
    for _number in range(times):
        begin = time.perf_counter()
        if device == "cpu":
            call()
            values.append(time.perf_counter() - begin)
            continue
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(1_000_000)  # until the call is queued
        first.record()
        call()
        last.record()
        torch.cuda.synchronize()
        values.append(first.elapsed_time(last) / 1000)
    return median(values)


def finish(torch: Any, device: str) -> None:
    """Wait for the card."""
    if device != "cpu":
        torch.cuda.synchronize()


# After these the allocator's pool is kept: the next question is about the same call, or of the same size.
KEEPING = ("turn", "load", "kernels")
TURNS: dict[str, Callable[..., Answer]] = {
    "first": first_case,
    "import": import_case,
    "load": load_case,
    "turn": turn_case,
    "profiler": profiler_case,
    "kernels": kernels_case,
    "leave": leave,
}
