"""The process that runs attention: one case a line; the guard stands before the clock.

Started as `python -m fa4_asv.measure.runtime.worker`: one that times a class's cases in a round, and before the first round
several that guard them, side by side. A job has "what", one of JOBS, and what that asks for ("backend", "shape",
"backward", "device", "kind"). Answers {"samples": {metric: [...]},
"control", "errors", "words"} or {"error": {"kind", "words", "refused", "guard", "fatal"}}. Inputs are seeded; nothing is kept
from case to case but what FA4 has compiled. After a fatal error (an illegal memory access, say) every later call of the
process would fail with the same message, so it ends and the pool starts another.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import Any

from fa4_asv.catalog.benchmarks import REFUSED
from fa4_asv.measure.compile_stubs import compile_counter, count_compiles
from fa4_asv.measure.driver_stubs import describe
from fa4_asv.measure.runtime import beyond_on_gpu
from fa4_asv.measure.runtime.accuracy import errors_of
from fa4_asv.measure.runtime.allocated import peak_of
from fa4_asv.measure.runtime.answers import Answer, broken, card_arch, chosen, measured, refused
from fa4_asv.measure.runtime.clocks import clock_reader, no_clocks
from fa4_asv.measure.runtime.correctness import check_sampled, guard_small, results
from fa4_asv.measure.runtime.decode_host import host_seconds
from fa4_asv.measure.runtime.fatal import is_fatal, is_out_of_memory, short
from fa4_asv.measure.runtime.host_cost import extra_seconds
from fa4_asv.measure.runtime.inputs import make
from fa4_asv.measure.runtime.route_on_gpu import run_checks
from fa4_asv.measure.runtime.timing import CpuTimer, CudaTimer, Timing, measure
from fa4_asv.measure.runtime.tolerances import GuardFailed
from fa4_asv.measure.runtime.turns import KEEPING, TURNS, forget
from fa4_asv.measure.source_lines import remember_source_lines


def guard_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """What a case must pass before any of its rounds: values and layout of a small shape, FA4's own kernel at the timed one.

    Beside others: no clock runs, and what it compiles is found by those that time. Raises GuardFailed, and what the
    backend raises.
    """
    backend, shape, why_not = chosen(torch, job)
    if backend is None or why_not:
        return refused(why_not)
    return measured({}, errors=guard_small(torch, backend, shape, job["device"], job["backward"]))


def time_case(torch: Any, job: dict[str, Any], timer: Any, control: Any) -> Answer:
    """Time of one case, after a look at what it gives at this very shape. Raises GuardFailed, and what the backend raises."""
    backend, shape, why_not = chosen(torch, job)
    if backend is None or why_not:
        return refused(why_not)
    begin = time.monotonic()
    backward = job["backward"]
    inputs = make(torch, shape, job["device"])
    calls = backend.prepare(torch, inputs)
    sampled = check_sampled(torch, inputs, results(calls, backward))
    checked = time.monotonic()
    call = calls.raw_backward if backward else calls.raw_forward
    timing: Timing = measure(call, timer, control, compiles=compile_counter())
    if timing.samples.broken:
        return broken("noise", timing.samples.broken)
    took = f"{checked - begin:.2f} s before the clock, {time.monotonic() - checked:.2f} s with it"
    errors = {f"{name} sampled": value for name, value in sampled.items()}
    notes = timing.notes | {"took": took}
    return measured({"seconds": timing.samples.seconds}, notes, control=timing.control, errors=errors)


def error_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Errors of one case relative to MATH's own, a value a seed."""
    backend, shape, why_not = chosen(torch, job)
    if backend is None or why_not:
        return refused(why_not)
    return measured(errors_of(torch, backend, shape, job["device"], job["backward"], job["kind"]))


def memory_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Peak bytes of one call, as the allocator (on a CPU: the trace) saw them."""
    backend, shape, why_not = chosen(torch, job)
    if backend is None or why_not:
        return refused(why_not)
    if job["device"] == "cuda" and job["arch"] != card_arch(torch):
        return refused(f"this card is {card_arch(torch)}")
    peak = peak_of(torch, backend, shape, job["device"], job["backward"])
    return {"samples": {"peak_bytes": [peak]}, "control": None, "errors": {}, "words": {}}


def route_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """How many checks of the route through SDPA are broken on this card, and what they said."""
    if not torch.cuda.is_available():
        return refused("needs a CUDA GPU, this machine has none that torch can use")
    checks, result = run_checks(torch, job["dtype"])
    return measured({"broken": [len(result)]}, {"torch": torch.__version__, "checks": str(checks), **result})


def beyond_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """How many checks of a way beyond SDPA are broken on this card, and how many torch or FA4 refuses."""
    if not torch.cuda.is_available():
        return refused("needs a CUDA GPU, this machine has none that torch can use")
    checks, result = beyond_on_gpu.run_checks(torch, job["way"])
    refusals = {name: f"{REFUSED}{reason}" for name, reason in result.refused.items()}
    notes = {"torch": torch.__version__, "checks": str(checks), **result.broken, **refusals}
    return measured({"broken": [len(result.broken)], "refused": [len(refusals)]}, notes)


def host_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Seconds of the host that the route takes beyond the direct call."""
    backend, shape, why_not = chosen(torch, job | {"backend": "fa4-sdpa"})
    if backend is None or why_not:
        return refused(why_not)
    samples, notes = extra_seconds(torch, shape, job["backward"])
    return measured({"seconds": samples}, notes)


