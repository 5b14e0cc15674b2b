"""The guard: what rounding may do, what it may not. Each wrong answer here is one that a kernel has given somewhere."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from fa4_asv.catalog.shapes import shape  # noqa: E402
from fa4_asv.measure.runtime import reference, tolerances  # noqa: E402
from fa4_asv.measure.runtime.inputs import make  # noqa: E402
from fa4_asv.measure.runtime.tolerances import GuardFailed  # noqa: E402

SHAPE = shape(2, 4, 200, 64, kv_heads=2, causal=True)


@pytest.fixture(scope="module")
def answers():
    """What MATH gives in fp32 and in bf16, and the inputs."""
    inputs = make(torch, SHAPE, "cpu")
    return inputs, reference.full(torch, inputs, False), reference.full(torch, inputs, True)


def held(result, answers):
    return tolerances.compare(torch, result, answers[1], answers[2], "here").errors


def test_what_is_rounded_as_math_rounds_passes(answers):
    errors = held(answers[2], answers)
    assert set(errors) == {"out", "dq", "dk", "dv"}
    assert all(value == pytest.approx(1.0) for value in errors.values()), "of its own error, exactly once"
    assert all(value == 0 for value in held(answers[1], answers).values())


@pytest.mark.parametrize("name", ["out", "dq", "dk", "dv"])
@pytest.mark.parametrize("factor", [1.01, 0.99])
def test_one_percent_off_everywhere_fails_though_no_element_is_far(answers, name, factor):
    result = {name: answers[2][name] * factor}
    with pytest.raises(GuardFailed, match=f"here: {name} is "):
        held(result, answers)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_value_that_is_not_finite_fails(answers, value):
    result = {"out": answers[2]["out"].clone()}
    result["out"][1, 3, 2, 5] = value
    with pytest.raises(GuardFailed, match="here: out has 1 values that are not finite"):
        held(result, answers)


def test_one_element_far_off_is_named_with_its_place(answers):
    result = {"dv": answers[2]["dv"].clone()}
    result["dv"][1, 7, 0, 9] += 0.5
    with pytest.raises(GuardFailed, match=r"here: dv is off by 0\.\d+ at \(1, 7, 0, 9\), at most"):
        held(result, answers)


def test_another_shape_fails_before_anything_is_compared(answers):
    result = {"out": answers[2]["out"].transpose(1, 2)}
    with pytest.raises(GuardFailed, match=r"out has shape \(2, 4, 200, 64\), expected \(2, 200, 4, 64\)"):
        held(result, answers)


def test_the_layout_is_that_of_the_input(answers):
    inputs, out = answers[0], answers[2]["out"]
    tolerances.same_layout({"out": out.contiguous()}, {"out": inputs.q})
    with pytest.raises(GuardFailed, match="out has strides"):
        tolerances.same_layout({"out": out.transpose(1, 2).contiguous().transpose(1, 2)}, {"out": inputs.q})
    with pytest.raises(GuardFailed, match=r"out has dtype torch\.float32, expected torch\.bfloat16"):
        tolerances.same_layout({"out": out.float()}, {"out": inputs.q})


def test_calls_repeat_bit_for_bit_or_within_rounding(answers):
    out = {"out": answers[2]["out"]}
    tolerances.repeats(torch, lambda: out, out, exact=True)
    nearly = {"out": out["out"].clone()}
    nearly["out"][0, 0, 0, 0] += 0.02
    tolerances.repeats(torch, lambda: nearly, out, exact=False)
    with pytest.raises(GuardFailed, match="call 2 gave another out than call 1"):
        tolerances.repeats(torch, lambda: nearly, out, exact=True)
    calls = iter([out, {"out": out["out"] * 1.1}])
    with pytest.raises(GuardFailed, match="call 3 gave another out than call 1"):
        tolerances.repeats(torch, lambda: next(calls), out, exact=False)


def test_a_call_that_turns_into_nan_is_no_repetition(answers):
    out = {"out": answers[2]["out"]}
    bad = {"out": out["out"] * float("nan")}
    with pytest.raises(GuardFailed, match="call 2"):
        tolerances.repeats(torch, lambda: bad, out, exact=False)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["void flash::flash_fwd_kernel<...>"], "no kernel named [*]flash_attncute[*] ran, but void flash::"),
        ([], "no kernel named .* ran, but none"),
        (
            ["kernel_flash_attncute_fwd", "cudnn_generated_fort_native_sdpa"],
            "another attention kernel ran beside",
        ),
    ],
)
def test_another_kernel_is_no_fa4(names, message):
    with pytest.raises(GuardFailed, match=message):
        tolerances.right_kernel(names, tolerances.FA4_KERNEL)


def test_fa4_and_a_fill_kernel_are_fa4():
    tolerances.right_kernel(
        ["vectorized_elementwise_kernel", "kernel_flash_attncuteflash_fwd_sm90"], tolerances.FA4_KERNEL
    )
