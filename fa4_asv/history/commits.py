"""The committed list of recorded commits that are no releases: what a checkout without their branch knows of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import read_json, write_atomic

FORMAT = 1
RESTORE = "restore it from git"


@dataclass(frozen=True)
class Commit:
    """A commit of flash-attention; `date` is the committer's, UTC as ISO 8601, `branch` one that held it.

    `position` counts it and its first parents: commits that were rebased together share a second, and only their
    positions say which came first. `subject` and `branch` are other people's words: escape them on output.
    """

    commit: str
    date: str
    branch: str
    subject: str
    position: int = 0

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.date.replace("Z", "+00:00"))


def load_commits(path: Path) -> dict[str, Commit]:
    """By hash, oldest first; empty where there is no file. Raises Fa4AsvError when it cannot be read."""
    if not os.path.lexists(path):  # what is there and is not a file is told below
        return {}
    data = read_json(path, advice=RESTORE)
    try:
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}, this suite reads {FORMAT}")
        commits = [_commit(entry) for entry in data["commits"]]
        return {commit.commit: commit for commit in sorted(commits, key=_order)}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Fa4AsvError(f"{path} is damaged ({one_line(str(error))}); {RESTORE}") from None


def _commit(entry: Any) -> Commit:
    """Raises ValueError, TypeError or OverflowError where a field is not what Commit says."""
    commit = Commit(**entry)
    for name, value in asdict(commit).items():
        if type(value) is not (int if name == "position" else str):
            raise TypeError(f"{name} of a commit is {value!r:.60}")
    commit.time.timestamp()
    return commit


def add_commits(path: Path, commits: Iterable[Commit]) -> None:
    """Add what is not listed; nothing goes or changes. Atomic, and untouched when all are there.

    A line a commit, in the order of their dates: two people's additions merge.
    """
    known = load_commits(path)
    new = {commit.commit: commit for commit in commits if commit.commit not in known}
    if new:
        rows = sorted((known | new).values(), key=_order)
        lines = ",\n".join("  " + json.dumps(asdict(commit)) for commit in rows)
        write_atomic(path, f'{{\n "format": {FORMAT},\n "commits": [\n{lines}\n ]\n}}\n')


def _order(commit: Commit) -> tuple[datetime, int, str]:
    return commit.time, commit.position, commit.commit
