"""Temporary folders: one per process, gone with it, and those of killed ones gone with the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fa4_asv.base import scratch
from tests.support import ROOT
from tests.support.waiting import until

# Makes a folder, says its path, and waits; `fork`: a child of it ends first, in Python's own way.
PROCESS = """
import os, sys, time
from fa4_asv.base import ending, scratch
if "listen" in sys.argv:
    ending.raise_ended()
print(scratch.make("job"), flush=True)
if "fork" in sys.argv and not os.fork():
    sys.exit()
if "end" not in sys.argv:
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path):
    """Where temporary files lie, for processes that tests start."""
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


@pytest.fixture
def start(place):
    """Starts PROCESS; gives it and its folder."""
    started = []

    def process(*arguments: str) -> tuple[subprocess.Popen[str], Path]:
        environment = {**os.environ, "TMPDIR": str(place), "PYTHONPATH": str(ROOT)}
        environment.pop(scratch.OWNER, None)
        command = [sys.executable, "-c", PROCESS, *arguments]
        child = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        started.append(child)
        return child, Path(child.stdout.readline().strip()).parent

    yield process
    for child in started:
        child.kill()
        child.wait()


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_a_folder_goes_with_its_process(start, place):
    process, _ = start("end")
    assert process.wait(20) == 0
    assert left(place) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_so_it_does_where_a_signal_ends_it(start, place, number):
    process, _ = start("listen")
    process.send_signal(number)
    process.wait(20)
    assert left(place) == []


def test_what_a_killed_process_left_goes_with_the_next_and_nothing_else(start, place):
    killed, gone = start()
    living, stays = start()
    killed.kill()
    killed.wait()
    others = place / "fa4-work-file", place / "other-work-folder", place / "fa4-work-link"
    others[0].write_text("a file")
    others[1].mkdir()
    others[2].symlink_to(others[1])
    assert gone.is_dir()
    start("end")[0].wait(20)
    assert left(place) == sorted([stays.name, *(path.name for path in others)])
    assert living.poll() is None and (stays / "lock").is_file()


def test_a_folder_without_a_lock_is_being_made_or_left(start, place):
    young, old = place / "fa4-work-young", place / "fa4-work-old"
    for path in (young, old):
        path.mkdir()
    os.utime(old, (0, 0))
    start("end")[0].wait(20)
    assert left(place) == ["fa4-work-young"]


def test_a_child_removes_nothing_of_its_parent(start, place):
    _, folder = start("fork")
    until(lambda: list(folder.iterdir()))
    start("end")[0].wait(20)
    assert folder.is_dir()


def test_threads_share_one_folder(monkeypatch, tmp_path):
    monkeypatch.delenv(scratch.OWNER, raising=False)
    monkeypatch.setattr(scratch, "_made", {})
    make = scratch._make_own
    monkeypatch.setattr(scratch, "_make_own", lambda: (time.sleep(0.1), make())[1])
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(lambda _: scratch.own(), range(64)))) == 1
    assert len(list(tmp_path.iterdir())) == 1
    scratch._remove_own(os.getpid())
    assert left(tmp_path) == []


def test_what_we_start_has_its_folders_below_ours(monkeypatch, tmp_path):
    monkeypatch.setenv(scratch.OWNER, str(tmp_path))
    with scratch.folder("job") as made:
        assert made.parent == tmp_path and made.name.startswith("job-")
    assert left(tmp_path) == []
    monkeypatch.setenv(scratch.OWNER, str(tmp_path / "gone"))
    assert scratch.own() != tmp_path / "gone"


def test_locks_stay_where_all_processes_find_them(start, place, tmp_path):
    code = "from fa4_asv.base import core_locks, scratch; scratch.use_for_everything()"
    code += "; import tempfile; print(core_locks.lock_path().parent, tempfile.gettempdir())"
    environment = {**os.environ, "TMPDIR": str(place), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    locks, temporary = done.stdout.split()
    assert locks == str(place)
    # Where its path is too long for a socket below it, asv keeps the system's.
    assert temporary == str(place) if len(str(place)) > 40 else temporary.startswith(str(place / "fa4-work-"))


def test_whatever_is_in_a_folder_it_is_removed(tmp_path):
    folder = deep = tmp_path / "folder"
    closed = folder / "closed" / "inside"
    closed.mkdir(parents=True)
    closed.chmod(0)
    closed.parent.chmod(0)
    handle = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=handle)  # noqa: PTH102 - no path is that long
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    scratch.remove(folder)
    assert not deep.exists()
