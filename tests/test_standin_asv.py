"""The stand-in and some mutants as releases, measured by real asv on a CPU: history, toolchain, guard, samples, compare."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

from fa4_asv.integrity.figures import is_repeated  # noqa: E402
from fa4_asv.record.schema import CaseRecord  # noqa: E402
from tests.support.real_checkout import asv, command  # noqa: E402
from tests.support.standin_checkout import MACHINE, Checkout, standin_checkout  # noqa: E402
from tests.support.standin_runs import D128  # noqa: E402

pytestmark = pytest.mark.slow

RELEASES = {
    "4.0.0b1": "",
    "4.0.0b2": "slower",
    "4.0.0b3": "dq_one_percent",
    "4.0.0b4": "",
    "4.0.0b5": "nan_row",
    "4.0.0b6": "import_error",
    "4.0.0b7": "hangs",
}
BENCHMARK, CASE = "backward.Cpu.track_seconds", ("fa4", D128)
BENCH = rf"backward\.Cpu\.track_seconds\('fa4', '{D128}'\)"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Checkout:
    """Three rounds by a clock that counts work, then one by the real clock, then one with little patience."""
    made = standin_checkout(tmp_path_factory.mktemp("standin"), RELEASES)
    output = made.run(["4.0.0b1", "4.0.0b2", "4.0.0b3"], BENCH, FA4_ASV_WORKER="-m counting_worker")
    assert "dq is 1.0" in output
    # The mutant of dQ again: the verdict is remembered, and no later round brings a time back.
    made.run(["4.0.0b3", "4.0.0b4", "4.0.0b5", "4.0.0b6"], BENCH, "-a", "rounds=1")
    made.run(["4.0.0b7"], BENCH, "-a", "rounds=1", FA4_ASV_PATIENCE="3")
    return made


def record(checkout: Checkout, version: str) -> CaseRecord:
    return checkout.record(version, "backward-cpu", "/".join(CASE))


@pytest.mark.parametrize(("version", "rounds"), [("4.0.0b1", 3), ("4.0.0b2", 3), ("4.0.0b4", 1)])
def test_the_stand_in_is_measured_through_asv(checkout, version, rounds):
    actual, result = record(checkout, version), checkout.result(version)
    assert actual.state == "measured", actual.why
    assert len(actual.samples["control"]) == rounds, "a control from each round's process"
    seconds = actual.samples["seconds"]
    # Single samples may be equal by chance, a round that was pooled twice is half of all.
    assert len(set(seconds)) > 0.9 * len(seconds) and not is_repeated(seconds)
    assert result.figures[BENCHMARK, CASE] > 0
    assert {"error dq gaussian", "error dq hard", "error dq sampled"} <= set(actual.notes)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("4.0.0b3", r"guard: b1_s256_h2_d128_causal (gaussian): dq is 1.0"),
        ("4.0.0b5", r"guard: b1_s256_h2_d128_causal (gaussian): out has 128 values that are not finite"),
        ("4.0.0b6", "ModuleNotFoundError: No module named 'cutlass.nowhere'"),
        ("4.0.0b7", "timed out after 3 s and was killed"),
    ],
)
def test_a_mutant_leaves_words_and_no_time(checkout, version, message):
    actual, result = record(checkout, version), checkout.result(version)
    assert (actual.state, actual.samples) == ("broken", {})
    assert actual.why.startswith(message)
    assert result.figures[BENCHMARK, CASE] is None
    assert (BENCHMARK, CASE) not in result.samples


def test_what_stands_there_is_sound_and_says_where_it_comes_from(checkout):
    done = command(checkout.project.root, "fa4_asv", "verify", **checkout.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    result = checkout.result("4.0.0b1")
    assert (result.machine, result.requirements["flavour"]) == (MACHINE, "cu13")
    lock = checkout.project.locks / "day" / "cu13" / "4.0.0b1.txt"
    assert "nvidia-cutlass-dsl==0.0.1" in lock.read_text()


def test_two_percent_are_slower_by_both_compares(checkout):
    sides = ("4.0.0b1", "4.0.0b2")
    arguments = ("--no-run", "--machine", MACHINE, "--bench", BENCH, "--format", "json")
    done = command(checkout.project.root, "fa4_asv", "compare", *sides, *arguments, **checkout.environment)
    assert done.returncode == 1, done.stdout + done.stderr
    (row,) = (r for r in json.loads(done.stdout)["comparisons"][0]["rows"] if r["group"] == "backward-cpu")
    assert row["verdict"] == "slower", row
    tags = [f"fa4-v{version}" for version in (*sides, "4.0.0b3")]
    plain = asv(checkout.project.root, "compare", "-m", MACHINE, *tags[:2], **checkout.environment)
    assert plain.returncode == 0 and BENCHMARK in plain.stdout, plain.stdout + plain.stderr
    failed = asv(checkout.project.root, "compare", "-m", MACHINE, tags[0], tags[2], **checkout.environment)
    assert "failed" in failed.stdout, failed.stdout
