"""The process that runs attention: one case a line; the guard stands before the clock.

Started as `python -m fa4_asv.runtime_worker`, once a class and round. Reads {"backend", "shape",
"backward", "device", "guard": full or quick, "kinds"}, answers {"samples", "control", "errors", "words"} or
{"error": {"kind", "words", "refused", "guard"}}. Inputs are seeded; nothing is kept from case to case but
what FA4 has compiled.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import Any

from fa4_asv import guard, reference
from fa4_asv.backends import Backend, Calls, backend
from fa4_asv.clocks import clock_reader, no_clocks
from fa4_asv.compile_pool import die_with_parent
from fa4_asv.guard import GuardFailed
from fa4_asv.inputs import KINDS, Inputs, make
from fa4_asv.shapes import SHAPES, SdpaShape
from fa4_asv.stand_ins import describe
from fa4_asv.timing import CpuTimer, CudaTimer, Timing, measure

GUARD_TOKENS = 1024  # of the shape on which the whole answer is compared, at most


def small(shape: SdpaShape) -> SdpaShape:
    """The same attention, small enough for MATH: an odd length, so that the last tile is not full."""
    if shape.seq_len <= GUARD_TOKENS:
        return replace(shape, batch=min(shape.batch, 2))
    group = shape.num_heads // shape.kv_heads
    kv_heads = min(shape.kv_heads, 2)
    return replace(shape, batch=2, seq_len=GUARD_TOKENS - 24, num_heads=group * kv_heads, kv_heads=kv_heads)


def check_whole(
    torch: Any, one: Backend, shape: SdpaShape, device: str, backward: bool, kind: str
) -> dict[str, float]:
    """Everything of a small shape against MATH, in layout and value, three times. Raises GuardFailed."""
    inputs = make(torch, small(shape), device, kind)
    calls = one.prepare(torch, inputs)
    found = _results(calls, backward)
    if one.name.startswith("fa4"):  # MATH, for one, has a layout of its own
        guard.same_layout(found, _alike(torch, inputs))
    exact, low = (reference.full(torch, inputs, low) for low in (False, True))
    errors = guard.compare(torch, found, exact, low, f"{inputs.shape.name} ({kind})").errors
    guard.repeats(torch, calls.forward, calls.forward(), exact=True)
    if backward:
        guard.repeats(torch, calls.backward, found, exact=False)
        if one.name.startswith("fa4"):
            _check_deterministic(torch, one, inputs, found)
    return errors


def _check_deterministic(torch: Any, one: Backend, inputs: Inputs, plain: dict[str, Any]) -> None:
    """With `deterministic` the gradients are the same bits each time, and still those of the plain call."""
    calls = one.prepare(torch, inputs, deterministic=True)
    first = calls.backward()
    guard.repeats(torch, calls.backward, first, exact=True)
    guard.repeats(torch, lambda: first, plain, exact=False)


def check_sampled(torch: Any, inputs: Inputs, found: dict[str, Any]) -> dict[str, float]:
    """Rows and columns of the timed shape itself. Raises GuardFailed."""
    exact, low = (reference.sampled(torch, inputs, low) for low in (False, True))
    cut = reference.sample_of(torch, inputs, found)
    return guard.compare(torch, cut, exact, low, f"{inputs.shape.name} (sampled)").errors


def _results(calls: Calls, backward: bool) -> dict[str, Any]:
    return {**calls.forward(), **(calls.backward() if backward else {})}


def _alike(torch: Any, inputs: Inputs) -> dict[str, Any]:
    return {"out": inputs.dout, "dq": inputs.q, "dk": inputs.k, "dv": inputs.v}


def kernels_of(torch: Any, call: Any, device: str) -> list[str]:
    """Names of what ran on the device (on a CPU: of the operators), by torch's profiler."""
    activity = torch.profiler.ProfilerActivity
    chosen = [activity.CUDA] if device != "cpu" else [activity.CPU]
    with torch.profiler.profile(activities=chosen) as profile:
        call()
        if device != "cpu":
            torch.cuda.synchronize()
    return [event.name for event in profile.events()]


def time_case(torch: Any, job: dict[str, Any], timer: Any, control: Any) -> dict[str, Any]:
    """Guard, kernel and time of one case. Raises GuardFailed, and what the backend raises."""
    shape, device = SHAPES[job["shape"]], job["device"]
    if device == "cuda" and not torch.cuda.is_available():
        why_not = "needs a CUDA GPU, this machine has none that torch can use"
    else:
        one = backend(job["backend"])
        why_not = one.why_not(torch, shape, device, job["backward"])
    if why_not:
        return {"error": {"kind": "unsupported", "words": why_not, "refused": True, "guard": False}}
    errors: dict[str, float] = {}
    for kind in KINDS if job["guard"] == "full" else KINDS[:1]:
        found = check_whole(torch, one, shape, device, job["backward"], kind)
        errors |= {f"{name} {kind}": value for name, value in found.items()}
    inputs = make(torch, shape, device)
    calls = one.prepare(torch, inputs)
    errors |= {
        f"{n} sampled": v for n, v in check_sampled(torch, inputs, _results(calls, job["backward"])).items()
    }
    call = calls.raw_backward if job["backward"] else calls.raw_forward
    expected = one.kernel if device != "cpu" or one.name == "fa4" else ""
    if expected:
        guard.right_kernel(kernels_of(torch, call, device), expected)
    timing: Timing = measure(call, timer, control, compiles=compile_counter())
    if timing.samples.broken:
        return {"error": {"kind": "noise", "words": timing.samples.broken, "refused": False, "guard": False}}
    return {
        # Six digits are a millionth; the events tell half a microsecond.
        "samples": [float(f"{seconds:.6g}") for seconds in timing.samples.seconds],
        "control": timing.control,
        "errors": errors,
        "words": timing.words,
    }


_compiled = [0]


def compile_counter() -> Any:
    """How many kernels FA4 has asked the DSL for so far."""
    return lambda: _compiled[0]


def count_compiles() -> None:
    """Wrap `cute.compile`, before FA4 is imported, where there is a DSL at all."""
    try:
        import cutlass.cute as cute
    except ImportError:
        return
    real = cute.compile

    class Counted:
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            _compiled[0] += 1
            return real(*args, **kwargs)

        def __getitem__(self, options: Any) -> Any:
            chosen = real[options]

            def compile_with(*args: Any, **kwargs: Any) -> Any:
                _compiled[0] += 1
                return chosen(*args, **kwargs)

            return compile_with

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    cute.compile = Counted()


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
    """What a line is answered with, whatever its case does: `time_case`'s answer, or an error in words."""
    try:
        return time_case(torch, job, timer, control)
    except GuardFailed as failed:
        return {"error": {"kind": "guard", "words": str(failed), "refused": False, "guard": True}}
    except Exception as error:
        return {"error": {**describe(error), "guard": False}}


def main() -> None:
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    count_compiles()
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
