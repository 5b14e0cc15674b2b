"""Pack what a machine without a network needs to measure: project, history, wheels; `airgap.py` runs it there.

    python tools/airgap_pack.py --release 4.0.0b36 --python 3.12 pack/      # here, after `fa4-asv history sync`
    python tools/airgap_pack.py --commits main~20..main pack/               # or upstream's commits
    python3 pack/airgap.py --machine h200-sxm -o results.tar.gz             # there: torch, git and a card
    tar xzf results.tar.gz && fa4-asv verify                                # here again, in the checkout

The pack comes in parts of `--part-mib` where what carries it has a limit.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

from fa4_asv.backfill.tasks import commits_of
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Lock, Policy, UnsupportedFlavour, read_lock

PATCH = ".20"  # a late patch release of the Python there; some packages refuse early ones


def pack(arguments: argparse.Namespace) -> None:
    """Write the parts, their digest and `airgap.py` to `arguments.folder`. Raises Fa4AsvError."""
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if left := sorted(folder.glob("pack.part-*")):
        raise Fa4AsvError(f"{left[0]} is there already; name an empty folder")
    project = Project.find()
    commits = commits_of(project, arguments.commits) if arguments.commits else []
    of_releases = release_locks(project, arguments)
    of_commits = commit_locks(project, commits, arguments.flavour)
    with tempfile.TemporaryDirectory(prefix="fa4-airgap-") as scratch:
        inside = Path(scratch) / "pack"
        inside.mkdir()
        collect_wheels(inside, project, [*of_releases, *of_commits], arguments)
        for name, words in (
            ("releases", arguments.release),
            ("commits", commits),
            ("flavours", arguments.flavour),
        ):
            (inside / f"{name}.txt").write_text("\n".join(words))
        for lock in of_commits:
            there = inside / "toolchain-locks" / lock.policy / lock.flavour / lock.path.name
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(lock.path, there)
        checked(["git", "archive", "--output", str(inside / "project.tar"), "HEAD"], project.root)
        # No bundle: upstream's branches lack files that nobody measures, which git would not pass over.
        shutil.copytree(project.repository, inside / "history.git")
        whole = Path(scratch) / "pack.tar"
        with tarfile.open(whole, "w") as tar:
            tar.add(inside, "pack")
        count = cut(whole, folder, arguments.part_mib << 20)
    shutil.copy(Path(__file__).with_name("airgap.py"), folder / "airgap.py")
    print(f"{count} part(s) in {folder}; there: python3 airgap.py --machine NAME")


def collect_wheels(inside: Path, project: Project, locks: list[Lock], arguments: argparse.Namespace) -> None:
    """`wheels/` with what the suite and all `locks` need, and a list of each."""
    wheels = inside / "wheels"
    wheels.mkdir()
    suite = pins_for(project.root / "requirements" / "suite.txt", arguments.python)
    pins = dict.fromkeys(f"{name}=={version}" for lock in locks for name, version in lock.packages.items())
    for name, wanted in (("suite", suite), ("toolchain", list(pins))):
        (inside / f"{name}.txt").write_text("\n".join(wanted) + "\n")
        print(f"{len(wanted)} wheels of the {name} ...", file=sys.stderr)
        left_out = [pin for pin in wanted if pin.partition("==")[0] in arguments.leave_out]
        for pin in left_out:
            empty_wheel(wheels, *pin.split("=="))
        download([pin for pin in wanted if pin not in left_out], wheels, arguments.python)


def release_locks(project: Project, arguments: argparse.Namespace) -> list[Lock]:
    """Toolchains of the releases; the oldest have one flavour. Raises Fa4AsvError for an unknown release."""
    known = {release.version for release in Manifest.load(project.manifest).releases}
    if unknown := [version for version in arguments.release if version not in known]:
        raise Fa4AsvError(f"no release {unknown[0]!r}; `fa4-asv history list` shows them")
    found = []
    for release, policy, flavour in itertools.product(arguments.release, arguments.policy, arguments.flavour):
        path = project.locks / policy / flavour / f"{release}.txt"
        if path.is_file():
            found.append(read_lock(path, flavour, policy))
    return found


def commit_locks(project: Project, commits: list[str], flavours: list[str]) -> list[Lock]:
    """Toolchains of upstream's commits as of their days, which only a machine with a registry can resolve."""
    found = []
    for number, commit in enumerate(commits, 1):
        if sys.stderr.isatty():
            print(f"\rtoolchain {number} of {len(commits)}", end="", file=sys.stderr)
        source = lay_source(project, commit)
        for flavour in flavours:
            try:
                found.append(source.lock(project, flavour, Policy("day")))
            except UnsupportedFlavour:
                continue
    if commits and sys.stderr.isatty():
        print(file=sys.stderr)
    return found


def pins_for(path: Path, python: str) -> list[str]:
    """The pins of a requirements file that hold for another Python on Linux x86-64."""
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


def checked(command: list[str], folder: Path | None = None) -> None:
    """Raises Fa4AsvError with the command's last words where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no words"]
        raise Fa4AsvError(f"{' '.join(command[:4])} ... failed: {words[0]}")


def main() -> None:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    parser.add_argument("folder")
    parser.add_argument("--release", action="append", default=[], help="such as 4.0.0b36; several times")
    parser.add_argument(
        "--commits",
        action="append",
        default=[],
        metavar="RANGE",
        help="upstream's commits that touch FA4, after `fa4-asv history sync --source`; several times",
    )
    parser.add_argument(
        "--flavour", action="append", choices=["cu12", "cu13"], help="default: cu13; several times"
    )
    parser.add_argument("--python", default="3.12", help="of the machine there (default: %(default)s)")
    parser.add_argument(
        "--policy", action="append", help="a folder of history/toolchains; default: day; several times"
    )
    parser.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="put an empty wheel in its place; nvidia-cutlass-dsl-libs-cu12 is not loaded under cu13 from DSL 4.6 on",
    )
    parser.add_argument("--part-mib", type=int, default=1024, help="size of a part (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.flavour, arguments.policy = arguments.flavour or ["cu13"], arguments.policy or ["day"]
    if not arguments.release and not arguments.commits:
        parser.error("nothing to pack: name a --release or --commits")
    try:
        pack(arguments)
    except Fa4AsvError as error:
        sys.exit(f"airgap_pack: {error}")


if __name__ == "__main__":
    main()
