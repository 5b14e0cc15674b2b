"""The two commits of a comparison, and under which toolchains they stand against each other.

Releases are compared each with its own day's toolchain: what their users got. Of other commits the question is what
the source did, so both get HEAD's, unless the commits between them changed the pins themselves.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.history.demands import project_table
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.repository import CUTE, git, read_file, resolve, tree_of

TOOLCHAIN_VARIABLE = "FA4_ASV_TOOLCHAIN"
# Upstream's "Add fake tensor mode support for compile-only test passes" of 2026-03-03; every release is newer.
_WITHOUT_GPU = "f2682b6c86fc2290f760403ea14668015a59b2cd"


@dataclass(frozen=True)
class Commit:
    """One side as it was asked for; `subject` is its message's first line, "" for a release.

    An uncommitted tree has the digest `tree` instead of a hash; `subject` says how it differs from the other side.
    """

    ref: str
    hash: str
    release: str = ""
    subject: str = ""
    tree: str = ""

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
    commit_hash = resolve(project, ref)
    known = manifest.by_commit(commit_hash)
    if known:
        return Commit(ref, commit_hash, known.version)
    tree_of(project, commit_hash)  # a commit without FA4 is refused here
    subject = (
        git(project.repository, "show", "-s", "--format=%s", commit_hash).decode(errors="replace").strip()
    )
    return Commit(ref, commit_hash, subject=subject)


def refuse_without_gpu(project: Project, commit: Commit) -> None:
    """Raises Fa4AsvError for a commit of upstream from before FA4 compiled without a GPU."""
    if commit.release:
        return
    try:
        git(project.repository, "cat-file", "-e", f"{_WITHOUT_GPU}^{{commit}}")
    except Fa4AsvError:
        return  # the history is not upstream's, or not whole: whether it compiles will show
    try:
        git(project.repository, "merge-base", "--is-ancestor", _WITHOUT_GPU, commit.hash)
    except Fa4AsvError:
        raise Fa4AsvError(
            f"{commit.ref!r} ({commit.hash[:10]}) is from before FA4 compiled without a GPU, "
            f"which began with {_WITHOUT_GPU[:8]} (2026-03-03); take a later commit"
        ) from None


def plan_of(project: Project, base: Commit, head: Commit) -> Plan:
    """Raises Fa4AsvError when the toolchain of either cannot be told."""
    if os.environ.get(TOOLCHAIN_VARIABLE, "").strip() not in ("", "day"):
        from fa4_asv.history.toolchain import Policy  # needs uv, which a reader of the record lacks

        name = Policy.from_environment().name
        return Plan((name,), f"both with the toolchain that {TOOLCHAIN_VARIABLE} asks for ({name})")
    if base.release and head.release:
        return Plan(("day",), "each with the toolchain of its release day")
    if pins_of(project, base) != pins_of(project, head):
        return Plan(("day",), "each with the toolchain of its day: the pins in pyproject.toml differ")
    return Plan(
        ("day", f"as-{head.hash[:8]}"), "both with HEAD's toolchain: the pins are the same", same=True
    )


def pins_of(project: Project, commit: Commit) -> dict[str, Any]:
    """What the commit's own pyproject.toml demands."""
    try:
        text = read_file(project, commit.hash, f"{CUTE}/pyproject.toml")
    except Fa4AsvError:
        raise Fa4AsvError(
            f"{commit.ref!r} ({commit.hash[:10]}) has no {CUTE}/pyproject.toml, so nothing says which toolchain "
            "it needs: FA4 is a package since 2025-07-01 (de2ce8f3)"
        ) from None
    return pins_in(text, repr(commit.ref))


def pins_in(text: str, name: str) -> dict[str, Any]:
    """What a pyproject.toml demands of a toolchain; two that demand the same get the same.

    Raises Fa4AsvError, which calls whose it is by `name`.
    """
    table = project_table(text, name)
    return {name: table.get(name) for name in ("requires-python", "dependencies", "optional-dependencies")}
