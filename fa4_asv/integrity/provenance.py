"""What must be committed beside a recorded commit that is not a release, so that a stranger gets the same figures."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import only_one
from fa4_asv.base.project import Project
from fa4_asv.history.commits import Commit, add_commits
from fa4_asv.history.repository import BRANCH, commit_date, git
from fa4_asv.history.toolchain import keep_lock
from fa4_asv.record.schema import Sidecar


def note(project: Project, sidecars: Iterable[Sidecar]) -> None:
    """List the commits in history/upstream.json and keep their toolchains in history/toolchains.

    Releases need neither: their list and their locks are there. Raises Fa4AsvError.
    """
    recorded = [sidecar for sidecar in sidecars if not sidecar.release]
    commits = dict.fromkeys(sidecar.commit for sidecar in recorded)
    if not commits:
        return
    with only_one(project.work / "upstream.lock"):
        add_commits(project.upstream, [_described(project, commit) for commit in commits])
    for sidecar in recorded:
        toolchain = sidecar.toolchain
        if toolchain.packages and not toolchain.policy.startswith("as-"):
            keep_lock(project, sidecar.commit, toolchain.flavour, toolchain.policy, toolchain.packages)


def _described(project: Project, commit: str) -> Commit:
    subject = git(project.repository, "show", "-s", "--format=%s", commit).decode(errors="replace").strip()
    when: datetime = commit_date(project, commit).astimezone(timezone.utc)
    position = int(git(project.repository, "rev-list", "--first-parent", "--count", commit))
    return Commit(commit, f"{when:%Y-%m-%dT%H:%M:%SZ}", _branch_of(project, commit), subject, position)


def _branch_of(project: Project, commit: str) -> str:
    """A branch that holds the commit, main before others; "" when none does."""
    try:
        output = git(
            project.repository, "for-each-ref", "--format=%(refname)", "--contains", commit, "refs/heads"
        )
    except Fa4AsvError:
        return ""
    names = [name.removeprefix("refs/heads/") for name in output.decode().split() if name != BRANCH]
    return min(names, key=lambda name: (name != "main", name), default="")
