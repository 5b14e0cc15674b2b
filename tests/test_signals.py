"""Commands that are ended while a worker compiles or measures: one line, the exit code, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fa4_asv.base.scratch import PREFIX
from fa4_asv.history.manifest import Manifest
from tests.support.standin_checkout import MACHINE, Checkout, standin_checkout
from tests.support.standin_runs import D128
from tests.support.waiting import until

pytestmark = pytest.mark.slow

# In place of every worker: it has started a child, and neither ends by itself.
WORKER = """
import os, subprocess, sys, time
from pathlib import Path
if __name__ == "__main__":
    subprocess.Popen(["sleep", "600"])
    Path(os.environ["FA4_ASV_STARTED"], "worker").touch()
    time.sleep(600)
"""
LANES = {
    "kernels": ("-b", r"codegen.Kernels.track_registers\('sm_90', 'fwd_d64_full'\)"),
    "runtime": ("-m", MACHINE, "-b", rf"backward\.Cpu\.track_seconds\('fa4', '{D128}'\)"),
}
LINES = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM", signal.SIGHUP: "ended by SIGHUP"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Checkout:
    """One release; the workers of its copy of the suite never answer."""
    made = standin_checkout(tmp_path_factory.mktemp("signals"), {"4.0.0b1": ""})
    for lane in LANES:
        (made.project.root / "fa4_asv" / "measure" / lane / "worker.py").write_text(WORKER)
    (release,) = Manifest.load(made.project.manifest).releases
    (made.project.root / "commits.txt").write_text(f"{release.commit}\n")
    return made


def processes_of(folder: Path) -> Iterator[tuple[int, str]]:
    """Number and command of the processes that carry a path below `folder` in their variables."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                yield int(process.name), (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue


@pytest.fixture(autouse=True)
def nothing_is_left_for_the_next_test(checkout) -> Iterator[None]:
    yield
    for number, _ in processes_of(checkout.project.root.parent):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


class Running:
    """A command in a checkout, with everything that it has started."""

    def __init__(self, checkout: Checkout, *arguments: str) -> None:
        self.checkout, self.folder = checkout, checkout.project.root.parent
        started = self.folder / "started" / "worker"
        started.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=checkout.project.root,
            # A command that hangs is asked where by SIGABRT (see `end`).
            env={
                **os.environ,
                **checkout.environment,
                "PYTHONFAULTHANDLER": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        until(lambda: started.exists() or self.process.poll() is not None, seconds=120)

    def alive(self) -> list[str]:
        """Commands of the processes of the checkout."""
        return [command for _, command in processes_of(self.folder)]

    def end(self, number: int) -> tuple[int, str]:
        """Exit code and everything that was said, of a command that gets a signal."""
        assert any("sleep 600" in each for each in self.alive()), self.process.communicate(timeout=60)
        for _ in range(2):  # as `timeout` does
            self.process.send_signal(number)
        try:
            output = "".join(self.process.communicate(timeout=60))
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            raise AssertionError("".join(self.process.communicate(timeout=60))) from None
        return self.process.returncode, output

    def left(self) -> list[str]:
        return [path.name for path in (self.folder / "temporary").glob(f"{PREFIX}*")]


def run(lane: str) -> tuple[str, ...]:
    return ("asv", "run", "-E", "fa4:same", *LANES[lane], "HASHFILE:commits.txt")


COMMANDS = {
    "asv run, kernels": run("kernels"),
    "asv run, times": run("runtime"),
    "backfill, kernels": ("fa4_asv", "backfill", "-E", "fa4:same", *LANES["kernels"]),
    "backfill, times": ("fa4_asv", "backfill", "-E", "fa4:same", *LANES["runtime"]),
}


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("asv run, kernels", signal.SIGINT),
        ("asv run, times", signal.SIGHUP),
        ("backfill, kernels", signal.SIGTERM),
        ("backfill, times", signal.SIGINT),
        # In the next test, too.
        pytest.param("asv run, kernels", signal.SIGTERM, marks=pytest.mark.nightly),
        pytest.param("asv run, times", signal.SIGTERM, marks=pytest.mark.nightly),
    ],
)
def test_a_signal_ends_a_command_in_one_line_with_all_it_started(checkout, command, number):
    running = Running(checkout, *COMMANDS[command])
    code, output = running.end(number)
    assert code == 128 + number, output
    assert "Traceback" not in output
    if "asv run" in command:
        assert output.rstrip().splitlines()[-1].startswith(f"fa4-asv: {LINES[number]}"), output
        assert output.count(LINES[number]) == 1, output
    until(lambda: not running.alive(), seconds=20)
    assert running.left() == []


@pytest.mark.parametrize(
    "command",
    [
        "asv run, times",
        "backfill, kernels",
        pytest.param("asv run, kernels", marks=pytest.mark.nightly),
        pytest.param("backfill, times", marks=pytest.mark.nightly),
    ],
)
def test_what_a_killed_command_started_ends_with_it_and_its_folders_go_with_the_next(checkout, command):
    running = Running(checkout, *COMMANDS[command])
    code, _ = running.end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    until(lambda: not running.alive(), seconds=20)
    assert running.left()
    again = Running(checkout, *run("kernels"))
    assert again.end(signal.SIGTERM)[0] == 128 + signal.SIGTERM
    assert again.left() == []
