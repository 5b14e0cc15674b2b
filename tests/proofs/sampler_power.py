"""How often a comparison is wrong: false alarms and changes seen, by simulation, as a table.

    python -m tests.proofs.sampler_power                      # the table of docs/timing.md
    python -m tests.proofs.sampler_power --repetitions 500 --spread 0.25

One kernel of 1 ms. A call varies by 0.3 % within a process, and 1 in 100 calls is disturbed and takes 5 %
longer. Processes differ by 1.5 %, of which the control in the same process shares all but `spread`: the
standard deviation, between processes, of log(kernel / control). Every process is drawn anew.

Rows: this suite's `verdicts.verdict`; the same with the control left out; a paired t test of the rounds; the
mean of triton.testing.do_bench (100 ms in one process per side); asv's time_* (2 rounds of 5 samples of 10
calls, Mann-Whitney at p < 0.002 as asv computes it, and `asv compare`'s factor). Columns: alarms of either
sign without a change; a slowdown called slower. Exit code 1 where a suite's row misses the aim (at most 1 %
alarms, at least 99 % of 1 % seen) in a line that docs/timing.md claims.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from asv import _stats

from fa4_asv.compare.verdicts import CONFIDENCE, RELEVANT, Round, student, verdict
from fa4_asv.measure.runtime.sampling import MIN_SAMPLES

WITHIN, BETWEEN = 0.003, 0.015
DISTURBED, DISTURBANCE = 0.01, 0.05
SLOW_SHARE, SLOW_BY = 0.1, 0.015
EFFECTS = (0.0, 0.005, 0.01, 0.02)
ALARMS, SEEN = 0.01, 0.99
ROUNDS = (3, 5, 10)
# Where the aim is claimed to hold: up to this spread (percent), by rounds; three rounds claim nothing.
CLAIMED = {3: -1.0, 5: 0.15, 10: 0.35}

Array = np.ndarray


@dataclass(frozen=True)
class Noise:
    """How processes differ: in all, beyond what the control shares, and whether one in ten is slow."""

    title: str
    between: float
    spread: float
    slow: bool = False


@dataclass(frozen=True)
class Processes:
    """For each repetition and process: what it shares with its control, and what only the kernel has."""

    common: Array
    own: Array

    def samples(self, rng: np.random.Generator, count: int, own: bool = True) -> Array:
        """Seconds of `count` calls in each process, of the kernel or of the control."""
        shape = (*self.common.shape, count)
        calls = np.exp(rng.normal(0, WITHIN, shape)) * np.where(
            rng.random(shape) < DISTURBED, 1 + DISTURBANCE, 1
        )
        level = np.exp(self.common + self.own) if own else np.exp(self.common)
        return np.asarray(level[..., None] * calls)


def processes(rng: np.random.Generator, noise: Noise, shape: tuple[int, int]) -> Processes:
    common = rng.normal(0, math.sqrt(max(noise.between**2 - noise.spread**2, 0)), shape)
    own = rng.normal(0, noise.spread, shape)
    if noise.slow:
        own += math.log1p(SLOW_BY) * (rng.random(shape) < SLOW_SHARE)
    return Processes(common, own)


Sign = Callable[[int, float], int]  # of a repetition under an effect: 1 slower, -1 faster, 0 no alarm


def ours(rng: np.random.Generator, noise: Noise, repetitions: int, rounds: int, control: bool) -> Sign:
    """Each process answers with a median of the fewest samples that `sampling` takes."""
    sides = []
    for _ in ("base", "head"):
        drawn = processes(rng, noise, (repetitions, rounds))
        kernel = np.median(drawn.samples(rng, MIN_SAMPLES), axis=-1)
        beside = np.median(drawn.samples(rng, MIN_SAMPLES, own=False), axis=-1)
        sides.append((kernel.tolist(), beside.tolist()))

    def sign(index: int, effect: float) -> int:
        base, head = (
            [
                Round(second * factor, other if control else None)
                for second, other in zip(kernel[index], beside[index], strict=True)
            ]
            for (kernel, beside), factor in zip(sides, (1, 1 + effect), strict=True)
        )
        return {"slower": 1, "faster": -1}.get(verdict(base, head).name, 0)

    return sign


def paired(rng: np.random.Generator, noise: Noise, repetitions: int, rounds: int) -> Sign:
    """A t test of the rounds' ratios of head to base, with the same confidence and threshold."""
    logs = []
    for _ in ("base", "head"):
        drawn = processes(rng, noise, (repetitions, rounds))
        kernel = np.median(drawn.samples(rng, MIN_SAMPLES), axis=-1)
        logs.append(np.log(kernel / np.median(drawn.samples(rng, MIN_SAMPLES, own=False), axis=-1)))
    differences = (logs[1] - logs[0]).tolist()
    critical = student(CONFIDENCE, rounds - 1) / math.sqrt(rounds)

    def sign(index: int, effect: float) -> int:
        centre = fmean(differences[index]) + math.log1p(effect)
        bound = max(critical * stdev(differences[index]), math.log1p(RELEVANT))
        return 0 if abs(centre) < bound else int(math.copysign(1, centre))

    return sign


