"""Where things lie in a checkout of the suite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError


@dataclass(frozen=True)
class Project:
    """The folders of one checkout; `root` holds asv.conf.json."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The checkout that holds `start` (default: the current folder).

        Raises Fa4AsvError when no parent folder holds an asv.conf.json.
        """
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "asv.conf.json").is_file():
                return cls(folder)
        raise Fa4AsvError(f"no asv.conf.json in {here} or above; run from the suite's checkout")

    @property
    def work(self) -> Path:
        """Everything that can be rebuilt: the history, environments, caches. Never committed."""
        return self.root / ".asv"

    @property
    def repository(self) -> Path:
        """The bare git repository that asv walks, made by `fa4-asv history sync`."""
        return self.work / "history.git"

    @property
    def manifest(self) -> Path:
        """The committed, append-only list of releases that fixes every commit hash."""
        return self.root / "history" / "releases.json"

    @property
    def upstream(self) -> Path:
        """The committed list of recorded commits that are no releases."""
        return self.root / "history" / "upstream.json"

    @property
    def threads(self) -> Path:
        """The committed list of public reports of what the record shows."""
        return self.root / "history" / "threads.json"

    @property
    def locks(self) -> Path:
        """The committed toolchains: locks/<policy>/<flavour>/<release or hash>.txt below this folder."""
        return self.root / "history" / "toolchains"

    def lock(self, policy: str, flavour: str, key: str) -> Path:
        """Where the toolchain of a release or a commit (`key`: version or hash) is committed."""
        return self.locks / policy / flavour / f"{key}.txt"

    @property
    def results(self) -> Path:
        """What asv recorded, one folder per machine."""
        return self.root / "results"

    @property
    def html(self) -> Path:
        """What `asv publish` makes."""
        return self.root / "html"