def decode_host_case(torch: Any, job: dict[str, Any], *_: Any) -> Answer:
    """Seconds of the host per decode, as a call or as a graph. Raises GuardFailed, and what the backend raises."""
    backend, shape, why_not = chosen(torch, job)
    if backend is None or why_not:
        return refused(why_not)
    samples, notes = host_seconds(torch, shape, job["launch"])
    return measured({"seconds": samples}, notes)


JOBS = {
    "guard": guard_case,
    "seconds": time_case,
    "errors": error_case,
    "bytes": memory_case,
    "route": route_case,
    "route-beyond": beyond_case,
    "host": host_case,
    "decode-host": decode_host_case,
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


def answer(torch: Any, job: dict[str, Any], timer: Any, control: Any) -> Answer:
    """What a line is answered with, whatever its case does: its job's answer, or an error in words.

    A case that finds no memory is tried once more with what earlier cases left in the allocator's pool.
    """
    reply = _settled(torch, _attempt(torch, job, timer, control), keeping=job["what"] in KEEPING)
    if _starved(reply):
        reply = _settled(torch, _attempt(torch, job, timer, control))
        if _starved(reply):
            reply["error"]["fatal"] = True
    return reply


def _attempt(torch: Any, job: dict[str, Any], timer: Any, control: Any) -> Answer:
    try:
        return JOBS[job["what"]](torch, job, timer, control)
    except GuardFailed as failed:
        return broken("guard", str(failed), guard=True)
    except Exception as error:
        return failed_with(error)


def failed_with(error: Exception, fatal: bool = False) -> Answer:
    """An exception as an answer: what kind it is, what it says, whether the process can go on."""
    answer, whole = describe(error), str(error)
    text = short(whole).removeprefix(f"{answer['kind']}: ") or answer["words"]
    failed = broken(answer["kind"], text, fatal=fatal or is_fatal(whole))
    # SDPA's own words where the one backend that it may use has no kernel for a shape.
    no_kernel = "No available kernel" in text
    failed["error"]["refused"] = not failed["error"]["fatal"] and (answer["refused"] or no_kernel)
    return failed


def _starved(answer: Answer) -> bool:
    error = answer.get("error")
    return error is not None and not error["fatal"] and is_out_of_memory(f"{error['kind']}: {error['words']}")


def _settled(torch: Any, answer: Answer, keeping: bool = False) -> Answer:
    """`answer`, once the card has done all of its work and (but for `keeping`) has its memory back; an error if it cannot.

    A kernel's error shows at a later call. One that nobody waited for is this case's all the same, and a guard that
    failed on a card that had stopped working says nothing of the kernel.
    """
    if is_dead(answer) or not torch.cuda.is_initialized():
        return answer
    if _starved(answer):
        forget()
        gc.collect()  # tensors of the frames that the exception left
    try:
        torch.cuda.synchronize()
        if not keeping or _starved(answer):
            torch.cuda.empty_cache()
    except Exception as error:
        return failed_with(error, fatal=True)
    return answer


def is_dead(answer: Answer) -> bool:
    """Whether an answer says that its process is of no more use."""
    return bool(answer.get("error", {}).get("fatal"))


def _tools(torch: Any, device: str, made: dict[str, Any]) -> Any:
    """The timer and the control of `device`, made when they are first asked for; none without a card."""
    if device == "cuda" and not torch.cuda.is_available():
        return None, None
    if device not in made:
        made[device] = (timer_of(torch, device), control_of(torch, device))
    return made[device]


def answer_line(torch: Any, job: dict[str, Any], made: dict[str, Any]) -> Answer:
    """`answer` with the tools of the job's device; a card on which they cannot be made is of no use."""
    try:
        tools = _tools(torch, job["device"], made)
    except Exception as error:
        return failed_with(error, fatal=True)
    return answer(torch, job, *tools)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    count_compiles()
    remember_source_lines()
    import torch

    made: dict[str, Any] = {}
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        answer = answer_line(torch, json.loads(line), made)
        answers.write(json.dumps(answer) + "\n")
        if is_dead(answer):
            os._exit(1)  # an orderly end would call CUDA again, and may hang in it


if __name__ == "__main__":
    main()
