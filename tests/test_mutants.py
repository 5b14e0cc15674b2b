"""Mutants of the stand-in that give a wrong answer, or another than was asked for: each is caught by the guard.

`python -m tests.proofs.mutants` runs these and those of test_mutants_worse.py and test_mutants_crash.py and prints the table of mutant and catcher.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from fa4_asv.catalog.shapes import for_cpu  # noqa: E402
from tests.support.mutants import MUTANTS  # noqa: E402
from tests.support.standin_runs import BACKWARD, D64, D128, FORWARD, FULL, GQA, LONG, forget  # noqa: E402


@pytest.mark.parametrize("size", for_cpu(), ids=lambda size: size.name)
@pytest.mark.parametrize("backward", [FORWARD, BACKWARD], ids=["forward", "backward"])
def test_the_stand_in_itself_is_never_caught(runner, backward, size):
    if size.name == LONG and not backward:
        pytest.skip("seconds; the backward's guard looks at the same forward")
    (record,) = runner.rounds("", backward, size.name)
    assert record.state == "measured", record.why
    assert record.samples["seconds"]


def test_nothing_of_the_stand_in_is_left_behind(runner):
    runner.rounds("", FORWARD, D128)
    forget()
    assert not [name for name in sys.modules if name.startswith(("flash_attn", "cutlass"))]


def test_every_mutant_has_its_test():
    files = Path(__file__).parent.glob("test_mutants*.py")
    tests = {name for path in files for name in re.findall(r"^def test_mutant_(\w+)", path.read_text(), re.M)}
    assert tests == set(MUTANTS)


# Wrong values.


def test_mutant_dq_one_percent(runner, caught):
    caught("dq_one_percent", "guard, slope", BACKWARD, D64, r"^guard: .*dq is 1\.0\d+ times the reference")
    runner.passes("dq_one_percent", FORWARD, D64)


def test_mutant_dk_one_percent(caught):
    caught("dk_one_percent", "guard, slope", BACKWARD, FULL, r"^guard: .*dk is 1\.0\d+ times the reference")


def test_mutant_head_dim_64(runner, caught):
    caught("head_dim_64", "guard, worst element", FORWARD, D64, r"^guard: .*d64.*out is off by")
    runner.passes("head_dim_64", FORWARD, D128)


def test_mutant_beyond_4096_keys(runner, caught):
    caught(
        "beyond_4096_keys", "guard, sampled rows", FORWARD, LONG, r"^guard: .*s4352.*\(sampled\): out is off"
    )
    runner.passes("beyond_4096_keys", FORWARD, D64)


def test_mutant_last_tile(runner, caught):
    caught(
        "last_tile",
        "guard, odd length",
        FORWARD,
        LONG,
        r"^guard: b2_s1000_.*out is off by .* at \(\d, 9\d\d, ",
    )
    runner.passes("last_tile", FORWARD, D64)


def test_mutant_one_key_more(runner, caught):
    caught("one_key_more", "guard, worst element", FORWARD, D64, "^guard: .*out is off by")
    runner.passes("one_key_more", FORWARD, FULL)


def test_mutant_one_key_less(caught):
    caught("one_key_less", "guard, worst element", FORWARD, D128, "^guard: .*out is off by")


def test_mutant_wrong_kv_head(runner, caught):
    caught("wrong_kv_head", "guard, worst element", FORWARD, GQA, "^guard: .*out is off by")
    runner.passes("wrong_kv_head", FORWARD, D128)


def test_mutant_wrong_lse(caught):
    caught("wrong_lse", "guard, worst element", BACKWARD, D64, "^guard: .*dq is off by")


def test_mutant_large_scores(caught):
    caught("large_scores", "guard, hard inputs", FORWARD, D64, r"^guard: .*\(hard\): out is off by")


def test_mutant_nan_row(caught):
    caught("nan_row", "guard, finite", FORWARD, D64, "^guard: .*out has 64 values that are not finite")


# Another answer than was asked for.


def test_mutant_layout(caught):
    caught("layout", "guard, layout", FORWARD, D64, "^guard: out has strides .*, expected")


def test_mutant_dtype(caught):
    caught("dtype", "guard, layout", FORWARD, D64, r"^guard: out has dtype torch\.float32, expected")


def test_mutant_another_kernel(caught):
    caught(
        "another_kernel",
        "guard, kernel",
        FORWARD,
        D64,
        r"^guard: no kernel named \*flash_attncute\* ran, but .*sca",
    )


def test_mutant_kernel_beside(caught):
    caught(
        "kernel_beside",
        "guard, kernel",
        FORWARD,
        D64,
        "^guard: another attention kernel ran beside it: .*scaled",
    )


def test_mutant_remembers(caught):
    caught("remembers", "guard, kernel", FORWARD, D64, r"^guard: no kernel named \*flash_attncute\* ran")


def test_mutant_overwrites(caught):
    caught("overwrites", "guard, slope", FORWARD, D64, "^guard: .*out is 0.99")


# Not the same each time.


def test_mutant_ignores_deterministic(runner, caught):
    caught("ignores_deterministic", "guard, repetition", BACKWARD, FULL, r"^guard: call \d gave another d")
    runner.passes("ignores_deterministic", FORWARD, D64)


def test_mutant_wrong_deterministic(caught):
    caught("wrong_deterministic", "guard, repetition", BACKWARD, D64, "^guard: .*another dk than")


def test_mutant_not_deterministic(caught):
    caught("not_deterministic", "guard, repetition", FORWARD, D64, r"^guard: call \d gave another out")


def test_mutant_one_call_of_three(caught):
    caught("one_call_of_three", "guard, repetition", FORWARD, D64, r"^guard: call \d gave another out")


def test_mutant_one_backward_of_three(caught):
    caught("one_backward_of_three", "guard, repetition", BACKWARD, D64, r"^guard: call \d gave another dq")
