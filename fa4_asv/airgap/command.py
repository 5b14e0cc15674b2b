"""`fa4-asv pack`: project, history and toolchains for a machine without a network."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from fa4_asv.airgap import trees
from fa4_asv.airgap.parts import Entry, files_below, write_index, write_parts
from fa4_asv.backfill import commits_of
from fa4_asv.errors import Fa4AsvError
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.repository import NO_HISTORY, has_history
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import FLAVOURS, Lock, Policy, UnsupportedFlavour, read_lock
from fa4_asv.project import Project

PROJECT = "project.tar.gz"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--release", multiple=True, metavar="VERSION", help="Such as 4.0.0b36; `all` for every one.")
@click.option("--commits", multiple=True, metavar="RANGE", help="Upstream's commits that touch FA4.")
@click.option("--flavour", type=click.Choice(FLAVOURS), multiple=True, help="Default: cu13.")
@click.option("--policy", multiple=True, help="A folder of history/toolchains. Default: day.")
@click.option("--python", default="3.12", show_default=True, help="Of the machine there.")
@click.option("--part-mib", type=click.IntRange(1), default=1024, show_default=True, help="Size of a part.")
@click.option("--level", type=click.IntRange(1, 19), default=9, show_default=True, help="Of zstd.")
@click.option("--project-only", is_flag=True, help="Replace the project in a folder that was packed before.")
def pack(
    folder: Path,
    release: tuple[str, ...],
    commits: tuple[str, ...],
    flavour: tuple[str, ...],
    policy: tuple[str, ...],
    python: str,
    part_mib: int,
    level: int,
    project_only: bool,
) -> None:
    """Pack what a machine without a network needs: project, history, toolchains.

    FOLDER gets parts of at most --part-mib, pack.json with their digests, and airgap.py, which unpacks and
    runs there with nothing but Python, torch and git. The project is what is committed (HEAD).

    \b
    Example:
      fa4-asv pack --release all --flavour cu13 --flavour cu12 --part-mib 34 pack/
      python3 pack/airgap.py measure --machine h200-sxm -o results.tar.gz     # there
      tar xzf results.tar.gz && fa4-asv verify                                # here again
    """
    project = Project.find()
    if project_only:
        write_project(project, folder)
        return
    if not release and not commits:
        raise Fa4AsvError("nothing to pack: name a --release or --commits")
    if not has_history(project):
        raise Fa4AsvError(NO_HISTORY)
    if (folder / "pack.json").exists() or any(folder.glob("pack.part-*")):
        raise Fa4AsvError(f"{folder} holds a pack already; name an empty folder")
    names = commits_of(project, list(commits)) if commits else []
    flavours, policies = flavour or ("cu13",), policy or ("day",)
    releases = releases_of(project, release)
    of_releases = release_locks(project, releases, policies, flavours)
    of_commits = commit_locks(project, names, flavours)
    lists = {"releases": releases, "commits": names, "flavours": flavours, "policies": policies}
    folder.mkdir(parents=True, exist_ok=True)
    project.work.mkdir(exist_ok=True)
    # Beside uv's links, not in /tmp: on another file system each toolchain would be a copy.
    with tempfile.TemporaryDirectory(prefix="pack-", dir=project.work) as scratch:
        entries = list(collect(project, Path(scratch), of_releases, of_commits, lists, python))
        _say(f"{len(entries)} files; compressing ...")
        facts = write_parts(entries, folder, part_mib << 20, level)
        zipped = trees.zip_zstandard(_suite(project), folder, python)
    facts["beside"] = {zipped.name: hashlib.sha256(zipped.read_bytes()).hexdigest()}
    write_index(folder, {"python": python, **facts})
    write_project(project, folder)
    _say(
        f"{len(facts['parts'])} part(s), {facts['bytes'] / 1e6:.0f} MB, unpacked {facts['unpacked'] / 1e6:.0f} MB; "
        f"there: python3 {folder.name}/airgap.py --help"
    )


def collect(
    project: Project,
    scratch: Path,
    of_releases: Sequence[Lock],
    of_commits: Sequence[Lock],
    lists: dict[str, Sequence[str]],
    python: str,
) -> Iterator[Entry]:
    """What goes into the parts; what must be made is made in `scratch`. Raises Fa4AsvError."""
    made = Project(scratch)
    locks = [*of_releases, *of_commits]
    _say(f"{len({lock.digest for lock in locks})} toolchains of {len(locks)} locks ...")
    for tree in trees.lay_toolchains(made, locks, python):
        yield from files_below(tree, f"asv/packages/{tree.name}")
    trees.lay_suite(_suite(project), scratch / "suite", python)
    yield from files_below(scratch / "suite", "suite")
    # No bundle: upstream's branches lack files that nobody measures, which git would not pass over.
    yield from files_below(project.repository, "asv/history.git")
    for lock in of_commits:
        # Only a machine with a registry can resolve them.
        yield Entry(f"asv/toolchain-locks/{lock.policy}/{lock.flavour}/{lock.path.name}", lock.path)
    for name, words in lists.items():
        path = scratch / f"{name}.txt"
        path.write_text("\n".join(words))
        yield Entry(path.name, path)


def _suite(project: Project) -> Path:
    return project.root / "requirements" / "suite.txt"


def write_project(project: Project, folder: Path) -> None:
    """The committed project and airgap.py, apart from the parts: it changes more often than they do."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{PROJECT}"
    command = ["git", "archive", "--format", "tar.gz", "--output", str(aside.resolve()), "HEAD"]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True)
    if done.returncode:
        raise Fa4AsvError(f"git archive failed: {' '.join(done.stderr.split()) or 'no words'}")
    aside.replace(folder / PROJECT)
    shutil.copy(Path(__file__).with_name("unpack.py"), folder / "airgap.py")


def releases_of(project: Project, wanted: Sequence[str]) -> list[str]:
    """Raises Fa4AsvError for an unknown release."""
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
    found = []
    for release, policy, flavour in itertools.product(releases, policies, flavours):
        path = project.locks / policy / flavour / f"{release}.txt"
        if path.is_file():
            found.append(read_lock(path, flavour, policy))
    return found


def commit_locks(project: Project, commits: Sequence[str], flavours: Sequence[str]) -> list[Lock]:
    """Toolchains of upstream's commits as of their days."""
    found = []
    for commit, flavour in itertools.product(commits, flavours):
        try:
            found.append(lay_source(project, commit).lock(project, flavour, Policy("day")))
        except UnsupportedFlavour:
            continue
    return found


def _say(words: str) -> None:
    print(words, file=sys.stderr)