def do_bench(rng: np.random.Generator, noise: Noise, repetitions: int) -> Sign:
    """The mean of 100 calls in one process per side, held against this suite's own threshold."""
    base, head = (
        processes(rng, noise, (repetitions, 1)).samples(rng, 100).mean(axis=(1, 2)).tolist() for _ in range(2)
    )

    def sign(index: int, effect: float) -> int:
        change = math.log(head[index] * (1 + effect) / base[index])
        return 0 if abs(change) < math.log1p(RELEVANT) else int(math.copysign(1, change))

    return sign


def asv_time(rng: np.random.Generator, noise: Noise, repetitions: int, factor: float) -> Sign:
    """asv's default time_*: 10 samples from two processes, pooled."""
    base, head = (
        processes(rng, noise, (repetitions, 2))
        .samples(rng, 50)
        .reshape(repetitions, 10, 10)
        .mean(axis=-1)
        .tolist()
        for _ in range(2)
    )

    def sign(index: int, effect: float) -> int:
        base_samples, head_samples = base[index], [value * (1 + effect) for value in head[index]]
        if not _stats.is_different(base_samples, head_samples, None, None):
            return 0
        ratio = float(np.median(head_samples) / np.median(base_samples))
        return 1 if ratio > factor else -1 if ratio < 1 / factor else 0

    return sign


def rows(rng: np.random.Generator, noise: Noise, repetitions: int) -> Iterator[tuple[str, int, Sign]]:
    """Title, rounds (0: none of ours) and the rule of each row."""
    for rounds in ROUNDS:
        yield f"fa4_asv, {rounds} rounds", rounds, ours(rng, noise, repetitions, rounds, True)
    yield "fa4_asv, 10 rounds, no control", 0, ours(rng, noise, repetitions, 10, False)
    yield "paired t test, 5 rounds", 0, paired(rng, noise, repetitions, 5)
    yield "do_bench mean, 0.5 %", 0, do_bench(rng, noise, repetitions)
    yield "asv time_*, factor 1.005", 0, asv_time(rng, noise, repetitions, 1.005)
    yield "asv time_*, factor 1.1 (default)", 0, asv_time(rng, noise, repetitions, 1.1)


def models(spreads: list[float]) -> list[Noise]:
    return [
        Noise("processes do not differ", 0, 0),
        *(Noise(f"spread {spread:g} %", BETWEEN, spread / 100) for spread in spreads),
        Noise("spread 0.1 %, one process in ten 1.5 % slower", BETWEEN, 0.001, slow=True),
        Noise("spread 1.5 %: the control shares nothing", BETWEEN, BETWEEN),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=4000)
    parser.add_argument(
        "--spread", type=float, nargs="+", default=[0.1, 0.15, 0.2, 0.35, 0.5], metavar="PERCENT"
    )
    arguments = parser.parse_args()
    if arguments.repetitions < 1 or any(not 0 <= spread <= 100 * BETWEEN for spread in arguments.spread):
        parser.error(f"repetitions must be positive and a spread between 0 and {100 * BETWEEN:g} percent")
    print(f"seed {arguments.seed}, {arguments.repetitions} repetitions; percent of comparisons")
    missed = []
    for number, noise in enumerate(models(arguments.spread)):
        # A stream of its own for each model: another list of spreads leaves the others as they are.
        rng = np.random.default_rng([arguments.seed, number])
        print(f"\n{noise.title:<44} alarms  0.5 %    1 %    2 %")
        for title, rounds, sign in rows(rng, noise, arguments.repetitions):
            signs = [[sign(index, effect) for index in range(arguments.repetitions)] for effect in EFFECTS]
            alarms = fmean(map(abs, signs[0]))
            seen = [fmean(each == 1 for each in column) for column in signs[1:]]
            claimed = rounds and not noise.slow and 100 * noise.spread <= CLAIMED[rounds]
            held = alarms <= ALARMS and seen[1] >= SEEN
            if claimed and not held:
                missed.append(f"{noise.title}, {title}")
            mark = "" if not rounds else "  holds" if held else "  -"
            print(
                f"  {title:<42} {alarms:6.1%}" + "".join(f" {share:6.1%}" for share in seen) + mark,
                flush=True,
            )
    for miss in missed:
        print(f"missed where docs/timing.md claims it: {miss}", file=sys.stderr)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
