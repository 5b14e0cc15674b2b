"""A command in a process session of its own: bounded in time, and ended with everything it started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fa4_asv.base import isolation
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line

_LAST_MOMENT = 5.0  # seconds for a command to remove its own temporary files
_MARK = "session"  # in the working folder: whom to end, should whoever started it be killed


def run_bounded(
    command: Sequence[str],
    folder: Path,
    log: Path,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Exit code of `command`, run in `folder`, its output in `log`. Nothing of it is alive afterwards.

    It is killed with this process.

    Raises Fa4AsvError where it does not end within `timeout` seconds.
    """
    with log.open("w") as output:
        process = subprocess.Popen(
            isolation.ends_with_us(command),
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=True,
        )
        (folder / _MARK).write_text(str(process.pid))
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Fa4AsvError(f"asv did not end within {timeout:.0f} s and was killed") from None
        finally:
            end(process)


def ask(command: Sequence[str], environment: Mapping[str, str], question: str) -> tuple[str, str]:
    """What a process of ours answers to one question, and why, in one line, where that is nothing.

    It collects for processes that run foreign code, and gets the bounds of that. Nothing of it is alive afterwards.
    """
    process = subprocess.Popen(
        isolation.command(command, isolation.COLLECT),
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which ends that one
    )
    try:
        answer, message = process.communicate(question)
    finally:
        end(process)
    last = message.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
    return answer, one_line(last[0], 300)


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a session's first process in its own way, as far as it has one, and kill what is left of the session."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_MOMENT)
    kill_session(process.pid)
    process.wait()


def kill_session(session: int) -> None:
    """Kill every process of a session: asv gives each benchmark a process group of its own."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                os.kill(int(stat.parent.name), signal.SIGKILL)
        except (OSError, ValueError, IndexError):
            continue  # ended meanwhile


def end_left(folder: Path) -> None:
    """End the command that still runs in `folder`, left there by one that was killed, and remove the folder."""
    try:
        session = int((folder / _MARK).read_text())
    except (OSError, ValueError):
        session = 0
    # A process id may have been given away since; only a session that works in the folder is ours.
    if session and _works_in(session, folder):
        kill_session(session)
    shutil.rmtree(folder, ignore_errors=True)


def _works_in(session: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{session}/cwd").resolve(strict=True) == folder.resolve()
    except OSError:
        return False
