"""A worker that uses more memory than it may is ended in one line, and its case is lost as by any other death."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from fa4_asv.base import resident
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.measure.pool import Job, run_jobs

GIB = 1 << 30
# Answers what it is asked; for a number it takes so many MiB before, in itself or in a child.
WORKER = """
import json, subprocess, sys, time
print(json.dumps({"ready": True}), flush=True)
held = []
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("mib"):
        take = "kept = b'x' * (%d << 20)" % asked["mib"]
        if asked.get("child"):
            child = subprocess.Popen([sys.executable, "-c", take + "; import time; time.sleep(60)"])
        else:
            exec(take)
            held.append(kept)
        time.sleep(asked.get("seconds", 0))
    print(json.dumps({"did": asked}), flush=True)
"""


def ask(*payloads: dict[str, object]) -> list[str]:
    """Why each question has no answer, "" for one that has."""
    jobs = [
        Job(str(number), payload, (sys.executable, "-c", WORKER), (), 30.0)
        for number, payload in enumerate(payloads)
    ]
    lost = {outcome.key: outcome.lost for outcome in run_jobs(jobs, 1)}
    return [lost[job.key] for job in jobs]


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    monkeypatch.setenv(resident.VARIABLE, "0.15")
    monkeypatch.setattr(resident, "_EVERY", 0.2)


@pytest.mark.fault(
    kind="a worker that takes memory without end",
    inputs="by itself, by a child",
    happens="killed with its children; one line names use and limit; the next case has another process",
)
@pytest.mark.parametrize("child", [False, True], ids=["itself", "a child"])
def test_a_worker_that_takes_too_much_is_ended(child):
    begin = time.monotonic()
    lost, after = ask({"mib": 400, "seconds": 20, "child": child}, {"mib": 1})
    assert lost.startswith("used 0.") and time.monotonic() - begin < 15
    assert lost.endswith("more than the limit of 0.15 GiB (FA4_ASV_MEMORY) and was killed")
    assert after == "", "the next one has a process of its own"


def test_memory_that_stays_between_quick_answers_is_seen():
    """No single answer takes as long as the time between two looks."""
    lost = ask(*[{"mib": 20, "seconds": 0.05} for _ in range(40)])
    assert any("more than the limit" in why for why in lost)


def test_what_takes_less_is_left_alone(monkeypatch):
    monkeypatch.setenv(resident.VARIABLE, "1")
    assert ask({"mib": 100, "seconds": 1}) == [""]


@pytest.mark.parametrize("text", ["0", "-1", "1e3", "64 GiB", "nan", "inf", "0.0", "9" * 400])
def test_another_word_for_the_limit_is_one_line(monkeypatch, text):
    monkeypatch.setenv(resident.VARIABLE, text)
    with pytest.raises(Fa4AsvError, match="FA4_ASV_MEMORY is '.*', expected GiB per worker such as 64"):
        resident.limit()
    (lost,) = ask({})
    assert "expected GiB per worker" in lost


def test_unset_it_is_half_of_the_memory_and_64_gib_at_most(monkeypatch):
    monkeypatch.delenv(resident.VARIABLE)
    for here, most in ((16, 8), (100, 50), (2000, 64)):
        monkeypatch.setattr(resident, "_memory_here", lambda here=here: here * GIB)
        assert resident.limit() == most * GIB


def test_a_container_has_less_than_its_machine(monkeypatch, tmp_path):
    path = tmp_path / "memory.max"
    monkeypatch.setattr(resident, "_CONTAINER", (str(path), str(tmp_path / "none")))
    monkeypatch.delenv(resident.VARIABLE)
    path.write_text("max\n")
    whole = resident.limit()
    path.write_text(f"{GIB}\n")
    assert resident.limit() == GIB // 2 < whole


def test_only_the_session_counts():
    code = "import time; kept = b'x' * (200 << 20); print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        used = resident.resident(process.pid)
        process.kill()
    assert 200 << 20 < used < 300 << 20
    assert resident.resident(process.pid) == 0, "it has ended"
