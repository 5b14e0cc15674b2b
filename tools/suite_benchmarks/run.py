"""What `asv run` of one release's full codegen set costs, against a bare loop on the same machine.

    python -m tools.suite_benchmarks run                     # the newest release, cu13
    python -m tools.suite_benchmarks run --release 4.0.0b27 --flavour cu12 --json

Both start with a cold kernel cache and warm imports. The bare loop is one process that compiles the same kernels once,
one architecture after the other (FA4 reads its target when it is imported, so the second one needs a second start), and
reads no cubin. A second loop keeps FA4's own cache from call to call and so compiles the kernels that calls share only
once. Aims: asv's wall time at most 0.8 of the loop's on two cores; at most 0.05 s per recorded figure beside collecting.
Exit code 1 where one is missed.
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
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Policy, install
from fa4_asv.integrity.staging import stage
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.record.store import is_number, iter_results, load_result

WALL, FIGURE = 0.8, 0.05


def cold(project: Project, folder: Path) -> Project:
    """A staged checkout that shares everything with `project` but its caches of what was measured."""
    staged = stage(project, folder)
    staged.work.unlink()
    staged.work.mkdir()
    for entry in project.work.iterdir():
        if entry.name not in ("cache", "spool", "held"):
            (staged.work / entry.name).symlink_to(entry)
    return staged


def run_asv(staged: Project, commit: str, flavour: str) -> dict[str, float]:
    """Wall seconds of `asv run`, of its collecting, and how many figures it recorded."""
    configuration = json.loads((staged.root / "asv.conf.json").read_text())
    configuration["matrix"] = {"req": {"flavour": [flavour]}}
    (staged.root / "asv.conf.json").write_text(json.dumps(configuration))
    command = [sys.executable, "-m", "asv", "run", "--bench", "^codegen", f"{commit}^!"]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=staged.root, capture_output=True, text=True)
    wall = time.perf_counter() - begin
    if done.returncode:
        sys.exit(f"asv run failed: {done.stdout[-400:]}{done.stderr[-400:]}")
    (path,) = iter_results(staged.results)
    result = load_result(path)
    durations = json.loads(path.read_text())["durations"]
    collecting = sum(seconds for name, seconds in durations.items() if name.startswith("<setup_cache"))
    building = sum(seconds for name, seconds in durations.items() if name == "<build>")
    measured = sum(value is not None and is_number(value) for value in result.figures.values())
    return {"wall": wall, "collecting": collecting, "building": building, "figures": measured}


def run_bare(project: Project, commit: str, flavour: str, *options: str) -> dict[str, float]:
    """Wall seconds of the bare loop over both architectures, and what it compiled."""
    source = lay_source(project, commit)
    lock = source.lock(project, flavour, Policy("day"))
    python = install(project, lock, base_here(project, ""))
    here = Path(__file__).resolve()
    wall = kernels = imports = 0.0
    for arch in ARCHES:
        environment = os.environ | dict(target_environment(arch, flavour))
        environment["PYTHONPATH"] = os.pathsep.join([str(source.folder), str(here.parents[2])])
        begin = time.perf_counter()
        done = subprocess.run(
            [str(python), str(here.with_name("bare_loop.py")), *options],
            env=environment,
            capture_output=True,
            text=True,
        )
        wall += time.perf_counter() - begin
        if done.returncode:
            sys.exit(f"the bare loop failed: {done.stderr[-400:]}")
        answer = json.loads(done.stdout.splitlines()[-1])
        kernels += answer["kernels"]
        imports += answer["imports"]
    return {"wall": wall, "imports": imports, "kernels": kernels}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--release", help="such as 4.0.0b36; default: the newest")
    parser.add_argument("--flavour", choices=["cu12", "cu13"], default="cu13")
    parser.add_argument("--json", action="store_true")


def main(arguments: argparse.Namespace) -> int:
    """Measure, print; 1 where an aim is missed."""
    project = Project.find()
    releases = {release.version: release for release in Manifest.load(project.manifest).releases}
    release = releases[arguments.release] if arguments.release else list(releases.values())[-1]
    # The base environment with torch is made once a machine; both sides find it there.
    # asv prints its list of environments as its exit code; what failed, `asv run` says again.
    subprocess.run([sys.executable, "-m", "asv", "setup"], cwd=project.root, capture_output=True)
    project.work.joinpath("toolchains").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=project.work, prefix="cost-") as folder:
        print("asv run, cold ...", file=sys.stderr)
        suite = run_asv(cold(project, Path(folder) / "checkout"), release.commit, arguments.flavour)
    print("bare loop ...", file=sys.stderr)
    bare = run_bare(project, release.commit, arguments.flavour)
    print("bare loop that keeps what calls share ...", file=sys.stderr)
    keeping = run_bare(project, release.commit, arguments.flavour, "--keep")
    beside = suite["wall"] - suite["collecting"]
    figures = {
        "release": release.version,
        "cores": os.cpu_count(),
        "asv run": suite,
        "bare loop": bare,
        "bare loop that keeps": keeping,
        "ratio": suite["wall"] / bare["wall"],
        "ratio to the loop that keeps": suite["wall"] / keeping["wall"],
        "seconds per figure": beside / suite["figures"],
    }
    if arguments.json:
        print(json.dumps(figures, indent=1))
    else:
        print(f"{release.version} {arguments.flavour}, {os.cpu_count()} cores")
        print(
            f"  bare loop  {bare['wall']:7.1f} s  {bare['kernels']:.0f} kernels, imports {bare['imports']:.1f} s"
        )
        print(
            f"  ... keeps  {keeping['wall']:7.1f} s  {keeping['kernels']:.0f} kernels, those that calls share once; "
            f"ratio {figures['ratio to the loop that keeps']:.2f}"
        )
        print(f"  asv run    {suite['wall']:7.1f} s  ratio {figures['ratio']:.2f} (at most {WALL})")
        print(f"    collecting {suite['collecting']:5.1f} s  compiling on all cores, reading cubins")
        print(f"    laying     {suite['building']:5.1f} s  source and toolchain")
        print(f"    the rest   {beside - suite['building']:5.1f} s  discovery, one process a figure, saving")
        print(
            f"  {suite['figures']:.0f} figures, {figures['seconds per figure']:.3f} s each beside collecting (at most {FIGURE})"
        )
    return int(figures["ratio"] > WALL or figures["seconds per figure"] > FIGURE)
