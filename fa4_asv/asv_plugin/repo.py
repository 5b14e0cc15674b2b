"""The `fa4` repository type of asv ("dvcs": "fa4"): git, with a clear message where there is no history yet."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from asv import util
from asv.plugins.git import Git
from asv.repo import NoSuchNameError

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.history.repository import (
    NO_HISTORY,
    branches,
    commit_date,
    commit_dates,
    has_history,
    in_hashes,
    resolve,
)

# What asv's regressions ask for: the same few ranges, thousands of times, and the commits of a range never change.
_OF_HASHES = re.compile(r"[0-9a-f]{40}\.\.[0-9a-f]{40}")


class UnknownName(util.UserError, NoSuchNameError):  # type: ignore[misc]
    """For asv's code that expects NoSuchNameError, and one clear line where nothing does."""


def branches_here(project: Project, configured: list[str]) -> list[str]:
    """The branches of asv.conf.json that the local history has; all of them where there is no history to ask."""
    if not has_history(project):
        return configured
    here = ["releases", *branches(project)]
    return [name for name in configured if name in here] or ["releases"]


class Fa4History(Git):  # type: ignore[misc]
    """asv's git on the local history. A configured branch that is absent here is empty, not an error."""

    dvcs = "fa4"

    def __init__(self, url: str, mirror_path: str) -> None:
        self._history = Project.find(Path.cwd())
        if not has_history(self._history):
            raise util.UserError(NO_HISTORY)
        super().__init__(url, mirror_path)
        self._default_branch = "releases"  # not init.defaultBranch of whoever runs this
        self._ranges: dict[str, list[str]] = {}

    @classmethod
    def url_match(cls, url: str) -> bool:
        """Never chosen by URL: a configuration names it."""
        return False

    def get_hashes_from_range(self, range_spec: str) -> Any:
        """Hashes of a range. A range that git does not understand is one clear line."""
        text, of_hashes = range_spec, _OF_HASHES.fullmatch(range_spec)
        if range_spec in self._ranges:
            return list(self._ranges[range_spec])
        has_options = " " in range_spec or range_spec.startswith("-")  # of git's
        if not has_options and not of_hashes:
            try:
                text = in_hashes(self._history, range_spec)
            except Fa4AsvError as error:
                raise util.UserError(str(error)) from None
        try:
            found = super().get_hashes_from_range(text)
        except (util.ProcessError, ValueError):  # ValueError: an unpaired quote
            raise util.UserError(
                f"git cannot read the range {range_spec!r}; write for example fa4-v4.0.0b30..fa4-v4.0.0b36"
            ) from None
        if of_hashes:
            self._ranges[range_spec] = list(found)
        return found

    def get_hash_from_name(self, name: str | None) -> Any:
        """The full hash of a tag, branch or commit. Raises UnknownName."""
        try:
            return resolve(self._history, self.get_branch_name(name))
        except Fa4AsvError as error:
            raise UnknownName(str(error)) from None

    @cached_property
    def _dates(self) -> Any:
        return commit_dates(self._history)

    def get_date(self, hash: str) -> int:
        """Committer date, ms since 1970: asv would take the author's, months earlier where a change lay long."""
        date = self._dates.get(hash.removesuffix("^{commit}")) or commit_date(self._history, hash)
        return int(date.timestamp()) * 1000

    def get_tags(self) -> Any:
        """Each tag's commit, in asv's order and in one call of git: asv would make one for each tag."""
        form = "--format=%(refname:strip=2) %(objectname) %(*objectname)"  # the last: of an annotated tag
        listing = self._run_git(["for-each-ref", "--sort=taggerdate", form, "refs/tags"])
        words = [line.split() for line in listing.splitlines()]
        return {name: hashes[-1] for name, *hashes in words}

    def get_branch_commits(self, branch: str) -> Any:
        """Commits of a branch, newest first; none where the branch is not here."""
        try:
            self.get_hash_from_name(self.get_branch_name(branch))
        except NoSuchNameError:
            return []
        return super().get_branch_commits(branch)
