"""Is the answer right, and did the right kernel give it? A benchmark that fails here records no time.

The first rule is that of PyTorch's own FA4 tests: no element may be further from MATH in fp32 than twice what
MATH in the low dtype is, plus rounding. It looks at the worst element; two more look at all of them: the
root mean square, and the slope against the reference, which sees a factor that noise would hide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fa4_asv.catalog.metrics import TIMES_OWN_ERROR

if TYPE_CHECKING:
    from torch import Tensor

# A correct kernel's rounding is unbiased: over thousands of elements its slope is 1 within 1e-3. FA4's
# polynomial exp2 is below that; a wrong scale of 1 % is ten times above.
SLOPE = 4e-3
FA4_KERNEL = "flash_attncute"
# Parts of the names of other attention kernels, as the profiler shows them.
OTHERS = (
    "flash_fwd",
    "flash_bwd",
    "fmha",
    "cudnn_generated",
    "sdpa_sm",
    "efficient_attention",
    "AttentionKernel",
    "scaled_dot_product",  # on a CPU the profiler shows operators
)
# Of the root mean square: atomic sums in another order move single bits, 1e-4 in all; a call that is wrong by
# 1 % now and then is far above.
REPEATS = 4e-3


class GuardFailed(Exception):
    """The answer is wrong, or not the one that was asked for; the message says how."""


@dataclass
class Verdict:
    """Worst error of each tensor, as a multiple of what MATH in the low dtype is off."""

    errors: dict[str, float] = field(default_factory=dict)


def compare(
    torch: Any,
    outputs: dict[str, Tensor],
    exact: dict[str, Tensor],
    low: dict[str, Tensor],
    where: str,
    allowance: float = 0.0,
) -> Verdict:
    """Hold `outputs` against `exact` (MATH in fp32, cast) with the error budget of `low`. Raises GuardFailed.

    With an `allowance` (fp8, whose probabilities are rounded to e4m3) no element may be further off than that beyond
    the budget, and nothing else is asked.
    """
    verdict = Verdict()
    for name, x in outputs.items():
        ref, budget = exact[name].float(), low[name].float()
        if tuple(x.shape) != tuple(ref.shape):
            raise GuardFailed(f"{where}: {name} has shape {tuple(x.shape)}, expected {tuple(ref.shape)}")
        if not bool(torch.isfinite(x).all()):
            count = int((~torch.isfinite(x)).sum())
            raise GuardFailed(f"{where}: {name} has {count} values that are not finite")
        message = f"{where}: {name}"
        verdict.errors[name] = _one(torch, x.float(), ref, budget, exact[name], message, allowance)
    return verdict


def _one(torch: Any, x: Any, ref: Any, budget: Any, rounded: Any, where: str, allowance: float) -> float:
    off, allowed = x - ref, budget - ref
    atol = 2 * (((rounded + 0.3) - 0.3) - rounded).abs().max().float()
    worst, bound = off.abs().max(), TIMES_OWN_ERROR * allowed.abs().max() + atol + allowance
    if worst > bound:
        place = tuple(int(i) for i in torch.unravel_index(off.abs().argmax(), off.shape))
        raise GuardFailed(f"{where} is off by {worst:.3g} at {place}, at most {bound:.3g} is rounding")
    if not allowance:
        _on_average(torch, off, allowed, ref, rounded, where)
    return float(worst / allowed.abs().max().clamp_min(torch.finfo(torch.float32).tiny))


def _on_average(torch: Any, off: Any, allowed: Any, ref: Any, rounded: Any, where: str) -> None:
    """What noise would hide from the worst element. Raises GuardFailed."""
    spread, usual = off.square().mean().sqrt(), allowed.square().mean().sqrt()
    floor = rounded.float().square().mean().sqrt() * torch.finfo(rounded.dtype).eps
    if spread > TIMES_OWN_ERROR * usual + floor:
        raise GuardFailed(f"{where} is off by {spread:.3g} on average, MATH in the low dtype by {usual:.3g}")
    square = (ref * ref).sum()
    if square > 0:
        slope, own = ((t * ref).sum() / square for t in (off, allowed))
        if slope.abs() > SLOPE + TIMES_OWN_ERROR * own.abs():
            raise GuardFailed(f"{where} is {1 + float(slope):.4f} times the reference on average")


def same_layout(outputs: dict[str, Tensor], like: dict[str, Tensor]) -> None:
    """Shape, dtype, device and strides of each result as those of the input it belongs to. Raises GuardFailed."""
    for name, x in outputs.items():
        other = like[name]
        for what in ("shape", "dtype", "device"):
            if getattr(x, what) != getattr(other, what):
                raise GuardFailed(f"{name} has {what} {getattr(x, what)}, expected {getattr(other, what)}")
        if x.stride() != other.stride():
            raise GuardFailed(f"{name} has strides {x.stride()}, expected {other.stride()}")


def repeats(torch: Any, call: Callable[[], dict[str, Tensor]], first: dict[str, Tensor], exact: bool) -> None:
    """Call twice more: bit for bit the same where `exact`, else within rounding. Raises GuardFailed."""
    for number in (2, 3):
        for name, x in call().items():
            if exact and not torch.equal(x, first[name]):
                off = float((x.float() - first[name].float()).abs().max())
                raise GuardFailed(f"call {number} gave another {name} than call 1 (off by {off:.3g})")
            scale = float(first[name].float().square().mean().sqrt())
            off = float((x.float() - first[name].float()).square().mean().sqrt())
            if not off <= REPEATS * scale:
                raise GuardFailed(
                    f"call {number} gave another {name} than call 1 (off by {off:.3g} of {scale:.3g})"
                )


def right_kernel(names: Iterable[str], expected: str, others: Iterable[str] = OTHERS) -> None:
    """Of the kernels that ran, one is `expected` and none is another attention. Raises GuardFailed."""
    ran = list(names)
    if not any(expected in name for name in ran):
        shown = ", ".join(sorted(set(ran))[:5]) or "none"
        raise GuardFailed(f"no kernel named *{expected}* ran, but {shown}")
    for name in ran:
        for other in others:
            if other in name and expected not in name:
                raise GuardFailed(f"another attention kernel ran beside it: {name}")
