"""`fa4-asv check-card`: what a card says of calls whose answer is known from elsewhere. Records nothing.

Every call is asked four questions, each of the process that the suite times with: the guard, seconds by CUDA events, seconds
of its kernels by the profiler, and the allocator's peak. They are compared with each other and with what the record has of
the same release without a GPU: traced memory, and the compiled kernels' digests.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click

from fa4_asv.asv_plugin.base_environments import base_for_a_card
from fa4_asv.backfill.sweep import plan as planning
from fa4_asv.backfill.sweep.engine import Subject
from fa4_asv.base import scratch
from fa4_asv.base.core_locks import exclusive
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import read_bytes
from fa4_asv.base.output import new_console, say, say_json
from fa4_asv.base.project import Project
from fa4_asv.catalog.shapes import SHAPES, core
from fa4_asv.cli.flavours import installed_flavour
from fa4_asv.history.manifest import Manifest
from fa4_asv.measure.pool import Job, LastingWorker, Outcome
from fa4_asv.measure.runtime.card import cards, refuse_busy
from fa4_asv.record.formatting import counted
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import iter_results, read_sidecar, sidecar_path
from fa4_asv.record.tables import print_table
from fa4_asv.report.machines import arch_of_card, tflops

Records = Mapping[str, Mapping[str, CaseRecord]]  # group -> case -> record
Ask = Callable[[dict[str, Any]], Outcome]

# Events against the profiler. On an H200 most calls agree within 1 %; backwards at the power limit were up to 8.8 % shorter by
# events, since the card cools between samples. Below 100 us the start of a kernel is a large share.
APART, SHORTEST = 0.1, 100e-6
# The allocator against the trace: of 72 calls on an H100 one was 512 KiB apart, the others equal.
SLACK = 1 << 20
_HEADS = ("call", "state", "ms", "profiler", "TFLOP/s", "peak bytes", "traced", "reason")
_NUMBERS = range(2, 7)
PATIENCE = 300.0  # seconds of one question; it may compile every kernel of its call
_QUESTIONS = ("guard", "seconds", "kernels", "bytes")
_WORKER = ("-m", "fa4_asv.measure.runtime.worker")
_LOG_WIDTH = 140  # a log is wider than the 80 columns that are guessed for it


@dataclass(frozen=True)
class Finding:
    """What was found of a call. `state`: agrees, differs, refused (by design), broken, or left over (no time)."""

    call: str
    state: str
    reason: str = ""
    seconds: float | None = None
    profiler_seconds: float | None = None
    tflops: float | None = None
    peak_bytes: int | None = None
    traced_bytes: int | None = None


@dataclass(frozen=True)
class Call:
    """One call of FA4 or a yardstick at a shape."""

    backend: str
    shape: str
    backward: bool

    @property
    def case(self) -> str:
        return f"{'bwd' if self.backward else 'fwd'}_{self.shape}"

    @property
    def name(self) -> str:
        return f"{self.backend} {self.case}"


def recorded(project: Project, release: str, flavour: str) -> Records:
    """What is recorded of a release without a GPU, with its own toolchain. Raises Fa4AsvError where nothing is."""
    for path in iter_results(project.results, "nogpu"):
        sidecar = read_sidecar(sidecar_path(path))
        key = (sidecar.release, sidecar.toolchain.flavour, sidecar.toolchain.policy)
        if key == (release, flavour, "day"):
            return sidecar.groups
    raise Fa4AsvError(f"no record of {release} {flavour} in results/nogpu; run `fa4-asv backfill {release}`")


def calls_of(backends: Sequence[str], shapes: str) -> list[Call]:
    """Both directions of the core shapes that the regular expression selects. Raises Fa4AsvError where none is."""
    try:
        chosen = [shape.name for shape in core() if re.search(shapes, shape.name)]
    except re.error as error:
        raise Fa4AsvError(f"--shapes {shapes!r} is not a regular expression: {error}") from None
    if not chosen:
        raise Fa4AsvError(f"no core shape matches {shapes!r}; names are such as {core()[0].name}")
    return [Call(name, shape, back) for shape in chosen for name in backends for back in (False, True)]


def check(ask: Ask, call: Call, device: str, arch: str, groups: Records) -> Finding:
    """Ask the questions of one call, until one has no answer, and compare the answers."""
    job = {"backend": call.backend, "shape": call.shape, "backward": call.backward, "device": device}
    answers: dict[str, dict[str, list[float]]] = {}
    for what in _QUESTIONS if call.backend == "fa4" else _QUESTIONS[:3]:
        outcome = ask(job | {"what": what, "arch": arch})
        error = {} if outcome.lost else outcome.answer.get("error") or {}
        if outcome.lost or (error and not (what == "kernels" and error["refused"])):
            state = "refused" if error.get("refused") else "broken"
            return Finding(call.name, state, f"{what}: {outcome.lost or error['words']}")
        answers[what] = {} if error else outcome.answer["samples"]
    traced = groups.get("memory", {}).get(f"{arch}/{call.case}")
    return judged(call, answers, traced.figures.get("peak_bytes") if traced else None)


def judged(call: Call, answers: Mapping[str, Mapping[str, list[float]]], traced: float | None) -> Finding:
    """The answers compared: with each other, and with the traced peak (None: not recorded)."""
    seconds = median(answers["seconds"]["seconds"])
    profiler = sum(value for parts in answers["kernels"].values() for value in parts)
    peak = next(iter(answers.get("bytes", {}).get("peak_bytes", [])), None)
    return Finding(
        call.name,
        "differs" if (reasons := differences(seconds, profiler, peak, traced)) else "agrees",
        "; ".join(reasons),
        seconds,
        profiler or None,
        tflops(seconds, SHAPES[call.shape], call.backward),
        None if peak is None else int(peak),
        None if traced is None else int(traced),
    )


def differences(seconds: float, profiler: float, peak: float | None, traced: float | None) -> list[str]:
    """What does not agree, as text. `profiler` 0, `peak` None, `traced` None: not known."""
    names = []
    apart = seconds / profiler - 1 if profiler else 0.0
    if seconds >= SHORTEST and abs(apart) > APART:
        names.append(f"{apart:+.1%} by events against the profiler, at most {APART:.0%} is expected")
    if peak is not None and traced is not None and abs(peak - traced) > SLACK:
        names.append(f"peak {peak - traced:+,.0f} bytes against the trace, at most {SLACK:,} is expected")
    return names


def cubins_of(folder: Path, groups: Records, arch: str) -> tuple[list[str], int]:
    """Recorded kernels of `arch` that were compiled here with the same bytes, and how many cubins lie in `folder`.

    The guard compiles kernels that the record has no name for, so others are no difference.
    """
    known = {
        record.sha256: key
        for key, record in groups.get("codegen", {}).items()
        if record.sha256 and key.startswith(f"{arch}/")
    }
    digests = [hashlib.sha256(read_bytes(path)).hexdigest() for path in folder.rglob("*.cubin")]
    return sorted({known[digest] for digest in digests if digest in known}), len(digests)


@click.command("check-card")
@click.option("--release", default=None, metavar="VERSION", help="Such as 4.0.0b36. Default: the newest.")
@installed_flavour(default="cu13", show_default=True)
@click.option("--shapes", default="", metavar="REGEX", help="Select core shapes. Default: all 30.")
@click.option(
    "--backend", "backends", multiple=True, default=("fa4",), show_default=True, help="Repeat for more."
)
@click.option(
    "--seconds", type=click.FloatRange(0), default=3600, show_default=True, help="Begin no call after that."
)
@click.option("--environment", "-E", default="fa4:same", show_default=True, metavar="SPEC", help="As asv's.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def check_card(
    release: str | None,
    flavour: str,
    shapes: str,
    backends: tuple[str, ...],
    seconds: float,
    environment: str,
    as_json: bool,
) -> None:
    """Does this card agree with the suite? Run it once on a new kind of card, before you trust its timings.

    Per call of the core shapes: the guard, seconds by CUDA events against the profiler, and allocated memory against
    the traced memory in results/. Then: which kernels that the card compiled are the recorded ones, byte for byte.
    Nothing is recorded.

    Exit code: 0 everything agrees or is refused by design, 1 something differs, is broken or was left over, 2 it could
    not start.

    \b
    Examples:
      fa4-asv check-card
      fa4-asv check-card --release 4.0.0b18 --flavour cu12
      fa4-asv check-card --shapes d128_causal --seconds 300 --json
    """
    project = Project.find()
    calls = calls_of(backends, shapes)
    version = release or Manifest.load(project.manifest).releases[-1].version
    groups = recorded(project, version, flavour)
    card = cards()[0]
    refuse_busy(card)
    arch = arch_of_card(card.name)
    if not arch:
        raise Fa4AsvError(f"{card.name} is no Hopper or Blackwell card that this suite knows")
    subject = _laid(project, version, flavour, environment)
    with (
        exclusive(lambda message: say(message, err=True) if message else None, whole=True),
        scratch.folder("cubins") as folder,
    ):
        findings = []
        for finding in findings_of(subject, calls, "cuda", arch, groups, folder, seconds):
            findings.append(finding)
            say(f"{len(findings)} of {len(calls)}: {finding.call}: {finding.state}", err=True)
        same, compiled = cubins_of(folder, groups, arch)
    if as_json:
        data = {"card": card.name, "arch": arch, "release": version, "flavour": flavour}
        calls_found = [asdict(finding) for finding in findings]
        say_json({**data, "calls": calls_found, "cubins": compiled, "recorded": same})
    else:
        _show(findings, f"{card.name} ({arch}), {version} {flavour}")
        say(
            f"{counted(compiled, 'kernel')} compiled here, of which {len(same)} are recorded: {', '.join(same)}"
        )
    sys.exit(any(finding.state not in ("agrees", "refused") for finding in findings))


def _laid(project: Project, version: str, flavour: str, environment: str) -> Subject:
    """The release with its toolchain, laid. Raises Fa4AsvError."""
    known = {each.version: each.commit for each in Manifest.load(project.manifest).releases}
    targets, _ = planning.lay(project, [known[version]], [flavour], base_for_a_card(project, environment), 1)
    if not targets:
        raise Fa4AsvError(f"{version} has no flavour {flavour}; choose another one")
    return targets[0].subject


def findings_of(
    subject: Subject,
    calls: Sequence[Call],
    device: str,
    arch: str,
    groups: Records,
    folder: Path,
    seconds: float,
) -> Iterator[Finding]:
    """A finding per call, as it is made. What is compiled is kept in `folder`; FA4's disk cache is off, so everything is."""
    variables = (
        ("PYTHONPATH", os.pathsep.join(subject.path)),
        ("CUTE_DSL_KEEP_CUBIN", "1"),
        ("CUTE_DSL_DUMP_DIR", str(folder)),
        ("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "0"),
    )
    worker, begin = LastingWorker(), time.monotonic()

    def ask(payload: dict[str, Any]) -> Outcome:
        return worker.ask(Job("", payload, (subject.python, *_WORKER), variables, PATIENCE, again=True))

    try:
        for call in calls:
            late = time.monotonic() - begin > seconds
            yield Finding(call.name, "left over") if late else check(ask, call, device, arch, groups)
    finally:
        worker.close()


def _show(findings: Sequence[Finding], title: str) -> None:
    print_table(
        new_console(_LOG_WIDTH), _HEADS, list(map(_cells, findings)), numbers=_NUMBERS, whole=0, title=title
    )
    states = [finding.state for finding in findings]
    say("; ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))


def _cells(finding: Finding) -> list[str]:
    """A row of the table. Reasons are foreign text."""
    times = [f"{value * 1e3:.3f}" if value else "" for value in (finding.seconds, finding.profiler_seconds)]
    sizes = [
        f"{value:,}" if value is not None else "" for value in (finding.peak_bytes, finding.traced_bytes)
    ]
    rate = f"{finding.tflops:.0f}" if finding.tflops else ""
    return [finding.call, finding.state, *times, rate, *sizes, one_line(finding.reason)]
