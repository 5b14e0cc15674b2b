"""Which mutant of the stand-in for FA4 is caught by what: runs their tests and prints the table.

    python -m tests.proofs.mutants                # half a minute; needs torch, no GPU; exit code 1 where one is not caught
    python -m tests.proofs.mutants -k deterministic

Further words are pytest's. A line is written by the test that caught the mutant, from the words that were recorded.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("tests/test_mutants.py", "tests/test_mutants_worse.py", "tests/test_mutants_crash.py")
WIDEST = 110  # characters of the reason: a table that can be read


def rows(report: Path) -> list[tuple[str, str, str]]:
    """(mutant, catcher, words) of every mutant's test in pytest's report; a test that failed says so."""
    results = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = case.get("name", "")
        if not name.startswith("test_mutant_"):
            continue
        noted = {each.get("name"): each.get("value", "") for each in case.iter("property")}
        shown = noted.get("words", "").removeprefix("guard: ")
        message = shown if len(shown) <= WIDEST else shown[:WIDEST] + "..."
        results.append((noted.get("mutant", name), noted.get("catcher", "NOT CAUGHT"), message))
    return results


def main(arguments: list[str]) -> int:
    """Print the table; pytest's exit code."""
    with tempfile.TemporaryDirectory(prefix="fa4-mutants-") as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            *TESTS,
            "-o",
            "junit_family=xunit1",
            f"--junitxml={report}",
            *arguments,
        ]
        done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr)
        table = rows(report) if report.is_file() else []
    print("| mutant | caught by | reason |\n|---|---|---|")
    for row in table:
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    caught = sum(catcher != "NOT CAUGHT" for _, catcher, _ in table)
    print(f"\n{caught} of {len(table)} mutants caught")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
