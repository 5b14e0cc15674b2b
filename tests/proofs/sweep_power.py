"""How often the verdicts of a sweep are wrong: false alarms and changes seen, by simulation, as a table.

    python -m tests.proofs.sweep_power                          # the table of docs/verdicts.md, 20 s
    python -m tests.proofs.sweep_power --sweeps 20 --releases 10

One call in many sweeps of `releases` releases, each with two processes of three rounds. A process differs from
the next by `spread` (standard deviation of log seconds), a round of it by 0.1 % more, which also holds for the
control beside it. The card drifts from round to round, and within a round from its first release to its last;
of that the control shares all. Neighbours are compared by compare.along: without a change (alarms), and with every
second release 1 % slower (seen). "A/A" are false alarms among the processes of one release (compare.false_alarms).
Exit code 1 where a line misses what docs/verdicts.md claims of it.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from fa4_asv.compare.along import Turn, between, pool_of
from fa4_asv.compare.false_alarms import ALARMS, same_release

CHANGE = math.log(1.01)
ROUND = 0.001  # standard deviation of a round of a process
MOST_ALARMS, LEAST_SEEN = 0.01, 0.9


def normal(rng: random.Random) -> float:
    return rng.gauss(0, 1)


def student_3(rng: random.Random) -> float:
    """Student's t with 3 degrees of freedom, scaled to a standard deviation of 1."""
    return normal(rng) / math.sqrt(sum(normal(rng) ** 2 for _ in range(3)))


def contaminated(rng: random.Random) -> float:
    """One in twenty is drawn from a distribution five times as wide: a standard deviation of 1.48."""
    return normal(rng) * (5 if rng.random() < 0.05 else 1)


@dataclass(frozen=True)
class Noise:
    """`spread`, `drift` (a step of a random walk per round) and `within` (a round's slope) as standard deviations.

    `modes`: the first release has two, so far apart; `disturbed`: so many rounds take 3 % longer.
    `claims`: alarms, seen of a 1 % change, A/A: what docs/verdicts.md claims of this line.
    """

    title: str
    spread: float
    draw: Callable[[random.Random], float] = normal
    drift: float = 0.0
    within: float = 0.0
    modes: float = 0.0
    disturbed: float = 0.0
    claims: str = ""


ALL = "alarms seen A/A"
MODELS = (
    Noise("0.05 %", 0.0005, claims=ALL),
    Noise("0.1 %", 0.001, claims=ALL),
    Noise("0.2 %", 0.002, claims="alarms seen"),
    Noise("0.3 %", 0.003, claims="alarms"),
    Noise("1 %", 0.01, claims="alarms"),
    Noise("0.1 %, card drifts 0.5 % per round, 0.3 % within", 0.001, drift=0.005, within=0.003, claims=ALL),
    Noise("0.2 %, card drifts 2 % per round, 1 % within", 0.002, drift=0.02, within=0.01, claims="alarms"),
    Noise("0.1 %, one round in 50 3 % slower", 0.001, disturbed=0.02, claims=ALL),
    Noise("0.1 %, heavy tails (t, 3 degrees)", 0.001, student_3, claims=ALL),
    Noise("0.2 %, heavy tails (t, 3 degrees)", 0.002, student_3, claims="alarms seen"),
    Noise("1 %, heavy tails (t, 3 degrees)", 0.01, student_3, claims="alarms"),
    Noise("0.2 %, one process in 20 five times that", 0.002, contaminated, claims="alarms"),
    Noise("0.1 %, one release has two modes, 1 % apart", 0.001, modes=0.01, claims="seen"),
    Noise("0.1 %, one release has two modes, 3 % apart", 0.001, modes=0.03),
)


