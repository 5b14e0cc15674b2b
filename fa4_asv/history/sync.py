"""`fa4-asv history sync`: releases become commits whose hashes are the same everywhere, forever.

A commit is a pure function of its parent, its sdist and its upload time. Objects are written first, the
manifest next, and the refs move last and at once: a kill at any time leaves the old history whole, and
the next sync completes it.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from fa4_asv.base import scratch
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.project import Project
from fa4_asv.history.manifest import Manifest, Release
from fa4_asv.history.registry import Registry
from fa4_asv.history.repair import OURS, damage_of, put_in_place, repair, rescue_branches
from fa4_asv.history.repository import (
    BRANCH,
    CUTE,
    MOST_FILES,
    create,
    git,
    history_lock,
    move_refs,
    scratch_repository,
)

# Part of every hash: never change.
_IDENTITY = "fa4-asv history <history@fa4-asv.invalid>"
_MAX_BYTES = 64 << 20  # an sdist unpacks to 3 MB; a bomb is refused long before it hurts
# What tarfile, gzip and zlib raise on bytes that are no archive.
_UNREADABLE = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError, RecursionError)

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Synced:
    """What a sync did; `damage` is what was wrong with a history that was built anew, and `lost` are upstream's branches
    that were not whole in it."""

    total: int
    fetched: int
    yanked: tuple[str, ...]
    damage: str = ""
    lost: tuple[str, ...] = ()


def sync(
    project: Project, registry: Registry, progress: Progress = lambda *_: None, known: bool = False
) -> Synced:
    """Bring history and manifest up to the registry; where only `known` releases are wanted, the manifest stays as it is.

    Raises Fa4AsvError; then nothing has changed.
    """
    lost: list[str] = []
    with history_lock(project):
        repair(project)
        recorded = Manifest.load(project.manifest)
        extended = recorded.extended(registry.releases())
        manifest = recorded if known and recorded.releases else extended
        if not os.path.lexists(project.repository):
            create(project)
        damage = damage_of(project.repository)
        if not damage:
            built, fetched = _bring(project.repository, project, registry, manifest, progress)
        else:
            aside = scratch_repository(project)
            try:
                git(aside, "symbolic-ref", "HEAD", BRANCH)
                built, fetched = _bring(aside, project, registry, manifest, progress)
                lost = rescue_branches(project, aside)
                put_in_place(project, aside)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    yanked = tuple(release.version for release in built.releases if release.yanked)
    return Synced(len(built.releases), fetched, yanked, damage, tuple(lost))


def _bring(
    repository: Path, project: Project, registry: Registry, manifest: Manifest, progress: Progress
) -> tuple[Manifest, int]:
    """The releases of `manifest` into `repository`: objects, then the manifest's file, then the refs."""
    present = set(git(repository, "rev-list", *OURS).decode().split())
    built, fetched = _build(repository, registry, manifest, present, progress)
    if built != Manifest.load(project.manifest):
        built.save(project.manifest)
    _move_refs(repository, built)
    return built, fetched


def _build(
    repository: Path, registry: Registry, manifest: Manifest, present: set[str], progress: Progress
) -> tuple[Manifest, int]:
    """Write the commits that are missing; no ref moves. The manifest with every hash."""
    parent, fetched, done = "", 0, []
    missing = sum(1 for release in manifest.releases if release.commit not in present)
    with scratch.folder("sync") as folder:
        for release in manifest.releases:
            if release.commit not in present:
                progress(fetched, missing, f"fetching {release.sdist}")
                archive = registry.download(release, folder)
                commit = _import(repository, release, _members(archive, release), parent)
                archive.unlink()
                if release.commit and commit != release.commit:
                    raise Fa4AsvError(
                        f"{release.version} became commit {commit}, the manifest records {release.commit}; "
                        "the history was not changed (was the manifest edited by hand?)"
                    )
                release = replace(release, commit=commit)
                fetched += 1
            parent = release.commit
            done.append(release)
    progress(fetched, missing, "done")
    return Manifest(tuple(done)), fetched


