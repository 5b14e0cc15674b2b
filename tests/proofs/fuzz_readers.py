"""Altered files of every kind are given to their readers: each is taken, or refused in one line that can be shown.

    python -m tests.proofs.fuzz_readers --minutes 60 --seed 1     # one core

A file that a reader takes is written again where the suite writes such files, and must then be the same. What is found
is printed once for each place in the code, with the smallest file that shows it. Exit code 1 where something was found.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.support.fuzzing import READERS, examples, holds, prepare, ways

EXAMPLES = 300  # in a round of one reader and one way
SLOWEST = 2.0  # seconds that a reader may take for a file of a few KB


class Round:
    """One reader and one way to alter its files."""

    def __init__(self, name: str, way: int, folder: Path) -> None:
        self._name, self._way, self._path = name, ways(name)[way], prepare(name, folder)
        self.counts: Counter[str] = Counter()
        self.content = b""

    def run(self, number: int) -> None:
        """Raises what the reader raised, on the smallest file that shows it."""
        seed(number)(self._one())()

    def _one(self):
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(data=st.data())
        def example(data: st.DataObject) -> None:
            self.content = self._way(data, data.draw(st.sampled_from(examples(self._name))))
            begin = time.monotonic()
            self.counts["taken" if holds(self._name, self._path, self.content) else "refused"] += 1
            assert time.monotonic() - begin < SLOWEST, f"more than {SLOWEST:g} s"

        return example


def place(error: BaseException) -> str:
    """Kind of an error and the line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"


def fuzz(names: list[str], until: float, number: int) -> tuple[dict[str, Counter[str]], dict[str, str]]:
    """Counts by reader, and what was found by reader and place; rounds until `until`."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fa4-fuzz-") as folder:
        while True:
            for name in names:
                for way in range(len(ways(name))):
                    if time.monotonic() > until:
                        return counts, failures
                    fuzz_round = Round(name, way, Path(folder))
                    try:
                        fuzz_round.run(number)
                    except Exception as error:
                        key = f"{name}: {place(error)}"
                        if key not in failures:
                            failures[key] = f"{str(error)[:300]!a}, of {fuzz_round.content[-1500:]!r}"
                            print(f"{key} (seed {number}): {failures[key]}", flush=True)
                    counts[name] += fuzz_round.counts
            number += 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each round adds 1")
    parser.add_argument("--reader", action="append", choices=list(READERS), help="default: all")
    asked = parser.parse_args(arguments)
    logging.disable()
    counts, failures = fuzz(asked.reader or list(READERS), time.monotonic() + 60 * asked.minutes, asked.seed)
    print(
        f"\nseed {asked.seed}, {asked.minutes:g} minutes\n\n| reader | files | taken | refused | found |\n|---|---:|---:|---:|---:|"
    )
    for name, count in counts.items():
        faults = sum(key.startswith(f"{name}: ") for key in failures)
        print(f"| {name} | {count.total():,} | {count['taken']:,} | {count['refused']:,} | {faults} |")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
