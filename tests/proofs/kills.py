"""kill -9 at random moments of sync, run, backfill and publish: is anything damaged, does the next run complete?

    python -m tests.proofs.kills                       # 20 kills, seed 1; needs a registry, 10 to 15 minutes
    python -m tests.proofs.kills --seed 7 --kills 40 --keep FOLDER

Works in a clone of this checkout with a record of its own. Each command is first run to its end, which
gives the reference (of `publish` before each kill) and the time it takes; then it is killed at a moment drawn
uniformly from that time, every other time with all its children. After each kill every result file, sidecar and git object is
checked, the command is started again as a person would, and what it leaves must be the reference.
Exit code 1 where anything was damaged or differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.history.repository import git
from fa4_asv.record.store import iter_results, load_result, read_sidecar, sidecar_path

BENCH = r"sm_90', '(fwd_d64_full|fwd_b\d+_s\d+_h32_d64_full)'"
# What of a record depends on the clock, not on what was measured.
CLOCK = ("started_at", "duration")


@dataclass
class Command:
    """One command: how to start it, what to forget before, what it leaves, how to look for damage."""

    arguments: list[str]
    forget: Callable[[Project], None]
    leaves: Callable[[Project], object]
    seconds: float = 0.0


def results_of(project: Project) -> object:
    """The record without clock readings."""
    result = {}
    for path in iter_results(project.results):
        data = json.loads(path.read_text())
        columns = [name for name in data["result_columns"] if name not in CLOCK]
        rows = {}
        for name, row in data["results"].items():
            entry = dict(zip(data["result_columns"], row, strict=False))
            rows[name] = repr([entry.get(column) for column in columns])
        result[path.name] = (rows, data["requirements"], sidecar_path(path).read_text())
    return result


def history_of(project: Project) -> object:
    return git(project.repository, "for-each-ref", "--format=%(refname) %(objectname)")


def site_of(project: Project) -> object:
    """Names of the site's files, and what the report's hold; asv writes the time of publishing into some of its own."""
    report = project.html / "report"
    return {
        path.relative_to(project.html).as_posix(): path.read_bytes() if path.is_relative_to(report) else b""
        for path in project.html.rglob("*")
        if path.is_file()
    }


def damage(project: Project) -> list[str]:
    """Files that cannot be read, objects that git finds wrong."""
    results = []
    for path in iter_results(project.results):
        for read, each in ((load_result, path), (read_sidecar, sidecar_path(path))):
            try:
                read(each)
            except Fa4AsvError as error:
                results.append(str(error))
    for path in project.results.rglob("*.sidecar"):
        try:
            read_sidecar(path)
        except Fa4AsvError as error:
            results.append(str(error))
    if (project.repository / "HEAD").is_file():
        try:
            git(project.repository, "fsck", "--strict")
        except Fa4AsvError as error:
            results.append(str(error))
    return results


def forget_history(project: Project) -> None:
    shutil.rmtree(project.repository, ignore_errors=True)


def forget_results(project: Project) -> None:
    shutil.rmtree(project.results / "nogpu", ignore_errors=True)
    shutil.rmtree(project.work / "cache", ignore_errors=True)


def forget_site(project: Project) -> None:
    shutil.rmtree(project.html, ignore_errors=True)


def one_flavour(project: Project) -> None:
    """cu13 only: the same ways with half the compiling."""
    path = project.root / "asv.conf.json"
    path.write_text(path.read_text().replace('["cu13", "cu12"]', '["cu13"]'))


def commands() -> dict[str, Command]:
    asv, fa4 = [sys.executable, "-m", "asv"], [sys.executable, "-m", "fa4_asv"]
    span = ["releases~2..releases"]
    return {
        "sync": Command([*fa4, "history", "sync"], forget_history, history_of),
        "run": Command([*asv, "run", "-E", "fa4:same", "-b", BENCH, *span], forget_results, results_of),
        "backfill": Command(
            [*fa4, "backfill", "--flavour", "cu13", "-E", "fa4:same", "-b", BENCH, *span],
            forget_results,
            results_of,
        ),
        "publish": Command([*fa4, "publish"], forget_site, site_of),
    }


def start(command: Command, project: Project) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command.arguments,
        cwd=project.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(project.root)},
    )


def finish(command: Command, project: Project) -> object:
    """Run to the end; what it leaves. Ends this script where it fails."""
    process = start(command, project)
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(command.arguments)} failed: {errors.decode()[-600:]}")
    return command.leaves(project)


def kill(process: subprocess.Popen[bytes], everything: bool) -> None:
    if everything:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def kill_once(
    name: str, command: Command, project: Project, draw: random.Random, number: int, expected: object
) -> tuple[bool, list[str]]:
    """Kill `command` once and complete it; whether it was still running then, and what went wrong."""
    if name == "publish":
        # The site is that of the record as it is now: `run` left other cases than `backfill`.
        expected = finish(command, project)
    command.forget(project)
    process = start(command, project)
    after = draw.uniform(0, command.seconds)
    try:
        process.wait(after)
        ended = True
    except subprocess.TimeoutExpired:
        ended = False
        kill(process, everything=bool(number % 2))
    wrong = damage(project)
    begin = time.monotonic()
    if finish(command, project) != expected:
        wrong.append(f"{name}: the next run left another record")
    wrong += damage(project)
    message = "ended before the kill" if ended else f"killed after {after:5.1f} of {command.seconds:5.1f} s"
    whom = "" if ended else ", with its children" if number % 2 else ", alone"
    print(
        f"{number + 1:3} {name:9} {message}{whom}; completed in {time.monotonic() - begin:5.1f} s: "
        + ("; ".join(wrong) or "whole"),
        flush=True,
    )
    return not ended, wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--keep", type=Path, help="work here and leave it (default: a folder that is removed)"
    )
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="fa4-kills-"))
    project = Project(folder / "checkout")
    shutil.rmtree(project.root, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", str(Project.find().root), str(project.root)], check=True)
    one_flavour(project)
    forget_results(project)
    draw, every, references = random.Random(arguments.seed), commands(), {}
    for name, command in every.items():
        finish(command, project)  # installs what has to be installed
        command.forget(project)
        begin = time.monotonic()
        references[name] = finish(command, project)
        command.seconds = time.monotonic() - begin
        print(f"    {name:9} takes {command.seconds:.1f} s", flush=True)
    wrong: list[str] = []
    killed = 0
    while killed < arguments.kills:  # a command that ended before its moment was not killed
        name = draw.choice(list(every))
        hit, result = kill_once(name, every[name], project, draw, killed, references[name])
        killed += hit
        wrong += result
    print(f"{killed} kills, seed {arguments.seed}: {len(wrong)} damaged or different")
    if not arguments.keep:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
