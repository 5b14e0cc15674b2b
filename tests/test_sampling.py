"""When samples are enough, which are rejected, and what is said about them; verdicts between commits."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import pytest

from fa4_asv.compare.verdicts import MIN_ROUNDS, NOTICED, RELEVANT, Round, student, verdict
from fa4_asv.measure.runtime import sampling
from fa4_asv.measure.runtime.sampling import Rule, Sample, collect, drift, standard_error
from fa4_asv.measure.runtime.turns import RULE
from fa4_asv.record.modes import two_modes
from tests.support import ROOT

SEEDS = range(200)


def normal(seed: int, count: int = 50, noise: float = 0.003) -> list[float]:
    rng = random.Random(seed)
    return [1e-3 * math.exp(rng.gauss(0, noise)) for _ in range(count)]


class Source:
    """Draws from a rule of the sample's number, and counts."""

    def __init__(self, make):
        self.make, self.count = make, 0

    def __call__(self) -> Sample:
        self.count += 1
        return self.make(self.count - 1)


def test_a_steady_call_ends_at_the_shortest():
    source = Source(lambda index: Sample(0.001, 0.010, 1980.0))
    samples = collect(source)
    assert (source.count, samples.centre, samples.notes, samples.two_modes) == (25, 0.001, (), "")
    long = Source(lambda index: Sample(0.1, 0.1))
    assert len(collect(long).accepted) == sampling.MIN_SAMPLES


def test_a_noisy_call_is_drawn_until_its_centre_is_known():
    rng = random.Random(1)
    source = Source(lambda index: Sample(1e-3 * math.exp(rng.gauss(0, 0.05)), 0.010))
    samples = collect(source)
    assert 100 < source.count < 300
    assert standard_error(samples.seconds) <= sampling.PRECISION
    assert samples.centre == pytest.approx(1e-3, rel=0.015)


def test_the_cap_ends_a_call_that_never_settles():
    rng = random.Random(1)
    source = Source(lambda index: Sample(1e-3 * math.exp(rng.gauss(0, 0.5)), 0.010))
    samples = collect(source)
    assert source.count == pytest.approx(500, abs=1)
    assert len(samples.notes) == 1 and "not settled: known to" in samples.notes[0]
    slow = collect(Source(lambda index: Sample(0.8, 0.8)))
    assert len(slow.accepted) == 7 and slow.notes == ("only 7 samples within 5 s of GPU time",)
    slower = collect(Source(lambda index: Sample(3.0, 3.0)))
    assert len(slower.accepted) == 5, "as many as a figure needs, whatever they take"
    slowest = collect(Source(lambda index: Sample(0.12, 0.12)), RULE)
    assert slowest.seconds == [0.12] * 3, "a turn of a sweep"
    throttled = Source(lambda index: Sample(3.0, 3.0, 1000.0, "" if index else "hot"))
    assert collect(throttled).broken == "4 samples after 5 s of GPU time, 5 are needed", "and no more"


def test_a_throttled_sample_is_kept_apart_and_replaced():
    rng = random.Random(1)

    def make(index: int) -> Sample:
        if index % 4 == 0:
            return Sample(2e-3, 0.010, 1400.0, "software power cap")
        if index % 10 == 3:
            return Sample(1.5e-3, 0.010, 1700.0)
        return Sample(1e-3 * math.exp(rng.gauss(0, 0.003)), 0.010, 1980.0)

    samples = collect(Source(make))
    assert max(samples.seconds) < 1.02e-3 and not samples.broken
    assert {why for _, why in samples.rejected} == {
        "software power cap",
        "SM clock 1700 MHz, usually 1980 MHz",
    }
    assert len(samples.accepted) >= sampling.MIN_SAMPLES


def test_a_card_that_throttles_most_of_the_time_has_no_figure():
    source = Source(lambda index: Sample(1e-3, 0.010, 1980.0, "software power cap" if index % 3 else ""))
    samples = collect(source, Rule(max_busy=0.6))
    assert samples.broken == "throttled: 38 of 58 samples were rejected (software power cap)"
    assert samples.seconds == []
    with pytest.raises(ValueError, match="a broken point has no centre: throttled"):
        _ = samples.centre


def test_outliers_move_neither_the_centre_nor_the_count():
    rng = random.Random(3)
    source = Source(lambda i: Sample(normal(i, 1)[0] * (3 if rng.random() < 0.05 else 1), 0.010, 1980.0))
    samples = collect(source)
    assert source.count == 25 and samples.centre == pytest.approx(1e-3, rel=0.002)
    assert not samples.two_modes and not samples.notes


@pytest.mark.parametrize("value", [0.0, -1e-3, math.nan, math.inf])
def test_a_broken_timer_is_no_sample(value):
    with pytest.raises(ValueError, match="the timer is broken"):
        collect(lambda: Sample(value, 0.01))


def test_a_timer_without_busy_time_still_ends():
    assert len(collect(lambda: Sample(0.01, 0.0)).accepted) == 25


def test_drift_is_told_and_noise_is_not():
    slower = [value * (1 + 0.02 * index / 50) for index, value in enumerate(normal(1))]
    assert "slower than the first" in drift(slower)
    assert "faster than the first" in drift(slower[::-1])
    assert sum(bool(drift(normal(seed))) for seed in SEEDS) == 0
    assert drift(slower[:10]) == ""


