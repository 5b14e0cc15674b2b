"""`fa4-asv sweep` through real asv: recorded, gone on with after kills, nothing lost, nothing twice. The releases are the
stand-in's; what times them is tests/support/sweep_worker.py, and once the real worker with a clock that counts work."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from fa4_asv.catalog.shapes import serving_on_cpu  # noqa: E402
from fa4_asv.measure.runtime import journal  # noqa: E402
from fa4_asv.record.schema import CaseRecord  # noqa: E402
from fa4_asv.record.store import iter_results, load_result, read_sidecar, sidecar_path  # noqa: E402
from tests.support.real_checkout import ROOT, asv, command  # noqa: E402
from tests.support.standin_checkout import Checkout, standin_checkout  # noqa: E402
from tests.support.standin_runs import D128  # noqa: E402

pytestmark = pytest.mark.slow

RELEASES = {"4.0.0b1": "", "4.0.0b2": "slower", "4.0.0b3": "dq_one_percent"}
BACKWARD = f"backward-history-cpu/fa4/{D128}"
# Two processes of two rounds.
WORDS = ("--set", "cpu", "--rounds", "2", "--cores", "2")
ROUNDS = 4
# With the real worker two of one round: it imports torch, and the guard is FA4's whole one.
REAL = ("--rounds", "1", "-b", f"backward.*{D128}", "--no-yardsticks")


@dataclass(frozen=True)
class Sweeps:
    """Sweeps of one checkout, each under a machine's name of its own."""

    checkout: Checkout
    folder: Path

    def environment(self, machine: str, real: bool, **more: str) -> dict[str, str]:
        """Nobody but the real worker imports torch: that takes seconds."""
        worker = "-m counting_worker" if real else f"-S -E {ROOT / 'tests' / 'support' / 'sweep_worker.py'}"
        ours = {
            "FA4_ASV_WORKER": worker,
            "TORCH_OF": "print('2.0.0+fake (CUDA 0.0)')",
            "FA4_ASV_SWEEP_LOG": str(self.folder / machine),
        }
        return {**os.environ, **self.checkout.environment, **ours, **more}

    def start(self, machine: str, *options: str, real: bool = False, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "fa4_asv", "sweep", "-m", machine, *WORDS, *options],
            cwd=self.checkout.project.root,
            env=self.environment(machine, real, **more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, machine: str, *options: str, code: int = 0, real: bool = False, **more: str) -> str:
        process = self.start(machine, *options, real=real, **more)
        output = "\n".join(process.communicate(timeout=300))
        assert process.returncode == code, output
        assert "Traceback" not in output, output
        return output

    def verify(self) -> None:
        done = command(self.checkout.project.root, "fa4_asv", "verify", **self.checkout.environment)
        assert done.returncode == 0, done.stdout + done.stderr

    def records(self, machine: str) -> dict[tuple[str, str], CaseRecord]:
        """By release and call. Every file can be read."""
        result = {}
        for path in iter_results(self.checkout.project.results, machine):
            load_result(path)
            sidecar = read_sidecar(sidecar_path(path))
            for group, cases in sidecar.groups.items():
                for case, record in cases.items():
                    if record.state != "not run":
                        result[sidecar.release, f"{group}/{case}"] = record
        return result

    def lines(self, machine: str) -> dict[str, list[dict[str, Any]]]:
        """What each journal holds, by its name."""
        folder = journal.sweeps_folder(self.checkout.project.work, machine)
        return {path.name: journal.read(path) for path in sorted(folder.glob("*/*.jsonl"))}

    def log(self, machine: str) -> list[dict[str, Any]]:
        path = self.folder / machine
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def staged(self) -> list[Path]:
        """The folders in which asv collects now."""
        return [path.parent for path in (self.checkout.project.work / "backfill").glob("*/session")]

    def bytes_of(self, machine: str) -> dict[str, bytes]:
        folder = self.checkout.project.results
        files = [*folder.glob(f"{machine}/*"), folder / "benchmarks.json"]
        return {str(path): path.read_bytes() for path in sorted(files)}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory) -> Sweeps:
    folder = tmp_path_factory.mktemp("sweeps")
    return Sweeps(standin_checkout(folder, RELEASES), folder)


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> bool:
    """Wait for a moment of a run; False where it ended before."""
    while not condition():
        if process.poll() is not None:
            return False
        time.sleep(0.003)
    return True


# Through the real worker, with a clock that counts work.


