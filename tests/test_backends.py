"""Backends on a CPU: the same answer from each that runs there, words from each that does not; none falls back."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from fa4_asv.base.errors import Fa4AsvError  # noqa: E402
from fa4_asv.catalog.features import Features  # noqa: E402
from fa4_asv.catalog.shapes import shape  # noqa: E402
from fa4_asv.measure.driver_stubs import Lacking  # noqa: E402
from fa4_asv.measure.runtime import reference, tolerances  # noqa: E402
from fa4_asv.measure.runtime.backends import TABLE, backend  # noqa: E402
from fa4_asv.measure.runtime.correctness import kernels_of  # noqa: E402
from fa4_asv.measure.runtime.inputs import make  # noqa: E402

SHAPE = shape(1, 4, 96, 64, kv_heads=2, causal=True)


@pytest.fixture
def interface(monkeypatch):
    """A flash_attn.cute.interface with nothing in it."""
    module = types.ModuleType("flash_attn.cute.interface")
    for name in ("flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", module)
    return module


@pytest.mark.parametrize("name", ["fa2", "math"])
@pytest.mark.parametrize("size", [SHAPE, shape(2, 2, 64, 32), replace(SHAPE, dtype="fp16")])
def test_torchs_own_backends_pass_the_guard(name, size):
    inputs = make(torch, size, "cpu")
    calls = backend(name).prepare(torch, inputs)
    exact, low = (reference.full(torch, inputs, low) for low in (False, True))
    tolerances.compare(torch, {**calls.forward(), **calls.backward()}, exact, low, name)


def test_flash_attention_on_a_cpu_is_flash_attention_and_math_is_not():
    inputs = make(torch, SHAPE, "cpu")
    flash, math = (
        kernels_of(torch, backend(n).prepare(torch, inputs).raw_forward, "cpu") for n in ("fa2", "math")
    )
    assert any("_scaled_dot_product_flash_attention_for_cpu" in name for name in flash)
    assert not any("flash" in name for name in math)
    assert any("_scaled_dot_product_attention_math" in name for name in math)


def test_gradients_have_the_inputs_layout():
    inputs = make(torch, SHAPE, "cpu")
    grads = backend("fa2").prepare(torch, inputs).backward()
    assert [tuple(grads[name].shape) for name in ("dq", "dk", "dv")] == [
        (1, 96, 4, 64),
        (1, 96, 2, 64),
        (1, 96, 2, 64),
    ]


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("cudnn", SHAPE, "CUDNN_ATTENTION has no CPU kernels"),
        ("efficient", SHAPE, "EFFICIENT_ATTENTION has no CPU kernels"),
        ("fa4-sdpa", SHAPE, "the route to FA4 is CUDA's"),
        ("fa2", shape(1, 4, 96, 64, window=16), "SDPA has no sliding window"),
        ("math", shape(1, 4, 96, 64, window=16), "SDPA has no sliding window"),
    ],
)
def test_a_backend_that_cannot_says_why(name, size, message):
    assert backend(name).why_not(torch, size, "cpu", backward=False) == message


def test_a_backend_that_refuses_while_it_runs_does_not_fall_back():
    """cuDNN asked for on a CPU: torch's own error, no other backend's answer."""
    calls = backend("cudnn").prepare(torch, make(torch, SHAPE, "cpu"))
    with pytest.raises(RuntimeError, match="[Nn]o (available|viable) (kernel|backend)"):
        calls.forward()


def test_every_name_of_the_table_is_a_backend(interface):
    assert [backend(name).name for name in TABLE] == list(TABLE)
    with pytest.raises(KeyError):
        backend("fa5")


def test_fa4_does_not_run_on_a_cpu_nor_on_an_old_card(interface, monkeypatch):
    fa4 = backend("fa4")
    assert fa4.why_not(torch, SHAPE, "cpu", backward=False) == "FA4 has no CPU kernels"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    message = "FA4 needs Hopper or Blackwell, this card has compute capability 8.0"
    assert fa4.why_not(torch, SHAPE, "cuda", backward=False) == message
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (10, 0))
    assert fa4.why_not(torch, SHAPE, "cuda", backward=False) == ""


def test_fa4_is_called_with_what_the_shape_says(interface):
    asked = []
    inputs = make(torch, shape(1, 4, 96, 64, kv_heads=2, window=16), "cpu")
    lse = torch.zeros(1, 4, 96)

    def forward(q, k, v, **options):
        asked.append(("forward", options))
        return torch.zeros_like(q), lse, None, None

    def backward(q, k, v, out, dout, given_lse, **options):
        asked.append(("backward", options))
        assert given_lse is lse and dout is inputs.dout
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)

    interface._flash_attn_fwd, interface._flash_attn_bwd = forward, backward
    calls = backend("fa4").prepare(torch, inputs, deterministic=True)
    assert set(calls.backward()) == {"dq", "dk", "dv"}
    window = {"causal": False, "window_size_left": 16, "window_size_right": 0}
    assert asked == [
        ("forward", {"return_lse": True, **window}),
        ("backward", {"deterministic": True, **window}),
    ]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda q: torch.zeros_like(q), r"returned Tensor \(1, 96, 4, 64\), expected out, lse and more"),
        (lambda q: (torch.zeros_like(q),), "returned 1 values, expected out, lse"),
        (lambda q: (torch.zeros_like(q), None), r"returned NoneType for lse, expected float32 \(1, 4, 96\)"),
        (lambda q: (torch.zeros_like(q), torch.zeros(1, 96, 4)), r"returned Tensor \(1, 96, 4\) for lse"),
    ],
)
def test_another_number_of_values_is_one_clear_line(interface, answer, message):
    interface._flash_attn_fwd = lambda q, k, v, **_: answer(q)
    with pytest.raises(Fa4AsvError, match=message):
        backend("fa4").prepare(torch, make(torch, SHAPE, "cpu")).forward()


def test_a_backward_that_returns_one_tensor_is_one_clear_line(interface):
    interface._flash_attn_fwd = lambda q, *_, **__: (torch.zeros_like(q), torch.zeros(1, 4, 96))
    interface._flash_attn_bwd = lambda q, *_, **__: q
    with pytest.raises(Fa4AsvError, match="_flash_attn_bwd returned Tensor .* expected dq, dk, dv"):
        backend("fa4").prepare(torch, make(torch, SHAPE, "cpu")).backward()


def test_what_a_release_lacks_is_refused_in_words_and_of_the_backward_alone(interface):
    """b25 has a sink in its forward and none in its backward."""
    sink = shape(1, 2, 32, 16, causal=True, features=Features(sink=True))
    out, lse = torch.zeros(1, 32, 2, 16), torch.zeros(1, 2, 32)
    interface.RUNS_ON_CPU = True
    interface._flash_attn_fwd = lambda q, k, v, *, causal, learnable_sink, return_lse: (out, lse)
    interface._flash_attn_bwd = lambda q, k, v, out, dout, lse, *, causal: None
    calls = backend("fa4").prepare(torch, make(torch, sink, "cpu"))
    assert calls.raw_forward()[0] is out
    with pytest.raises(Lacking, match="_flash_attn_bwd of this release has no argument learnable_sink"):
        calls.raw_backward()
