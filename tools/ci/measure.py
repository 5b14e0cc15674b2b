"""The night's measuring: sync, measure what is new, verify, and put what changed into a folder.

    python -m tools.ci.measure      OUT; RANGES, BENCH, MINUTES

FA4's releases run here, so this step holds no token that may write; `tools.ci.accept` takes the folder over in
a job that runs none of them. When MINUTES are over, what is finished is kept and the rest is left for
the next night.

Exit code: 0 sound and complete or out of time, 1 some commits failed (the rest is in OUT), 2 refused.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tools.ci.steps import FOLDER, Refused, benchmarks, call, main, setting, summary

FA4_ASV = [sys.executable, "-m", "fa4_asv"]
INTERRUPTED = 130
MINUTE = 60.0
GRACE = 120.0  # seconds that a backfill has to end what it runs


def _listen() -> None:
    """A runner that was itself started in the background ignores SIGINT, and what it starts would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def backfill(arguments: list[str], seconds: float) -> int:
    """Its exit code; 130 where the time was over and it was asked to stop, as Ctrl-C does."""
    process = subprocess.Popen([*FA4_ASV, "backfill", *arguments], preexec_fn=_listen)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        code = process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()  # a killed backfill leaves the record whole
        code = process.wait()
    return code if code in (0, 1) else INTERRUPTED


def changed(folder: str) -> list[Path]:
    """New and changed files below `folder` of this checkout, as git sees them. Raises Refused."""
    done = call(["git", "status", "--porcelain", "-z", "--untracked-files=all", "--", folder])
    if done.returncode != 0:
        raise Refused("this checkout is not a git repository, so nothing says what is new")
    entries = [entry for entry in done.stdout.split(b"\0") if entry]
    return [path for entry in entries if (path := Path(os.fsdecode(entry[3:]))).is_file()]


def step() -> int:
    """The whole step."""
    out = Path(setting("OUT", FOLDER))
    minutes = int(setting("MINUTES", r"[1-9][0-9]{0,3}", "300"))
    arguments = setting("RANGES", r"[A-Za-z0-9_./~^ -]{0,500}", "").split()
    if any(word.startswith("-") for word in arguments):
        raise Refused("RANGES names an option; it holds git's ranges only")
    arguments += benchmarks()
    if subprocess.run([*FA4_ASV, "history", "sync", "--quiet"]).returncode != 0:
        raise Refused("the history could not be synced; nothing was measured")
    code = backfill(arguments, minutes * MINUTE)
    if code not in (0, 1, INTERRUPTED):
        raise Refused(f"the backfill could not start (exit code {code})")
    if subprocess.run([*FA4_ASV, "verify"]).returncode != 0:
        raise Refused("the record is unsound after measuring; nothing leaves this machine")
    files = changed("results")
    for path in files:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / path)
    over = ", the time was over" if code == INTERRUPTED else ""
    summary(f"{len(files)} files of the record are new or changed{over}; exit code of backfill: {code}")
    return 1 if code == 1 else 0


if __name__ == "__main__":
    main(step)
