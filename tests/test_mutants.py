"""Every mutant of the stand-in is caught: by the guard, while timing, by its process, or by comparing.

`python tools/mutants.py` runs these and prints the table of mutant and catcher.
"""

from __future__ import annotations

import importlib
import re
import sys

import pytest

torch = pytest.importorskip("torch")

from fa4_asv import alone, compile_pool, runtime, runtime_worker, timing, traced_worker  # noqa: E402
from fa4_asv.backends import backend  # noqa: E402
from fa4_asv.inputs import make  # noqa: E402
from fa4_asv.sampling import Rule  # noqa: E402
from fa4_asv.shapes import SHAPES, for_cpu, shape  # noqa: E402
from fa4_asv.verdicts import Round, verdict  # noqa: E402
from tests.mutants import MUTANTS  # noqa: E402
from tests.simulated_clock import WorkTimer  # noqa: E402
from tests.standin_runs import D64, D128, FULL, GQA, LONG, ROOT, forget, runner_of  # noqa: E402

FORWARD, BACKWARD = False, True


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """Runs cases in this process, on one thread: where cores are scarce, more would wait for one another."""
    monkeypatch.setattr(alone, "lock_path", lambda: tmp_path / "test.lock")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield runner_of(torch, tmp_path, monkeypatch)
    torch.set_num_threads(threads)
    forget()


@pytest.fixture
def note(record_property):
    """Writes a line of the table that tools/mutants.py prints."""

    def write(name: str, catcher: str, words: str) -> None:
        for key, value in (("mutant", MUTANTS[name].words), ("catcher", catcher), ("words", words)):
            record_property(key, value)

    return write


@pytest.fixture
def caught(runner, note):
    """Asserts that a mutant's case has words and no time, in the first round and in the next."""

    def check(name: str, catcher: str, backward: bool, shape: str, words: str) -> None:
        first, later = runner.rounds(name, backward, shape, 2)
        for record in (first, later):
            assert (record.state, record.samples, record.figures) == ("broken", {}, {}), record
            assert re.search(words, record.why), record.why
        if catcher.startswith("guard"):
            assert later.why.startswith(f"{first.why} (failed before; remove "), "not even asked again"
        note(name, catcher, first.why)

    return check


def passes(runner, name, backward, shape):
    """A mutant that is right here must not be caught here: the catch elsewhere is about its fault."""
    (record,) = runner.rounds(name, backward, shape)
    assert record.state == "measured", record.why


@pytest.mark.parametrize("one", for_cpu(), ids=lambda one: one.name)
@pytest.mark.parametrize("backward", [FORWARD, BACKWARD], ids=["forward", "backward"])
def test_the_stand_in_itself_is_never_caught(runner, backward, one):
    if one.name == LONG and not backward:
        pytest.skip("seconds; the backward's guard looks at the same forward")
    (record,) = runner.rounds("", backward, one.name)
    assert record.state == "measured", record.why
    assert record.samples["seconds"]


def test_every_mutant_has_its_test():
    tests = {name.removeprefix("test_mutant_") for name in globals() if name.startswith("test_mutant_")}
    assert tests == set(MUTANTS)


# Wrong values.


def test_mutant_dq_one_percent(runner, caught):
    caught("dq_one_percent", "guard, slope", BACKWARD, D64, r"^guard: .*dq is 1\.0\d+ times the reference")
    passes(runner, "dq_one_percent", FORWARD, D64)


def test_mutant_dk_one_percent(caught):
    caught("dk_one_percent", "guard, slope", BACKWARD, FULL, r"^guard: .*dk is 1\.0\d+ times the reference")


def test_mutant_head_dim_64(runner, caught):
    caught("head_dim_64", "guard, worst element", FORWARD, D64, r"^guard: .*d64.*out is off by")
    passes(runner, "head_dim_64", FORWARD, D128)


def test_mutant_beyond_4096_keys(runner, caught):
    caught(
        "beyond_4096_keys", "guard, sampled rows", FORWARD, LONG, r"^guard: .*s4352.*\(sampled\): out is off"
    )
    passes(runner, "beyond_4096_keys", FORWARD, D64)


def test_mutant_last_tile(runner, caught):
    caught(
        "last_tile",
        "guard, odd length",
        FORWARD,
        LONG,
        r"^guard: b2_s1000_.*out is off by .* at \(\d, 9\d\d, ",
    )
    passes(runner, "last_tile", FORWARD, D64)


def test_mutant_one_key_more(runner, caught):
    caught("one_key_more", "guard, worst element", FORWARD, D64, "^guard: .*out is off by")
    passes(runner, "one_key_more", FORWARD, FULL)


def test_mutant_one_key_less(caught):
    caught("one_key_less", "guard, worst element", FORWARD, D128, "^guard: .*out is off by")


def test_mutant_wrong_kv_head(runner, caught):
    caught("wrong_kv_head", "guard, worst element", FORWARD, GQA, "^guard: .*out is off by")
    passes(runner, "wrong_kv_head", FORWARD, D128)


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
    passes(runner, "ignores_deterministic", FORWARD, D64)


