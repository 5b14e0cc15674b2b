"""What the record lacks, and one commit of it measured in a folder of its own.

Plain `asv run` measures in a staged checkout; only what `verify` finds sound is moved into `results/`.
Killed at any moment, the next start finds finished commits there and everything else missing again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import only_one, read_json, tail
from fa4_asv.base.machine import NOGPU, NOGPU_RECORD
from fa4_asv.base.processes import end_left, run_bounded
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import BY_TORCH, GROUPS, Group, key_of
from fa4_asv.catalog.flavours import GROUPS_OF_PLAIN, PLAIN
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.repository import BRANCH, CUTE, NO_HISTORY, git, has_history, in_hashes
from fa4_asv.integrity.staging import seed, stage, take
from fa4_asv.record.descriptions import MACHINE_FILE, read_machine
from fa4_asv.record.schema import CaseRecord, Sidecar
from fa4_asv.record.store import current_groups, iter_results, sound_pairs

# A full set takes minutes; every call in it is bounded, so this ends only what hangs elsewhere.
TASK_TIMEOUT = 2 * 3600.0
DONE = ("measured", "unsupported", "broken")
TURNS_FILE = "commits"
_LOG_TAIL = 1 << 20  # bytes: what ended a run stands near the end of its log


@dataclass(frozen=True)
class Task:
    """One commit under one flavour; `groups` are those that lack something there.

    `environment` is asv's name of what is recorded already, "" where nothing is.
    """

    commit: str
    name: str
    flavour: str
    groups: tuple[str, ...]
    environment: str = ""

    @property
    def label(self) -> str:
        return f"{self.name} {self.flavour}"


@dataclass(frozen=True)
class BackfillRequest:
    """What a backfill was asked for. `bench` are asv's regular expressions, none for everything."""

    machine: str = NOGPU
    policy: str = "day"
    flavours: tuple[str, ...] = ("cu13", "cu12")
    bench: tuple[str, ...] = ()
    retry_broken: bool = False
    torches: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskOutcome:
    """What became of a task: the files that were moved into `results/`, or `why` there are none."""

    task: Task
    moved: Sequence[Path] = ()
    why: str = ""
    host: str = ""


def commits_of(project: Project, ranges: Sequence[str], every: int = 1) -> list[str]:
    """Commits of `ranges` (git's words; none: all releases), oldest first, each `every`th and the last.

    Of a range only those that touch FA4: the others are the same FA4 as their parents. Raises Fa4AsvError
    for an unknown name or no history.
    """
    if not has_history(project):
        raise Fa4AsvError(NO_HISTORY)
    chosen_hashes: dict[str, None] = {}
    for text in ranges or (BRANCH,):
        hashes = in_hashes(project, text)
        # A single name is that commit, as people expect; asv would take it for its whole ancestry.
        if ".." not in text and text != BRANCH and not _is_branch(project, text):
            hashes = hashes.removesuffix("^!") + "^!"
        chosen = [hashes] if hashes.endswith("^!") else [hashes, "--", CUTE]
        listing = git(project.repository, "rev-list", "--first-parent", "--reverse", *chosen).decode()
        chosen_hashes |= dict.fromkeys(listing.split())
    commits = list(chosen_hashes)
    return [commit for index, commit in enumerate(reversed(commits)) if index % every == 0][::-1]


def _is_branch(project: Project, name: str) -> bool:
    try:
        git(project.repository, "show-ref", "--verify", "--quiet", f"refs/heads/{name}")
    except Fa4AsvError:
        return False
    return True


def wanted_cases(group: Group, request: BackfillRequest) -> set[str]:
    """Keys of the cases of `group` that the request covers; none in another lane."""
    if group.exact != (request.machine == NOGPU):
        return set()
    chosen = group.selected(request.bench)
    return {key_of(case) for case in chosen if group.name not in BY_TORCH or case[0] in request.torches}


def missing(project: Project, commits: Sequence[str], request: BackfillRequest) -> list[Task]:
    """What `results/` lacks of the request, newest commit last; unsupported and (unless asked) broken are not
    missing. A file that cannot be read counts as missing, and is measured again."""
    known = {
        (side.commit, side.toolchain.flavour): side
        for side in current_sidecars(project, request.machine)
        if side.toolchain.policy == request.policy
    }
    manifest = Manifest.load(project.manifest)
    tasks = []
    for flavour in request.flavours:
        for commit in commits:
            side = known.get((commit, flavour))
            lacking = tuple(_lacking(side, request, flavour))
            if lacking:
                release = manifest.by_commit(commit)
                name = release.version if release else commit[:10]
                tasks.append(Task(commit, name, flavour, lacking, side.environment if side else ""))
    return tasks


def current_sidecars(project: Project, machine: str) -> Iterator[Sidecar]:
    """What is recorded under a machine's name, without the groups that another version of their benchmarks recorded.

    A damaged file is left out: `verify` names it, and what it held counts as missing.
    """
    for pair in sound_pairs(project.results, machine):
        yield replace(pair.sidecar, groups=current_groups(pair))


def _lacking(sidecar: Sidecar | None, request: BackfillRequest, flavour: str) -> Iterator[str]:
    """Names of the groups of which a wanted case has no state yet. Of plain only kernels are recorded, without a GPU."""
    done = tuple(state for state in DONE if state != "broken" or not request.retry_broken)
    for group in GROUPS.values():
        if not group.is_of(flavour) or (flavour == PLAIN and group.name not in GROUPS_OF_PLAIN):
            continue
        records = sidecar.groups.get(group.name, {}) if sidecar else {}
        have = {key for key, record in records.items() if record.state in done and _is_whole(record, group)}
        if wanted_cases(group, request) - have:
            yield group.name


