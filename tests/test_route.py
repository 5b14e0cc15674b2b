"""The checks of the SDPA route on a fake torch and FA4, one defect at a time; records; bases; the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fa4_asv.measure import cached_jobs
from fa4_asv.measure.pool import Outcome
from fa4_asv.measure.route import collect as route
from fa4_asv.measure.route.checks import NAMES, Answer, Attention, Seen, plain, run_checks
from fa4_asv.record.schema import CaseRecord

UNPACK = "ValueError: too many values to unpack (expected 2)"


def seen(attention: Attention, heads: int, dtype: str = "") -> Seen:
    dtype = dtype or attention.shape.torch_dtype
    if attention.shape.packed:
        return Seen((512, heads, 128), (heads * 128, 128, 1), dtype)
    strides = (heads * 32768, 128, heads * 128, 1) if attention.bshd else (heads * 32768, 32768, 128, 1)
    return Seen((2, heads, 256, 128), strides, dtype)


class FakeDriver:
    """A torch and an FA4 that get on with each other, but for one `defect`."""

    def __init__(self, defect: str = "") -> None:
        self.defect, self.active, self.restored = defect, 0, False
        self.name: str | None = None
        self.calls: list[dict] = []

    def import_fa4(self):
        if self.defect == "import":
            raise ImportError("cannot import name 'x' from 'cutlass' (/home/me/env/cutlass/__init__.py)")

    def activate(self):
        self.active += 1
        if self.defect == "activate" or (self.defect == "reactivate" and self.restored):
            raise RuntimeError("Unknown flash attention impl")
        if self.defect == "activate_twice" and self.active > 1:
            raise RuntimeError("registered twice")
        self.name = "FA3" if self.defect == "current" else "FA4"

    def restore(self):
        self.restored, self.name = True, None
        self.active = 1 if self.defect == "restore" else 0

    def current(self):
        return self.name

    def routed(self):
        return ["_flash_attention_forward"] if self.active else []

    def not_routed(self):
        return [] if self.active else ["_flash_attention_forward"]

    def _kind(self, attention):
        shape = attention.shape
        if shape.packed:
            return "varlen"
        if shape.kv_heads != 8:
            return "gqa"
        if shape.dtype != "bf16":
            return "fp16"
        return "causal" if shape.causal else "full"

    def forward(self, attention):
        self.calls = []
        for name, refused in (
            ("dropout_p", attention.dropout),
            ("query dtype", attention.shape.dtype == "fp32"),
        ):
            if refused and self.defect != "refuses_" + {"dropout_p": "dropout", "query dtype": "fp32"}[name]:
                raise RuntimeError(f"FA4 forward unsupported: {name} must be something else")
        if self.defect == "forward_" + self._kind(attention) and not attention.bshd:
            raise ValueError("too many values to unpack (expected 2)")
        self.calls = [{"causal": attention.shape.causal}]
        out = seen(attention, 8)
        if self.defect == "layout" and attention.bshd:
            out = seen(replace(attention, bshd=False), 8)
        lse = None if self.defect == "lse" else Seen((2, 8, 256), (2048, 256, 1), "float32")
        return Answer((out, lse), (seen(attention, 8),), self.calls)

    def promised(self, attention):
        lse = Seen((2, 8, 512 if self.defect == "meta" else 256), (2048, 256, 1), "float32")
        return Answer((seen(attention, 8), None if self.defect == "lse" else lse), ())

    def backward(self, attention):
        self.calls = [{"causal": attention.shape.causal}]
        if attention.shape.variant == "deterministic" and self.defect != "deterministic":
            self.calls[0]["deterministic"] = True
        like = tuple(
            seen(attention, heads) for heads in (8, attention.shape.kv_heads, attention.shape.kv_heads)
        )
        grads = like[:1] * 3 if self.defect == "backward_gqa" else like
        if self.defect == "backward_" + self._kind(attention) and self._kind(attention) != "gqa":
            grads = (seen(attention, 8, "float32"), *like[1:])
        return Answer(grads, like, self.calls)


FOLLOW = {
    "import": set(NAMES) - {"import"},
    "activate": set(NAMES) - {"import", "activate"},
    "current": {"activate_twice", "reactivate"},
    "forward_full": {"layout", "lse", "meta", "backward_full", "deterministic"},
    "forward_causal": {"backward_causal"},
    "forward_gqa": {"backward_gqa"},
    "forward_varlen": {"backward_varlen"},
    "backward_full": {"deterministic"},
    "lse": {"meta"},
    "restore": {"reactivate"},
    "layout": {"meta"},
}


def test_a_pair_that_gets_on_breaks_nothing():
    assert run_checks(FakeDriver()) == {}


@pytest.mark.parametrize("defect", NAMES)
def test_each_defect_is_counted_and_named(defect):
    broken = run_checks(FakeDriver(defect))
    assert set(broken) == {defect} | FOLLOW.get(defect, set())
    assert not broken[defect].startswith("needs ")
    follows = {name: reason for name, reason in broken.items() if name != defect}
    if defect in ("import", "forward_causal", "forward_gqa", "forward_varlen", "restore"):
        assert all(reason.startswith("needs ") for reason in follows.values())


@pytest.mark.parametrize(
    ("defect", "reason"),
    [
        ("import", "ImportError: cannot import name 'x' from 'cutlass' (__init__.py) (in test_route.py, import_fa4)"),
        ("forward_full", f"{UNPACK} (in test_route.py, forward)"),
        ("deterministic", "FA4's backward got deterministic=False where torch was asked for True"),
        ("refuses_dropout", "accepted by FA4"),
        ("restore", "the dispatcher still routes _flash_attention_forward to FA4"),
        ("backward_gqa", "dK has shape (2, 8, 256, 128), expected (2, 2, 256, 128)"),
    ],
)  # fmt: skip
def test_the_words_of_a_defect(defect, reason):
    assert run_checks(FakeDriver(defect))[defect] == reason


@pytest.mark.parametrize(
    ("calls", "reason"),
    [([], "FA4 was called 0 times"), ([{"causal": False}], "FA4 was called with causal=False")],
)
def test_another_kernel_or_another_mask_is_not_fa4(calls, reason):
    class Astray(FakeDriver):
        def forward(self, attention):
            answer = super().forward(attention)
            return replace(answer, calls=calls) if attention.shape.causal else answer

    assert run_checks(Astray())["forward_causal"] == reason


def test_refused_after_fa4_was_called_or_for_another_reason():
    class Late(FakeDriver):
        def forward(self, attention):
            if attention.dropout:
                self.calls = [{}] if self.defect == "late" else []
                raise TypeError("unexpected keyword 'page_table'")
            return super().forward(attention)

    assert run_checks(Late("late"))["refuses_dropout"].startswith("refused only after FA4 was called")
    assert run_checks(Late())["refuses_dropout"].startswith("fails for another reason: TypeError")


def test_words_are_the_same_on_every_machine():
    error = OSError("cannot load /opt/a b/lib/x-1.so at 0x7f00deadbeef, see http://www.example.org/a/b")
    assert plain(error) == "OSError: cannot load a b/lib/x-1.so at 0x..., see http://www.example.org/a/b"


def answered(broken, torch="2.13.0+cpu"):
    return Outcome("2.13.0/sm_90", {"torch": torch, "broken": broken, "checks": 21})


def test_a_broken_check_is_a_figure_and_a_lost_process_is_broken():
    case = ("2.13.0", "sm_90")

    def record(outcome):
        return route._records(case, outcome)["2.13.0/sm_90"]

    measured = record(answered({"lse": "the LSE is missing"}))
    assert measured == CaseRecord("measured", figures={"broken": 1, "checks": 21}, notes={"lse": "the LSE is missing"})  # fmt: skip
    assert record(Outcome("x", lost="timed out")) == CaseRecord("broken", why="timed out")
    of_other_torch = record(answered({}, "2.15.0+cu132"))
    assert of_other_torch.why == "the interpreter for torch 2.13.0 holds 2.15.0+cu132"


def test_only_torches_at_hand_are_measured(monkeypatch):
    class Here:
        torches = {"2.13.0": "python"}

    asked = []
    monkeypatch.setattr(route, "_ask", lambda context, pairs, *_: asked.extend(pairs) or {})
    monkeypatch.setattr(cached_jobs, "cache_path", lambda *_: Path("/nonexistent"))
    assert route.measure(Here(), [("2.12.1", "sm_90"), ("2.13.0", "sm_100")]) == {}
    assert asked == [("2.13.0", "sm_100")]
