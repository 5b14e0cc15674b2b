"""Which upstream commit between two releases moved the figures: bisection under one toolchain.

A release's sdist holds the Python files of one upstream commit; that commit is found by comparing their
blobs, not by its date. Upstream's branches are in the local history only after `history sync --source`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.explain.corners import Corner, Tell, name_of
from fa4_asv.explain.packages import Answer, Move, value_of
from fa4_asv.explain.pairs import Workshop
from fa4_asv.history import upstream
from fa4_asv.history.source import lay_source
from fa4_asv.record.explanation import Culprit, explains
from fa4_asv.record.formatting import counted

_FEW = 5  # suspects that are named where the commits between do not compile


class Hunt:
    """The search over the commits between two corners, all compiled under head's toolchain."""

    def __init__(self, shop: Workshop, base: Corner, head: Corner, tell: Tell) -> None:
        self._shop, self._base, self._head, self._tell = shop, base, head, tell
        self._values: dict[tuple[int, str], int | None] = {}
        self._commits: list[str] = []
        self.answer = Answer()

    def run(self, moves: Sequence[Move]) -> Answer:
        """A culprit for each of `moves`, or a note why not."""
        if not moves:
            return self.answer
        try:
            self._commits = self._between()
        except Fa4AsvError as error:
            self.answer.notes.append(f"no commit is named: {error}")
            return self.answer
        named: dict[str, list[str]] = {}
        for number, move in enumerate(moves):
            names = self._search(move, moves[number:])
            if len(names) == 1:
                named.setdefault(names[0], []).append(move.key)
            else:
                few = ", ".join(commit[:10] for commit in names[:_FEW])
                self.answer.notes.append(
                    f"{move.key} was moved by one of {len(names)} commits, the first of which do not compile: {few}"
                )
        for commit, keys in named.items():
            subject = upstream.subject(self._shop.project, commit)
            self.answer.culprits.append(
                Culprit("commit", tuple(sorted(keys)), commit=commit, subject=subject)
            )
        return self.answer

    def _between(self) -> list[str]:
        """Commits that touch FA4, oldest first, the last of them the head's source. Raises Fa4AsvError."""
        project = self._shop.project
        ends = [upstream.commit_of(project, side.source) for side in (self._base, self._head)]
        commits = upstream.commits_between(project, *ends)
        self._tell(
            f"{counted(len(commits), 'upstream commit')} touching FA4 lie between {name_of(self._base.source)} ({ends[0][:10]}) and "
            f"{name_of(self._head.source)} ({ends[1][:10]})"
        )
        return commits

    def _search(self, move: Move, left: Sequence[Move]) -> list[str]:
        """The commit that moved it; several, where those between do not compile. `left`: all still sought."""
        low, high = -1, len(self._commits) - 1  # figures known: before at low (base), after at high (head)
        while high - low > 1:
            middle = self._measurable(low, high, move, left)
            if middle is None:
                break
            value = self._values[middle, move.key]
            assert value is not None
            if explains(move.before, move.after, value):
                high = middle
            else:
                low = middle
        return self._commits[low + 1 : high + 1]

    def _measurable(self, low: int, high: int, move: Move, left: Sequence[Move]) -> int | None:
        """The commit nearest the middle whose kernel compiles; None where there is none between."""
        middle = (low + high) // 2
        for index in sorted(range(low + 1, high), key=lambda index: abs(index - middle)):
            if (index, move.key) not in self._values:
                self._measure(index, left)
            if self._values[index, move.key] is not None:
                return index
        return None

    def _measure(self, index: int, moves: Sequence[Move]) -> None:
        commit = self._commits[index]
        self._tell(f"bisecting: {commit[:10]}, {counted(len(moves), 'kernel')}")
        source = lay_source(self._shop.project, commit)
        records = self._shop.records(source, self._head.lock.packages, [move.case for move in moves])
        for move in moves:
            self._values[index, move.key] = value_of(records, move)
