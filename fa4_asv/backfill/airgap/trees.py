"""Packages as folders for another machine's Python, hard-linked where they share files; nothing is run from them."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path

from packaging.version import Version

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import read_text
from fa4_asv.base.uv_command import uv_command, uv_environment
from fa4_asv.history.toolchain import Lock, lay_packages, packed_packages

ZSTANDARD = "zstandard"
# The oldest glibc that the locks are resolved for.
_PLATFORM = "x86_64-manylinux_2_28"
_SECONDS = 1800  # for all packages of the suite


def lay_toolchains(work: Path, locks: Iterable[Lock], python: str) -> list[Path]:
    """A folder below `work` for each different toolchain of `locks`, oldest compiler first. Raises Fa4AsvError.

    `python` is the version there, such as "3.12".
    """
    paths = []
    different = {lock.digest: lock for lock in locks}.values()
    for lock in sorted(different, key=lambda lock: Version(lock.packages["nvidia-cutlass-dsl"])):
        folder = packed_packages(work, lock, python)
        lay_packages(lock, *place(folder, python))
        if lock.flavour == "cu13":
            drop_cu12(folder)
        paths.append(folder)
    return paths


def place(folder: Path, python: str) -> list[str]:
    """uv's options to lay packages in `folder` for another Python; nothing is built."""
    options = ["--target", str(folder), "--python-version", python]
    return [*options, "--python-platform", _PLATFORM, "--only-binary", ":all:"]


def drop_cu12(folder: Path) -> None:
    """Remove the plain flavour's compiler from a cu13 toolchain, where it is not loaded: up to 230 MB.

    DSL 4.6.0.dev0 has it as *.cu12.*.so beside cu13's, later ones in a package of its own. Up to 4.5 cu13's
    files have taken its place already.
    """
    dsl = folder / "nvidia_cutlass_dsl"
    shutil.rmtree(dsl / "cu12", ignore_errors=True)
    for path in dsl.rglob("*.cu12.*"):
        path.unlink()


def lay_suite(requirements: Path, folder: Path, python: str) -> None:
    """What the suite itself needs, in `folder`. Raises Fa4AsvError."""
    _install([*place(folder, python), "-r", str(requirements)])


def zip_zstandard(requirements: Path, folder: Path, python: str) -> Path:
    """The package that unpacks a pack, as a file beside it: the machine there may have no zstd."""
    pins = [
        line.split()[0]
        for line in read_text(requirements, advice="restore it from git").splitlines()
        if line.startswith(ZSTANDARD)
    ]
    scratch = folder / ".zstandard"
    try:
        _install([*place(scratch, python), *pins])
        made = folder / f"{ZSTANDARD}-python{python}.zip"
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted((scratch / ZSTANDARD).glob("*")):
                if path.name.startswith("_cffi"):  # the fallback for another Python than CPython: half of it
                    continue
                archive.write(path, path.relative_to(scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return made


def _install(arguments: list[str]) -> None:
    command = uv_command("pip", "install", "--quiet", "--no-deps", *arguments)
    try:
        done = subprocess.run(command, env=uv_environment(), capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise Fa4AsvError(f"uv took longer than {_SECONDS} s and was ended; try again") from None
    if done.returncode:
        message = " ".join(done.stderr.split()) or "no message"
        raise Fa4AsvError(f"cannot collect the suite's packages: {message[:400]}")
