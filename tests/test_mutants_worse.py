"""Mutants of the stand-in that give no answer, or the right one but slower or larger.

Each is caught by the worker, its time limit, the counter of compiles, or by comparing with the stand-in itself.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from fa4_asv.catalog.shapes import SHAPES  # noqa: E402
from fa4_asv.compare.verdicts import Round, verdict  # noqa: E402
from fa4_asv.measure import cached_jobs, pool  # noqa: E402
from fa4_asv.measure.runtime import collect as runtime  # noqa: E402
from fa4_asv.measure.runtime import timing  # noqa: E402
from fa4_asv.measure.runtime import worker as runtime_worker  # noqa: E402
from fa4_asv.measure.runtime.backends import backend  # noqa: E402
from fa4_asv.measure.runtime.inputs import make  # noqa: E402
from fa4_asv.measure.runtime.sampling import Rule  # noqa: E402
from tests.support import ROOT  # noqa: E402
from tests.support.simulated_clock import WorkTimer  # noqa: E402
from tests.support.standin_runs import BACKWARD, D64, D128, FORWARD  # noqa: E402

# No answer.


def test_mutant_recompiles(caught):
    caught("recompiles", "compile counter", FORWARD, D64, r"compiled \d+ more times while timing")


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
    runner.passes("fewer_gradients", FORWARD, D64)


@pytest.fixture
def real_process(runner, monkeypatch):
    """The worker as `asv run` has it, in a process of its own."""
    monkeypatch.setattr(cached_jobs, "run_jobs", pool.run_jobs)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def ask(name: str, backward: bool, shape: str, patience: float) -> str:
        monkeypatch.setattr(runtime, "CASE_TIMEOUT", patience)
        monkeypatch.setenv("PYTHONPATH", f"{runner.folder / name}:{ROOT}")
        (record,) = runner.rounds(name, backward, shape)
        assert (record.state, record.samples) == ("broken", {})
        return record.why

    return ask


def test_mutant_hangs(real_process, note):
    why = real_process("hangs", BACKWARD, D128, patience=3)
    assert why == f"timed out after 3 s and was killed (guard of fa4 backward {D128})"
    note("hangs", "time limit", why)


def test_mutant_killed(real_process, note):
    why = real_process("killed", FORWARD, D128, patience=300)
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
        call()  # the first one runs the forward as well
        results = []
        for number in range(5):
            rule, clock = Rule(min_samples=10, min_busy=0.0), WorkTimer(seed + number)
            timed = timing.measure(call, clock, control, rule=rule, rest=lambda _: None)
            results.append(Round(timed.samples.centre, timed.control))
        return results

    base, again, head = rounds("", 0), rounds("the same", 10), rounds("slower", 20)
    assert verdict(base, again).name == "same"
    results = verdict(base, head)
    assert (results.name, results.change) == ("slower", pytest.approx(0.02, abs=0.003)), results
    note("slower", "verdict of 5 rounds", f"{results.name}: {results.why}")


def test_mutant_more_memory(runner, note):
    """Bytes are counted, so that any difference is one; here a tenth."""

    def peak(name: str) -> float:
        runner.use(name)
        record = runner.ask(name, "allocated-cpu", ("cpu", f"bwd_{D128}"), "peak_bytes")
        assert record.state == "measured", record.why
        return record.samples["peak_bytes"][0]

    before, again, after = peak(""), peak("the same"), peak("more_memory")
    assert before == again
    assert after / before == pytest.approx(1.1, abs=0.01)
    note("more_memory", "peak memory", f"{before:,} -> {after:,} bytes")