def _members(path: Path, release: Release) -> list[tuple[str, bytes]]:
    """(path below the sdist's top folder, content), sorted. Raises Fa4AsvError on an unsafe archive."""
    try:
        with gzip.open(path) as unpacked, tarfile.open(fileobj=_Limited(unpacked), mode="r|") as archive:
            pairs = _plain_files(archive, release)
    except _TooLarge:
        raise Fa4AsvError(f"{release.sdist} unpacks to more than {_MAX_BYTES >> 20} MiB; refused") from None
    except _UNREADABLE as error:
        raise Fa4AsvError(f"{release.sdist} is not a readable archive: {one_line(str(error), 200)}") from None
    names = {name for name, _ in pairs}
    if "pyproject.toml" not in names or not any(name.endswith(".py") for name in names):
        raise Fa4AsvError(
            f"{release.sdist} holds no pyproject.toml with Python files: it is not FA4; refused"
        )
    return sorted(pairs)


def _plain_files(archive: tarfile.TarFile, release: Release) -> list[tuple[str, bytes]]:
    """Each is read where it stands: the archive is a stream. Raises Fa4AsvError on what no sdist of FA4 holds."""
    top = release.sdist.removesuffix(".tar.gz")
    pairs = []
    for number, member in enumerate(archive):
        if number >= MOST_FILES:
            raise Fa4AsvError(f"{release.sdist} holds more than {MOST_FILES} files; refused")
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or path.parts[:1] != (top,):
            raise Fa4AsvError(f"{release.sdist} holds {member.name[:80]!a}, outside of {top}/; refused")
        if not str(path).isprintable():  # no UTF-8, or a control character
            raise Fa4AsvError(
                f"{release.sdist} holds {member.name[:80]!a}, which is not a name of text; refused"
            )
        if ".git" in (part.lower() for part in path.parts):
            raise Fa4AsvError(f"{release.sdist} holds {member.name[:80]!a}, a folder of git's own; refused")
        if member.isdir():
            continue
        if not member.isfile():
            raise Fa4AsvError(
                f"{release.sdist} holds {member.name[:80]!a}, which is not a plain file; refused"
            )
        inner = "/".join(path.parts[1:])
        # The build's leavings; the sources are upstream's.
        if inner and ".egg-info/" not in inner:
            content = archive.extractfile(member)
            pairs.append((inner, content.read() if content else b""))
    return pairs


class _TooLarge(Exception):
    """More came out of an archive than any sdist of FA4 holds."""


class _Limited(io.RawIOBase):
    """A stream that ends in _TooLarge. A header may claim any size, and what is skipped is unpacked, too."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream, self._left = stream, _MAX_BYTES

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise _TooLarge
        return content


def _import(repository: Path, release: Release, members: list[tuple[str, bytes]], parent: str) -> str:
    """Write one commit by fast-import; its hash. The ref it needs is its own and is removed by the move."""
    when = f"{int(release.time.timestamp())} +0000"
    message = f"flash-attn-4 {release.version}\n\nsdist {release.sdist}\nsha256 {release.sha256}\n".encode()
    temporary = f"refs/fa4-asv/{release.version}"
    stream = [b"feature done\n", f"commit {temporary}\n".encode()]
    stream += [f"author {_IDENTITY} {when}\ncommitter {_IDENTITY} {when}\n".encode()]
    stream += [f"data {len(message)}\n".encode(), message, b"\n"]
    stream += [f"from {parent}\n".encode()] if parent else []
    stream += [b"deleteall\n"]
    for name, content in members:
        quoted = (CUTE + "/" + name).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        # Modes are forced: some sdists carry 0600 and 0664.
        stream += [f'M 100644 inline "{quoted}"\ndata {len(content)}\n'.encode(), content, b"\n"]
    stream += [b"done\n"]
    git(repository, "fast-import", "--quiet", "--force", "--date-format=raw", stdin=b"".join(stream))
    return git(repository, "rev-parse", temporary).decode().strip()


def _move_refs(repository: Path, manifest: Manifest) -> None:
    """Branch and tags at once; then the temporary refs go."""
    lines = [f"update {BRANCH} {manifest.releases[-1].commit}"]
    lines += [f"update refs/tags/{release.tag} {release.commit}" for release in manifest.releases]
    left = git(repository, "for-each-ref", "--format=%(refname)", "refs/fa4-asv").decode().split()
    move_refs(repository, [*lines, *(f"delete {name}" for name in left)])
