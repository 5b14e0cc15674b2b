"""In place of asv on a node: copies a prepared record into the staged checkout, or fails as told.

    python asv_stand_in.py TEMPLATE COMMIT

TEMPLATE/results is the record to copy from. TEMPLATE/<commit> may hold words, the first of which is used up: `hang`
sleeps, `kill` kills the engine's worker that waits for it and sleeps, `slow` takes two seconds, `hold` waits until
something runs on the node `late`. Each run leaves lines in TEMPLATE/runs: commit, process, node, what.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

NODE = os.environ.get("STAND_IN_NODE", "-")


def tell(template: Path, commit: str, word: str) -> None:
    with (template / "runs").open("a") as stream:
        stream.write(f"{commit} {os.getpid()} {NODE} {word}\n")


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def main() -> None:
    template, commit = Path(sys.argv[1]), sys.argv[2]
    print(f"node {NODE}", flush=True)
    if os.environ.get("STAND_IN_FULL"):
        tell(template, commit, "full")
        with open("/dev/full", "w") as full:  # noqa: PTH123 - a device: every write finds no space
            full.write("x" * 100_000)
    told = template / commit
    word, *arguments = (told.read_text().split() if told.exists() else []) or ["measure"]
    told.write_text(" ".join(arguments))
    tell(template, commit, word)
    if word == "kill":
        os.kill(parent_of(parent_of(os.getppid())), signal.SIGKILL)  # above the node's two processes
    if word in ("hang", "kill"):
        time.sleep(600)
    if word == "slow":
        time.sleep(2)
    while word == "hold" and " late " not in (template / "runs").read_text():
        time.sleep(0.1)
    here = Path("results")
    (here / "nogpu").mkdir(parents=True, exist_ok=True)
    for path in (template / "results" / "nogpu").glob(f"{commit[:8]}-*"):
        shutil.copy(path, here / "nogpu")
    shutil.copy(template / "results" / "nogpu" / "machine.json", here / "nogpu")
    shutil.copy(template / "results" / "benchmarks.json", here)
    tell(template, commit, "done")


if __name__ == "__main__":
    main()
