"""A recorded file's cases made anew, beside asv and every cache of figures; nothing of it can enter `results/`.

Sources come from the history, packages from the committed lock. Both are laid out once and used again, as by `asv run`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.base import scratch
from fa4_asv.base.core_locks import shared
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.project import Project
from fa4_asv.history.source import Source, lay_source, refuse_shadow
from fa4_asv.history.toolchain import Lock, install, read_lock
from fa4_asv.measure.context import Context, ask_with, context_of
from fa4_asv.record.schema import CaseRecord, Sidecar, records_from_json

Records = dict[str, dict[str, CaseRecord]]  # by group and case
_POLICY = "audit"  # of no series


@dataclass(frozen=True)
class Anew:
    """`base` is an interpreter with torch, of version `torch`; `terminal` shows progress ("" for none)."""

    project: Project
    base: Path
    torch: str
    terminal: str = ""

    def records(self, side: Sidecar, cases: Mapping[str, Sequence[str]]) -> Records:
        """The records of `cases` by group. Raises Fa4AsvError where the commit, its lock or its packages are not to be had,
        or the process answers nothing."""
        source = lay_source(self.project, side.commit)
        lock = lock_of(self.project, side)
        python = install(self.project, lock, self.base)
        refuse_shadow(python, source.folder)
        with scratch.folder("audit") as own:
            context = self._context(source, lock, own, {self.torch: str(python)})
            with shared(lambda _: None):
                return _ask(python, self.project, context, cases)

    def _context(self, source: Source, lock: Lock, own: Path, torches: dict[str, str]) -> Context:
        """`own` stands for the checkout, so that its cache of figures is empty."""
        return context_of(
            own,
            source,
            lock,
            machine=NOGPU,
            environment=_POLICY,
            flavour=lock.flavour,
            policy=_POLICY,
            spool="",
            terminal=self.terminal,
            torches=torches,
        )


def lock_of(project: Project, side: Sidecar) -> Lock:
    """The committed toolchain behind a sidecar. Raises Fa4AsvError where there is none."""
    chain = side.toolchain
    path = project.lock(chain.policy, chain.flavour, side.release or side.commit)
    return read_lock(path, chain.flavour, chain.policy)


def _ask(python: Path, project: Project, context: Context, cases: Mapping[str, Sequence[str]]) -> Records:
    """One process for all cases, with a folder of temporary files that goes with it."""
    asked = {group: [case.split("/") for case in keys] for group, keys in cases.items()}
    answer, reason = ask_with(
        python, "fa4_asv.measure.anew", context, project.root, Path(context.root), asked
    )
    return _records(answer, reason, cases)


def _records(answer: str, reason: str, cases: Mapping[str, Sequence[str]]) -> Records:
    """Raises Fa4AsvError where a group has no answer; `reason` is how the process ended."""
    result: Records = {}
    with suppress(ValueError, KeyError, TypeError):
        for line in answer.splitlines():
            reply = json.loads(line)
            result[reply["group"]] = records_from_json(reply["records"])
    for group, keys in cases.items():
        if not set(keys) <= result.get(group, {}).keys():
            raise Fa4AsvError(f"the process that compiles has no answer for {group}: {reason}")
    return result
