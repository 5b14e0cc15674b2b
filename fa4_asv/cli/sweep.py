"""`fa4-asv sweep`: the run-time history of many commits, timed on one card in turns."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from fa4_asv.asv_plugin.base_environments import base_for_a_card
from fa4_asv.backfill.estimates import minutes
from fa4_asv.backfill.sweep import plan as planning
from fa4_asv.backfill.sweep import sight
from fa4_asv.backfill.sweep.engine import Call, Engine, Station
from fa4_asv.backfill.sweep.plan import Target
from fa4_asv.backfill.sweep.record import record, unrecorded
from fa4_asv.backfill.sweep.sight import Sight
from fa4_asv.backfill.sweep.spent import estimate
from fa4_asv.backfill.tasks import alone, commits_of
from fa4_asv.base.core_locks import exclusive
from fa4_asv.base.ending import code_of
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import write_atomic
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.output import say, say_again, say_json
from fa4_asv.base.project import Project
from fa4_asv.base.side_by_side import cores as cores_here
from fa4_asv.catalog.benchmarks import CPU_SETS, SWEEP_SETS
from fa4_asv.catalog.metrics import SHORT_CALL
from fa4_asv.cli.flavours import installed_flavour
from fa4_asv.cli.toolchains import toolchain_option
from fa4_asv.measure.runtime.card import Card, cards, cpu_card, loaders, refuse_busy, refuse_full
from fa4_asv.measure.runtime.journal import Plan

_ROOM_MIB = 2048  # on the disk: journals, compiled kernels, staged folders
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of folders below results/ and .asv/
_EVERY = 15.0  # seconds between two lines of progress where there is no terminal


@click.command()
@click.argument("ranges", nargs=-1, metavar="[RANGE]...")
@click.option("--machine", "-m", required=True, help="Machine name in results/; it names the kind of card.")
@click.option("--set", "sets", type=click.Choice(list(SWEEP_SETS)), multiple=True, help="Default: history.")
@click.option(
    "--bench", "-b", multiple=True, metavar="REGEX", help="Select calls of the set, as asv's --bench."
)
@installed_flavour(multiple=True, help="Default: cu13; repeat for both.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds per process.")
@click.option(
    "--processes", type=click.IntRange(1), default=2, show_default=True, help="Processes per release."
)
@click.option(
    "--seed", type=int, default=None, help="Seed of the order in each round. Default: random, recorded."
)
@click.option(
    "--cores", type=click.IntRange(1), default=None, help="Compile processes at once. Default: all cores."
)
@click.option(
    "--cards",
    "count",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Cards that share the calls.",
)
@click.option(
    "--yardsticks/--no-yardsticks",
    default=True,
    show_default=True,
    help="Time cuDNN and FA2 in each round, too.",
)
@click.option(
    "--environment",
    "-E",
    default="fa4:same",
    show_default=True,
    metavar="SPEC",
    help="As asv's --environment.",
)
@click.option(
    "--profile/--no-profile", default=True, show_default=True, help="Time each kernel of a backward."
)
@click.option(
    "--added-work",
    type=click.FloatRange(0, 100),
    default=0,
    metavar="PERCENT",
    help="Check which calls show this much added work.",
)
@toolchain_option
@click.option("--retry-broken", is_flag=True, help="Try the calls again that are recorded as broken.")
@click.option("--dry-run", "-n", is_flag=True, help="Show the plan and how long it takes; measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def sweep(ranges: tuple[str, ...], machine: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Time many commits on one card in turns, and record them.

    RANGE is git's (a..b), a release (4.0.0b36), a commit or a branch; none means every release. First every
    call of every commit passes the guard. Then one process per commit stays alive, and each round times all
    commits in a new random order. Then the same with a second process. Nothing compiles while anything is timed.

    You can stop a sweep and start it again on the same card; it does what is left. On another card, a call
    that is not complete is timed again for all commits, so that the history of a call is of one card.
    docs/sweep.md explains how it works and what it costs.

    With --added-work 1 the newest commit is timed once more with 1 % of work added to each call. A table shows
    in which calls the rule saw it. This is never recorded.

    Exit code: 0 all is recorded, 1 some commits could not be recorded, 2 it could not start,
    130 interrupted.

    \b
    Examples:
      fa4-asv sweep -m h100-sxm --dry-run
      fa4-asv sweep -m h100-sxm
      fa4-asv sweep -m h100-sxm --flavour cu13 --flavour cu12
      fa4-asv sweep -m h100-sxm 4.0.0b30..4.0.0b36 -b 'forward.*d128'
      fa4-asv sweep -m h100-sxm --set more 4.0.0b18 4.0.0b36
      fa4-asv sweep -m h100-sxm --set serving --set shapes 4.0.0b36
    """
    project = Project.find()
    if machine == NOGPU:
        raise Fa4AsvError(f"a sweep measures times: name the machine, not {NOGPU!r}")
    if not _NAME.fullmatch(machine):
        raise Fa4AsvError(
            f"-m {machine!r} is not a name: letters, digits, dots, dashes and underscores, as h100-sxm"
        )
    asked = Asked(project, ranges, machine, options)
    if dry_run:
        _tell_plan(asked, as_json)
        return
    progress = Progress(sys.stderr.isatty())
    try:
        with alone(project):
            failed, took = _run(asked, progress)
    except KeyboardInterrupt as interrupt:
        progress.end()
        say("interrupted: what was timed is kept; run it again on this card to go on", err=True)
        sys.exit(code_of(interrupt))
    _tell_end(asked, failed, took, as_json)
    sys.exit(1 if failed else 0)


