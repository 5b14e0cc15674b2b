"""The process that runs attention: one case a line; the guard stands before the clock.

Started as `python -m fa4_asv.measure.runtime.worker`: one that times a class's cases in a round, and before the first round
several that guard them, side by side. A job has "what", one of JOBS, and what that asks for ("backend", "shape",
"backward", "device", "kind"). Answers {"samples": {metric: [...]},
"control", "errors", "words"} or {"error": {"kind", "words", "refused", "guard"}}. Inputs are seeded; nothing is kept from
case to case but what FA4 has compiled.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from fa4_asv.measure.compile_stubs import compile_counter, count_compiles
from fa4_asv.measure.driver_stubs import describe
from fa4_asv.measure.pool import die_with_parent
from fa4_asv.measure.runtime.accuracy import errors_of
from fa4_asv.measure.runtime.allocated import peak_of
from fa4_asv.measure.runtime.answers import Answer, broken, card_arch, chosen, measured, refused
from fa4_asv.measure.runtime.clocks import clock_reader, no_clocks
from fa4_asv.measure.runtime.correctness import check_sampled, guard_small, results
from fa4_asv.measure.runtime.host_cost import extra_seconds
from fa4_asv.measure.runtime.inputs import make
from fa4_asv.measure.runtime.route_on_gpu import run_checks
from fa4_asv.measure.runtime.timing import CpuTimer, CudaTimer, Timing, measure
from fa4_asv.measure.runtime.tolerances import GuardFailed
from fa4_asv.measure.runtime.turns import TURNS
from fa4_asv.measure.source_lines import remember_source_lines


def guard_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """What a case must pass before any of its rounds: values and layout of a small shape, FA4's own kernel at the timed one.

    Beside others: no clock runs, and what it compiles is found by those that time. Raises GuardFailed, and what the
    backend raises.
    """
    one, shape, why_not = chosen(torch, job)
    if one is None or why_not:
        return refused(why_not)
    return measured({}, errors=guard_small(torch, one, shape, job["device"], job["backward"]))


def time_case(torch: Any, job: dict[str, Any], timer: Any, control: Any) -> Answer:
    """Time of one case, after a look at what it gives at this very shape. Raises GuardFailed, and what the backend raises."""
    one, shape, why_not = chosen(torch, job)
    if one is None or why_not:
        return refused(why_not)
    begin = time.monotonic()
    backward = job["backward"]
    inputs = make(torch, shape, job["device"])
    calls = one.prepare(torch, inputs)
    sampled = check_sampled(torch, inputs, results(calls, backward))
    checked = time.monotonic()
    call = calls.raw_backward if backward else calls.raw_forward
    timing: Timing = measure(call, timer, control, compiles=compile_counter())
    if timing.samples.broken:
        return broken("noise", timing.samples.broken)
    took = f"{checked - begin:.2f} s before the clock, {time.monotonic() - checked:.2f} s with it"
    errors = {f"{name} sampled": value for name, value in sampled.items()}
    words = timing.words | {"took": took}
    return measured({"seconds": timing.samples.seconds}, words, control=timing.control, errors=errors)


def error_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Errors of one case relative to MATH's own, a value a seed."""
    one, shape, why_not = chosen(torch, job)
    if one is None or why_not:
        return refused(why_not)
    return measured(errors_of(torch, one, shape, job["device"], job["backward"], job["kind"]))


def memory_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Peak bytes of one call, as the allocator (on a CPU: the trace) saw them."""
    one, shape, why_not = chosen(torch, job)
    if one is None or why_not:
        return refused(why_not)
    if job["device"] == "cuda" and job["arch"] != card_arch(torch):
        return refused(f"this card is {card_arch(torch)}")
    peak = peak_of(torch, one, shape, job["device"], job["backward"])
    return {"samples": {"peak_bytes": [peak]}, "control": None, "errors": {}, "words": {}}


def route_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """How many checks of the route through SDPA are broken on this card, and what they said."""
    if not torch.cuda.is_available():
        return refused("needs a CUDA GPU, this machine has none that torch can use")
    checks, found = run_checks(torch, job["dtype"])
    return measured({"broken": [len(found)]}, {"torch": torch.__version__, "checks": str(checks), **found})


def host_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Seconds of the host that the route takes beyond the direct call."""
    one, shape, why_not = chosen(torch, job | {"backend": "fa4-sdpa"})
    if one is None or why_not:
        return refused(why_not)
    samples, words = extra_seconds(torch, shape, job["backward"])
    return measured({"seconds": samples}, words)


JOBS = {
    "guard": guard_case,
    "seconds": time_case,
    "errors": error_case,
    "bytes": memory_case,
    "route": route_case,
    "host": host_case,
    **TURNS,
}


def timer_of(torch: Any, device: str) -> Any:
    """CUDA events with the card's clocks beside them, or the CPU's wall clock."""
    if device == "cpu":
        return CpuTimer(read=no_clocks)
    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    return CudaTimer(torch, clock_reader(uuid))


def control_of(torch: Any, device: str) -> Any:
    """A fixed GEMM of half a millisecond on an H100: what the card can do right now."""
    size, dtype = (4096, torch.bfloat16) if device != "cpu" else (256, torch.float32)
    a, b = (torch.ones(size, size, device=device, dtype=dtype).normal_() for _ in range(2))
    return lambda: torch.mm(a, b)


def answer(torch: Any, job: dict[str, Any], timer: Any, control: Any) -> dict[str, Any]:
    """What a line is answered with, whatever its case does: its job's answer, or an error in words."""
    try:
        return JOBS[job["what"]](torch, job, timer, control)
    except GuardFailed as failed:
        return {"error": {"kind": "guard", "words": str(failed), "refused": False, "guard": True}}
    except Exception as error:
        said = describe(error)
        # SDPA's own words where the one backend that it may use has no kernel for a shape.
        said["refused"] |= "No available kernel" in said["words"]
        return {"error": {**said, "guard": False}}


def main() -> None:
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    count_compiles()
    remember_source_lines()
    import torch

    timers: dict[str, Any] = {}
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        job = json.loads(line)
        device = job["device"]
        if device not in timers:
            timers[device] = (timer_of(torch, device), control_of(torch, device))
        answers.write(json.dumps(answer(torch, job, *timers[device])) + "\n")
        if device != "cpu":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