def _is_whole(record: CaseRecord, group: Group) -> bool:
    """Whether a measured case has every metric or says why not: `asv rm benchmark=...` takes single ones."""
    known = {*record.figures, *record.samples}
    missing = group.metrics.keys() - known
    return record.state != "measured" or all(map(record.says_why_not, missing))


@dataclass(frozen=True)
class Interleaving:
    """Commits that are measured in turns, round by round, instead of a task's one commit."""

    commits: tuple[str, ...]
    rounds: int


class Attempt:
    """One `asv run` of one task in a staged folder; `run` is called once."""

    def __init__(
        self,
        project: Project,
        task: Task,
        request: BackfillRequest,
        environment: str = "",
        turns: Interleaving | None = None,
    ) -> None:
        self.project, self.task, self.request = project, task, request
        self._environment, self._turns = environment, turns
        folder = project.work / "backfill"
        self.folder = folder / f"{os.getpid()}-{task.commit[:12]}-{task.flavour}"
        self.log = folder / "logs" / f"{task.name}-{task.flavour}.log"

    def run(self) -> list[Path]:
        """Measure and move what is sound into `results/`; the files that were moved.

        Raises Fa4AsvError with the reason and the log's name where there is nothing to move.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            staged = stage(self.project, self.folder)
            one_flavour(staged, self.task.flavour)
            for commit in self._turns.commits if self._turns else (self.task.commit,):
                seed(self.project, staged, commit, self.task.environment)
            code = self._asv(staged)
            if not any(iter_results(staged.results, self.request.machine)):
                raise Fa4AsvError(f"asv recorded nothing (exit code {code}){reason_in(self.log)}")
            return take(staged, self.project)
        except Fa4AsvError as error:
            shown = os.path.relpath(self.log, self.project.root)
            raise Fa4AsvError(f"{self.task.label}: {error}; log: {shown}") from None
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _asv(self, staged: Project) -> int:
        """Exit code of asv; 2 with figures means that a case is broken, which is a record like another."""
        arguments = asv_words(self.task, self.request, self._environment, self._turns)
        if self._turns:
            (staged.root / TURNS_FILE).write_text("\n".join(self._turns.commits), encoding="utf-8")
        return run_bounded([sys.executable, *arguments], staged.root, self.log, TASK_TIMEOUT)


def asv_words(
    task: Task, request: BackfillRequest, environment: str = "", turns: Interleaving | None = None
) -> list[str]:
    """What an interpreter is told to measure `task` in a staged folder; of `turns` the file names the commits."""
    arguments = ["-m", "asv", "run", f"HASHFILE:{TURNS_FILE}" if turns else f"{task.commit}^!"]
    if turns:
        # Samples are recorded in every round: asv itself would leave out the last.
        arguments += ["--interleave-rounds", "--record-samples", "--attribute", f"rounds={turns.rounds}"]
    if request.machine != NOGPU:
        arguments += ["--machine", request.machine]
    if environment:
        arguments += ["--environment", environment]
    for pattern in patterns(task.groups, request.bench):
        arguments += ["--bench", pattern]
    return arguments


def reason_in(log: Path) -> str:
    """Why a commit could not be laid, as the environment said it in asv's log; "" where it said nothing."""
    entries = re.findall("fa4-asv: (.*)", tail(log, _LOG_TAIL))
    return f": {entries[-1]}" if entries else ""


def patterns(groups: Sequence[str], bench: Sequence[str]) -> list[str]:
    """Regular expressions for asv: what lacks something, and of that only what was asked for."""
    stems = [f"^{re.escape(GROUPS[name].stem)}" for name in groups]
    return [f"(?={stem})(?=.*(?:{pattern}))" for stem in stems for pattern in bench] if bench else stems


def one_flavour(staged: Project, flavour: str) -> None:
    """Let asv see only `flavour` in a staged checkout."""
    path = staged.root / "asv.conf.json"
    configuration = read_json(path)
    configuration["matrix"] = {"req": {"flavour": [flavour]}}
    path.write_text(json.dumps(configuration, indent=1), encoding="utf-8")


@contextmanager
def alone(project: Project, advice: str = "or stop it") -> Iterator[None]:
    """One measuring process in a checkout: what killed ones left is cleared. Raises Fa4AsvError where there is another.

    `advice`: what else than waiting for it can be done.
    """
    folder = project.work / "backfill"
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"a backfill, comparison or sweep measures in this checkout; wait for it, {advice}"
    with only_one(folder / ".lock", busy=busy):
        clear_leftovers(project)
        yield


def clear_leftovers(project: Project) -> None:
    """Remove what killed backfills left: their folders, and the asv that still runs in them.

    Called under the backfill's lock, so that no other one is alive.
    """
    for folder in (project.work / "backfill").glob("[0-9]*-*-*"):
        end_left(folder)


def machine_record(project: Project, machine: str) -> dict[str, object]:
    """What asv is told of a machine's name: its record as it stands, else one that all cards of a type share.

    Raises Fa4AsvError for a damaged record.
    """
    path = project.results / machine / MACHINE_FILE
    if not path.exists():
        return {**NOGPU_RECORD, "machine": machine}
    return {key: value for key, value in read_machine(path).items() if key != "version"}
