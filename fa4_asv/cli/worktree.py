"""`fa4-asv compare BASE --worktree PATH`: what a checkout's uncommitted changes do to the clock of a card.

A file of its own: comparing what is recorded needs neither asv nor uv.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.asv_plugin.base_environments import base_for_a_card
from fa4_asv.backfill.estimates import minutes
from fa4_asv.backfill.sweep.plan import refuse_other_kind
from fa4_asv.backfill.sweep.worktree import Asked, chosen_calls, compare_tree, estimate
from fa4_asv.backfill.tasks import alone
from fa4_asv.base.core_locks import exclusive
from fa4_asv.base.ending import code_of
from fa4_asv.base.output import say
from fa4_asv.base.project import Project
from fa4_asv.base.side_by_side import cores
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.cli.sweep import Progress
from fa4_asv.compare.commits import commit_of
from fa4_asv.compare.sides import Comparison
from fa4_asv.history.worktree import Tree, copy_tree
from fa4_asv.measure.runtime.card import Card, cards, cpu_card, refuse_busy, strangers
from fa4_asv.measure.runtime.journal import Plan
from fa4_asv.record.formatting import counted

# The interpreter that runs this, as of a sweep: what it has compiled is found again.
_ENVIRONMENT = "fa4:same"


@dataclass(frozen=True)
class TreeRequest:
    """What was asked for on the command line; `set_name` is a set of a sweep."""

    machine: str
    flavours: tuple[str, ...]
    bench: tuple[str, ...]
    environment: str
    set_name: str
    plan: Plan


def against_tree(project: Project, ref: str, checkout: Path, request: TreeRequest) -> list[Comparison]:
    """A comparison per flavour. Raises Fa4AsvError; on Ctrl-C nothing is kept, exit code 130."""
    base = commit_of(project, ref)
    calls = chosen_calls(request.set_name, request.bench)
    progress = Progress(sys.stderr.isatty())
    try:
        with alone(project), _scratch(project) as folder:
            tree = copy_tree(checkout, folder / "tree")
            card = _card(project, request.machine, GROUPS[calls[0].group].device)
            python = base_for_a_card(project, request.environment or _ENVIRONMENT)
            asked = Asked(request.machine, calls, request.plan, cores(), card, python)
            _tell_plan(asked, tree, request.flavours)
            comparisons = []
            with exclusive(progress.note, whole=True):
                for flavour in request.flavours:
                    comparison, took = compare_tree(project, base, tree, flavour, asked, progress.tell)
                    progress.note(", ".join(f"{name} {minutes(s)}" for name, s in took.items() if s >= 1))
                    comparisons.append(comparison)
            return comparisons
    except KeyboardInterrupt as interrupt:
        say("\ninterrupted: nothing of an uncommitted tree is kept; run it again", err=True)
        sys.exit(code_of(interrupt))
    finally:
        progress.end()


@contextmanager
def _scratch(project: Project) -> Iterator[Path]:
    """A folder for the copy and its journals. Named so that the next run clears what a killed one leaves."""
    folder = Path(tempfile.mkdtemp(dir=project.work / "backfill", prefix=f"{os.getpid()}-worktree-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _card(project: Project, machine: str, device: str) -> Card:
    """The first card that nobody uses, or the processor. Raises Fa4AsvError for none, and for one of another kind."""
    if device == "cpu":
        return cpu_card()
    found_cards = cards()
    card = next((card for card in found_cards if not strangers(card)), found_cards[0])
    refuse_other_kind(project, machine, card)
    refuse_busy(card)
    return card


def _tell_plan(asked: Asked, tree: Tree, flavours: Sequence[str]) -> None:
    seconds = estimate(asked)
    parts = ", ".join(f"{phase} {minutes(spent)}" for phase, spent in seconds.items())
    plan = asked.plan
    say(
        f"tree {tree.digest}, {counted(len(asked.calls), 'call')}, {plan.processes} processes per side, "
        f"{counted(plan.rounds, 'round')} each, on {asked.card.name}: about {minutes(len(flavours) * sum(seconds.values()))} "
        f"where kernels must be compiled ({parts})",
        err=True,
    )
