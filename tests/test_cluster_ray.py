"""A cluster of several nodes on this machine, by Ray's own utility; what the runs would measure is stood in for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fa4_asv.backfill.cluster.order import Answer, Order
from fa4_asv.integrity.verify import verify
from tests.support import ROOT
from tests.support.backfills import KERNELS

pytest_plugins = ["tests.support.cluster_site"]
pytestmark = pytest.mark.slow
# Each wait is for something that takes seconds on an idle machine; a busy one may take a hundred.
PATIENCE = 150


@pytest.fixture(scope="module")
def cluster():
    """A head that runs nothing, one worker node of one core; nodes start in about 2 s each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's name
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.add_node(num_cpus=1, env_vars={"STAND_IN_NODE": "first"})
    yield made
    made.shutdown()


def until(true) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"did not happen within {PATIENCE} s"
        time.sleep(0.1)


def driver(site, cluster, *arguments: str, timeout: int = PATIENCE) -> subprocess.Popen[str]:
    """`fa4-asv backfill --ray` on the cluster, as a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.support.cluster_site",
        str(site.template),
        "backfill",
        "--flavour",
        "cu13",
    ]
    command += ["-b", "^codegen.Kernels", "--ray", cluster.address, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "STAND_IN_TIMEOUT": str(timeout)}
    return subprocess.Popen(
        command,
        cwd=site.project.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(site) -> list[str]:
    """Commits whose stand-in came to its end, once an end."""
    return sorted(commit for commit, *_, word in site.runs() if word == "done")


def stopped(site) -> bool:
    """Whether no stand-in is alive any more."""
    states = [Path(f"/proc/{process}/status") for _, process, *_ in site.runs()]
    return all(not path.exists() or "zombie" in path.read_text() for path in states)


def test_killed_worker_hang_full_disk_and_a_late_node(site, cluster):
    """Sources are shared. One node's disk is full; on the other one run kills its worker and one hangs."""
    site.tell(0, "kill hold hold hold")
    site.tell(1, "hang hold hold hold")
    site.tell(2, "hold hold hold")
    full = cluster.add_node(num_cpus=1, env_vars={"STAND_IN_NODE": "full", "STAND_IN_FULL": "1"})
    process = driver(
        site, cluster, "--shared", "--node-work", str(site.template / "work"), "--retries", "9", timeout=5
    )
    until(lambda: len(site.runs()) >= 2)
    late = cluster.add_node(num_cpus=1, env_vars={"STAND_IN_NODE": "late"})
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        cluster.remove_node(full)
        cluster.remove_node(late)
    assert process.returncode == 0, out + err
    assert out.count(f"{KERNELS} measured on ") == 3 and "[3/3]" in out and out.count("\n") == 3
    assert err.count("gets no more tasks: full disk: no space left on device") == 1
    assert "4.0.0b3 cu13: the worker was lost (" in err
    assert "4.0.0b4 cu13: asv did not end within 5 s and was killed" in err
    assert done(site) == sorted(site.commits) and stopped(site)
    assert sorted(site.recorded()) == sorted(commit[:8] for commit in site.commits)
    assert verify(site.project) == []
    nodes = {node for *_, node, word in site.runs() if word == "done"}
    assert "late" in nodes and "full" not in nodes
    assert not list((site.template / "work" / "tasks").glob("*/*-*"))


@pytest.mark.nightly  # with a pool that is a fake: test_cluster_drive.py
def test_a_killed_driver_loses_nothing_and_the_next_completes(site, cluster):
    """Sources go as Ray's package. The second run is in the middle when the driver is killed; the engine ends it."""
    for number in range(3):
        site.tell(number, "slow")
    process = driver(site, cluster, "--node-work", str(site.template / "work"))
    until(lambda: len(site.recorded()) >= 1 and len(site.runs()) >= 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = site.recorded()
    assert verify(site.project) == [] and 1 <= len(before) < 3
    until(lambda: stopped(site))
    again = driver(site, cluster, "--node-work", str(site.template / "work"))
    out, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, out + err
    assert f"[{3 - len(before)}/{3 - len(before)}]" in out
    assert sorted(site.recorded()) == sorted(commit[:8] for commit in site.commits)
    # What was recorded was not measured again.
    assert all(done(site).count(commit) == 1 for commit in site.commits if commit[:8] in before)
    assert verify(site.project) == []
    assert not list((site.project.work / "backfill").glob("[0-9]*-*-*"))


def test_an_interrupted_driver_ends_what_runs(site, cluster):
    site.tell(1, "hang")
    process = driver(site, cluster, "--shared")
    until(lambda: len(site.runs()) >= 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, out + err
    assert "interrupted: 1 of 3 runs are in results/; run it again to go on" in err
    assert "Traceback" not in err
    until(lambda: stopped(site))
    assert len(site.recorded()) == 1 and verify(site.project) == []


@pytest.mark.nightly  # what a node is asked for: test_cluster_node.py
def test_a_card_is_whole_and_of_the_type_asked_for(site, cluster, monkeypatch):
    """Two runs on a node with one card never meet; a node without one, or of another type, gets none."""
    from fa4_asv.backfill.cluster.ray_pool import RayPool

    other = cluster.add_node(num_cpus=1, num_gpus=1, resources={"accelerator_type:B200": 1})
    right = cluster.add_node(num_cpus=2, num_gpus=1, resources={"accelerator_type:H100": 1})
    code = (
        "import os, time; print(time.time(), flush=True); time.sleep(1);"
        "print(os.environ['CUDA_VISIBLE_DEVICES'], time.time())"
    )
    order = Order(["-c", code], "cu13", "lab", str(site.template / "work"), 30.0).dump()
    pool = RayPool(cluster.address, 1, "H100", folder=str(site.project.root))
    try:
        assert list(pool.nodes()) == [right.node_id] and pool.slots() == 1
        pool.submit(1, order, frozenset())
        pool.submit(2, order, frozenset())
        answers, begin = {}, time.monotonic()
        while len(answers) < 2 and time.monotonic() - begin < PATIENCE:
            for news in pool.wait(1):
                assert news.node == right.node_id
                if news.kind == "answer":
                    answers[news.ticket] = Answer.load(news.body).log.split()
    finally:
        pool.close()
        cluster.remove_node(other)
        cluster.remove_node(right)
    (begin1, card1, end1), (begin2, card2, end2) = sorted(answers.values())
    assert card1 == card2 == "0"
    assert float(begin1) < float(end1) <= float(begin2) < float(end2)


def test_an_unknown_cluster_is_one_line(site, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ended = driver(site, SimpleNamespace(address="nowhere"))
    _, errors = ended.communicate(timeout=60)
    assert ended.returncode == 2
    assert errors.startswith("fa4-asv: cannot use Ray at 'nowhere': ") and errors.count("\n") == 1
    assert site.runs() == []
