"""Run every test of a fault and write their table into docs/testing.md.

    python tools/fault_table.py            # some minutes; exit code 1, and the page as it was, where a test fails
    python tools/fault_table.py --collect-only --fault-table PAGE    # without running them: seconds

Further words are pytest's. A test of a fault has the marker `fault` (tests/support/faults.py).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def files() -> list[str]:
    """The test files that hold such tests: the others need not be imported."""
    paths = sorted((ROOT / "tests").glob("test_*.py"))
    return [str(path) for path in paths if "mark.fault(" in path.read_text(encoding="utf-8")]


def main(arguments: list[str]) -> int:
    """pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "fault", "--fault-table", "docs/testing.md"]
    return subprocess.run([*command, *files(), *arguments], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
