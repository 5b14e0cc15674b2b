"""Cores of one's own: the locks between our processes, and what others used meanwhile."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fa4_asv.base import core_locks


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "test.lock"
    monkeypatch.setattr(core_locks, "lock_path", lambda: path)
    return path


def test_what_others_use_is_read_from_the_kernels_counters(tmp_path, monkeypatch):
    stat = tmp_path / "stat"
    monkeypatch.setattr(core_locks.os, "sysconf", lambda name: 100)
    readings = []
    own_cores = tuple(range(core_locks.os.cpu_count()))
    monkeypatch.setattr(core_locks, "own_cores", lambda: own_cores)
    for clock, own, line in (
        (0, 1.0, "cpu 100 0 0 900 0 0 0 0 0 0"),
        (10, 9.0, "cpu 950 50 70 1800 40 5 5 30 9 9"),
    ):
        stat.write_text(f"{line}\ncpu0 1 2 3 4\n")
        readings.append(replace(core_locks.read_usage(stat), clock=clock, own=own))
    # 1010 jiffies more, 10.1 s, in 10 s; 8 s of them ours; idle and iowait are nobody's.
    assert core_locks.others_used(*readings) == pytest.approx((10.1 - 8) / 10)
    assert core_locks.others_used(readings[0], replace(readings[1], own=99.0)) == 0
    assert core_locks.others_used(readings[0], replace(readings[0], clock=5)) is None, (
        "counters that stand still"
    )


def test_bound_to_some_cores_only_theirs_are_read(tmp_path, monkeypatch):
    stat = tmp_path / "stat"
    monkeypatch.setattr(core_locks.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(core_locks.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(core_locks, "own_cores", lambda: (1, 12))
    stat.write_text(
        "cpu 9 9 9 9 9 9 9 9\ncpu0 1 1 1 1 1 1 1 1\ncpu1 100 0 0 50 0 0 0 0\ncpu12 200 0 0 50 0 0 0 0\n"
    )
    reading = core_locks.read_usage(stat)
    assert (reading.busy, reading.total) == (3.0, 4.0)
    assert core_locks.processor().endswith(", 2 of 16 cores")
    stat.write_text("cpu 9 9 9 9 9 9 9 9\ncpu1 100 0 0 50 0 0 0 0\n")
    assert core_locks.read_usage(stat).busy is None, "one of its cores is not told"


def test_a_child_that_has_ended_is_ours():
    before = core_locks.read_usage()
    code = "import time; begin = time.process_time()\nwhile time.process_time() < begin + 0.3: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert 0.3 <= core_locks.read_usage().own - before.own < 5


def test_the_bound_can_be_set(monkeypatch):
    assert core_locks.allowed() == 0.2
    monkeypatch.setenv("FA4_ASV_OTHERS", "64")
    assert core_locks.allowed() == 64
    for wrong in ("many", "-1", "nan"):
        monkeypatch.setenv("FA4_ASV_OTHERS", wrong)
        with pytest.raises(
            core_locks.Fa4AsvError, match=f"FA4_ASV_OTHERS is '{wrong}', expected a number of cores"
        ):
            core_locks.allowed()


HOLDER = """
import sys
from pathlib import Path
from fa4_asv.base import core_locks
core_locks.lock_path = lambda: Path(sys.argv[2])
with getattr(core_locks, sys.argv[1])(lambda words: None):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("held", ["exclusive", "shared"])
def test_a_timing_excludes_all_and_compiles_share(held, own_lock, monkeypatch):
    monkeypatch.setattr(core_locks, "_TELL_AFTER", 0.0)
    messages: list[str] = []
    root = Path(core_locks.__file__).parent.parent
    command = [sys.executable, "-c", HOLDER, held, str(own_lock)]
    with subprocess.Popen(command, cwd=root, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(core_locks.Fa4AsvError, match=r"waited 0.3 s"),
            core_locks.exclusive(messages.append, 0.3),
        ):
            raise AssertionError("two held it")
        assert messages == ["waiting for another fa4_asv run on this machine", ""]
        begin = time.monotonic()
        with core_locks.shared(lambda message: None, 0.3):
            assert (time.monotonic() - begin > 0.2) == (held == "exclusive")
        other.communicate("go\n")
    with core_locks.exclusive(messages.append, 0.0):
        assert own_lock.stat().st_mode & 0o777 == 0o600


def test_timings_on_other_cores_run_side_by_side(own_lock, monkeypatch):
    monkeypatch.setattr(core_locks.os, "cpu_count", lambda: 16)
    cores = {"now": (3,)}
    monkeypatch.setattr(core_locks, "own_cores", lambda: cores["now"])

    def refused(kind, *bound_to):
        cores["now"] = bound_to
        try:
            with getattr(core_locks, kind)(lambda message: None, 0.0):
                return False
        except core_locks.Fa4AsvError:
            return True

    with core_locks.exclusive(lambda message: None, 0.0):
        assert not refused("exclusive", 4), "another core"
        with (
            pytest.raises(core_locks.Fa4AsvError),
            core_locks.exclusive(lambda message: None, 0.0, whole=True),
        ):
            raise AssertionError("a card's timing beside another")
        assert refused("exclusive", 2, 3), "one of its cores is taken"
        assert refused("exclusive", *range(16)), "the whole machine"
        assert not refused("exclusive", 4), "a refused one holds nothing"
    cores["now"] = tuple(range(16))
    with core_locks.exclusive(lambda message: None, 0.0):
        assert refused("exclusive", 4)
    cores["now"] = (4, 5)
    with core_locks.shared(lambda message: None, 0.0):
        assert refused("exclusive", 5) and not refused("exclusive", 6)


def test_threads_of_one_core_are_one_core(tmp_path, monkeypatch):
    for core, text in ((0, "0,8\n"), (1, "1-2\n"), (3, "odd")):
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(text)
    assert [core_locks.siblings(core, tmp_path) for core in (0, 1, 3, 4)] == [{0, 8}, {1, 2}, set(), set()]
    monkeypatch.setattr(core_locks, "siblings", lambda core: {core, core + 8})
    monkeypatch.setattr(core_locks.os, "sched_getaffinity", lambda pid: {1, 3})
    assert core_locks.own_cores() == (1, 3, 9, 11)