def test_two_modes_are_told_and_noise_is_not():
    mixed = [value * (1.03 if index % 3 == 0 else 1) for index, value in enumerate(normal(1))]
    message = two_modes(mixed)
    assert message.startswith("two modes: 34% of the samples are ") and message.endswith("% slower")
    assert sum(bool(two_modes(normal(seed, 20))) for seed in SEEDS) <= 2
    assert sum(bool(two_modes(normal(seed, 50, 0.05))) for seed in SEEDS) == 0
    assert two_modes([1.0] * 17 + [1.5] * 3) == "", "a few outliers are no mode"
    assert two_modes([1.0] * 14 + [1.5] * 6) == "two modes: 30% of the samples are 50.0% slower"
    assert two_modes([1.0] * 20) == ""


def rounds(*seconds: float, control: float | None = 1.0, two_modes: str = "") -> list[Round]:
    return [Round(value, control, two_modes) for value in seconds]


BASE = (1.000, 1.001, 0.999, 1.0005, 0.9995)


@pytest.mark.parametrize(
    ("factor", "name"),
    [(1.01, "slower"), (0.99, "faster"), (1.0, "same"), (1.002, "same"), (1.008, "slower")],
)
def test_what_a_clear_change_is_called(factor, name):
    result = verdict(rounds(*BASE), rounds(*(value * factor for value in BASE)))
    assert result.name == name and result.low <= result.change <= result.high
    assert result.change == pytest.approx(factor - 1)


def test_swapping_the_sides_inverts_the_answer():
    rng = random.Random(5)
    opposite = {"faster": "slower", "slower": "faster", "same": "same", "unclear": "unclear"}
    seen = set()
    for _ in range(400):
        factor, noise = rng.choice([0.98, 0.99, 1, 1.01]), rng.choice([0.0, 0.001, 0.005, 0.02])
        base = [Round(math.exp(rng.gauss(0, noise)), 1.0) for _ in range(rng.randint(3, 8))]
        head = [Round(factor * math.exp(rng.gauss(0, noise)), 1.0) for _ in range(rng.randint(3, 8))]
        there, back = verdict(base, head), verdict(head, base)
        assert back.name == opposite[there.name]
        for swapped, straight in (
            (back.change, there.change),
            (back.low, there.high),
            (back.high, there.low),
        ):
            assert (1 + swapped) * (1 + straight) == pytest.approx(1)
        seen.add(there.name)
    assert seen == set(opposite)


def test_processes_count_and_not_their_samples():
    luck = (1.00, 1.02, 0.985, 1.01, 0.995)
    result = verdict(rounds(*BASE), rounds(*(value * 1.01 for value in luck)))
    assert result.name == "unclear"
    assert "rounds differ by 0.95%, 50 a side would not tell 1%" in result.why
    calmer = tuple(1 + (value - 1) / 2 for value in luck)
    some = verdict(rounds(*calmer), rounds(*(value * 1.005 for value in calmer)))
    assert some.name == "unclear" and "rounds differ by 0.67%, 27 per side would detect 1%" in some.why
    few = verdict(rounds(*BASE), rounds(1.0, 1.0))
    assert (few.name, few.why) == ("unclear", f"head has 2 rounds, {MIN_ROUNDS} are needed")
    assert math.isnan(few.change)


def test_the_control_cancels_what_the_card_does_to_both():
    luck = (1.0, 1.03, 0.98, 1.02, 0.99)
    base = [Round(value * state, 0.5 * state) for value, state in zip(BASE, luck, strict=True)]
    head = [Round(1.01 * value * state, 0.5 * state) for value, state in zip(BASE, luck[::-1], strict=True)]
    assert verdict(base, head).name == "slower"
    without = verdict([Round(each.seconds) for each in base], [Round(each.seconds) for each in head])
    assert without.name == "unclear" and "no control beside every round" in without.why
    assert verdict(base, [*head[:-1], Round(head[-1].seconds)]).name == "unclear"


def test_two_modes_in_most_rounds_are_unclear():
    message = "two modes: 40% of the samples are 3.0% slower"
    result = verdict(rounds(*BASE), rounds(*(1.1 * value for value in BASE), two_modes=message))
    assert result.name == "unclear" and result.why == f"head: {message}, in 5 of 5 rounds"
    mostly = [*rounds(*(1.1 * value for value in BASE)), *rounds(1.1, 1.1, two_modes=message)]
    assert verdict(rounds(*BASE), mostly).name == "slower"


def test_exact_rounds_are_compared_exactly():
    assert verdict(rounds(1, 1, 1), rounds(1.006, 1.006, 1.006)).name == "slower"
    assert verdict(rounds(1, 1, 1), rounds(1.004, 1.004, 1.004)).name == "same"
    assert RELEVANT < NOTICED


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 63.657), (2, 9.925), (3, 5.841), (4, 4.604), (9, 3.250), (30, 2.750)]
)
def test_students_quantiles_are_those_of_the_tables(freedom, quantile):
    assert student(0.99, freedom) == pytest.approx(quantile, abs=6e-4)


def test_the_table_is_computed_from_its_seed():
    pytest.importorskip("numpy")
    arguments = ["--repetitions", "150", "--spread", "0.2", "--seed", "7"]
    command = [sys.executable, "-m", "tests.proofs.sampler_power", *arguments]
    first, again = (subprocess.run(command, cwd=ROOT, capture_output=True, text=True) for _ in range(2))
    assert first.stdout == again.stdout and first.returncode in (0, 1), first.stderr
    lines = first.stdout.splitlines()
    for line in lines:
        if line.startswith("  fa4_asv, "):
            assert float(line[44:51].strip().rstrip("%")) <= 4, line
    spread = lines.index(next(line for line in lines if line.startswith("spread 0.2 %")))
    assert lines[spread + 3].endswith(("holds", "-")) and "100.0%" in lines[spread + 3]
