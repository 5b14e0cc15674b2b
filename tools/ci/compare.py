"""Compare the two ends of a pull request and leave the report in a folder.

    python -m tools.ci.compare      FORK, BASE, HEAD, NUMBER, OUT; FLAVOURS, BENCH, MACHINE

FORK is a checkout of flash-attention with its whole history, OUT the folder that becomes the artifact:
report.md, report.json and the pull request's number. The comparison is with the merge base, so that what
happened on the target branch meanwhile is nobody's fault.

Exit code: that of `fa4-asv compare`, 0 nothing worse, 1 something worse (fa4_asv/compare/policy.py says what is), 2 could
not compare.
"""

from __future__ import annotations

import collections
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fa4_asv.base.escape import visible
from fa4_asv.compare.policy import NOTHING_WORSE, SOMETHING_WORSE
from tools.ci.steps import COMMIT, FOLDER, NUMBER, Refused, benchmarks, call, main, setting, summary

FA4_ASV = [sys.executable, "-m", "fa4_asv"]


def told(command: Sequence[str]) -> tuple[int, str]:
    """Run a command with its words in the log; its exit code and the last lines it told on stderr."""
    last: collections.deque[str] = collections.deque(maxlen=10)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(visible(line))
            last.append(line.rstrip())
    return process.returncode, "\n".join(last)


def parting(fork: Path, base: str, head: str) -> str:
    """The commit at which the two ends parted. Raises Refused."""
    base_of_both = call(["git", "-C", str(fork), "merge-base", base, head])
    commit = base_of_both.stdout.decode("ascii", "replace").strip()
    if base_of_both.returncode != 0 or not commit:
        raise Refused("the two ends have no common commit here; check the fork out with fetch-depth: 0")
    return commit


def options() -> list[str]:
    """What of the comparison was asked for, as arguments of `fa4-asv compare`."""
    arguments: list[str] = []
    for flavour in setting("FLAVOURS", r"cu1[23]( cu1[23])?", "cu13").split():
        arguments += ["--flavour", flavour]
    machine = setting("MACHINE", r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "nogpu")
    return [*arguments, *benchmarks(), "--machine", machine]


def without_report(printed: str) -> str:
    """The report where there is none to make: the reason as a block of code, which shows it as it is."""
    lines = "\n".join(f"    {line}" for line in printed.splitlines() if line.strip())
    return f"**fa4-asv could not compare.**\n\n{lines or '    no reason was given'}\n"


def step() -> int:
    """The whole step."""
    base, head, number = setting("BASE", COMMIT), setting("HEAD", COMMIT), setting("NUMBER", NUMBER)
    fork, out = Path(setting("FORK", FOLDER)), Path(setting("OUT", FOLDER))
    wanted = options()
    out.mkdir(parents=True, exist_ok=True)
    (out / "number").write_text(f"{number}\n")
    report = out / "report.md"
    report.unlink(missing_ok=True)
    try:
        parted = parting(fork, base, head)
    except Refused as refused:
        report.write_text(without_report(str(refused)), encoding="utf-8")
        raise
    # By hash, under names of our own: a branch may be called anything.
    branches = ["--branch", f"{parted}:pull-base", "--branch", f"{head}:pull-head"]
    code, printed = told([*FA4_ASV, "history", "sync", "--quiet", "--source", str(fork), *branches])
    if code == 0:
        compare = [*FA4_ASV, "compare", parted, head, *wanted]
        code, printed = told([*compare, "--format", "markdown", "-o", str(report)])
        if report.is_file():
            told([*compare, "--no-run", "--format", "json", "-o", str(out / "report.json")])
    else:
        code = 2
    if not report.is_file():
        report.write_text(without_report(printed), encoding="utf-8")
        code = code or 2
    summary(report.read_text(encoding="utf-8", errors="replace"))
    return code if code in (NOTHING_WORSE, SOMETHING_WORSE) else 2


if __name__ == "__main__":
    main(step)
