"""On a node: one order in a process of its own, whatever becomes of it or of who asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from fa4_asv.backfill.cluster import node
from fa4_asv.backfill.cluster.archive import pack, unpack
from fa4_asv.backfill.cluster.node_launcher import ask
from fa4_asv.backfill.cluster.order import Answer, Order
from fa4_asv.base.project import Project
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import iter_results
from tests.support import ROOT
from tests.support.backfills import record
from tests.support.waiting import until

pytest_plugins = ["tests.support.cluster_site"]


def order(site, number=0, timeout=30.0, **variables) -> Order:
    return Order(
        site.asv_arguments(number), "cu13", "nogpu", str(site.template / "work"), timeout, variables=variables
    )


def asked(site, order: Order) -> Answer:
    return Answer.load(ask(order.dump(), str(site.project.root)))


def left(site) -> list[Path]:
    """Folders and files of tasks that are still there on this host."""
    return [path for path in (site.template / "work" / "tasks").glob("*/*") if path.name != ".lock"]


def alive(process: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_an_order_comes_back_as_a_record_and_leaves_nothing(site):
    answer = asked(site, order(site))
    assert (answer.fault, answer.why) == ("", "")
    assert answer.host == os.uname().nodename and answer.log == "node -\n" and answer.seconds > 0
    unpack(answer.results, site.template / "came")
    assert [path.name[:8] for path in iter_results(site.template / "came")] == [site.commits[0][:8]]
    assert left(site) == []
    # What serves every task stays on the node, beside a checkout that was not written to.
    assert {"base", "toolchains", "sources", "cache"} <= {
        path.name for path in (site.template / "work").iterdir()
    }
    assert not list(site.project.results.rglob("*.*"))


def test_a_hang_is_ended_with_all_it_started(site):
    site.tell(0, "hang")
    answer = asked(site, order(site, timeout=1.0))
    assert (answer.fault, answer.why) == ("task", "asv did not end within 1 s and was killed")
    assert not alive(int(site.runs()[0][1])) and left(site) == []


def test_a_disk_that_runs_full_is_the_nodes_fault(site):
    answer = asked(site, order(site, STAND_IN_FULL="1"))
    assert (answer.fault, answer.why) == ("node", "full disk: no space left on device")
    assert answer.results == b"" and left(site) == []


def test_a_disk_that_is_full_before_is_told_before(site, monkeypatch):
    usage = namedtuple("usage", "total used free")(1 << 40, 1 << 40, 5 << 20)
    monkeypatch.setattr(node.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(node, "_end_with_input", lambda folder: None)
    answer = node.answer(order(site), site.project)
    assert answer.fault == "node"
    assert answer.why.startswith("full disk: 5 MiB free in ") and answer.why.endswith("a task needs 2048")
    assert site.runs() == []


def test_a_case_that_broke_on_a_full_disk_is_no_record(site):
    broken = CaseRecord("broken", why="OSError: [Errno 28] No space left on device")
    record(Project(site.template), site.commits[0], "4.0.0b3", sm_90__fwd_d64_full=broken)
    answer = asked(site, order(site))
    assert (answer.fault, answer.why) == ("node", "full disk: no space left on device")
    # What such a case says in a record of old is no news of this node.
    old = replace(order(site), known=pack(site.template / "results"))
    assert asked(site, old).fault == ""


def test_a_run_without_a_record_is_the_tasks_fault(site):
    for path in (site.template / "results" / "nogpu").glob(f"{site.commits[0][:8]}-*"):
        path.unlink()
    answer = asked(site, order(site))
    assert (answer.fault, answer.why) == ("task", "asv recorded nothing (exit code 0)")


def test_a_node_that_cannot_work_says_so(site, tmp_path):
    there = Answer.load(ask(order(site).dump(), str(tmp_path / "nowhere")))
    assert there.fault == "node" and "does every node see this folder?" in there.why
    lacking = (sys.executable, "-c", "raise ModuleNotFoundError(\"No module named 'asv'\")")
    answer = Answer.load(ask(order(site).dump(), str(tmp_path), lacking))
    assert answer.fault == "node" and answer.why.endswith("ModuleNotFoundError: No module named 'asv'")
    (tmp_path / "fa4_asv").symlink_to(ROOT / "fa4_asv")
    bare = Answer.load(ask(order(site).dump(), str(tmp_path)))
    assert bare.fault == "node" and "no asv.conf.json" in bare.why
    garbled = Answer.load(ask(b"{]", str(site.project.root)))
    assert garbled.fault == "node" and "none of the suite's" in garbled.why


@pytest.fixture
def asker(site):
    """A process that asked, and waits."""
    site.tell(0, "hang")
    code = "import sys; from fa4_asv.backfill.cluster.node_launcher import ask; ask(sys.stdin.buffer.readline(), sys.argv[1])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(site.project.root)], stdin=subprocess.PIPE, cwd=ROOT, text=False
    )
    assert process.stdin
    process.stdin.write(order(site).dump() + b"\n")
    process.stdin.close()
    until(site.runs)
    yield process
    process.kill()
    process.wait()


def test_who_asked_is_killed_and_nothing_goes_on(site, asker):
    (_, stand_in, *_), *_ = site.runs()
    asker.kill()
    until(lambda: not alive(int(stand_in)))
    until(lambda: not [path for path in left(site) if path.is_dir()])
    asked(site, order(site, 1))
    assert left(site) == []


def test_what_a_killed_node_process_left_is_cleared_by_the_next(site, asker):
    (_, stand_in, *_), *_ = site.runs()
    process = parent(int(stand_in))
    os.kill(process, signal.SIGKILL)
    asker.wait(20)
    until(lambda: not alive(int(stand_in)))  # asv ends with the process that started it
    assert left(site)
    assert asked(site, order(site, 1)).fault == ""
    assert left(site) == []


def test_an_engine_that_kills_the_children_of_its_worker_first(site, asker):
    """As Ray does: the process that the worker knows of is gone before the worker."""
    (_, stand_in, *_), *_ = site.runs()
    os.kill(parent(parent(int(stand_in))), signal.SIGKILL)
    asker.kill()
    until(lambda: not alive(int(stand_in)))
    until(lambda: not [path for path in left(site) if path.is_dir()])


def test_a_task_that_is_alive_is_left_alone(site, asker):
    (_, stand_in, *_), *_ = site.runs()
    assert asked(site, order(site, 1)).fault == ""
    time.sleep(0.2)
    assert alive(int(stand_in)) and len([path for path in left(site) if path.is_dir()]) == 1


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