@pytest.fixture(scope="module")
def real(sweeps) -> str:
    """What a sweep of one call printed: the stand-in, 2 % slower, and one whose gradient is wrong."""
    return sweeps.run("real", *REAL, real=True)


def test_a_sweep_reaches_the_record_by_asv(sweeps, real):
    assert "recorded under results/real" in real
    sweeps.verify()
    records = sweeps.records("real")
    assert set(records) == {(release, BACKWARD) for release in RELEASES}
    for release in ("4.0.0b1", "4.0.0b2"):
        record = records[release, BACKWARD]
        assert record.state == "measured", record.why
        samples = record.samples
        assert samples["round"] == samples["process"] == [0, 1]
        assert len(samples["centre"]) == len(samples["control"]) == len(samples["order"]) == 2
        assert len(samples["seconds"]) == sum(samples["kept"])
        assert samples["peak_bytes"][0] > 0 and samples["first_seconds"][0] > 0
        assert {"sweep", "card", "card name", "torch", "error dq gaussian"} <= set(record.notes)
    order = zip(
        *(records[release, BACKWARD].samples["order"] for release in ("4.0.0b1", "4.0.0b2")), strict=True
    )
    assert all(sorted(places) == [0, 1] for places in order)


def test_a_mutant_is_broken_and_never_timed(sweeps, real):
    record = sweeps.records("real")["4.0.0b3", BACKWARD]
    assert (record.state, record.samples) == ("broken", {})
    assert record.why.startswith("guard:") and "dq" in record.why
    assert record.notes["card"] == sweeps.records("real")["4.0.0b1", BACKWARD].notes["card"]


def test_plain_asv_reads_what_a_sweep_has_recorded(sweeps, real):
    tags = ("fa4-v4.0.0b1", "fa4-v4.0.0b2")
    done = asv(sweeps.checkout.project.root, "compare", "-m", "real", *tags, **sweeps.checkout.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    named = [line for line in done.stdout.splitlines() if "backward.HistoryCpu.track_seconds" in line]
    (line,) = (line for line in named if D128 in line)
    assert "n/a" not in line and "failed" not in line, line


def test_the_same_sweep_again_has_nothing_to_do(sweeps, real):
    before = sweeps.bytes_of("real")
    lines = sweeps.lines("real")
    output = sweeps.run("real", *REAL, real=True)
    assert "nothing to do: every call that was asked for is recorded under results/real" in output
    assert sweeps.bytes_of("real") == before and sweeps.lines("real") == lines


def test_a_checkout_without_journals_knows_the_record(sweeps, real):
    """They are not committed; the broken call of the mutant is known, too."""
    folder = journal.sweeps_folder(sweeps.checkout.project.work, "real")
    aside = folder.with_name("aside")
    folder.rename(aside)
    try:
        before = sweeps.bytes_of("real")
        output = sweeps.run("real", *REAL, real=True)
        assert "nothing to do" in output
        assert sweeps.bytes_of("real") == before and not folder.exists()
    finally:
        aside.rename(folder)


def test_a_set_on_request_is_recorded_with_the_copy_beside_it(sweeps):
    """`--set serving-cpu` in the place of `serving`: by asv into the record, which `verify` finds sound."""
    name = serving_on_cpu()[0].name
    options = ("--set", "serving-cpu", "-b", f"ServingCpu.*{name}", "--rounds", "1")
    output = sweeps.run("served", *options, "4.0.0b1", "4.0.0b2")
    assert "recorded under results/served" in output
    sweeps.verify()
    records = sweeps.records("served")
    assert set(records) == {
        (release, f"forward-serving-cpu/fa4/{name}") for release in ("4.0.0b1", "4.0.0b2")
    }
    for record in records.values():
        assert len(record.samples["copy"]) == len(record.samples["centre"]) == 2
        assert all(value > 0 for value in record.samples["copy"])


# Kills.

TWO = ("4.0.0b1", "4.0.0b2", "-b", "b2_s256_h4_d64_full")
CALLS = [f"{direction}-history-cpu/fa4/b2_s256_h4_d64_full" for direction in ("forward", "backward")]
# Lines of two journals of two calls and of two yardsticks' calls each, without the heads of sessions.
LINES = 2 * (2 + 2 * ROUNDS + 1) + 4 + 4 * ROUNDS


def whole(sweeps: Sweeps, machine: str) -> None:
    """The record is what a sweep that nobody disturbed leaves: each round once, in both files."""
    records = sweeps.records(machine)
    assert set(records) == {(release, call) for release in TWO[:2] for call in CALLS}
    for record in records.values():
        assert record.state == "measured", record
        rounds = record.samples["round"]
        assert len(rounds) == len(set(rounds)) == ROUNDS
        assert len(record.samples["seconds"]) == 3 * ROUNDS
        assert len(set(record.samples["centre"])) > 1, "one round again and again"
        assert len(record.samples["cudnn"]) == len(record.samples["fa2"]) == ROUNDS
    sweeps.verify()


def nothing_lost(before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]) -> None:
    """No line that stood there is gone or another."""
    for name, lines in before.items():
        assert after[name][: len(lines)] == lines, name


