"""The committed, append-only list of releases: it fixes every commit hash of the history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.history.lists import read_list, time_of, write_list

PROJECT = "flash-attn-4"


@dataclass(frozen=True)
class Release:
    """One release; `uploaded` is UTC as ISO 8601, `commit` "" until it is in the history."""

    version: str
    sdist: str
    sha256: str
    uploaded: str
    commit: str = ""
    yanked: str = ""

    @property
    def time(self) -> datetime:
        return time_of(self.uploaded)

    @property
    def tag(self) -> str:
        return f"fa4-v{self.version}"


@dataclass(frozen=True)
class Manifest:
    """Releases in the order of the history, oldest first."""

    releases: tuple[Release, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Empty where there is no file. Raises Fa4AsvError when it cannot be read."""
        return cls(tuple(read_list(path, "releases", Release)))

    def save(self, path: Path) -> None:
        """Atomic. One line per release, so that a diff shows what was appended."""
        write_list(path, "releases", self.releases, project=PROJECT)

    def by_commit(self, commit: str) -> Release | None:
        """The release recorded under a full commit hash, None where it is not a release."""
        return next((release for release in self.releases if release.commit == commit), None)

    def extended(self, listed: Sequence[Release]) -> Manifest:
        """With new releases appended and yanks labelled; nothing moves or goes.

        Raises Fa4AsvError when the registry now serves another file for a known release.
        """
        now = {release.version: release for release in listed}
        releases = []
        for old in self.releases:
            new = now.get(old.version, old)
            if new.sha256 != old.sha256:
                raise Fa4AsvError(
                    f"{old.sdist} changed on the registry: sha256 {new.sha256}, recorded {old.sha256}; "
                    "the history keeps what was recorded and refuses the new file"
                )
            releases.append(replace(old, yanked=new.yanked or old.yanked))
        known = {release.version for release in self.releases}
        return Manifest((*releases, *(release for release in listed if release.version not in known)))
