"""What a sweep has to time: subjects, calls, and which card each call belongs to."""

from __future__ import annotations

import json
import re
import secrets
import sysconfig
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fa4_asv.asv_plugin.environment import environment_name
from fa4_asv.backfill.sweep.engine import Call, Station, Subject
from fa4_asv.backfill.tasks import current_sidecars
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import read_json, write_atomic
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS, SWEEP_SETS
from fa4_asv.catalog.shapes import SHAPES
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.source import lay_source, refuse_shadow
from fa4_asv.history.toolchain import Policy, UnsupportedFlavour, install
from fa4_asv.measure.runtime import journal, kernel_cache
from fa4_asv.measure.runtime.card import Card
from fa4_asv.measure.runtime.journal import SWEEP_FILE, YARDSTICK_FILE, Plan, sweeps_folder
from fa4_asv.record.store import sound_pairs
from fa4_asv.record.turns import yardsticks_of

# Words of a record that say which sweep and card its rounds come from.
SWEEP, CARD, CARD_NAME, TORCH = "sweep", "card", "card name", "torch"
# A word of a machine's name that a card of that kind has in its own, such as "NVIDIA H100 80GB HBM3".
_KINDS = ("gb200", "b200", "h200", "h100", "rtx")


@dataclass(frozen=True)
class Target:
    """A commit under a flavour, laid: what asv calls it, and what the engine times."""

    commit: str
    name: str
    flavour: str
    environment: str
    subject: Subject

    @property
    def label(self) -> str:
        return f"{self.name} {self.flavour}"


def calls_of_sets(sets: Sequence[str], bench: Sequence[str]) -> list[Call]:
    """The calls of the named sets that asv's regular expressions select; a shape's forward and backward side by side.

    Raises Fa4AsvError where nothing is selected, or one is not a regular expression.
    """
    for pattern in bench:
        try:
            re.compile(pattern)
        except re.error as error:
            raise Fa4AsvError(f"-b {pattern!r} is not a regular expression: {error}") from None
    calls = [
        Call(name, case)
        for chosen in sets
        for name in SWEEP_SETS[chosen]
        for case in (GROUPS[name].selected(bench) if bench else GROUPS[name].cases)
    ]
    if not calls:
        raise Fa4AsvError(f"no call of {', '.join(sets)} matches {' or '.join(map(repr, bench))}")
    place = {shape: number for number, shape in enumerate(dict.fromkeys(call.case[1] for call in calls))}
    return sorted(calls, key=lambda call: place[call.case[1]])


def lay(
    project: Project, commits: Sequence[str], flavours: Sequence[str], base: Path, cores: int
) -> tuple[list[Target], list[str]]:
    """Sources and toolchain of every commit under every flavour that it has; and the labels of those that it lacks.

    Raises Fa4AsvError where one cannot be installed.
    """
    wanted = [(commit, flavour) for flavour in flavours for commit in commits]
    sysconfig.get_config_vars()  # uv asks for it, and Python fills it without a lock
    with ThreadPoolExecutor(cores) as threads:
        laid = list(threads.map(partial(_lay, project, base), *zip(*wanted, strict=True)))
    targets = [item for item in laid if isinstance(item, Target)]
    return targets, [item for item in laid if isinstance(item, str)]


def _lay(project: Project, base: Path, commit: str, flavour: str) -> Target | str:
    source = lay_source(project, commit)
    name = source.release or commit[:10]
    policy = Policy.from_environment()
    try:
        lock = source.lock(project, flavour, policy)
    except UnsupportedFlavour:
        return f"{name} {flavour}"
    python = install(project, lock, base)
    refuse_shadow(python, source.folder)
    environment = environment_name(flavour, policy.name)
    cache = str(kernel_cache.folder_of(project.work, lock.digest))
    path = (str(source.folder), str(project.root))
    file = journal.journal_path(Path(), commit, environment).name
    return Target(
        commit, name, flavour, environment, Subject(f"{name} {flavour}", file, str(python), path, cache)
    )


def yardstick_subject(project: Project, base: Path) -> Subject:
    """PyTorch's own attention: one more process, over the base environment, without FA4."""
    return Subject(
        "yardsticks",
        YARDSTICK_FILE,
        str(base),
        (str(project.root),),
        str(kernel_cache.folder_of(project.work, "none")),
    )


def yardstick_calls(calls: Iterable[Call]) -> list[Call]:
    """The same calls by each yardstick; which of them PyTorch lacks is said by its own refusal."""
    return [
        Call(call.group, (backend, *call.case[1:])) for call in calls for backend in yardsticks_of(call.group)
    ]


# Which card has what.

Known = dict[str, dict[str, set[str]]]  # call -> digest of a card -> files of the subjects that it has there


