"""Measure on a machine without a network: pack everything here, carry it over, run it there with one command.

    python tools/airgap.py pack --release 4.0.0b36 --python 3.12 pack/      # here, after `fa4-asv history sync`
    python3 pack/airgap.py run --machine h200-sxm -o results.tar.gz         # there: torch, git and a card
    python3 pack/airgap.py run --machine nogpu --jobs 8 --bench '^codegen'  # there: what needs no card
    tar xzf results.tar.gz && fa4-asv verify                                # here again, in the checkout

The pack holds this project, FA4's history, and the wheels of the suite and of the releases' toolchains. It comes in
parts of `--part-mib` where what carries it has a limit. `run` uses the interpreter that starts it: it must have torch,
with CUDA for a card. Nothing is installed into it: an environment of its own is made in `--work`, over its packages.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
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
PATCH = ".20"  # a late patch release of the Python there; some packages refuse early ones
LISTS = {"suite": "suite.txt", "toolchain": "toolchain.txt"}


def pack(arguments: argparse.Namespace) -> None:
    """Write the parts and this script to `arguments.folder`."""
    from fa4_asv.history.manifest import Manifest
    from fa4_asv.history.toolchain import read_lock
    from fa4_asv.project import Project

    project = Project.find()
    known = {release.version for release in Manifest.load(project.manifest).releases}
    packages: dict[str, None] = {}
    for version in arguments.release:
        if version not in known:
            sys.exit(f"airgap: no release {version!r}; `fa4-asv history list` shows them")
        for policy, flavour in itertools.product(arguments.policy or ["day"], arguments.flavour or ["cu13"]):
            path = project.locks / policy / flavour / f"{version}.txt"
            if path.is_file():  # the oldest releases have one flavour
                pins = read_lock(path, flavour, policy).packages
                packages |= dict.fromkeys(f"{name}=={number}" for name, number in pins.items())
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if left := sorted(folder.glob("pack.part-*")):
        sys.exit(f"airgap: {left[0]} is there already; name an empty folder")
    with tempfile.TemporaryDirectory(prefix="fa4-airgap-") as scratch:
        inside = Path(scratch) / "pack"
        wheels = inside / "wheels"
        wheels.mkdir(parents=True)
        suite = pins_for(project.root / "requirements" / "suite.txt", arguments.python)
        for name, pins in (("suite", suite), ("toolchain", list(packages))):
            (inside / LISTS[name]).write_text("\n".join(pins) + "\n")
            print(f"{len(pins)} wheels of the {name} ...", file=sys.stderr)
            left_out = [pin for pin in pins if pin.partition("==")[0] in arguments.leave_out]
            for pin in left_out:
                empty_wheel(wheels, *pin.split("=="))
            download([pin for pin in pins if pin not in left_out], wheels, arguments.python)
        (inside / "releases.txt").write_text("\n".join(arguments.release) + "\n")
        (inside / "flavours.txt").write_text("\n".join(arguments.flavour or ["cu13"]) + "\n")
        checked(["git", "archive", "--output", str(inside / "project.tar"), "HEAD"], project.root)
        bundle = ["git", "bundle", "create", "--quiet", str(inside / "history.bundle")]
        bundle += [
            "HEAD",
            "refs/heads/releases",
            "--tags",
        ]  # upstream's branches lack files that nobody measures
        checked(bundle, project.repository)
        whole = Path(scratch) / "pack.tar"
        with tarfile.open(whole, "w") as tar:
            tar.add(inside, "pack")
        count = cut(whole, folder, arguments.part_mib << 20)
    shutil.copy(__file__, folder / "airgap.py")
    print(f"{count} part(s) in {folder}; there: python3 airgap.py run --machine NAME")


def pins_for(path: Path, python: str) -> list[str]:
    """The pins of a requirements file that hold for another Python on Linux x86-64."""
    from packaging.requirements import Requirement

    there = {"python_version": python, "python_full_version": python + PATCH, "sys_platform": "linux"}
    there |= {"os_name": "posix", "platform_python_implementation": "CPython"}
    found = []
    for line in path.read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text:
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate(there):
                found.append(f"{one.name}{one.specifier}")
    return found


def download(pins: list[str], wheels: Path, python: str) -> None:
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 16, -1)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    # As uv does with pins: a lock for Python 3.10 holds backports that say they are for nothing newer.
    command += ["--ignore-requires-python"]
    command += ["--python-version", python + PATCH, "--implementation", "cp", "--dest", str(wheels)]
    for platform in (*platforms, "manylinux2014_x86_64", "manylinux1_x86_64"):
        command += ["--platform", platform]
    left = list(pins)
    while left:
        # pip takes one version of a package at a time; releases need several.
        once = list({pin.partition("==")[0]: pin for pin in left}.values())
        checked([*command, *once])
        left = [pin for pin in left if pin not in once]


def empty_wheel(wheels: Path, name: str, version: str) -> None:
    """A wheel with nothing in it, in the place of a package that will not be loaded there."""
    stem = f"{name.replace('-', '_')}-{version}"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: left out by airgap.py\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: airgap\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{stem}.dist-info/{file},,\n" for file in (*files, "RECORD"))
    with zipfile.ZipFile(wheels / f"{stem}-py3-none-any.whl", "w") as archive:
        for file, text in (files | {"RECORD": record}).items():
            archive.writestr(f"{stem}.dist-info/{file}", text)


def cut(whole: Path, folder: Path, size: int) -> int:
    """Parts of at most `size` bytes, and the digest of the whole."""
    digest, number = hashlib.sha256(), 0
    with whole.open("rb") as source:
        while block := source.read(size):
            digest.update(block)
            (folder / f"pack.part-{number:02d}").write_bytes(block)
            number += 1
    (folder / "pack.sha256").write_text(digest.hexdigest() + "\n")
    return number


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
    failed = False

    def measure(bench: str, release: str) -> None:
        nonlocal failed
        command = [*asv, "run", "-E", "fa4:same", "-m", arguments.machine, "--bench", bench]
        command += [f"fa4-v{release}^!"]
        print(" ".join(command[2:]), file=sys.stderr)
        log = work / f"{arguments.machine}-{release}.log"
        with log.open("a") as stream:
            code = subprocess.run(command, cwd=checkout, env=environment, stdout=stream).returncode
        failed |= code != 0
        # After each step: what was measured is safe, whatever happens to the machine.
        with keeping:
            keep(checkout / "results" / arguments.machine, Path(arguments.output), work)

    keeping = threading.Lock()
    for bench in arguments.bench or CORE:
        with ThreadPoolExecutor(arguments.jobs) as threads:
            for release in arguments.release or releases_of(inside):
                threads.submit(measure, bench, release)
    verified = subprocess.run(
        [str(python), "-m", "fa4_asv", "verify"], cwd=checkout, env=environment
    ).returncode
    sys.exit(1 if failed or verified else 0)


def lay(inside: Path, work: Path) -> tuple[Path, Path]:
    """The checkout with its history, and the interpreter of an environment over the one that runs this."""
    checkout = work / "checkout"
    with tarfile.open(inside / "project.tar") as tar:
        tar.extractall(checkout, filter="data")
    (checkout / ".asv").mkdir(exist_ok=True)
    bundle = ["git", "clone", "--quiet", "--mirror", str(inside / "history.bundle"), ".asv/history.git"]
    checked(bundle, checkout)
    checked([sys.executable, "-m", "venv", "--without-pip", str(work / "venv")])
    python = work / "venv" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    here, there = (checked([str(exe), "-c", code]).strip() for exe in (sys.executable, python))
    Path(there, "zz_base.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    wheels = ["--no-index", "--no-deps", "--find-links", str(inside / "wheels")]
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *wheels]
    checked([*install, "-r", str(inside / LISTS["suite"])])
    Path(there, "zz_suite.pth").write_text(f"{checkout}\n")
    only_flavours(checkout, (inside / "flavours.txt").read_text().split())
    return checkout, python


def only_flavours(checkout: Path, packed: list[str]) -> None:
    """Those that were packed: asv would fail on another's missing wheels."""
    path = checkout / "asv.conf.json"
    configuration = json.loads(path.read_text())
    configuration["matrix"]["req"]["flavour"] = packed
    path.write_text(json.dumps(configuration, indent=4))


