"""An uncommitted tree against a commit on a card: several processes per side, timed in turns by the sweep's engine.

Each side passes the guard once. Then the processes of both sides live at the same time, as far as the card has room, and
each round goes over all of them in a fresh order. The journals lie in a folder that the caller removes; nothing is written to
results/.
"""

from __future__ import annotations

import math
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import truediv
from pathlib import Path
from statistics import median

from fa4_asv.asv_plugin.environment import environment_name
from fa4_asv.backfill.sweep.engine import Call, Engine, Station, Subject, Tell
from fa4_asv.backfill.sweep.plan import calls_of_sets
from fa4_asv.backfill.sweep.spent import GUARD, IMPORT, LOAD, TURN
from fa4_asv.base.machine import python_tag
from fa4_asv.base.project import Project
from fa4_asv.compare.commits import TOOLCHAIN_VARIABLE, Commit, pins_in, pins_of
from fa4_asv.compare.rows import Measured, compare
from fa4_asv.compare.sides import Comparison, Side, refuse_unusable
from fa4_asv.history.source import Source, lay_source, refuse_shadow
from fa4_asv.history.toolchain import Lock, Policy, install, lock_of_tree
from fa4_asv.history.worktree import Tree, differing
from fa4_asv.measure.runtime import journal, kernel_cache
from fa4_asv.measure.runtime.card import Card, loaders, refuse_full, room
from fa4_asv.measure.runtime.journal import Entry, Plan
from fa4_asv.record.formatting import counted
from fa4_asv.record.schema import FORMAT, SUITE, CaseRecord, Sidecar, Toolchain

# Causal and full attention of long sequences, causal of short ones: the head dim that is used most.
_SHAPES = ("b4_s8192_h16_d128_causal", "b4_s8192_h16_d128_full", "b32_s1024_h16_d128_causal")
_NAMED = 5  # files that differ, named in the report


@dataclass(frozen=True)
class Asked:
    """How a tree is compared: `plan` is of each side, `python` an interpreter with torch."""

    machine: str
    calls: tuple[Call, ...]
    plan: Plan
    cores: int
    card: Card
    python: Path


@dataclass(frozen=True)
class _Laid:
    """A side with all that its processes need; `subject` is the one that passes the guard."""

    commit: Commit
    lock: Lock
    subject: Subject


def chosen_calls(name: str, bench: Sequence[str]) -> tuple[Call, ...]:
    """The calls of a set that asv's patterns select; six of the history set without patterns. Raises Fa4AsvError."""
    calls = calls_of_sets((name,), bench)
    if name == "history" and not bench:
        calls = [call for call in calls if call.case[1] in _SHAPES]
    return tuple(calls)


def estimate(asked: Asked) -> dict[str, float]:
    """Seconds of each phase of one flavour where kernels must be compiled; less where FA4's disk cache has them."""
    processes = 2 * asked.plan.processes
    calls = len(asked.calls)
    shapes = len({call.case[1] for call in asked.calls})
    guards = math.ceil(2 * shapes / asked.cores)
    starts = math.ceil(processes / asked.cores)
    return {
        "guard and compile": guards * (IMPORT + calls / shapes * GUARD),
        "start of processes": starts * (IMPORT + calls * LOAD),
        "rounds": processes * asked.plan.rounds * calls * TURN,
    }


def compare_tree(
    project: Project, base: Commit, tree: Tree, flavour: str, asked: Asked, tell: Tell
) -> tuple[Comparison, dict[str, float]]:
    """The comparison, and seconds of each phase. Journals, and a lock of the tree's own, lie beside the tree.

    Raises Fa4AsvError, UnsupportedFlavour, KeyboardInterrupt.
    """
    source = lay_source(project, base.hash)
    locks, rule = toolchains(project, source, base, tree, flavour)
    head = Commit(tree.name, "", subject=_difference(tree, source), tree=tree.digest)
    laid = (
        _laid(project, base, locks[0], source.folder, "base", asked.python),
        _laid(project, head, locks[1], tree.folder, "head", asked.python),
    )
    folder = tree.folder.parent / f"journals-{flavour}"
    records, took = _measure(folder, [side.subject for side in laid], asked, tell)
    sides = [_side(side, flavour, asked.machine, result) for side, result in zip(laid, records, strict=True)]
    refuse_unusable(sides[0], ())
    rows = compare(sides[0].measured, sides[1].measured, exact=False)
    return Comparison(sides[0], sides[1], flavour, asked.machine, rule, tuple(rows)), took


