"""The committed, append-only list of releases: it fixes every commit hash of the history."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import read_json, write_atomic

PROJECT = "flash-attn-4"
FORMAT = 1
RESTORE = "restore it from git"


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
        return datetime.fromisoformat(self.uploaded.replace("Z", "+00:00"))

    @property
    def tag(self) -> str:
        return f"fa4-v{self.version}"


def _release(entry: Any) -> Release:
    """Raises ValueError, TypeError or OverflowError where a field is not what Release says."""
    release = Release(**entry)
    for name, value in asdict(release).items():
        if not isinstance(value, str):
            raise TypeError(f"{name} of a release is {value!r:.60}, expected text")
    release.time.timestamp()
    return release


@dataclass(frozen=True)
class Manifest:
    """Releases in the order of the history, oldest first."""

    releases: tuple[Release, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Empty where there is no file. Raises Fa4AsvError when it cannot be read."""
        if not os.path.lexists(path):  # what is there and is not a file is told below
            return cls()
        data = read_json(path, advice=RESTORE)
        try:
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']!r}, this suite reads {FORMAT}")
            return cls(tuple(_release(entry) for entry in data["releases"]))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise Fa4AsvError(f"{path} is damaged ({one_line(str(error))}); {RESTORE}") from None

    def save(self, path: Path) -> None:
        """Atomic. A line a release, so that a diff shows what was appended."""
        rows = ",\n".join("  " + json.dumps(asdict(release)) for release in self.releases)
        head = f'{{\n "format": {FORMAT},\n "project": "{PROJECT}",\n "releases": [\n'
        write_atomic(path, head + rows + "\n ]\n}\n")

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