def releases_of(inside: Path) -> list[str]:
    return (inside / "releases.txt").read_text().split()


def keep(results: Path, output: Path, logs: Path) -> None:
    """What was measured so far, and what asv said meanwhile, as one file."""
    aside = output.with_name(output.name + ".part")
    with tarfile.open(aside, "w:gz") as tar:
        if results.is_dir():
            tar.add(results, f"results/{results.name}")
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
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("pack", help="here: collect everything")
    one.add_argument("folder")
    one.add_argument("--release", action="append", required=True, help="such as 4.0.0b36; several times")
    one.add_argument(
        "--flavour", action="append", choices=["cu12", "cu13"], help="default: cu13; several times"
    )
    one.add_argument("--python", default="3.12", help="of the machine there (default: %(default)s)")
    one.add_argument(
        "--policy", action="append", help="a folder of history/toolchains; default: day; several times"
    )
    one.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="put an empty wheel in its place; nvidia-cutlass-dsl-libs-cu12 is not loaded under cu13 from DSL 4.6 on",
    )
    one.add_argument("--part-mib", type=int, default=1024, help="size of a part (default: %(default)s)")
    one.set_defaults(call=pack)
    two = commands.add_parser("run", help="there: measure")
    two.add_argument("--machine", required=True, help="the name of the results, such as h200-sxm")
    two.add_argument("--bench", action="append", help=f"as asv's (default: {', '.join(CORE)})")
    two.add_argument("--release", action="append", help="default: all that were packed")
    two.add_argument("--policy", default="day", help="of the toolchain, one that was packed (default: day)")
    two.add_argument(
        "--jobs", type=int, default=1, help="releases at once, for what no clock measures (default: 1)"
    )
    two.add_argument("--work", default="fa4-airgap", help="a folder to be made (default: %(default)s)")
    two.add_argument("-o", "--output", default="results.tar.gz", help="default: %(default)s")
    two.set_defaults(call=run)
    arguments = parser.parse_args()
    arguments.call(arguments)


if __name__ == "__main__":
    main()
