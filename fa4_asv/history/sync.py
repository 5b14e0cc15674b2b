"""`fa4-asv history sync`: releases become commits whose hashes are the same everywhere, forever.

A commit is a pure function of its parent, its sdist and its upload time. Objects are written first, the
manifest next, and the refs move last and at once: a kill at any time leaves the old history whole, and
the next sync completes it.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.history.manifest import Manifest, Release
from fa4_asv.history.registry import Registry
from fa4_asv.history.repository import BRANCH, CUTE, branches, create, git, history_lock, move_refs, repair

# Part of every hash: never change.
_IDENTITY = "fa4-asv history <history@fa4-asv.invalid>"
_MAX_BYTES = 64 << 20  # an sdist unpacks to 3 MB; a bomb is refused long before it hurts

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Synced:
    """What a sync did; `lost` are upstream's branches that went with a damaged history."""

    total: int
    fetched: int
    yanked: tuple[str, ...]
    lost: tuple[str, ...] = ()


def sync(project: Project, registry: Registry, progress: Progress = lambda *_: None) -> Synced:
    """Bring history and manifest up to the registry. Raises Fa4AsvError; then nothing has changed."""
    with history_lock(project):
        had = _branches(project)
        repair(project)
        recorded = Manifest.load(project.manifest)
        manifest = recorded.extended(registry.releases())
        present = _present(project)
        if not project.repository.is_dir():
            create(project)
        built, fetched = _build(project, registry, manifest, present, progress)
        if built != recorded:
            built.save(project.manifest)
        _move_refs(project, built)
    yanked = tuple(release.version for release in built.releases if release.yanked)
    return Synced(len(built.releases), fetched, yanked, tuple(sorted(had - _branches(project))))


def _branches(project: Project) -> set[str]:
    try:
        return set(branches(project))
    except Fa4AsvError:  # there is no repository, or what is there is none
        return set()


def _present(project: Project) -> set[str]:
    """Releases that are whole in the repository: those that a ref reaches. Upstream's branches never are."""
    if not project.repository.is_dir():
        return set()
    ours = ("--tags", "--glob=refs/fa4-asv")
    try:
        git(project.repository, "rev-list", "--quiet", "--objects", *ours)
        return set(git(project.repository, "rev-list", *ours).decode().split())
    except Fa4AsvError:  # a commit, tree or file is missing: build anew
        shutil.rmtree(project.repository)
        return set()


def _build(
    project: Project, registry: Registry, manifest: Manifest, present: set[str], progress: Progress
) -> tuple[Manifest, int]:
    """Write the commits that are missing; no ref moves. The manifest with every hash."""
    parent, fetched, done = "", 0, []
    missing = sum(1 for release in manifest.releases if release.commit not in present)
    with tempfile.TemporaryDirectory(prefix="fa4-sync-") as scratch:
        for release in manifest.releases:
            if release.commit not in present:
                progress(fetched, missing, f"fetching {release.sdist}")
                archive = registry.download(release, Path(scratch))
                commit = _import(project, release, _members(archive, release), parent)
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
    top = release.sdist.removesuffix(".tar.gz")
    found, size = [], 0
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts or name.parts[:1] != (top,):
                    raise Fa4AsvError(f"{release.sdist} holds {member.name!r}, outside of {top}/; refused")
                if member.isdir():
                    continue
                if not member.isfile():
                    raise Fa4AsvError(
                        f"{release.sdist} holds {member.name!r}, which is no plain file; refused"
                    )
                size += member.size
                if size > _MAX_BYTES:
                    raise Fa4AsvError(f"{release.sdist} unpacks to more than {_MAX_BYTES >> 20} MiB; refused")
                inner = "/".join(name.parts[1:])
                # The build's leavings; the sources are upstream's.
                if ".egg-info/" not in inner:
                    content = archive.extractfile(member)
                    found.append((inner, content.read() if content else b""))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Fa4AsvError(f"{release.sdist} is no readable archive: {error}") from None
    return sorted(found)


def _import(project: Project, release: Release, members: list[tuple[str, bytes]], parent: str) -> str:
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
    git(project.repository, "fast-import", "--quiet", "--force", "--date-format=raw", stdin=b"".join(stream))
    return git(project.repository, "rev-parse", temporary).decode().strip()


def _move_refs(project: Project, manifest: Manifest) -> None:
    """Branch and tags at once; then the temporary refs go."""
    lines = [f"update {BRANCH} {manifest.releases[-1].commit}"]
    lines += [f"update refs/tags/{release.tag} {release.commit}" for release in manifest.releases]
    left = git(project.repository, "for-each-ref", "--format=%(refname)", "refs/fa4-asv").decode().split()
    move_refs(project, [*lines, *(f"delete {name}" for name in left)])
