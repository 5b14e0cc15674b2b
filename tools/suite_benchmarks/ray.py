"""Backfill of some releases on a local Ray with two one-core workers, against plain backfill: same figures, how fast?

    python -m tools.suite_benchmarks ray                     # 8 newest releases, full codegen set: hours
    python -m tools.suite_benchmarks ray --bench "'(fwd|bwd)_d128_full'" -E fa4:same

Three ways, each in a checkout whose caches of what was measured are empty, with every toolchain laid before:
`one` is plain backfill with one compile process, `two` the same with two, `ray` two workers of one core and one
compile process each, start and end of Ray included. Run it on a machine with two idle cores. Exit code 1 where
figures or sidecars differ, where ray is not 1.7 times as fast as one, or takes more than 1.1 times as long as two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fa4_asv.asv_plugin.base_environments import base_here
from fa4_asv.base.project import Project
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Policy, UnsupportedFlavour, install
from fa4_asv.record.schema import Sidecar
from fa4_asv.record.store import iter_results, load_result, sidecar_path
from tools.suite_benchmarks.run import cold

SPEED, WALL = 1.7, 1.1
# What is told of each way, the cores of the whole and further words of the command.
WAYS = {
    "one": ("one compile process", 1, []),
    "two": ("two compile processes", 2, []),
    "ray": ("Ray, two one-core workers", 2, ["--ray", "local", "--cores", "1"]),
}


def lay(project: Project, commits: list[str], flavour: str, base: Path) -> None:
    """Sources and toolchains of all commits, so that no way pays for them."""
    for commit in commits:
        source = lay_source(project, commit)
        try:
            install(project, source.lock(project, flavour, Policy("day")), base)
        except UnsupportedFlavour:
            pass


def backfill(staged: Project, arguments: list[str], cores: int) -> float:
    """Wall seconds of one `fa4-asv backfill`; exits with its last output where it fails."""
    here = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"FA4_ASV_CORES": str(cores), "PYTHONPATH": here}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "fa4_asv", "backfill", *arguments],
        cwd=staged.root,
        env=environment,
        capture_output=True,
        text=True,
    )
    wall = time.perf_counter() - begin
    print(done.stdout, file=sys.stderr, end="")
    if done.returncode:
        sys.exit(f"backfill {' '.join(arguments)} failed: {done.stderr[-600:]}")
    return wall


def record_of(staged: Project) -> dict[str, tuple[str, str]]:
    """Per result file all that is exact: its figures, and the whole sidecar."""
    return {
        path.name: (repr(sorted(load_result(path).figures.items())), sidecar_path(path).read_text())
        for path in iter_results(staged.results)
    }


def measured(records: dict[str, tuple[str, str]]) -> dict[str, int]:
    """How many cases of all sidecars are in which state."""
    states: dict[str, int] = {}
    for _, sidecar in records.values():
        for cases in Sidecar.from_json(json.loads(sidecar)).groups.values():
            for case in cases.values():
                states[case.state] = states.get(case.state, 0) + 1
    return states


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--releases", type=int, default=8, help="the newest N (default: %(default)s)")
    parser.add_argument("--flavour", choices=["cu12", "cu13"], default="cu13")
    parser.add_argument("--bench", default="^codegen", help="as asv's (default: %(default)s)")
    parser.add_argument("-E", "--environment", default="", help="as asv's, such as fa4:same")
    parser.add_argument("--json", action="store_true")


def main(arguments: argparse.Namespace) -> int:
    """Measure, print; 1 where the records differ or an aim is missed."""
    project = Project.find()
    releases = Manifest.load(project.manifest).releases[-arguments.releases :]
    base = base_here(project, arguments.environment)
    lay(project, [each.commit for each in releases], arguments.flavour, base)
    command = ["--flavour", arguments.flavour, "--bench", arguments.bench, *(each.tag for each in releases)]
    command += ["--environment", arguments.environment] if arguments.environment else []
    walls, records, loads = {}, {}, {}
    for name, (title, cores, more) in WAYS.items():
        with tempfile.TemporaryDirectory(dir=project.work, prefix="speed-") as folder:
            staged = cold(project, Path(folder) / "checkout")
            loads[name] = os.getloadavg()[0]
            print(f"{title} (load {loads[name]:.1f} before) ...", file=sys.stderr)
            walls[name] = backfill(staged, [*command, *more], cores)
            records[name] = record_of(staged)
    same_record = records["one"] == records["two"] == records["ray"]
    speed, wall = walls["one"] / walls["ray"], walls["ray"] / walls["two"]
    states = measured(records["ray"])
    if arguments.json:
        figures = {
            "walls": walls,
            "loads": loads,
            "speed": speed,
            "wall": wall,
            "same": same_record,
            "states": states,
        }
        print(json.dumps(figures, indent=1))
    else:
        print(f"{len(releases)} releases, {arguments.flavour}, --bench {arguments.bench}")
        for name, (title, *_) in WAYS.items():
            print(f"  {title:26} {walls[name]:7.1f} s  {walls['one'] / walls[name]:5.2f} x one")
        print(f"  ray against one: {speed:.2f} times as fast (at least {SPEED})")
        print(f"  ray against two: {wall:.2f} of its wall time (at most {WALL})")
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        words_same = "the same, byte by byte" if same_record else "DIFFERENT"
        print(f"  figures and sidecars of {len(records['ray'])} result files: {words_same} ({counts})")
    return int(not same_record or speed < SPEED or wall > WALL)
