"""The checks of the SDPA route: does this torch drive this FA4? Knows neither; both come as a `Driver`.

A check that is broken answers with a reason. Names are kept in records: never rename one; raise the
version in route.py when a check is added or changes its meaning.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fa4_asv.base.escape import without_places
from fa4_asv.catalog.shapes import SdpaShape, shape

_small = partial(shape, 2, 8, 256, 128)


@dataclass(frozen=True)
class Attention:
    """One call of SDPA; `bshd` lays the heads inside the tokens."""

    shape: SdpaShape = field(default_factory=_small)
    bshd: bool = False
    dropout: float = 0.0


@dataclass(frozen=True)
class Seen:
    """What can be seen of a fake tensor."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Answer:
    """What the dispatcher gave back (`tensors`: out and LSE, or the gradients; None where there is none),
    the tensors it was given, and the arguments of each call that reached FA4."""

    tensors: tuple[Seen | None, ...]
    inputs: tuple[Seen, ...]
    calls: Sequence[dict[str, Any]] = field(default_factory=list)


class Driver(Protocol):
    """A torch and an FA4. Whatever they raise comes through."""

    calls: list[dict[str, Any]]

    def import_fa4(self) -> None: ...
    def activate(self) -> None: ...
    def restore(self) -> None: ...
    def current(self) -> str | None: ...
    def not_routed(self) -> list[str]: ...  # operators whose CUDA kernel is still torch's own
    def routed(self) -> list[str]: ...
    def forward(self, attention: Attention) -> Answer: ...
    def backward(self, attention: Attention) -> Answer: ...
    def promised(
        self, attention: Attention
    ) -> Answer: ...  # by torch's meta kernel, which torch.compile asks


@dataclass(frozen=True)
class Check:
    """`run` answers "" when all is well; `needs` are checks without which it is not even tried."""

    name: str
    run: Callable[[Driver], str]
    needs: tuple[str, ...] = ()


def run_checks(driver: Driver) -> dict[str, str]:
    """The reason of each broken check, in the order of CHECKS; an exception breaks its own check only."""
    broken: dict[str, str] = {}
    for check in CHECKS:
        missing = [need for need in check.needs if need in broken]
        if missing:
            broken[check.name] = f"needs {missing[0]}"
            continue
        try:
            message = check.run(driver)
        except Exception as error:
            message = plain(error)
        if message:
            broken[check.name] = message
    return broken


