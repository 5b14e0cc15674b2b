"""The committed list of recorded commits that are no releases: what a checkout without their branch knows of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import write_atomic

FORMAT = 1


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
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}, this suite reads {FORMAT}")
        commits = [Commit(**entry) for entry in data["commits"]]
        return {commit.commit: commit for commit in sorted(commits, key=_order)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Fa4AsvError(
            f"{path} is damaged ({error}); restore it with `git checkout -- {path.name}`"
        ) from None


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
