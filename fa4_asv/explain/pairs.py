"""Any source under any set of packages, compiled outside of asv: nothing of it can enter `results/`.

asv knows commits and policies; to tell source from toolchain takes pairs that are neither, such as an old
source under a new toolchain with one package put back. What was compiled stays in the cache that `asv run`
uses, too, so a pair is compiled once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.base import scratch
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import Case, key_of
from fa4_asv.history.source import Source, refuse_shadow
from fa4_asv.history.toolchain import Lock, install
from fa4_asv.measure.context import Context, ask_with, context_of
from fa4_asv.measure.kernels.collect import known
from fa4_asv.record.schema import Records, records_from_json

_POLICY = "explain"  # of no series: these pairs are never recorded


@dataclass(frozen=True)
class Workshop:
    """Where pairs are compiled: `base` is an interpreter with torch, `terminal` shows progress ("" for none)."""

    project: Project
    base: Path
    flavour: str
    terminal: str = ""

    def records(self, source: Source, packages: dict[str, str], cases: Sequence[Case]) -> Records:
        """Records of (arch, case) by key; every case has one, whatever its compile did.

        Raises Fa4AsvError when the packages cannot be installed or the process answers nothing.
        """
        if not cases:
            return {}
        lock = Lock(Path(_POLICY), self.flavour, _POLICY, packages)
        context = context_of(
            self.project.root,
            source,
            lock,
            machine=NOGPU,
            environment=_POLICY,
            flavour=self.flavour,
            policy=_POLICY,
            spool="",
            terminal=self.terminal,
        )
        result, missing = known(context, cases)
        if missing:
            calls = [case for case in cases if key_of(case) not in result]
            python = install(self.project, lock, self.base)
            refuse_shadow(python, source.folder)
            result |= _ask(python, context, calls)
        return {key: result[key] for key in map(key_of, cases)}


def _ask(python: Path, context: Context, cases: Sequence[Case]) -> Records:
    """One process for all `cases`; it bounds each compile itself, and dies with this one."""
    module = "fa4_asv.explain.pair_worker"
    answer, reason = ask_with(python, module, context, Path(context.root), scratch.own(), cases)
    try:
        return records_from_json(json.loads(answer))
    except ValueError:
        raise Fa4AsvError(f"the process that compiles gave no answer: {reason}") from None