def toolchains(
    project: Project, source: Source, base: Commit, tree: Tree, flavour: str
) -> tuple[tuple[Lock, Lock], str]:
    """The locks of base and tree, and the rule behind them. Raises UnsupportedFlavour, Fa4AsvError."""
    policy = Policy.from_environment()
    lock = source.lock(project, flavour, policy)
    asked = "" if policy.name == "day" else f" under {TOOLCHAIN_VARIABLE} ({policy.name})"
    if policy.as_of:
        return (lock, lock), f"both with the same{asked}"
    if pins_of(project, base) == pins_in(tree.pyproject, repr(tree.name)):
        return (lock, lock), f"both with BASE's toolchain{asked}: the pins are the same"
    own = lock_of_tree(tree.folder.parent / "locks", f"tree-{tree.digest}", tree.pyproject, flavour, policy)
    return (lock, own), (
        f"BASE with the toolchain of its day, the tree with its own, resolved now{asked}: "
        "the pins in pyproject.toml differ"
    )


def _difference(tree: Tree, source: Source) -> str:
    names = differing(tree.folder, source.folder)
    if not names:
        return "no source file differs from BASE"
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    verb = "differs" if len(names) == 1 else "differ"
    return f"{counted(len(names), 'source file')} {verb} from BASE: {shown}"


def _laid(project: Project, commit: Commit, lock: Lock, folder: Path, side: str, base: Path) -> _Laid:
    python = install(project, lock, base)
    refuse_shadow(python, folder)
    path = (str(folder), str(project.root))
    cache = str(kernel_cache.folder_of(project.work, lock.digest))
    return _Laid(commit, lock, Subject(side, f"{side}.jsonl", str(python), path, cache))


# Measuring.


def _measure(
    folder: Path, sides: Sequence[Subject], asked: Asked, tell: Tell
) -> tuple[list[dict[Call, CaseRecord]], dict[str, float]]:
    """The records of base and head, and seconds of each phase."""
    rounds = asked.plan.rounds
    took = _run(folder, sides, asked.calls, Plan(0, rounds, profile=False), asked, tell)
    guarded = [journal.read(folder / subject.file) for subject in sides]
    passed = [call for call in asked.calls if all(_has_passed(entries, call) for entries in guarded)]
    # What one side cannot do is not timed on the other, either.
    processes = [numbered(subject, asked.plan.processes if passed else 0) for subject in sides]
    for subject, many in zip(sides, processes, strict=True):
        for each in many:
            shutil.copyfile(folder / subject.file, folder / each.file)
    for batch in batches(processes, asked.card):
        for phase, seconds in _run(
            folder, batch, passed, Plan(1, rounds, profile=False), asked, tell
        ).items():
            took[phase] = took.get(phase, 0.0) + seconds
    records = []
    for entries, many in zip(guarded, processes, strict=True):
        timed = [journal.read(folder / each.file) for each in many]
        records.append({call: record_of(entries, timed, call.key) for call in asked.calls})
    return records, took


def _run(
    folder: Path, subjects: Sequence[Subject], calls: Sequence[Call], plan: Plan, asked: Asked, tell: Tell
) -> dict[str, float]:
    """One run of the engine over `subjects`."""
    files = frozenset(subject.file for subject in subjects)
    room_to_load = loaders(asked.card, len(subjects))
    station = Station(asked.card, folder, dict.fromkeys(calls, files), loaders=room_to_load)
    seed = secrets.randbelow(1 << 31)
    return Engine([replace(station, seed=seed)], subjects, [], plan, asked.cores, tell).run()


