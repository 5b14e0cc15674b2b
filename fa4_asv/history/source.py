"""The sources of one commit, laid out so that Python finds `flash_attn.cute` and its true version."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from fa4_asv.base import isolation, scratch
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import read_text, write_atomic
from fa4_asv.base.project import Project
from fa4_asv.history import repository
from fa4_asv.history.demands import MOST_BYTES
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.toolchain import Lock, Policy, lock_for


@dataclass(frozen=True)
class Source:
    """`folder` goes on PYTHONPATH; `tree` is the git tree of flash_attn/cute; `release` "" off releases."""

    commit: str
    tree: str
    release: str
    day: datetime
    folder: Path

    def lock(self, project: Project, flavour: str, policy: Policy) -> Lock:
        """The toolchain lock of this commit. Raises UnsupportedFlavour, Fa4AsvError (see lock_for)."""
        if policy.as_of:
            lock = lay_source(project, policy.as_of).lock(project, flavour, Policy("day"))
            return replace(lock, policy=policy.name)
        path = self.folder / repository.CUTE / "pyproject.toml"
        if not path.exists():
            raise Fa4AsvError(
                f"commit {self.commit[:12]} has no {repository.CUTE}/pyproject.toml, so nothing says which toolchain "
                "it needs: FA4 is a package since 2025-07-01 (de2ce8f3)"
            )
        pyproject = read_text(path, MOST_BYTES, "this commit cannot be measured")
        key = self.release or self.commit
        return lock_for(project, key, pyproject, self.day, flavour, policy, committed=bool(self.release))


def lay_source(project: Project, commit: str) -> Source:
    """Sources of `commit`, one folder a tree and version, made once. Raises Fa4AsvError.

    `flash_attn.cute.__version__` is wrong in every release; importlib.metadata reads the dist-info
    written here.
    """
    tree = repository.tree_of(project, commit)
    known = Manifest.load(project.manifest).by_commit(commit)
    version = known.version if known else f"0+g{commit[:10]}"
    folder = project.work / "sources" / f"{tree[:16]}-{version}"
    repository.archive_cute(project, commit, folder / "flash_attn" / "cute")
    note_version(folder, version)
    return Source(
        commit, tree, known.version if known else "", repository.commit_date(project, commit), folder
    )


def note_version(folder: Path, version: str) -> None:
    """Say in a folder of FA4's sources which version they are, for importlib.metadata."""
    metadata = folder / f"flash_attn_4-{version}.dist-info" / "METADATA"
    if not metadata.is_file():
        write_atomic(metadata, f"Metadata-Version: 2.1\nName: flash-attn-4\nVersion: {version}\n")


def refuse_shadow(python: Path, folder: Path) -> None:
    """Raises Fa4AsvError where an installed flash-attn (FA2), a regular package, hides FA4's namespace package.

    `python` is the interpreter that is to import FA4 from `folder`.
    """
    code = "import importlib.util as u; s = u.find_spec('flash_attn'); print(s.origin or '')"
    with scratch.folder("shadow") as own:
        done = subprocess.run(
            isolation.command([str(python), "-c", code], isolation.COLLECT),
            capture_output=True,
            text=True,
            env=isolation.environment(own, {"PYTHONPATH": str(folder)}),
        )
    origin = done.stdout.strip()
    if origin:
        raise Fa4AsvError(f"{origin} (flash-attn 2) hides FA4; uninstall flash-attn from that environment")