def simulated(
    rng: random.Random, noise: Noise, releases: int, processes: int, rounds: int, change: float
) -> dict[str, list[Turn]]:
    """The turns of one call; every second release is slower by `change` (in logs)."""
    result: dict[str, list[Turn]] = {str(number): [] for number in range(releases)}
    luck = [[_luck(rng, noise, number) for _ in range(processes)] for number in range(releases)]
    card = 0.0
    for turn in range(processes * rounds):
        card += rng.gauss(0, noise.drift)
        slope = rng.gauss(0, noise.within)
        order = rng.sample(range(releases), releases)
        for place, number in enumerate(order):
            state = card + slope * (place / releases - 0.5)
            own = luck[number][turn // rounds] + change * (number % 2) + rng.gauss(0, ROUND)
            own += 0.03 * (rng.random() < noise.disturbed)
            control = math.exp(state + rng.gauss(0, ROUND))
            result[str(number)].append(Turn(math.exp(state + own), turn // rounds, turn, control))
    return result


def _luck(rng: random.Random, noise: Noise, number: int) -> float:
    return noise.spread * noise.draw(rng) + (noise.modes * (rng.random() < 0.5) if number == 0 else 0.0)


def shares(
    noise: Noise, sweeps: int, releases: int, processes: int, rounds: int, controlled: bool, seed: str
) -> dict[str, float]:
    """Of the verdicts: "alarms", "seen", "A/A" (false alarms there), "apart" (unclear for that)."""
    rng, counts = random.Random(f"{seed} {noise.title}"), Counter[str]()
    for _ in range(sweeps):
        for change in (0.0, CHANGE):
            call = simulated(rng, noise, releases, processes, rounds, change)
            pool = pool_of(call, controlled)
            for number in range(releases - 1):
                result = between(pool, call[str(number)], call[str(number + 1)])
                if change:
                    counts["seen"] += result.name == ("slower" if number % 2 == 0 else "faster")
                else:
                    counts["alarms"] += result.name in ALARMS
                    counts["apart"] += result.code == "processes-apart"
            if not change:
                counts["A/A"] += sum(result.name in ALARMS for result in same_release(pool).values())
    pairs = {"A/A": sweeps * releases}
    names = ("alarms", "seen", "A/A", "apart")
    return {name: counts[name] / pairs.get(name, sweeps * (releases - 1)) for name in names}


def missed(noise: Noise, result: dict[str, float], pairs: int) -> list[str]:
    """The claims that do not hold, within 2.6 standard errors of the simulation."""
    error = 2.6 * math.sqrt(MOST_ALARMS * (1 - MOST_ALARMS) / pairs)
    high = [name for name in ("alarms", "A/A") if name in noise.claims and result[name] > MOST_ALARMS + error]
    return high + (["seen"] if "seen" in noise.claims and result["seen"] < LEAST_SEEN else [])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", default="1")
    parser.add_argument("--sweeps", type=int, default=400)
    parser.add_argument("--releases", type=int, default=30)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="Of each process.")
    parser.add_argument("--control", action="store_true", help="Divide the control out.")
    options = parser.parse_args()
    if min(options.sweeps, options.rounds) < 1 or min(options.releases, options.processes) < 2:
        parser.error("sweeps and rounds must be positive, releases and processes at least 2")
    size = (options.sweeps, options.releases, options.processes, options.rounds)
    print(
        f"seed {options.seed}; {size[0]} sweeps of {size[1]} releases, {size[2]} processes of {size[3]} rounds"
    )
    print("| between processes | alarms | 1 % seen | A/A | processes apart |\n|---|---:|---:|---:|---:|")
    wrong = []
    for noise in MODELS:
        result = shares(noise, *size, options.control, options.seed)
        print(
            f"| {noise.title} | " + " | ".join(f"{share:.1%}" for share in result.values()) + " |", flush=True
        )
        wrong += [f"{noise.title}: {name}" for name in missed(noise, result, size[0] * (size[1] - 1))]
    for miss in wrong:
        print(f"missed where docs/verdicts.md claims it: {miss}", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
