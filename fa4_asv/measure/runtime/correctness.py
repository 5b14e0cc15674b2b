"""What is asked of a backend before it is timed: right values, layout, the same again, FA4's own kernel.

Small shapes are compared whole, the timed shape itself on sampled rows and columns. Everything raises GuardFailed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fa4_asv.catalog.shapes import PAGE, SdpaShape
from fa4_asv.measure.runtime import reference, tolerances
from fa4_asv.measure.runtime.backends import Backend, Calls
from fa4_asv.measure.runtime.feature_reference import GIVEN_GRADIENTS
from fa4_asv.measure.runtime.inputs import KINDS, Inputs, make

GUARD_TOKENS = 1024  # of the shape on which the whole answer is compared, at most


def small(shape: SdpaShape) -> SdpaShape:
    """The same attention, small enough for MATH: an odd length, so that the last tile is not full; few keys in a cache."""
    shape = _fewer_keys(shape)
    if shape.packed:
        return replace(shape, batch=min(shape.batch, 4), seq_len=min(shape.seq_len, GUARD_TOKENS // 4 - 6))
    if shape.seq_len <= GUARD_TOKENS:
        return replace(shape, batch=min(shape.batch, 2))
    group = shape.num_heads // shape.kv_heads
    kv_heads = min(shape.kv_heads, 2)
    tokens = GUARD_TOKENS - (PAGE if shape.variant == "paged" else 24)
    return replace(shape, batch=2, seq_len=tokens, num_heads=group * kv_heads, kv_heads=kv_heads)


def _fewer_keys(shape: SdpaShape) -> SdpaShape:
    """A cache of at most GUARD_TOKENS keys, and a window that still cuts something of it."""
    features = shape.features
    if features.keys > GUARD_TOKENS and not features.topk:
        shape = replace(shape, features=replace(features, keys=GUARD_TOKENS))
    least = min(shape.keys, GUARD_TOKENS) // 2
    return replace(shape, window=least // 2) if shape.window is not None and shape.window > least else shape


def beyond(shape: SdpaShape) -> float:
    """Absolute error that is allowed beyond MATH's own: PyTorch's FA4 test allows fp8 0.25."""
    return 0.25 if shape.dtype == "fp8" else 0.0


def check_whole(
    torch: Any,
    backend: Backend,
    shape: SdpaShape,
    device: str,
    backward: bool,
    kind: str,
    options: bool = True,
) -> dict[str, float]:
    """Everything of a small shape against MATH, in layout and value, three times. Raises GuardFailed.

    With `options`, a backward that the call does not ask to be deterministic is held to that, too.
    """
    inputs = make(torch, small(shape), device, kind)
    calls = backend.prepare(torch, inputs)
    outputs = results(calls, backward)
    errors = check_values(torch, backend, inputs, outputs, kind)
    tolerances.repeats(torch, calls.forward, calls.forward(), exact=True)
    if backward:
        tolerances.repeats(torch, calls.backward, outputs, exact=False)
        # FA4 has a deterministic backward of dense attention only.
        if (
            backend.name.startswith("fa4")
            and not shape.packed
            and (options or shape.variant == "deterministic")
        ):
            _check_deterministic(torch, backend, inputs, outputs)
    return errors


def check_values(
    torch: Any, backend: Backend, inputs: Inputs, outputs: dict[str, Any], kind: str
) -> dict[str, float]:
    """Layout and every value against the reference. Raises GuardFailed."""
    if backend.name.startswith("fa4"):  # MATH, for one, has a layout of its own
        tolerances.same_layout(outputs, _alike(torch, inputs))
    exact, low = (reference.full(torch, inputs, low) for low in (False, True))
    where = f"{inputs.shape.name} ({kind})"
    return tolerances.compare(torch, outputs, exact, low, where, beyond(inputs.shape)).errors


def guard_small(
    torch: Any, backend: Backend, shape: SdpaShape, device: str, backward: bool, options: bool = True
) -> dict[str, float]:
    """Everything that needs no clock: values and layout of a small shape, FA4's own kernel at the timed one.

    The errors by tensor and kind of input, as shares of what MATH in the low dtype is off. Raises GuardFailed.
    """
    errors: dict[str, float] = {}
    for kind in KINDS:
        result = check_whole(torch, backend, shape, device, backward, kind, options)
        errors |= {f"{name} {kind}": value for name, value in result.items()}
    calls = backend.prepare(torch, make(torch, shape, device))
    call = calls.raw_backward if backward else calls.raw_forward
    call()
    expected = backend.kernel if device != "cpu" or backend.name == "fa4" else ""
    if expected:
        tolerances.right_kernel(kernels_of(torch, call, device), expected)
    return errors


def _check_deterministic(torch: Any, backend: Backend, inputs: Inputs, plain: dict[str, Any]) -> None:
    """With `deterministic` the gradients are the same bits each time, and still those of the plain call."""
    calls = backend.prepare(torch, inputs, deterministic=True)
    first = calls.backward()
    tolerances.repeats(torch, calls.backward, first, exact=True)
    tolerances.repeats(torch, lambda: first, plain, exact=False)


def check_sampled(torch: Any, inputs: Inputs, outputs: dict[str, Any]) -> dict[str, float]:
    """Rows and columns of the timed shape itself. Raises GuardFailed."""
    exact, low = (reference.sampled(torch, inputs, low) for low in (False, True))
    cut = reference.sample_of(torch, inputs, outputs)
    return tolerances.compare(
        torch, cut, exact, low, f"{inputs.shape.name} (sampled)", beyond(inputs.shape)
    ).errors


def results(calls: Calls, backward: bool) -> dict[str, Any]:
    return {**calls.forward(), **(calls.backward() if backward else {})}


def _alike(torch: Any, inputs: Inputs) -> dict[str, Any]:
    like = {"out": inputs.dout, "dq": inputs.q, "dk": inputs.k, "dv": inputs.v}
    for name, gradient in GIVEN_GRADIENTS.items():
        if name in inputs.feature_tensors:
            like[gradient] = inputs.feature_tensors[name]
    # Of a view of a larger tensor the gradient is a tensor of its own.
    return {name: torch.empty_like(x) for name, x in like.items()}


def kernels_of(torch: Any, call: Any, device: str) -> list[str]:
    """Names of what ran on the device (on a CPU: of the operators), by torch's profiler."""
    activity = torch.profiler.ProfilerActivity
    chosen = [activity.CUDA] if device != "cpu" else [activity.CPU]
    with torch.profiler.profile(activities=chosen) as profile:
        call()
        if device != "cpu":
            torch.cuda.synchronize()
    return [event.name for event in profile.events()]