class Asked:
    """What was asked for, looked up: commits, calls, cards. Raises Fa4AsvError, one line each."""

    def __init__(
        self, project: Project, ranges: Sequence[str], machine: str, options: dict[str, Any]
    ) -> None:
        self.project, self.ranges, self.machine, self.options = project, ranges, machine, options
        self.sets: tuple[str, ...] = options["sets"] or ("history",)
        self.flavours: tuple[str, ...] = options["flavour"] or ("cu13",)
        self.plan = Plan(options["processes"], options["rounds"], options["profile"])
        self.calls = planning.calls_of_sets(self.sets, options["bench"])
        self.commits = commits_of(project, ranges)
        self.cores: int = options["cores"] or cores_here()
        self.added: float = options["added_work"] / 100

    def cards(self) -> list[Card]:
        """The first cards of this machine, as many as were asked for, each free and of the name's kind."""
        on_cpu = [name for name in self.sets if name in CPU_SETS]
        if len(on_cpu) == len(self.sets):
            return [cpu_card()]
        if on_cpu:
            raise Fa4AsvError(f"the set {on_cpu[0]} is timed on a processor: ask for it alone")
        found_cards = cards()
        if len(found_cards) < self.options["count"]:
            raise Fa4AsvError(f"--cards {self.options['count']}: this machine has {len(found_cards)}")
        chosen = found_cards[: self.options["count"]]
        for card in chosen:
            planning.refuse_other_kind(self.project, self.machine, card)
            refuse_busy(card)
        return chosen


def _run(asked: Asked, progress: Progress) -> tuple[list[str], dict[str, float]]:
    """Measure and record; what failed, and seconds of each phase, none where there was nothing to do."""
    project, options = asked.project, asked.options
    chosen = asked.cards()
    _refuse_full_disk(project)
    base = base_for_a_card(project, options["environment"])
    begin = time.monotonic()
    targets, lacking = planning.lay(project, asked.commits, asked.flavours, base, asked.cores)
    planning.refuse_lacking(project, asked.ranges, options["flavour"], lacking)
    if not targets:
        raise Fa4AsvError(f"no commit that was named has flavour {' or '.join(asked.flavours)}")
    took = {"sources and toolchains": time.monotonic() - begin}
    known = planning.known_calls(project, asked.machine, asked.plan, options["retry_broken"])
    files = [target.subject.file for target in targets]
    beside = int(options["yardsticks"]) + int(asked.added > 0)  # processes beside those of the commits
    stations = [
        replace(station, loaders=loaders(station.card, len(targets) + beside))
        for station in planning.stations(project, asked.machine, chosen, asked.calls, files, known)
    ]
    for card in chosen:
        if card.uuid != "cpu":
            refuse_full(card, len(targets) + beside)
    with exclusive(progress.note, whole=True):
        took |= _measure(asked, stations, targets, base, progress)
    begin = time.monotonic()
    wanted = unrecorded(project, asked.machine, targets, asked.calls)
    if not wanted and not asked.added and not any(station.wanted for station in stations):
        return [], {}
    failed = record(project, asked.machine, options["environment"], wanted, asked.cores, progress.tell)
    progress.end()
    if asked.added:
        every = [_all_of(station, asked.calls, files) for station in stations]
        subjects = [target.subject for target in targets]
        _tell_sight(sight.sights(every, subjects, subjects[-1], asked.added), asked.added, progress)
    return failed, took | {"record": time.monotonic() - begin}


def _with_added(station: Station, asked: Asked) -> Station:
    return sight.also(station, asked.added) if asked.added else station


def _tell_sight(sights: Sequence[Sight], added: float, progress: Progress) -> None:
    """A row per call, and how often the added work was seen; beside the progress, since stdout may be JSON."""
    if not sights:
        progress.note(
            "--added-work: all calls are recorded already, so none was timed; name a new machine with -m"
        )
        return
    progress.note(f"{added:.1%} of work added to the newest commit:")
    progress.note(f"  {'call':<62} {'ms':>8} {'measured':>9} {'verdict':>8} {'visible':>8}")
    for each_sight in sorted(sights, key=lambda each: each.seconds):
        numbers = f"{each_sight.seconds * 1e3:8.3f} {each_sight.added:+9.2%} {each_sight.verdict:>8} {each_sight.visible:8.2%}"
        progress.note(f"  {each_sight.call:<62} {numbers}")
    for message, chosen in (
        (
            f"below {SHORT_CALL * 1e3:g} ms",
            [each_sight for each_sight in sights if each_sight.seconds < SHORT_CALL],
        ),
        ("longer", [each_sight for each_sight in sights if each_sight.seconds >= SHORT_CALL]),
    ):
        seen = sum(each_sight.verdict == "slower" for each_sight in chosen)
        progress.note(f"{message}: seen in {seen} of {len(chosen)} calls")