def test_mutant_wrong_deterministic(caught):
    caught("wrong_deterministic", "guard, repetition", BACKWARD, D64, "^guard: .*another dk than")


def test_mutant_not_deterministic(caught):
    caught("not_deterministic", "guard, repetition", FORWARD, D64, r"^guard: call \d gave another out")


def test_mutant_one_call_of_three(caught):
    caught("one_call_of_three", "guard, repetition", FORWARD, D64, r"^guard: call \d gave another out")


def test_mutant_one_backward_of_three(caught):
    caught("one_backward_of_three", "guard, repetition", BACKWARD, D64, r"^guard: call \d gave another dq")


# No answer.


def test_mutant_recompiles(caught):
    caught("recompiles", "compile counter", FORWARD, D64, "compiled 1 more times while timing")


def test_mutant_out_of_memory(caught):
    caught("out_of_memory", "worker", FORWARD, D64, "^RuntimeError: .*can't allocate memory")


def test_mutant_import_error(caught):
    caught("import_error", "worker", FORWARD, D64, "^ModuleNotFoundError: No module named 'cutlass.nowhere'")


def test_mutant_fewer_values(caught):
    caught(
        "fewer_values",
        "backend",
        FORWARD,
        D64,
        r"_flash_attn_fwd returned Tensor \(2, 256, 4, 64\), expected out",
    )


def test_mutant_fewer_gradients(runner, caught):
    caught(
        "fewer_gradients", "backend", BACKWARD, D64, "_flash_attn_bwd returned 2 values, expected dq, dk, dv"
    )
    passes(runner, "fewer_gradients", FORWARD, D64)


@pytest.fixture
def real_process(runner, monkeypatch):
    """The worker as `asv run` has it, in a process of its own, with little patience."""
    monkeypatch.setattr(runtime, "run_jobs", compile_pool.run_jobs)
    monkeypatch.setattr(runtime, "CASE_TIMEOUT", 3.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def ask(name: str, backward: bool, shape: str):
        monkeypatch.setenv("PYTHONPATH", f"{runner.folder / name}:{ROOT}")
        (record,) = runner.rounds(name, backward, shape)
        assert (record.state, record.samples) == ("broken", {})
        return record.why

    return ask


def test_mutant_hangs(real_process, note):
    why = real_process("hangs", BACKWARD, D64)
    assert why == "timed out after 3 s and was killed"
    note("hangs", "time limit", why)


def test_mutant_killed(real_process, note):
    why = real_process("killed", FORWARD, D64)
    assert why.startswith("the process was killed by SIGKILL")
    note("killed", "worker's death", why)


# Right, but worse.


def test_mutant_slower(runner, note):
    """Seconds are the multiplications done, 0.3 % noise within a process and 1.5 % between them."""
    control = runtime_worker.control_of(torch, "cpu")
    inputs = make(torch, SHAPES[D128], "cpu")

    def rounds(name: str, seed: int) -> list[Round]:
        runner.use(name)
        call = backend("fa4").prepare(torch, inputs).raw_backward
        found = []
        for number in range(5):
            rule, clock = Rule(min_samples=10, min_busy=0.0), WorkTimer(seed + number)
            timed = timing.measure(call, clock, control, rule=rule, rest=lambda _: None)
            found.append(Round(timed.samples.centre, timed.control))
        return found

    base, again, head = rounds("", 0), rounds("the same", 10), rounds("slower", 20)
    assert verdict(base, again).name == "same"
    found = verdict(base, head)
    assert (found.name, found.change) == ("slower", pytest.approx(0.02, abs=0.003)), found
    note("slower", "verdict of 5 rounds", f"{found.name}: {found.why}")


def test_mutant_more_memory(runner, note):
    """The ledger of the traces counts bytes exactly, so that any difference is one; here a tenth."""
    inputs = make(torch, shape(2, 4, 512, 64), "cpu")
    given = {"q": inputs.q, "k": inputs.k, "v": inputs.v}

    def peak(name: str) -> int:
        runner.use(name)
        interface = importlib.import_module("flash_attn.cute.interface")
        out, lse, *_ = interface._flash_attn_fwd(*given.values(), return_lse=True)
        ledger = traced_worker.Ledger("cpu")
        with traced_worker.following(ledger):
            ledger.name({**given, "out": out, "dout": inputs.dout, "lse": lse})
            interface._flash_attn_bwd(*given.values(), out, inputs.dout, lse)
        return ledger.peak

    before, after = peak(""), peak("more_memory")
    assert after / before == pytest.approx(1.1, abs=0.005)
    note("more_memory", "traced memory", f"peak {before:,} -> {after:,} bytes")


def test_nothing_of_the_stand_in_is_left_behind(runner):
    runner.rounds("", FORWARD, D128)
    forget()
    assert not [name for name in sys.modules if name.startswith(("flash_attn", "cutlass"))]
