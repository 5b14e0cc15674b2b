"""The checks of `torch.nn.attention.varlen`: does it reach FA4, and does FA4 hear what it was asked?

torch's public function is called on fake CUDA tensors. A mode catches the operators below it at the CUDA key, where torch's
own operators and its adapter are the real ones; autograd is not covered, so the backward's operator is called by its
private name. Shape: two sequences of 256 queries, 8 heads, d 128, bf16.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fa4_asv.measure.driver_stubs import Lacking
from fa4_asv.measure.route.checks import Seen
from fa4_asv.measure.route.refusals import Checks, attribute, takes, told
from fa4_asv.measure.route.worker import TorchDriver, seen

_BATCH, _TOKENS, _HEADS, _DIM, _PAGE = 2, 256, 8, 128, 128
_FULL, _CAUSAL = (-1, -1), (-1, 0)
_BACKWARD = "_varlen_attn_backward"
_IN_PLACE = "_flash_attention_forward_no_dropout_inplace"
_CUDNN = "_cudnn_attention_forward"


@dataclass(frozen=True)
class Packed:
    """One call: `window` as torch writes it; `options` are further keywords, tensors among them by their makers' names."""

    window: tuple[int, int] = _FULL
    kv_heads: int = _HEADS
    used: bool = False
    pages: bool = False
    options: dict[str, Any] = field(default_factory=dict)