def _measure(
    asked: Asked, stations: Sequence[Station], targets: Sequence[Target], base: Path, progress: Progress
) -> dict[str, float]:
    """Time what is lacking; seconds of each phase, none where nothing is."""
    open_stations = [station for station in stations if station.wanted]
    if not open_stations:
        return {}
    torch = _torch_of(base)
    ready = []
    for station in open_stations:
        notes, seed = planning.sweep_words(station.folder, station.card, asked.options["seed"], torch)
        seeded = replace(_with_added(station, asked), seed=seed)
        ready.append(planning.with_yardsticks(seeded, notes, asked.options["yardsticks"]))
    yardsticks = [planning.yardstick_subject(asked.project, base)] if asked.options["yardsticks"] else []
    subjects = [target.subject for target in targets]
    if asked.added:
        yardsticks.append(sight.with_added_work(subjects[-1], asked.added))
    engine = Engine(
        ready,
        subjects,
        yardsticks,
        asked.plan,
        asked.cores,
        progress.tell,
        asked.options["retry_broken"],
    )
    took = engine.run()
    for station in ready:
        write_atomic(
            station.folder / "took.json", json.dumps({name: round(s, 1) for name, s in took.items()})
        )
    return took


def _all_of(station: Station, calls: Sequence[Call], files: Sequence[str]) -> Station:
    """The station with every call that was asked for, whatever is known of it."""
    return Station(station.card, station.folder, {call: frozenset(files) for call in calls})


def _torch_of(base: Path) -> str:
    """The torch of the base environment with its build, such as "2.11.0+cu130 (CUDA 13.0)": on a card its CUDA version counts."""
    code = "import torch; print(torch.__version__, '(CUDA', str(torch.version.cuda) + ')')"
    done = subprocess.run([str(base), "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _refuse_full_disk(project: Project) -> None:
    free = shutil.disk_usage(project.root).free >> 20
    if free < _ROOM_MIB:
        raise Fa4AsvError(
            f"{free} MiB are free on the disk of {project.root.name}; a sweep needs {_ROOM_MIB}"
        )


class Progress:
    """One line that is written over on a terminal; a line every 15 s elsewhere."""

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal
        self._phase, self._begin, self._told, self._open = "", 0.0, 0.0, False

    def tell(self, phase: str, done: int, steps: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._begin, self._told = phase, now, 0.0
        if done < steps and now - self._told < (0.2 if self._terminal else _EVERY):
            return
        self._told = now
        left = (now - self._begin) / done * (steps - done)
        about = f", about {minutes(left)} left" if done < steps and now - self._begin > 1 else ""
        self._write(f"{phase}: {done} of {steps}{about}", last=done >= steps)

    def note(self, message: str) -> None:
        if message:
            self._write(message, last=True)

    def _write(self, line: str, last: bool) -> None:
        if self._terminal:
            say_again(line, last)
            self._open = not last
        else:
            say(line, err=True)

    def end(self) -> None:
        if self._open:
            say(err=True)
            self._open = False


def _tell_plan(asked: Asked, as_json: bool) -> None:
    subjects = len(asked.commits) * len(asked.flavours)
    seconds = estimate(subjects, len(asked.calls), asked.plan, asked.cores, asked.options["count"])
    total = sum(seconds.values())
    if as_json:
        data = {"commits": len(asked.commits), "flavours": asked.flavours, "calls": len(asked.calls)}
        say_json({**data, **asdict(asked.plan), "seconds": seconds, "total": total})
        return
    plan = asked.plan
    say(
        f"{len(asked.commits)} commits, {' and '.join(asked.flavours)}, {len(asked.calls)} calls,"
        f" {plan.processes} processes of {plan.rounds} rounds"
    )
    for phase, spent in seconds.items():
        say(f"  {phase:<24} {minutes(spent):>8}")
    say(f"  {'in all, if nothing is known':<24} {minutes(total):>5}")


def _tell_end(asked: Asked, failed: Sequence[str], took: dict[str, float], as_json: bool) -> None:
    if as_json:
        say_json({"failed": list(failed), "seconds": took})
        return
    if not took:
        say(f"nothing to do: every call that was asked for is recorded under results/{asked.machine}")
        return
    for why in failed:
        say(f"fa4-asv: {why}", err=True)
    say(", ".join(f"{phase} {minutes(spent)}" for phase, spent in took.items() if spent >= 1))
    say(f"recorded under results/{asked.machine}; see it with `fa4-asv changes -m {asked.machine}`")