def plain(error: BaseException) -> str:
    """An exception in one line that is the same on every machine: no paths, addresses or line numbers."""
    message = without_places(" ".join(str(error).split()))
    message = re.sub(r"0x[0-9a-f]{6,}", "0x...", message)[:300]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (in {Path(frames[-1].filename).name}, {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {message}{place}" if message else f"{type(error).__name__}{place}"


def _import(driver: Driver) -> str:
    driver.import_fa4()
    return ""


def _is_active(driver: Driver) -> str:
    left = driver.not_routed()
    return f"the dispatcher does not route {', '.join(left)} to FA4" if left else ""


def _activate(driver: Driver) -> str:
    driver.activate()
    return _is_active(driver)


def _current(driver: Driver) -> str:
    name = driver.current()
    return "" if name == "FA4" else f"current_flash_attention_impl() says {name!r}"


def _activate_twice(driver: Driver) -> str:
    driver.activate()
    driver.activate()
    return _current(driver) or _is_active(driver)


def _restore(driver: Driver) -> str:
    driver.restore()
    name, left = driver.current(), driver.routed()
    if name is not None:
        return f"current_flash_attention_impl() still says {name!r}"
    return f"the dispatcher still routes {', '.join(left)} to FA4" if left else ""


def _reactivate(driver: Driver) -> str:
    driver.activate()
    return _current(driver) or _is_active(driver)


def _differs(what: str, seen: Seen | None, like: Seen, layout: bool = True) -> str:
    """What of `seen` is not as in `like`, as text."""
    if seen is None:
        return f"{what} is missing"
    for name in ("shape", "dtype", "strides") if layout else ("shape", "dtype"):
        if getattr(seen, name) != getattr(like, name):
            return f"{what} has {name} {getattr(seen, name)}, expected {getattr(like, name)}"
    return ""


def _reached(answer: Answer, causal: bool) -> str:
    if len(answer.calls) != 1:
        return f"FA4 was called {len(answer.calls)} times"
    got = bool(answer.calls[0].get("causal", False))
    return "" if got == causal else f"FA4 was called with causal={got}"


def _forward(attention: Attention) -> Callable[[Driver], str]:
    def run(driver: Driver) -> str:
        answer = driver.forward(attention)
        return _reached(answer, attention.shape.causal) or _differs(
            "the output", answer.tensors[0], answer.inputs[0]
        )

    return run


def _lse(driver: Driver) -> str:
    answer = driver.forward(Attention())
    batch, heads, tokens, _ = answer.inputs[0].shape
    like = Seen((batch, heads, tokens), (heads * tokens, tokens, 1), "float32")
    return _differs("the LSE", answer.tensors[1], like)


def _promise(driver: Driver) -> str:
    """torch.compile plans with the meta kernel's shapes and strides; FA4 must give the same."""
    attention = Attention(bshd=True)
    pairs = zip(driver.forward(attention).tensors, driver.promised(attention).tensors, strict=True)
    for what, (actual, promised) in zip(("the output", "the LSE"), pairs, strict=True):
        if promised is None:
            return f"torch's meta kernel promises no {what.removeprefix('the ')}"
        message = _differs(what, actual, promised)
        if message:
            return f"not what torch's meta kernel promises: {message}"
    return ""


def _backward(attention: Attention) -> Callable[[Driver], str]:
    def run(driver: Driver) -> str:
        answer = driver.backward(attention)
        message = _reached(answer, attention.shape.causal)
        for name, grad, like in zip(("dQ", "dK", "dV"), answer.tensors, answer.inputs, strict=True):
            message = message or _differs(name, grad, like, layout=False)
        return message

    return run


def _deterministic(driver: Driver) -> str:
    for asked in (True, False):
        calls = driver.backward(Attention(_small(variant="deterministic" if asked else ""))).calls
        got = bool(calls[0].get("deterministic", False)) if calls else None
        if got != asked:
            return f"FA4's backward got deterministic={got} where torch was asked for {asked}"
    return ""


def _refuses(attention: Attention, word: str) -> Callable[[Driver], str]:
    def run(driver: Driver) -> str:
        try:
            answer = driver.forward(attention)
        except Exception as error:
            if driver.calls:
                return f"refused only after FA4 was called: {plain(error)}"
            return "" if word in str(error) else f"fails for another reason: {plain(error)}"
        return "accepted by FA4" if answer.calls else "accepted, and FA4 was not called"

    return run


_CAUSAL, _GQA = Attention(_small(causal=True)), Attention(_small(causal=True, kv_heads=2))
_VARLEN = Attention(_small(variant="varlen"))
_ON = ("activate",)
CHECKS = (
    Check("import", _import),
    Check("activate", _activate, ("import",)),
    Check("current", _current, _ON),
    Check("activate_twice", _activate_twice, _ON),
    Check("forward_full", _forward(Attention()), _ON),
    Check("forward_causal", _forward(_CAUSAL), _ON),
    Check("forward_fp16", _forward(Attention(_small(dtype="fp16"))), _ON),
    Check("forward_gqa", _forward(_GQA), _ON),
    Check("forward_varlen", _forward(_VARLEN), _ON),
    Check("layout", _forward(Attention(bshd=True)), ("activate", "forward_full")),
    Check("lse", _lse, ("activate", "forward_full")),
    Check("meta", _promise, ("activate", "forward_full")),
    Check("backward_full", _backward(Attention()), ("activate", "forward_full")),
    Check("backward_causal", _backward(_CAUSAL), ("activate", "forward_causal")),
    Check("backward_gqa", _backward(_GQA), ("activate", "forward_gqa")),
    Check("backward_varlen", _backward(_VARLEN), ("activate", "forward_varlen")),
    Check("deterministic", _deterministic, ("activate", "backward_full")),
    Check("refuses_dropout", _refuses(Attention(dropout=0.1), "dropout"), _ON),
    Check("refuses_fp32", _refuses(Attention(_small(dtype="fp32")), "dtype"), _ON),
    Check("restore", _restore, _ON),
    Check("reactivate", _reactivate, ("activate", "restore")),
)
NAMES = tuple(check.name for check in CHECKS)