def moments(sweeps: Sweeps, machine: str) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Ten, seeded: eight while it times, by the lines that it has written; one as asv begins, one as half is recorded."""

    def written(count: int) -> bool:
        lines = [
            line
            for journal_lines in sweeps.lines(machine).values()
            for line in journal_lines
            if line["kind"] != "session"
        ]
        return len(lines) >= count

    for count in sorted(random.Random(15).sample(range(1, LINES), 8)):
        yield f"{count} of {LINES} lines", lambda count=count: written(count)
    yield "asv begins", lambda: bool(sweeps.staged())
    yield "half is recorded", lambda: len(sweeps.records(machine)) >= 2


def test_kill_9_at_ten_moments_loses_nothing_and_leaves_nothing_twice(sweeps):
    machine, killed = "kills", 0
    for number, (moment_name, moment) in enumerate(moments(sweeps, machine)):
        before = sweeps.lines(machine)
        process = sweeps.start(machine, *TWO, "--cores", "1", FA4_ASV_SWEEP_TOOK="0.01")
        if until(moment, process):
            # Every other time with all that it has started in its session.
            (os.killpg if number % 2 else os.kill)(process.pid, signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        process.communicate()
        nothing_lost(before, sweeps.lines(machine))
        for record in sweeps.records(machine).values():
            assert len(record.samples["round"]) == ROUNDS, f"half-written after {moment_name}"
    assert killed == 10
    sweeps.run(machine, *TWO)
    whole(sweeps, machine)
    turns = [line for line in sweeps.log(machine) if line["what"] == "turn" and line["begun"]]
    of_releases = [line for line in turns if not line["call"].endswith(("cudnn", "fa2"))]
    once = len(TWO[:2]) * len(CALLS) * ROUNDS
    assert once <= len(of_releases) <= once + killed, "a kill costs the turn that was being taken"
    assert not sweeps.staged()
    assert "nothing to do" in sweeps.run(machine, *TWO)


def test_kill_9_of_a_process_and_of_the_collecting_asv(sweeps):
    machine = "others"
    process = sweeps.start(machine, *TWO, "--cores", "1", FA4_ASV_SWEEP_TOOK="0.01")
    # A release's process, in its second turn.
    assert until(lambda: [line for line in sweeps.log(machine) if line["what"] == "turn"][2:], process)
    turn = [line for line in sweeps.log(machine) if line["what"] == "turn"][2]
    os.kill(turn["pid"], signal.SIGKILL)
    # asv, which collects the first of two releases: the other is recorded all the same.
    assert until(sweeps.staged, process)
    session = sweeps.staged()[0] / "session"
    assert until(lambda: session.read_text(), process)
    os.kill(int(session.read_text()), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert errors.count("asv recorded nothing") == 1 and "Traceback" not in errors, errors
    assert len(sweeps.records(machine)) == 2
    sweeps.run(machine, *TWO)
    whole(sweeps, machine)


# Interrupts.


@pytest.mark.parametrize(
    "phase", ["turn", *(pytest.param(each, marks=pytest.mark.nightly) for each in ("first", "record"))]
)
def test_an_interrupt_is_one_line_and_130(sweeps, phase):
    machine = f"stop-{phase}"
    hang = {} if phase == "record" else {"FA4_ASV_SWEEP_TOLD": json.dumps({f"* * {phase}": "hang"})}
    process = sweeps.start(machine, *TWO, "--no-yardsticks", "--cores", "1", **hang)
    asked = (
        (lambda: [line for line in sweeps.log(machine) if line["what"] == phase]) if hang else sweeps.staged
    )
    assert until(asked, process)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    told = [line for line in errors.splitlines() if "of" not in line]
    assert told == ["interrupted: what was timed is kept; run it again on this card to go on"], errors
    assert not out
    pids = {line["pid"] for line in sweeps.log(machine)}
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    failed = [
        line
        for journal_lines in sweeps.lines(machine).values()
        for line in journal_lines
        if line["kind"] == "failed"
    ]
    assert not failed
