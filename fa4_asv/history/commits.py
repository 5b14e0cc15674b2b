"""The committed list of recorded commits that are no releases: what a checkout without their branch knows of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fa4_asv.history.lists import read_list, time_of, write_list


@dataclass(frozen=True)
class Commit:
    """A commit of flash-attention; `date` is the committer's, UTC as ISO 8601, `branch` one that held it.

    `position` counts it and its first parents: commits that were rebased together share a second, and only their
    positions say which came first. `subject` and `branch` are foreign text: escape them on output.
    """

    commit: str
    date: str
    branch: str
    subject: str
    position: int = 0

    @property
    def time(self) -> datetime:
        return time_of(self.date)


def load_commits(path: Path) -> dict[str, Commit]:
    """By hash, oldest first; empty where there is no file. Raises Fa4AsvError when it cannot be read."""
    return {commit.commit: commit for commit in sorted(read_list(path, "commits", Commit), key=_order)}


def add_commits(path: Path, commits: Iterable[Commit]) -> None:
    """Add what is not listed; nothing goes or changes. Atomic, and untouched when all are there.

    One line per commit, in the order of their dates: two people's additions merge.
    """
    known = load_commits(path)
    new = {commit.commit: commit for commit in commits if commit.commit not in known}
    if new:
        write_list(path, "commits", sorted((known | new).values(), key=_order))


def _order(commit: Commit) -> tuple[datetime, int, str]:
    return commit.time, commit.position, commit.commit
