"""Backfill and the processes it starts: what a kill leaves behind, what hangs, what is not ours."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from fa4_asv.backfill import tasks as module
from fa4_asv.backfill.tasks import Attempt, clear_leftovers, missing
from fa4_asv.base import processes
from fa4_asv.base.errors import Fa4AsvError
from tests.support.backfills import CODEGEN, commits


def test_a_killed_backfills_asv_is_ended_and_its_folder_removed(history):
    folder = history.work / "backfill" / "99999-cccccccccccc-cu13"
    folder.mkdir(parents=True)
    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], cwd=folder, start_new_session=True
    )
    (folder / "session").write_text(str(left.pid))
    clear_leftovers(history)
    assert left.wait(10) == -9
    assert not folder.exists()


@pytest.mark.fault(
    kind="SIGTERM",
    inputs="of a command that started others",
    happens="all of them end",
)
def test_sigterm_ends_a_command_and_what_it_started(tmp_path):
    """As Slurm, systemd and `timeout` do."""
    code = """
import sys
from pathlib import Path
import click
from fa4_asv import cli
from fa4_asv.base import processes
work = Path(sys.argv[1])
@click.command()
def slow():
    processes.run_bounded([sys.executable, "-c", "import time; time.sleep(60)"], work, work / "log", 60)
cli.main.get_command = lambda *_: slow
cli.run(["slow"])
"""
    command = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    session = tmp_path / "session"
    deadline = time.monotonic() + 20
    while not (session.is_file() and session.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    command.send_signal(signal.SIGTERM)
    assert command.wait(20) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int(session.read_text()), 0)


def test_a_session_that_is_not_ours_is_left_alone(history):
    """Process ids are given away again."""
    folder = history.work / "backfill" / "99999-cccccccccccc-cu13"
    folder.mkdir(parents=True)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    (folder / "session").write_text(str(other.pid))
    try:
        clear_leftovers(history)
        assert other.poll() is None
        assert not folder.exists()
    finally:
        other.kill()
        other.wait()


def test_a_hanging_asv_is_ended(history, monkeypatch):
    monkeypatch.setattr(module, "TASK_TIMEOUT", 0.5)
    command = [shutil.which("sleep"), "60"]
    monkeypatch.setattr(module, "run_bounded", lambda _asked, *rest: processes.run_bounded(command, *rest))
    task = missing(history, commits(history), CODEGEN)[0]
    with pytest.raises(Fa4AsvError, match="did not end within 0 s and was killed|did not end within"):
        Attempt(history, task, CODEGEN).run()
    assert not list((history.work / "backfill").glob(f"{os.getpid()}-*"))
