"""How publishing grows: `fa4-asv publish` with the report against plain `asv publish`, over a synthetic record.

    python -m tools.suite_benchmarks publish                 # 500 commits, both flavours, the full set; an hour on two cores
    python -m tools.suite_benchmarks publish --commits 60 --keep FOLDER

Makes a history of N releases in a folder of its own and gives each a pair of result files a flavour: the newest real
ones with the commit exchanged and one kernel in twenty moved, so that they are as large as real ones. Prints seconds
(wall clock, and of all processes together on the CPU, which a busy machine does not stretch), the largest process's
memory, and bytes. Exit code 1 where publish and report take more than 1.3 times as long as asv alone; for an idle machine
of two cores or more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.metrics import LOOP_DIGITS
from fa4_asv.history.manifest import Manifest, Release
from fa4_asv.record.loops import products_of
from fa4_asv.record.schema import CaseRecord, Sidecar
from fa4_asv.record.store import read_sidecar, sidecar_path, write_sidecar

ROOT = Path(__file__).resolve().parents[2]
FLAVOURS = ("cu13", "cu12")
LIMIT = 1.3
DAY = 24 * 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--commits", type=int, default=500)
    parser.add_argument("--keep", type=Path, help="work here and leave it, instead of in a folder that goes")


def main(options: argparse.Namespace) -> int:
    """Measure, print; 1 where the limit is exceeded."""
    folder = options.keep or Path(tempfile.mkdtemp(prefix="fa4-growth-"))
    try:
        return measure(folder, options.commits)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def measure(folder: Path, commits: int) -> int:
    project = checkout(folder / "checkout", commits)
    record = size(project.results)
    print(
        f"{commits} commits, {len(list(project.results.glob('nogpu/*.json'))) - 1} result files, {record}",
        flush=True,
    )
    plain = timed("asv publish, no plug-in", [*asv(project, plain=True), "publish"], project)
    plain_size = size(project.html)
    print(f"  html/ {plain_size}", flush=True)
    shutil.rmtree(project.html)
    report = timed("fa4-asv report alone", [sys.executable, "-m", "fa4_asv", "report"], project)
    print(f"  html/report/ {size(project.html / 'report')}", flush=True)
    shutil.rmtree(project.html)
    whole = timed("fa4-asv publish, report included", [sys.executable, "-m", "fa4_asv", "publish"], project)
    print(f"  html/ {size(project.html)}", flush=True)
    ratio = whole[0] / plain[0]
    print(
        f"ratio of seconds: {ratio:.2f} (at most {LIMIT}); of CPU seconds: {whole[1] / plain[1]:.2f}, of which the"
    )
    print(f"report is {report[1] / plain[1]:.2f}, made beside asv's pages by another core")
    return int(ratio > LIMIT)


def asv(project: Project, plain: bool) -> list[str]:
    """asv's command; plain: with git as asv knows it and none of this suite's code."""
    configuration = json.loads((ROOT / "asv.conf.json").read_text(encoding="utf-8")) | {
        "branches": ["releases"]
    }
    if plain:
        configuration |= {"plugins": [], "dvcs": "git", "environment_type": "virtualenv"}
    path = project.root / ("plain.conf.json" if plain else "asv.conf.json")
    path.write_text(json.dumps(configuration), encoding="utf-8")
    return [sys.executable, "-m", "asv", "--config", str(path)]


def timed(name: str, command: list[str], project: Project) -> tuple[float, float]:
    """Seconds, and CPU seconds with children, of a command; prints them with its memory."""
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} failed with exit code {process.returncode}: {' '.join(command)}")
    cpu = usage.ru_utime + usage.ru_stime
    wall = time.monotonic() - started
    print(
        f"{name}: {wall:.0f} s, {cpu:.0f} s of CPU, largest process {usage.ru_maxrss / 1024:.0f} MiB",
        flush=True,
    )
    return wall, cpu


def size(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB"


def checkout(root: Path, commits: int) -> Project:
    """A checkout with a history of its own and a record of every commit and flavour."""
    root.mkdir(parents=True)
    for name in ("fa4_asv", "benchmarks", "requirements"):
        (root / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "asv.conf.json", root)
    project = Project(root)
    releases = history(project, commits)
    Manifest(tuple(releases)).save(project.manifest)
    folder = project.results / "nogpu"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "results" / "benchmarks.json", project.results)
    shutil.copy(ROOT / "results" / "nogpu" / "machine.json", folder)
    for flavour in FLAVOURS:
        source = newest(flavour)
        moves = random.Random(flavour)
        sidecar, result = read_sidecar(sidecar_path(source)), json.loads(source.read_text(encoding="utf-8"))
        first = sidecar
        for release in releases:
            sidecar = moved(sidecar, release, moves, first)
            path = folder / f"{release.commit[:8]}-{source.name.partition('-')[2]}"
            path.write_text(json.dumps(as_result(result, sidecar, release)), encoding="utf-8")
            write_sidecar(sidecar_path(path), sidecar)
    return project


def history(project: Project, commits: int) -> list[Release]:
    """A bare repository with one commit and tag a release."""
    project.work.mkdir()
    run = ["git", "-C", str(project.work)]
    subprocess.run([*run, "init", "--quiet", "--bare", project.repository.name], check=True)
    stream = b"".join(fast_import(commits))
    git = ["git", "-C", str(project.repository)]
    subprocess.run([*git, "fast-import", "--quiet"], input=stream, check=True)
    hashes = subprocess.run(
        [*git, "rev-list", "--reverse", "releases"], check=True, capture_output=True, text=True
    )
    return [
        Release(f"4.0.0b{n}", f"flash_attn_4-4.0.0b{n}.tar.gz", f"{n:064x}", _time(n), commit)
        for n, commit in enumerate(hashes.stdout.split(), 1)
    ]


def fast_import(commits: int) -> Iterator[bytes]:
    for number in range(1, commits + 1):
        who = f"nobody <nobody@localhost> {1_770_000_000 + number * DAY} +0000"
        text = f"4.0.0b{number}"
        yield f"commit refs/heads/releases\nmark :{number}\ncommitter {who}\ndata {len(text)}\n{text}\n".encode()
        yield (f"from :{number - 1}\n" if number > 1 else "").encode()
        yield f"M 644 inline flash_attn/cute/version.py\ndata {len(text)}\n{text}\n\n".encode()
        yield f"reset refs/tags/fa4-v4.0.0b{number}\nfrom :{number}\n\n".encode()


def _time(number: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_770_000_000 + number * DAY))


def newest(flavour: str) -> Path:
    """The largest real pair of a flavour: the one with the most groups."""
    pattern = f"*-flavour{flavour}-toolchainday.json"
    return max((ROOT / "results" / "nogpu").glob(pattern), key=lambda path: (path.stat().st_size, path.name))


def moved(sidecar: Sidecar, release: Release, moves: random.Random, first: Sidecar) -> Sidecar:
    """The record of the next release: one kernel in twenty moves by up to 10 %."""
    cases = {
        case: another(record, moves) if record.state == "measured" and moves.random() < 0.05 else record
        for case, record in sidecar.groups["codegen"].items()
    }
    loops = {
        case: with_kernel(record, cases[case], first.groups["codegen"][case])
        for case, record in first.groups.get("loops", {}).items()
    }
    groups = {**sidecar.groups, "codegen": cases, **({"loops": loops} if loops else {})}
    return replace(sidecar, commit=release.commit, release=release.version, groups=groups)


def another(record: CaseRecord, moves: random.Random) -> CaseRecord:
    """A kernel with other counts of opcodes, the figures that follow from them, and a digest of its own: `verify` passes it."""
    factor = 1 + moves.uniform(-0.1, 0.1)
    opcodes = {
        name: count if _is_of_a_turn(name) else max(1, round(count * factor))
        for name, count in record.opcodes.items()
    }
    count = sum(opcodes.values())
    figures = {
        **record.figures,
        "instructions": count - opcodes.get("NOP", 0),
        "local_loads": opcodes.get("LDL", 0),
        "local_stores": opcodes.get("STL", 0),
        "text_bytes": 16 * count,
    }
    return replace(record, opcodes=opcodes, figures=figures, sha256=f"{moves.getrandbits(256):064x}")


def _is_of_a_turn(opcode: str) -> bool:
    """Whether the loops of the first release, which stay as they are, count it, too."""
    return "MMA" in opcode or opcode.startswith("MUFU")


def with_kernel(loops: CaseRecord, kernel: CaseRecord, first: CaseRecord) -> CaseRecord:
    """The loops of the first release with the digest of a kernel that has moved since, and shorter, so that they fit into it."""
    digest = kernel.sha256[:LOOP_DIGITS] if loops.sha256 else ""
    if loops.state != "measured" or kernel.sha256 == first.sha256:
        return replace(loops, sha256=digest)
    shorter = 0.9 * min(1.0, kernel.figures["instructions"] / first.figures["instructions"])
    figures, parts = (
        {name: int(value * shorter) for name, value in counts.items()}
        for counts in (loops.figures, loops.parts)
    )
    moved = replace(loops, figures=figures, parts=parts, sha256=digest)
    products = sum(products_of(moved).values())
    if "slots_per_100_products" in figures and products:
        slots = parts.get("slots", figures.get("turn_instructions", 0))
        figures["slots_per_100_products"] = (100 * slots + products // 2) // products
    return moved


def as_result(result: dict[str, object], sidecar: Sidecar, release: Release) -> dict[str, object]:
    """asv's file of the record: the figures of the kernels exchanged."""
    results = dict(result["results"])  # type: ignore[call-overload]
    for group in (GROUPS[name] for name in ("codegen", "loops") if name in sidecar.groups):
        for metric in group.metrics:
            row = list(results[group.benchmark(metric)])
            arches, kernels = ([word.strip("'") for word in axis] for axis in row[1])
            keys = [f"{arch}/{kernel}" for arch in arches for kernel in kernels]
            row[0] = [_as_asv(sidecar.groups[group.name].get(key), metric) for key in keys]
            results[group.benchmark(metric)] = row
    date = int(release.time.timestamp() * 1000)
    return {**result, "commit_hash": release.commit, "date": date, "results": results}


def _as_asv(record: CaseRecord | None, metric: str) -> float | None:
    """A figure, null where it should be there and is not, n/a else: as asv writes them."""
    if record is not None and record.state == "broken":
        return None
    value = record.figures.get(metric) if record else None
    return float("nan") if value is None else value
