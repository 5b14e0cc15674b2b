"""The two commits of a comparison, and under which toolchains they stand against each other.

Releases are compared each with its own day's toolchain: what their users got. Of other commits the question is what
the source did, so both get HEAD's, unless the commits between them changed the pins themselves.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from fa4_asv.errors import Fa4AsvError
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.repository import CUTE, git, read_file, resolve, tree_of
from fa4_asv.project import Project

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOOLCHAIN_VARIABLE = "FA4_ASV_TOOLCHAIN"


@dataclass(frozen=True)
class Commit:
    """One side as it was asked for; `subject` is its message's first line, "" for a release."""

    ref: str
    hash: str
    release: str = ""
    subject: str = ""

    @property
    def name(self) -> str:
        """Short, for a log."""
        return self.release or self.hash[:10]


@dataclass(frozen=True)
class Plan:
    """Policies that may stand behind both sides, the first that both have is taken; `why` says the rule.

    `same`: "day" counts only where it gave both sides the same versions.
    """

    policies: tuple[str, ...]
    why: str
    same: bool = False


def commit_of(project: Project, ref: str) -> Commit:
    """A release by tag, version or hash, or whatever else git finds. Raises Fa4AsvError for an unknown one.

    Releases need no local history: the committed list knows their hashes.
    """
    manifest = Manifest.load(project.manifest)
    for release in manifest.releases:
        if release.commit and ref in (release.tag, release.version, release.commit):
            return Commit(ref, release.commit, release.version)
    found = resolve(project, ref)
    known = manifest.by_commit(found)
    if known:
        return Commit(ref, found, known.version)
    tree_of(project, found)  # a commit without FA4 is refused here
    subject = git(project.repository, "show", "-s", "--format=%s", found).decode(errors="replace").strip()
    return Commit(ref, found, subject=subject)


def plan_of(project: Project, base: Commit, head: Commit) -> Plan:
    """Raises Fa4AsvError when the toolchain of either cannot be told."""
    if os.environ.get(TOOLCHAIN_VARIABLE, "").strip() not in ("", "day"):
        from fa4_asv.history.toolchain import Policy  # needs uv, which a reader of the record lacks

        name = Policy.from_environment().name
        return Plan((name,), f"both with the toolchain that {TOOLCHAIN_VARIABLE} asks for ({name})")
    if base.release and head.release:
        return Plan(("day",), "each with the toolchain of its release day")
    if _pins(project, base) != _pins(project, head):
        return Plan(("day",), "each with the toolchain of its day: the pins in pyproject.toml differ")
    return Plan(
        ("day", f"as-{head.hash[:8]}"), "both with HEAD's toolchain: the pins are the same", same=True
    )


def _pins(project: Project, commit: Commit) -> dict[str, Any]:
    """What the commit's own pyproject.toml demands."""
    text = read_file(project, commit.hash, f"{CUTE}/pyproject.toml")
    try:
        found = tomllib.loads(text)["project"]
        names = ("requires-python", "dependencies", "optional-dependencies")
        return {name: found.get(name) for name in names}
    except (tomllib.TOMLDecodeError, KeyError, AttributeError) as error:
        raise Fa4AsvError(f"the pyproject.toml of {commit.ref!r} cannot be read: {error}") from None