def known_calls(project: Project, machine: str, plan: Plan, retry_broken: bool = False) -> Known:
    """What the record and the journals of a machine's name hold, card by card; nothing broken where it is to be asked again."""
    result: Known = {}

    def note(call: str, card: str, file: str) -> None:
        result.setdefault(call, {}).setdefault(card, set()).add(file)

    for sidecar in current_sidecars(project, machine):
        file = journal.journal_path(Path(), sidecar.commit, sidecar.environment).name
        for group, cases in sidecar.groups.items():
            for case, record in cases.items():
                if CARD in record.notes and not (retry_broken and record.state == "broken"):
                    note(f"{group}/{case}", record.notes[CARD], file)
    for path in sorted(sweeps_folder(project.work, machine).glob("*/*.jsonl")):
        entries = journal.read(path)
        for call in dict.fromkeys(str(entry["call"]) for entry in entries if "call" in entry):
            if journal.is_complete(entries, call, plan) and not (
                retry_broken and journal.is_broken(entries, call)
            ):
                note(call, path.parent.name, path.name)
    return result


def stations(
    project: Project,
    machine: str,
    cards: Sequence[Card],
    calls: Sequence[Call],
    files: Sequence[str],
    known: Known,
) -> list[Station]:
    """Each card with the calls that it is to time, and of whom.

    The history of a call is of one card. Complete on a card: nothing to do. Begun on a card that is here: the rest
    there. Else: all of it, on the card here with the least to do.
    """
    wanted: dict[str, dict[Call, frozenset[str]]] = {card.digest: {} for card in cards}
    for call in calls:
        by_card = known.get(call.key, {})
        if any(set(files) <= have for have in by_card.values()):
            continue
        begun = [card.digest for card in cards if by_card.get(card.digest)]
        here = begun[0] if begun else min(wanted, key=lambda card: _work(wanted[card]))
        wanted[here][call] = frozenset(set(files) - by_card.get(here, set()))
    root = sweeps_folder(project.work, machine)
    return [Station(card, root / card.digest, wanted[card.digest]) for card in cards]


def _work(wanted: Mapping[Call, frozenset[str]]) -> float:
    """A measure of what a card has to do: long calls take longer, and each call some."""
    each = (SHAPES[call.case[1]].flops(GROUPS[call.group].backward) / 1e12 + 1 for call in wanted)
    return sum(each)


def sweep_words(folder: Path, card: Card, seed: int | None, torch: str) -> tuple[dict[str, str], int]:
    """What every record of a card's sweep says, and its seed: those of the sweep that was begun there, if there is one."""
    path = folder / SWEEP_FILE
    if not path.exists():
        begun = secrets.randbelow(1 << 31) if seed is None else seed
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"
        write_atomic(path, json.dumps({"sweep": name, "seed": begun, "card": card.name}))
    else:
        name, begun = _begun(path)
    notes = {SWEEP: name, CARD: card.digest, CARD_NAME: card.name, TORCH: torch}
    return notes, begun if seed is None else seed


def _begun(path: Path) -> tuple[str, int]:
    """Name and seed of the sweep that was begun on a card."""
    advice = "delete it to begin another sweep on this card"
    data = read_json(path, advice=advice)
    try:
        return str(data["sweep"]), int(data["seed"])
    except (ValueError, KeyError, TypeError) as error:
        raise Fa4AsvError(f"{path} cannot be read ({one_line(str(error))}); {advice}") from None


def with_yardsticks(station: Station, notes: Mapping[str, str], wanted: bool) -> Station:
    """The station as the engine needs it: the words of its records, and the yardsticks' calls beside FA4's."""
    calls = dict(station.wanted)
    if wanted:
        calls |= dict.fromkeys(yardstick_calls(station.wanted), frozenset({YARDSTICK_FILE}))
    return replace(station, wanted=calls, notes=notes)


# Whether this card may write under this name.


def refuse_other_kind(project: Project, machine: str, card: Card) -> None:
    """Raises Fa4AsvError where the name's record, or the name itself, is of another kind of card."""
    for pair in sound_pairs(project.results, machine):
        records = (record for cases in pair.sidecar.groups.values() for record in cases.values())
        names = {record.notes.get(CARD_NAME, card.name) for record in records}
        if other := names - {card.name}:
            raise Fa4AsvError(
                f"{machine} holds figures of {sorted(other)[0]}, and this card is {card.name}; name another machine with -m"
            )
    message = next(
        (kind for kind in _KINDS if re.search(rf"(?<![a-z0-9]){kind}(?![0-9])", machine.lower())), ""
    )
    if message and card.uuid != "cpu" and message not in card.name.lower():
        raise Fa4AsvError(
            f"the name {machine} says {message.upper()}, and this card is {card.name}; name another machine with -m"
        )


def refuse_lacking(
    project: Project, ranges: Sequence[str], flavours: Sequence[str], lacking: Sequence[str]
) -> None:
    """Raises Fa4AsvError where a release was asked for by name under a flavour that it has not."""
    releases = {release.version for release in Manifest.load(project.manifest).releases}
    asked = {message.removeprefix("fa4-v") for message in ranges} & releases
    for label in lacking:
        name, _, flavour = label.partition(" ")
        if name in asked and flavours:
            raise Fa4AsvError(
                f"{name} has no flavour {flavour}; leave out --flavour {flavour}, or this release"
            )
