"""Work that forked children share: the same answers, one line where a child dies, and none that stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fa4_asv.base import side_by_side
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import only_one
from fa4_asv.base.side_by_side import cores, in_order, is_one_thread, spread
from tests.support import ROOT
from tests.support.fake_record import kernels, write_pair, write_releases
from tests.support.waiting import until


@pytest.fixture(params=[1, 2, 3], ids="{}-processes".format)
def processes(request, monkeypatch) -> int:
    """How many processes work; the threads of whatever runs the tests do not count."""
    monkeypatch.setenv("FA4_ASV_CORES", str(request.param))
    monkeypatch.setattr(side_by_side, "is_one_thread", lambda: True)
    monkeypatch.setattr(side_by_side, "_LEAST", 1)
    return request.param


def test_workers_are_as_many_as_the_cores_this_process_may_use(monkeypatch):
    monkeypatch.delenv("FA4_ASV_CORES", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    assert cores() == 3
    monkeypatch.setenv("FA4_ASV_CORES", "1")
    assert cores() == 1
    for bad in ("0", "-1", "two", "²"):
        monkeypatch.setenv("FA4_ASV_CORES", bad)
        with pytest.raises(Fa4AsvError, match=f"FA4_ASV_CORES is {bad!r}, expected a number of cores"):
            cores()


def test_answers_come_in_the_order_of_the_items(processes):
    answers = list(in_order(lambda item: (item, "x" * 100_000, os.getpid()), range(7)))
    assert [item for item, *_ in answers] == list(range(7))
    assert len({process for *_, process in answers}) == processes


def test_each_item_is_done_once(processes, tmp_path):
    def work(item: int) -> None:
        with (tmp_path / str(item)).open("a") as stream:
            stream.write("done")

    spread(work, range(40))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        map(str, range(40)), "done"
    )


def test_nothing_to_do(processes):
    assert list(in_order(str, [])) == []
    spread(print, [])


@pytest.mark.parametrize("bad", range(3))
def test_an_error_is_the_same_line_wherever_it_happens(processes, bad):
    def work(item: int) -> None:
        if item == bad:
            raise Fa4AsvError("no space left")

    with pytest.raises(Fa4AsvError, match=r"^no space left$"):
        list(in_order(work, range(3)))
    with pytest.raises(Fa4AsvError, match=r"^no space left$"):
        spread(work, range(3))
    assert no_child()


@pytest.mark.fault(
    kind="a process that shares the work of a report is killed",
    inputs="SIGKILL, an exit code",
    happens="one line; no other process stays",
)
@pytest.mark.parametrize(
    ("ends", "how"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by signal 9"),
        (lambda: os._exit(7), "ended with exit code 7"),
    ],
    ids=["killed", "exit"],
)
def test_a_child_that_dies_is_one_line(monkeypatch, ends, how):
    monkeypatch.setenv("FA4_ASV_CORES", "2")
    monkeypatch.setattr(side_by_side, "is_one_thread", lambda: True)
    monkeypatch.setattr(side_by_side, "_LEAST", 1)
    here, handle = os.getpid(), os.pipe()

    def work(item: int) -> None:
        if os.getpid() != here:
            os.write(handle[1], b"x")
            ends()
        os.read(handle[0], 1)  # until the other has begun

    for shared in (lambda: spread(work, [0, 1]), lambda: list(in_order(work, [0, 1]))):
        with pytest.raises(Fa4AsvError) as failed:
            shared()
        assert str(failed.value) == f"a process that shared the work {how}; set FA4_ASV_CORES=1"
        assert no_child()


def test_a_process_with_threads_does_it_all_by_itself(monkeypatch):
    """A child would have the locks of the other threads, and nobody who opens them."""
    monkeypatch.setenv("FA4_ASV_CORES", "2")
    monkeypatch.setattr(side_by_side, "_LEAST", 1)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert not is_one_thread()
        assert set(in_order(lambda _: os.getpid(), range(4))) == {os.getpid()}
    finally:
        stop.set()
        thread.join()


def test_a_fork_that_fails_is_one_line(monkeypatch):
    monkeypatch.setenv("FA4_ASV_CORES", "2")
    monkeypatch.setattr(side_by_side, "is_one_thread", lambda: True)
    monkeypatch.setattr(os, "fork", lambda: (_ for _ in ()).throw(BlockingIOError(11, "Try again")))
    with pytest.raises(Fa4AsvError, match="cannot start a process: Try again; set FA4_ASV_CORES=1"):
        spread(print, [0, 1])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


# `fa4-asv report` in which both processes write for ever.
SLOW = """
import os, sys, time
from pathlib import Path
from fa4_asv.base import side_by_side
from fa4_asv.cli import run
from fa4_asv.report import site
def write(aside, folder, part):
    (aside / "begun").write_text("")
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(600)
site._write = write
run(["report", "--output", sys.argv[2]])
"""


@pytest.fixture
def writing(project, tmp_path):
    """A report that two processes write, its process ids, and the old report in its place."""
    (release,) = write_releases(project, 1)
    write_pair(project, release, kernels())
    old, pids = tmp_path / "report", tmp_path / "pids"
    old.mkdir()
    pids.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(pids), str(old)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "FA4_ASV_CORES": "2"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: len(list(pids.iterdir())) == 2 or process.poll() is not None, seconds=60)
    (child,) = {int(path.name) for path in pids.iterdir()} - {process.pid}
    yield process, child, old
    process.kill()
    process.communicate()


LINES = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}


@pytest.mark.parametrize("number", LINES)
def test_a_signal_while_pages_are_written_ends_all_in_one_line(writing, number):
    """A terminal sends it to both processes."""
    process, child, old = writing
    os.killpg(process.pid, number)
    _, message = process.communicate(timeout=60)
    assert (process.returncode, message.strip()) == (128 + number, f"fa4-asv: {LINES[number]}")
    assert not Path(f"/proc/{child}").exists()
    assert list(old.parent.glob(".report.*")) == [] and list(old.iterdir()) == []


def test_a_kill_takes_the_children_along(writing):
    process, child, _ = writing
    process.kill()
    process.wait()
    until(lambda: not is_running(child))


def is_running(process: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def no_child() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return True


def test_a_lock_does_not_outlive_its_process_in_a_child(tmp_path):
    """A child that has not noticed yet that its parent was killed holds nothing that the next command needs."""
    (told, tell), (waits, end) = os.pipe(), os.pipe()
    with only_one(tmp_path / "lock", busy="held"):
        child = os.fork()
        if not child:
            os.close(end)
            os.write(tell, b"here")
            os.read(waits, 1)
            os._exit(0)
        assert os.read(told, 4) == b"here"
        with pytest.raises(Fa4AsvError, match="held"), only_one(tmp_path / "lock", busy="held"):
            pass
    with only_one(tmp_path / "lock", busy="held"):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it lives"
    os.close(end)
    assert os.waitpid(child, 0)[1] == 0
