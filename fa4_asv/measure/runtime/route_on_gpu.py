"""The route through SDPA on a card: what PyTorch's own FA4 test asks, kept as a count with reasons.

Each check answers "" or says what is wrong; an exception breaks its own check only. Names are kept in records: never
rename one. docs/pytorch-test.md says which check of PyTorch's test stands where.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from fa4_asv.catalog.shapes import SdpaShape, pytorch_test, shape
from fa4_asv.measure.route.checks import plain
from fa4_asv.measure.runtime import reference, tolerances
from fa4_asv.measure.runtime.backends import Calls, backend
from fa4_asv.measure.runtime.backends.sdpa import leaves
from fa4_asv.measure.runtime.correctness import check_whole, kernels_of
from fa4_asv.measure.runtime.fatal import is_fatal
from fa4_asv.measure.runtime.inputs import Inputs, make
from fa4_asv.measure.runtime.tolerances import GuardFailed

Check = Callable[[Any, str], str]


def run_checks(torch: Any, dtype: str) -> tuple[int, dict[str, str]]:
    """How many checks were made for inputs of `dtype`, and the reasons of the broken ones. Needs a card.

    Raises what leaves the process without a working card: no check after it would say anything of FA4.
    """
    result: dict[str, str] = {}
    for name, check in CHECKS.items():
        try:
            message = check(torch, dtype)
        except GuardFailed as failed:
            message = str(failed)
        except Exception as error:
            if is_fatal(str(error)):
                raise RuntimeError(f"{name}: {error}") from error
            message = plain(error)
        if message:
            result[name] = message
    torch.nn.attention.restore_flash_attention_impl()
    return len(CHECKS), result


def _shape(dtype: str) -> SdpaShape:
    return shape(2, 8, 1024, 128, causal=True, dtype=dtype)


def _prepared(torch: Any, dtype: str) -> tuple[Inputs, Calls]:
    inputs = make(torch, _shape(dtype), "cuda")
    return inputs, backend("fa4-sdpa").prepare(torch, inputs)


def _activation(torch: Any, _: str) -> str:
    """Activated twice, restored, activated again: what torch says of itself each time."""
    attention = torch.nn.attention
    seen = []
    for step in ("activate", "activate", "restore", "activate"):
        if step == "restore":
            attention.restore_flash_attention_impl()
        else:
            attention.activate_flash_attention_impl("FA4")
        seen.append(attention.current_flash_attention_impl())
    return "" if seen == ["FA4", "FA4", None, "FA4"] else f"the active implementation was {seen}"


def _kernel(backward: bool) -> Check:
    def check(torch: Any, dtype: str) -> str:
        _, calls = _prepared(torch, dtype)
        call = calls.raw_backward if backward else calls.raw_forward
        call()
        tolerances.right_kernel(kernels_of(torch, call, "cuda"), tolerances.FA4_KERNEL)
        return ""

    return check


def _grid(backward: bool) -> Check:
    """Every size of PyTorch's test against MATH, by its tolerance rule; how many fail, and the first."""

    def check(torch: Any, dtype: str) -> str:
        each_backend, wrong = backend("fa4-sdpa"), []
        every = [size for size in pytorch_test() if size.dtype == dtype]
        for size in every:
            try:
                _against_math(torch, each_backend, size, backward)
            except Exception as error:
                if is_fatal(str(error)):
                    raise RuntimeError(f"{size.name}: {error}") from error
                message = str(error) if isinstance(error, GuardFailed) else plain(error)
                wrong.append(f"{size.name}: {message}")
        return f"{len(wrong)} of {len(every)} sizes: {wrong[0]}" if wrong else ""

    return check


def _against_math(torch: Any, item: Any, size: SdpaShape, backward: bool) -> None:
    inputs = make(torch, size, "cuda")
    calls = item.prepare(torch, inputs)
    result = calls.backward() if backward else calls.forward()
    exact, low = (reference.full(torch, inputs, low) for low in (False, True))
    tolerances.compare(torch, result, exact, low, size.name)


def _layout(torch: Any, dtype: str) -> str:
    """The output has the query's strides, whether heads or tokens come first."""
    inputs, _ = _prepared(torch, dtype)
    with backend("fa4-sdpa").chosen(torch):  # type: ignore[attr-defined]
        for name in ("tokens first", "heads first"):
            q, k, v = leaves(inputs, grad=False)
            if name == "heads first":
                q, k, v = (x.contiguous() for x in (q, k, v))
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            if out.stride() != q.stride():
                return f"{name}: the output has strides {out.stride()}, the query {q.stride()}"
    return ""


def _compiled(torch: Any, dtype: str) -> tuple[Inputs, Any, Any, Any]:
    """Inputs, the eager output, that of torch.compile, and its gradients."""
    inputs, _ = _prepared(torch, dtype)
    q, k, v = leaves(inputs)

    def attend(q: Any, k: Any, v: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    with backend("fa4-sdpa").chosen(torch):  # type: ignore[attr-defined]
        eager = attend(q, k, v)
        compiled = torch.compile(attend, fullgraph=True)(q, k, v)
        grads = torch.autograd.grad(compiled, (q, k, v), inputs.dout.transpose(1, 2))
    return inputs, eager, compiled, grads


def _compile_keeps(torch: Any, dtype: str) -> str:
    _, eager, compiled, _ = _compiled(torch, dtype)
    for what in ("shape", "dtype"):
        if getattr(eager, what) != getattr(compiled, what):
            return f"compiled {what} {getattr(compiled, what)}, eager {getattr(eager, what)}"
    if eager.stride() != compiled.stride():
        return f"compiled strides {compiled.stride()}, eager {eager.stride()}"
    return ""


def _compile_matches(torch: Any, dtype: str) -> str:
    inputs, _, compiled, grads = _compiled(torch, dtype)
    exact, low = (reference.full(torch, inputs, low) for low in (False, True))
    outputs = dict(zip(("out", "dq", "dk", "dv"), (compiled.detach(), *grads), strict=True))
    outputs = {name: x.transpose(1, 2) for name, x in outputs.items()}
    tolerances.compare(torch, outputs, exact, low, "compiled")
    return ""


def _deterministic(torch: Any, dtype: str) -> str:
    """Asked for deterministic algorithms, FA4's backward is told so and gives the same bits; else it is not told."""
    interface: Any = importlib.import_module("flash_attn.cute.interface")
    real, told = interface._flash_attn_bwd, []

    @functools.wraps(real)  # with its attributes: older releases keep their compile caches there
    def listening(*args: Any, **kwargs: Any) -> Any:
        told.append(bool(kwargs.get("deterministic", False)))
        return real(*args, **kwargs)

    interface._flash_attn_bwd = listening
    try:
        check_whole(torch, backend("fa4-sdpa"), _shape(dtype), "cuda", True, "gaussian")
    finally:
        interface._flash_attn_bwd = real
    return "" if set(told) == {True, False} else f"FA4's backward was told deterministic={sorted(set(told))}"


CHECKS: dict[str, Check] = {
    "activation": _activation,
    "kernel_forward": _kernel(False),
    "kernel_backward": _kernel(True),
    "grid_forward": _grid(False),
    "grid_backward": _grid(True),
    "layout": _layout,
    "compile_keeps": _compile_keeps,
    "compile_matches": _compile_matches,
    "deterministic": _deterministic,
}
