"""What a machine without a network needs: history, toolchains, the suite's own packages; the project apart."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fa4_asv.backfill.airgap import trees
from fa4_asv.backfill.airgap.parts import Entry, files_below, write_index, write_parts
from fa4_asv.backfill.tasks import commits_of
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import read_bytes
from fa4_asv.base.output import say
from fa4_asv.base.project import Project
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.repository import NO_HISTORY, has_history
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Lock, Policy, UnsupportedFlavour, read_lock

PROJECT = "project.tar.gz"
_LARGEST_ZIP = 64 << 20  # bytes of the package that unpacks a pack; it has 6 MB


@dataclass(frozen=True)
class Order:
    """What is to be packed; `python` is the version there, `part` a part's size in bytes, `level` zstd's."""

    releases: Sequence[str] = ()
    ranges: Sequence[str] = ()
    flavours: Sequence[str] = ("cu13",)
    policies: Sequence[str] = ("day",)
    python: str = "3.12"
    part: int = 1 << 30
    level: int = 9


def write_pack(project: Project, order: Order, folder: Path) -> dict[str, Any]:
    """Parts, pack.json, project and airgap.py in `folder`. What pack.json says. Raises Fa4AsvError."""
    if not order.releases and not order.ranges:
        raise Fa4AsvError("nothing to pack: name a --release or --commits")
    if not has_history(project):
        raise Fa4AsvError(NO_HISTORY)
    if (folder / "pack.json").exists() or any(folder.glob("pack.part-*")):
        raise Fa4AsvError(f"{folder} holds a pack already; name an empty folder")
    releases = releases_of(project, order.releases)
    folder.mkdir(parents=True, exist_ok=True)
    # Beside uv's cache or at least on a disk, not in /tmp: on another file system each toolchain would be a copy.
    with tempfile.TemporaryDirectory(prefix="pack-", dir=project.work) as scratch:
        entries = list(collect(project, order, releases, Path(scratch)))
        say(f"{len(entries)} files; compressing ...", err=True)
        facts = write_parts(entries, folder, order.part, order.level)
        zipped = trees.zip_zstandard(requirements_of(project), folder, order.python)
    facts["beside"] = {
        zipped.name: hashlib.sha256(read_bytes(zipped, _LARGEST_ZIP, "pack again")).hexdigest()
    }
    write_index(folder, {"python": order.python, **facts})
    write_project(project, folder)
    return facts


def collect(project: Project, order: Order, releases: Sequence[str], scratch: Path) -> Iterator[Entry]:
    """What goes into the parts; what must be made is made in `scratch`. Raises Fa4AsvError."""
    commits = commits_of(project, list(order.ranges)) if order.ranges else []
    of_commits = commit_locks(project, commits, order.flavours)
    locks = [*release_locks(project, releases, order.policies, order.flavours), *of_commits]
    say(f"{len({lock.digest for lock in locks})} toolchains of {len(locks)} locks ...", err=True)
    for tree in trees.lay_toolchains(scratch, locks, order.python):
        yield from files_below(tree, f"asv/packages/{tree.name}")
    trees.lay_suite(requirements_of(project), scratch / "suite", order.python)
    yield from files_below(scratch / "suite", "suite")
    # No bundle: upstream's branches lack files that nobody measures, which git would not pass over.
    yield from files_below(project.repository, "asv/history.git")
    for lock in of_commits:
        # Only a machine with a registry can resolve them.
        yield Entry(f"asv/toolchain-locks/{lock.policy}/{lock.flavour}/{lock.path.name}", lock.path)
    for name, arguments in (("releases", releases), ("commits", commits), ("flavours", order.flavours)):
        path = scratch / f"{name}.txt"
        path.write_text("\n".join(arguments))
        yield Entry(path.name, path)


def requirements_of(project: Project) -> Path:
    """The pins of the suite's own packages."""
    return project.root / "requirements" / "suite.txt"


def write_project(project: Project, folder: Path) -> None:
    """The committed project and airgap.py, apart from the parts: they change more often. Raises Fa4AsvError.

    With it goes pynvml, one file of Python: the checkout is on the path of every process there, and a pack that was made
    before the suite needed it lacks it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{PROJECT}"
    beside = (
        [f"--add-file={module_spec.origin}"]
        if (module_spec := find_spec("pynvml")) and module_spec.origin
        else []
    )
    command = ["git", "archive", "--format", "tar.gz", *beside, "--output", str(aside.resolve()), "HEAD"]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True)
    if done.returncode:
        raise Fa4AsvError(f"git archive failed: {' '.join(done.stderr.split()) or 'no message'}")
    aside.replace(folder / PROJECT)
    shutil.copy(Path(__file__).with_name("unpack.py"), folder / "airgap.py")


def releases_of(project: Project, wanted: Sequence[str]) -> list[str]:
    """The versions, all of them for `all`. Raises Fa4AsvError for an unknown one."""
    known = [release.version for release in Manifest.load(project.manifest).releases]
    if "all" in wanted:
        return known
    if unknown := [version for version in wanted if version not in known]:
        raise Fa4AsvError(f"no release {unknown[0]!r}; `fa4-asv history list` shows them")
    return list(wanted)


def release_locks(
    project: Project, releases: Sequence[str], policies: Sequence[str], flavours: Sequence[str]
) -> list[Lock]:
    """Committed toolchains of the releases; the oldest releases have one flavour."""
    locks = []
    for release, policy, flavour in itertools.product(releases, policies, flavours):
        path = project.lock(policy, flavour, release)
        if path.is_file():
            locks.append(read_lock(path, flavour, policy))
    return locks


def commit_locks(project: Project, commits: Sequence[str], flavours: Sequence[str]) -> list[Lock]:
    """Toolchains of upstream's commits as of their days. Raises Fa4AsvError where one does not resolve."""
    locks = []
    for commit, flavour in itertools.product(commits, flavours):
        try:
            locks.append(lay_source(project, commit).lock(project, flavour, Policy("day")))
        except UnsupportedFlavour:
            continue
    return locks
