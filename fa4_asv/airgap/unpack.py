"""Measure on a machine without a network, with what `airgap_pack.py` packed. Needs nothing but Python, torch and git.

    python3 airgap.py --machine h200-sxm -o results.tar.gz         # a card: what CORE lists
    python3 airgap.py --machine nogpu --jobs 8 --bench '^codegen'  # what needs no card, on many cores
    python3 airgap.py --machine NAME --jobs 8 --pin --bench '^compile'   # what a clock measures, each on a core of its own

Uses the interpreter that starts it: it must have torch, with CUDA for a card. Nothing is installed into it: an
environment of its own is made in `--work`, over its packages. What was measured is kept after each step.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# What a card is asked, the most wanted first: what was measured is kept after each.
CORE = (
    "^forward.Core",
    "^backward.Core",
    "^memory.Allocated.track",
    "^route.(Card|Host)",
    "^accuracy.(Forward|Backward).track",
    "^forward.Yardsticks",
    "^backward.Yardsticks",
)


def join(folder: Path, work: Path) -> Path:
    """The unpacked pack below `work`; exits where a part is missing or damaged."""
    parts = sorted(folder.glob("pack.part-*"))
    digest, whole = hashlib.sha256(), work / "pack.tar"
    with whole.open("wb") as target:
        for part in parts:
            block = part.read_bytes()
            digest.update(block)
            target.write(block)
    expected = (folder / "pack.sha256").read_text().strip()
    if digest.hexdigest() != expected:
        names = ", ".join(part.name for part in parts) or "none"
        sys.exit(f"airgap: the parts in {folder} ({names}) are not what was packed; carry them again")
    with tarfile.open(whole) as tar:
        tar.extractall(work, filter="data")
    whole.unlink()
    return work / "pack"


def run(arguments: argparse.Namespace) -> None:
    """Lay everything below `arguments.work`, measure, and write results/<machine> to a tar file."""
    work = Path(arguments.work).resolve()
    inside, checkout, python = work / "pack", work / "checkout", work / "venv" / "bin" / "python"
    if not (work / "laid").exists():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        join(Path(__file__).resolve().parent, work)
        lay(inside, work)
        (work / "laid").touch()
    # uv, which lays the toolchains, finds every wheel in the pack.
    offline = {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(inside / "wheels")}
    # A policy's name joins its pins by "_".
    offline["FA4_ASV_TOOLCHAIN"] = arguments.policy.replace("_", ",")
    environment = {**os.environ, **offline, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    asv = [str(python), "-m", "asv"]
    if arguments.machine != "nogpu":
        checked([*asv, "machine", "--yes", "--machine", arguments.machine], checkout, environment)
    checked([*asv, "setup", "-E", "fa4:same"], checkout, environment, fine=(0, 1))  # asv says 1 for success
    cores: queue.Queue[int] = queue.Queue()
    for core in cores_apart() if arguments.pin else ():
        cores.put(core)
    keeping = threading.Lock()

    def measure(bench: str, revision: str, flavour: str) -> bool:
        command = [*asv, "run", "--config", configuration_of(flavour), "-E", "fa4:same"]
        command += ["-m", arguments.machine, "--bench", bench, f"{revision}^!"]
        log = work / f"{arguments.machine}-{revision}-{flavour}.log"
        core = cores.get() if arguments.pin else None
        begin = time.monotonic()
        try:
            with log.open("a") as stream:
                done = subprocess.run(on_core(command, core), cwd=checkout, env=environment, stdout=stream)
        finally:
            if core is not None:
                cores.put(core)
        took = f"{time.monotonic() - begin:.0f} s"
        print(f"{bench} {revision} {flavour}: {took}, exit code {done.returncode}", file=sys.stderr)
        # After each step: what was measured is safe, whatever happens to the machine.
        with keeping:
            keep(checkout, arguments.machine, Path(arguments.output), work)
        return done.returncode == 0

    flavours = arguments.flavour or (inside / "flavours.txt").read_text().split()
    fine = True
    for bench in arguments.bench or CORE:
        with ThreadPoolExecutor(arguments.jobs) as threads:
            steps = [
                threads.submit(measure, bench, revision, flavour)
                for flavour in flavours
                for revision in revisions(inside, arguments)
            ]
        ended = [step.result() for step in steps]  # each of them: what one raised is said
        fine &= all(ended)
    verified = subprocess.run(
        [str(python), "-m", "fa4_asv", "verify"], cwd=checkout, env=environment
    ).returncode
    sys.exit(0 if fine and not verified else 1)


def lay(inside: Path, work: Path) -> tuple[Path, Path]:
    """The checkout with its history, and the interpreter of an environment over the one that runs this."""
    checkout = work / "checkout"
    with tarfile.open(inside / "project.tar") as tar:
        tar.extractall(checkout, filter="data")
    (checkout / ".asv").mkdir(exist_ok=True)
    shutil.copytree(inside / "history.git", checkout / ".asv" / "history.git")
    if (inside / "toolchain-locks").is_dir():
        shutil.copytree(inside / "toolchain-locks", checkout / ".asv" / "toolchain-locks")
    checked([sys.executable, "-m", "venv", "--without-pip", str(work / "venv")])
    python = work / "venv" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    here, there = (checked([str(exe), "-c", code]).strip() for exe in (sys.executable, python))
    wheels = ["--no-index", "--no-deps", "--find-links", str(inside / "wheels")]
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *wheels]
    checked([*install, "-r", str(inside / "suite.txt")])
    # Last: pip must not take what it finds there for installed.
    Path(there, "zz_base.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    Path(there, "zz_suite.pth").write_text(f"{checkout}\n")
    one_flavour_each(checkout, (inside / "flavours.txt").read_text().split())
    return checkout, python


def configuration_of(flavour: str) -> str:
    """Where asv's configuration for one flavour lies, in the checkout."""
    return f"asv.{flavour}.conf.json"


