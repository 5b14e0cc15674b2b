"""Upstream's commits beside the releases in the local history, and which of them a release was made from."""

from __future__ import annotations

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.history.repository import CUTE, git
from fa4_asv.history.source import Source

BRANCH = "refs/heads/main"
_NONE = "upstream's commits are not in the history; `fa4-asv history sync --source PATH` brings them"
# Releases are made weekly, from a commit of that week; upstream has up to 40 a week.
_LOOK_BACK = 200


def commit_of(project: Project, source: Source) -> str:
    """`source`'s own commit, or the one of upstream's main branch that a release was made from.

    Raises Fa4AsvError where upstream is not there or holds no such commit.
    """
    if not source.release:
        return source.commit
    try:
        git(project.repository, "rev-parse", "--verify", "--quiet", f"{BRANCH}^{{commit}}")
    except Fa4AsvError:
        raise Fa4AsvError(_NONE) from None
    wanted = _python_files(project, source.commit)
    before = f"--before={source.day.isoformat()}"
    hashes = git(project.repository, "rev-list", "--first-parent", before, f"-n{_LOOK_BACK}", BRANCH)
    for commit in hashes.decode().split():
        if _python_files(project, commit) == wanted:
            return commit
    raise Fa4AsvError(
        f"no commit of upstream's main holds the Python files of {source.release}; it may be newer than what was "
        "synced: `fa4-asv history sync --source PATH` again, from a newer clone"
    )


def _python_files(project: Project, commit: str) -> dict[str, str]:
    """Path below flash_attn/cute -> blob, of the Python files; {} where a commit has no FA4."""
    try:
        listing = git(project.repository, "ls-tree", "-r", "-z", f"{commit}:{CUTE}").decode(errors="replace")
    except Fa4AsvError:
        return {}
    files = {}
    for line in listing.split("\0"):
        head, _, path = line.partition("\t")
        if path.endswith(".py"):
            files[path] = head.split()[2]
    return files


def commits_between(project: Project, base: str, head: str) -> list[str]:
    """Commits after `base` up to `head` that touch FA4, oldest first; the last one has `head`'s sources.

    Raises Fa4AsvError where `base` is not an ancestor of `head`, or nothing lies between.
    """
    try:
        git(project.repository, "merge-base", "--is-ancestor", base, head)
    except Fa4AsvError:
        raise Fa4AsvError(
            f"{base[:10]} is not an ancestor of {head[:10]}, so there is no line of commits to bisect"
        ) from None
    hashes = git(project.repository, "rev-list", "--first-parent", "--reverse", f"{base}..{head}", "--", CUTE)
    commits = hashes.decode().split()
    if not commits:
        raise Fa4AsvError(f"no commit between {base[:10]} and {head[:10]} touches FA4")
    return commits


def subject(project: Project, commit: str) -> str:
    """The first line of a commit's message: foreign text."""
    line = git(project.repository, "show", "-s", "--format=%s", commit).decode(errors="replace")
    return " ".join(line.split())