class VarlenDriver(TorchDriver):
    """The torch and FA4 of this process, by torch's function for packed sequences. Raises Lacking for a torch without it."""

    def __init__(self, torch: Any, fake_mode: Any) -> None:
        super().__init__(torch, fake_mode)
        self._version = torch.__version__.partition("+")[0]
        try:
            self._varlen = importlib.import_module("torch.nn.attention.varlen")
        except ImportError:
            raise Lacking(f"torch {self._version} has no torch.nn.attention.varlen") from None
        self._original[_IN_PLACE] = self._kernels(_IN_PLACE)
        self.without_cudnn()

    def without_cudnn(self) -> None:
        """As on a machine whose torch has no cuDNN, which some torches prefer: a build must not matter."""
        self._cudnn(None)

    def with_cudnn(self) -> None:
        """As where torch finds a cuDNN newer than any that it asks for."""
        self._cudnn(999_999)

    def _cudnn(self, version: int | None) -> None:
        self._torch.backends.cudnn.version = lambda: version
        for function in vars(self._varlen).values():  # whichever of torch's remembers it
            if hasattr(function, "cache_clear"):
                function.cache_clear()

    def forward(self, packed: Packed, function: str = "varlen_attn") -> list[Any]:  # type: ignore[override]
        """What torch's function gives, as a list of Seen; the calls that reached FA4 are in `calls`."""
        self.calls.clear()
        with self._fake_mode():
            tensors, places, options = self._arguments(packed)
            call = attribute(self._varlen, function, self._version)
            takes(call, options)
            lead = (self._torch.empty_like(tensors[0]),) if function == "varlen_attn_out" else ()
            with self._to_fa4():
                answer = call(*lead, *tensors, *places, **options)
        return [seen(x) for x in (answer if isinstance(answer, tuple) else (answer,))]

    def query(self) -> Seen:
        return Seen((_BATCH * _TOKENS, _HEADS, _DIM), (_HEADS * _DIM, _DIM, 1), "bfloat16")

    def promised(self, packed: Packed) -> list[Any]:  # type: ignore[override]
        """The same by torch's own fake kernel, which torch.compile asks."""
        with self._fake_mode():
            tensors, places, options = self._arguments(packed)
            answer = self._varlen.varlen_attn(*tensors, *places, **options)
        return [seen(x) for x in (answer if isinstance(answer, tuple) else (answer,))]

    def backward(self, packed: Packed, deterministic: bool = False) -> list[Any]:  # type: ignore[override]
        """dq, dk, dv by the operator that autograd calls; only FA4's backward is listened to."""
        torch = self._torch
        operator = getattr(torch.ops.torch_attn, _BACKWARD, None)
        if operator is None:
            raise Lacking(f"torch {self._version} has no torch_attn::{_BACKWARD}")
        was = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        try:
            with self._fake_mode():
                (q, k, v), places, _ = self._arguments(packed)
                out = torch.empty_like(q)
                lse = torch.empty(_HEADS, _BATCH * _TOKENS, dtype=torch.float32, device="cuda")
                state = torch.empty(2, dtype=torch.uint64, device="cuda")
                self.calls.clear()
                causal = packed.window == _CAUSAL
                rest = (out, lse, *places, causal, state, None, list(packed.window))
                with self._to_fa4():
                    grads = operator(torch.empty_like(out), q, k, v, *rest)
        finally:
            torch.use_deterministic_algorithms(was)
        return [seen(x) for x in grads]

    def _arguments(self, packed: Packed) -> tuple[list[Any], tuple[Any, ...], dict[str, Any]]:
        """Q, K and V; where sequences begin and how long they are; keywords."""
        make = partial(self._torch.empty, device="cuda")
        numbers, low = {"dtype": self._torch.int32}, {"dtype": self._torch.bfloat16}
        pages = _BATCH * _TOKENS // _PAGE
        lead = (pages, _PAGE) if packed.pages else (_BATCH * _TOKENS,)
        keys = [make(*lead, packed.kv_heads, _DIM, **low) for _ in "kv"]
        query = make(_BATCH * _TOKENS, _HEADS, _DIM, **low)
        begins = make(_BATCH + 1, **numbers)
        options = dict(packed.options)
        if packed.window != _FULL:
            options["window_size"] = packed.window
        if packed.kv_heads != _HEADS:
            options["enable_gqa"] = True
        if packed.used:
            options["seqused_k"] = make(_BATCH, **numbers)
        if packed.pages:
            options["block_table"] = make(_BATCH, pages // _BATCH, **numbers)
        # Keys in pages are found by their table.
        places = (begins, None if packed.pages else begins, _TOKENS, _TOKENS)
        return [query, *keys], places, options

    @contextmanager
    def _to_fa4(self) -> Iterator[None]:
        """Send torch's operators of attention to their kernels for CUDA, as a card would."""
        mode: Any = importlib.import_module("torch.utils._python_dispatch").TorchDispatchMode
        driver = self

        class ToCuda(mode):  # type: ignore[misc] # a class that only this torch has
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                name = func.name().partition("::")[2].partition(".")[0]
                if name == _CUDNN:
                    raise RuntimeError("torch asked cuDNN, and not FA4")
                if name.startswith("_varlen_attn"):
                    with self:
                        return func.redispatch(driver._cuda, *args, **(kwargs or {}))
                if name.startswith("_flash_attention_"):
                    # torch's own kernel would follow the fake tensors' null pointers
                    if driver._kernels(name) == driver._original.get(name):
                        raise RuntimeError(f"{name} is not routed to FA4")
                    return func.redispatch(driver._cuda, *args, **(kwargs or {}))
                return func(*args, **(kwargs or {}))

        with ToCuda():
            yield


def _import(driver: VarlenDriver) -> str:
    driver.import_fa4()
    return ""


def _activate(driver: VarlenDriver) -> str:
    driver.activate()
    left = driver.not_routed()
    return f"the dispatcher does not route {', '.join(left)} to FA4" if left else ""


def _window(packed: Packed) -> dict[str, Any]:
    """FA4's words for torch's window, in which -1 is none."""
    left, right = (None if size == -1 else size for size in packed.window)
    if packed.window == _CAUSAL:
        return {"causal": True}
    return {"causal": False, "window_size_left": left, "window_size_right": right}


def _forward(packed: Packed, **expected: Any) -> Any:
    def run(driver: VarlenDriver) -> str:
        (out, *_) = driver.forward(packed)
        return told(driver.calls, _window(packed) | expected) or _differs(out, driver.query())

    return run


def _differs(got: Seen | None, like: Seen) -> str:
    return "" if got == like else f"the output is {got}, expected {like}"


def _lse(driver: VarlenDriver) -> str:
    request = attribute(driver._varlen, "AuxRequest", driver._version)
    _, lse = driver.forward(Packed(options={"return_aux": request(lse=True)}))
    total = _BATCH * _TOKENS
    return "" if lse == Seen((_HEADS, total), (total, 1), "float32") else f"the LSE is {lse}"


def _meta(driver: VarlenDriver) -> str:
    """torch.compile plans with the fake kernel's shapes and strides; FA4 must give the same."""
    request = attribute(driver._varlen, "AuxRequest", driver._version)
    packed = Packed(options={"return_aux": request(lse=True)})
    actual, promised = driver.forward(packed), driver.promised(packed)
    return "" if actual == promised else f"torch's fake kernel promises {promised}, FA4 gives {actual}"


def _out(driver: VarlenDriver) -> str:
    driver.forward(Packed(), "varlen_attn_out")
    return told(driver.calls, {"out": ...})


def _over_cudnn(driver: VarlenDriver) -> str:
    """Where torch could ask cuDNN, it still asks FA4, which was activated."""
    driver.with_cudnn()
    try:
        driver.forward(Packed())
        return told(driver.calls, {})
    finally:
        driver.without_cudnn()


def _backward(packed: Packed, deterministic: bool = False) -> Any:
    def run(driver: VarlenDriver) -> str:
        grads = driver.backward(packed, deterministic)
        message = told(driver.calls, _window(packed) | {"deterministic": deterministic})
        for name, grad, heads in zip(
            ("dQ", "dK", "dV"), grads, (_HEADS, *[packed.kv_heads] * 2), strict=True
        ):
            if not message and (grad is None or grad.shape != (_BATCH * _TOKENS, heads, _DIM)):
                message = f"{name} is {grad}"
        return message

    return run


_GQA, _SLIDING = Packed(_CAUSAL, kv_heads=2), Packed((128, 0))
_ON = ("activate",)
_RUNS = ("activate", "forward_full")
CHECKS: Checks = {
    "import": (_import, ()),
    "activate": (_activate, ("import",)),
    "forward_full": (_forward(Packed()), _ON),
    "forward_causal": (_forward(Packed(_CAUSAL)), _ON),
    "forward_window": (_forward(_SLIDING), _ON),
    "forward_gqa": (_forward(_GQA), _ON),
    "lse": (_lse, _RUNS),
    "meta": (_meta, _RUNS),
    "out": (_out, _RUNS),
    "over_cudnn": (_over_cudnn, _RUNS),
    "seqused_k": (_forward(Packed(used=True), seqused_k=...), _RUNS),
    "block_table": (_forward(Packed(used=True, pages=True), seqused_k=..., page_table=...), _RUNS),
    "num_splits_1": (_forward(Packed(options={"num_splits": 1}), num_splits=1), _RUNS),
    "num_splits_4": (_forward(Packed(options={"num_splits": 4}), num_splits=4), _RUNS),
    "backward_full": (_backward(Packed()), _RUNS),
    "backward_causal": (_backward(Packed(_CAUSAL)), _RUNS),
    "backward_window": (_backward(_SLIDING), _RUNS),
    "backward_gqa": (_backward(_GQA), _RUNS),
    "deterministic": (_backward(Packed(), deterministic=True), ("activate", "backward_full")),
}