def one_flavour_each(checkout: Path, packed: list[str]) -> None:
    """A configuration for each that was packed: asv would fail on another's missing wheels."""
    configuration = json.loads((checkout / "asv.conf.json").read_text())
    for flavour in packed:
        configuration["matrix"]["req"]["flavour"] = [flavour]
        (checkout / configuration_of(flavour)).write_text(json.dumps(configuration, indent=4))


def cores_apart() -> list[int]:
    """One processor of each core that this process may use; the first is left to this process itself."""
    found: dict[str, int] = {}
    for processor in sorted(os.sched_getaffinity(0)):
        path = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        found.setdefault(path.read_text() if path.is_file() else str(processor), processor)
    first, *others = found.values()
    os.sched_setaffinity(0, {first})
    return others or [first]


def on_core(command: list[str], core: int | None) -> list[str]:
    """The command, bound to a core where one is named."""
    if core is None:
        return command
    code = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execv(sys.argv[2], sys.argv[2:])"
    return [command[0], "-c", code, str(core), *command]


def revisions(inside: Path, arguments: argparse.Namespace) -> list[str]:
    """What is asked for, or all that was packed, as git knows it."""
    releases, commits = ((inside / name).read_text().split() for name in ("releases.txt", "commits.txt"))
    if arguments.release or arguments.commits:
        releases, commits = arguments.release, commits if arguments.commits else []
    return [*(f"fa4-v{release}" for release in releases), *commits]


def keep(checkout: Path, machine: str, output: Path, logs: Path) -> None:
    """What was measured so far, what must be committed beside commits, and what asv said, as one file."""
    aside = output.with_name(output.name + ".part")
    # By name: another run beside this one may be writing its temporary file there.
    wanted = (f"results/{machine}/*.json", f"results/{machine}/*.sidecar", "history/upstream.json")
    with tarfile.open(aside, "w:gz") as tar:
        for pattern in (*wanted, "history/toolchains/day/*/*"):
            for path in sorted(checkout.glob(pattern)):
                tar.add(path, str(path.relative_to(checkout)))
        for log in sorted(logs.glob("*.log")):
            tar.add(log, f"logs/{log.name}")
    aside.replace(output)


def checked(
    command: list[str],
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
    fine: tuple[int, ...] = (0,),
) -> str:
    """The command's output; exits with its last words where its exit code is not `fine`."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode not in fine:
        words = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no words"]
        sys.exit(f"airgap: {' '.join(command[:4])} ... failed: {words[0]}")
    return done.stdout


def main() -> None:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    parser.add_argument("--machine", required=True, help="the name of the results, such as h200-sxm")
    parser.add_argument("--bench", action="append", help=f"as asv's (default: {', '.join(CORE)})")
    parser.add_argument("--release", action="append", default=[], help="default: all that was packed")
    parser.add_argument("--commits", action="store_true", help="the commits that were packed")
    parser.add_argument(
        "--policy", default="day", help="of the toolchain, one that was packed (default: day)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="runs at once, for what no clock measures, or with --pin (default: 1)",
    )
    parser.add_argument("--pin", action="store_true", help="each of them on a core of its own")
    parser.add_argument("--flavour", action="append", help="default: all that were packed; several times")
    parser.add_argument("--work", default="fa4-airgap", help="a folder to be made (default: %(default)s)")
    parser.add_argument("-o", "--output", default="results.tar.gz", help="default: %(default)s")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