def _has_passed(entries: Sequence[Entry], call: Call) -> bool:
    verdict = journal.verdict_of(entries, call.key)
    return verdict is not None and verdict.state == "measured"


def numbered(subject: Subject, processes: int) -> list[Subject]:
    """A side as subjects of one process each, which can all be alive at once."""
    stem = subject.file.removesuffix(".jsonl")
    return [
        replace(subject, name=f"{subject.name}#{number}", file=f"{stem}-{number}.jsonl")
        for number in range(1, processes + 1)
    ]


def batches(processes: Sequence[Sequence[Subject]], card: Card) -> Iterator[list[Subject]]:
    """The processes of both sides that are alive at once: as many of each side. Raises Fa4AsvError where two do not fit."""
    fit = room(card)
    if fit < 2:
        refuse_full(card, 2, "end what else runs on it")
    each = max(1, fit // 2)
    for begin in range(0, len(processes[0]), each):
        yield [subject for side in processes for subject in side[begin : begin + each]]


# What came out.


def record_of(guarded: Sequence[Entry], processes: Sequence[Sequence[Entry]], call: str) -> CaseRecord:
    """What a side's processes say of a call: one value per process, since its rounds share its luck."""
    verdict = journal.verdict_of(guarded, call)
    if verdict is None:
        return CaseRecord("not run", why="the guard was not asked")
    if verdict.state != "measured":
        return verdict
    for entries in processes:
        if why := journal.failure_of(entries, call):
            return CaseRecord("broken", why=why)
    rounds = [journal.rounds_of(entries, call) for entries in processes]
    if not any(rounds):
        return verdict  # the other side did not pass the guard, so nothing was timed
    timed = _by_process(rounds)
    if not timed:
        reasons = dict.fromkeys(str(entry["why"]) for entries in rounds for entry in entries)
        return CaseRecord("broken", why="; ".join(reasons))
    return replace(verdict, samples=_samples(timed), notes=verdict.notes | _words(timed))


def _by_process(rounds: Sequence[Sequence[Entry]]) -> list[list[Entry]]:
    """The rounds that gave a time, by the process that took them: one that was replaced is two."""
    result: dict[tuple[int, int], list[Entry]] = {}
    for number, entries in enumerate(rounds):
        for entry in entries:
            if entry["seconds"]:
                result.setdefault((number, entry["process"]), []).append(entry)
    return list(result.values())


def _samples(timed: Sequence[Sequence[Entry]]) -> dict[str, list[float]]:
    """As a record of rounds keeps them, with a process in the place of a round: the median of its own rounds."""
    seconds = [[median(entry["seconds"]) for entry in entries] for entries in timed]
    controls = [[entry["control"] for entry in entries] for entries in timed]
    result = {
        "seconds": [value for entries in timed for entry in entries for value in entry["seconds"]],
        "centre": [median(entries) for entries in seconds],
        "two modes": [0.0 for _ in timed],
    }
    if all(value for entries in controls for value in entries):
        # So that centre / control is the median of what each round says.
        result["control"] = [
            median(mine) / median(map(truediv, mine, beside))
            for mine, beside in zip(seconds, controls, strict=True)
        ]
    return result


def _words(timed: Sequence[Sequence[Entry]]) -> dict[str, str]:
    return {str(name): str(text) for name, text in timed[-1][-1]["words"].items()}


def _side(side: _Laid, flavour: str, machine: str, records: dict[Call, CaseRecord]) -> Side:
    """A side as the record would hold it; it is never written."""
    groups: dict[str, dict[str, CaseRecord]] = {}
    for call, record in records.items():
        group, _, case = call.key.partition("/")
        groups.setdefault(group, {})[case] = record
    lock, commit = side.lock, side.commit
    toolchain = Toolchain(lock.policy, flavour, lock.digest, dict(sorted(lock.packages.items())))
    environment = environment_name(flavour, lock.policy)
    sidecar = Sidecar(FORMAT, SUITE, machine, commit.hash, environment, commit.release, toolchain, groups)
    return Side(commit, sidecar, Measured(groups), python_tag())
