"""Workers that hang, die, chatter or answer nonsense cost their own job, never another's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fa4_asv.measure.pool import Job, LastingWorker, Outcome, Worker, run_jobs
from tests.support.waiting import until

WORKER = """
import json, os, signal, sys, time
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if job == "mortal":
        print(json.dumps(os.getpid()), file=open(os.environ["FA4_ASV_PIDFILE"], "w"), flush=True)
        time.sleep(600)
    if job == "hang":
        time.sleep(600)
    if job == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "exit":
        print("last words", file=sys.stderr)
        os._exit(7)
    if job == "nonsense":
        print("no json here", flush=True)
        continue
    if job == "chatter":
        sys.stderr.write("x" * 1_000_000)
        sys.stderr.flush()
    if job == "child":
        import subprocess
        subprocess.Popen(["sleep", "600"])
        time.sleep(600)
    print(json.dumps([os.getpid(), job]), flush=True)
"""


def job(payload: str, timeout: float = 20, code: str = WORKER) -> Job:
    return Job(payload, payload, (sys.executable, "-c", code), (("X", "1"),), timeout)


def test_one_worker_serves_many_jobs():
    outcomes = run_jobs([job("a"), job("b"), job("c")], 1)
    assert [outcome.answer[1] for outcome in outcomes] == ["a", "b", "c"]
    assert len({outcome.answer[0] for outcome in outcomes}) == 1


def test_every_job_ends_whatever_its_neighbours_do():
    names = ["hang", "a", "segfault", "b", "exit", "c", "nonsense", "d", "chatter", "e"]
    begin = time.monotonic()
    outcomes = {outcome.key: outcome for outcome in run_jobs([job(name, timeout=3) for name in names], 2)}
    assert time.monotonic() - begin < 30
    assert set(outcomes) == set(names)
    for name in ("a", "b", "c", "d", "e", "chatter"):
        assert outcomes[name].answer[1] == name
    assert outcomes["hang"].lost == "timed out after 3 s and was killed"
    assert outcomes["segfault"].lost == "the process was killed by SIGSEGV"
    assert outcomes["exit"].lost == "the process ended with exit code 7: last words"
    assert "answered no JSON: b'no json here'" in outcomes["nonsense"].lost


@pytest.mark.fault(
    kind="a worker hangs",
    inputs="with children of its own",
    happens="killed with its children; one case is lost",
)
def test_a_hang_takes_its_children_along():
    begin = time.monotonic()
    (outcome,) = run_jobs([job("child", timeout=1)], 1)
    assert "timed out" in outcome.lost
    assert time.monotonic() - begin < 10


def test_a_worker_that_cannot_start_says_why():
    (broken,) = run_jobs([job("a", code="raise ImportError('no module named cutlass')")], 1)
    assert broken == Outcome(
        "a", lost="the process ended with exit code 1: ImportError: no module named cutlass"
    )
    missing = Job("a", "a", ("/nowhere/python",), (), 1)
    (outcome,) = run_jobs([missing], 1)
    assert "could not start a compile process" in outcome.lost


@pytest.mark.fault(
    kind="a run is killed",
    inputs="SIGKILL while workers compile",
    happens="the workers end",
)
def test_a_killed_run_leaves_no_worker_behind(tmp_path):
    pidfile = tmp_path / "pid"
    code = "from tests.test_compile_pool import job; from fa4_asv.measure.pool import run_jobs; run_jobs([job('mortal')], 1)"
    root = str(Path(__file__).resolve().parent.parent)
    run = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "FA4_ASV_PIDFILE": str(pidfile), "PYTHONPATH": root}
    )
    until(lambda: pidfile.is_file() and pidfile.read_text().strip())
    worker = int(pidfile.read_text())
    run.kill()
    run.wait()
    until(
        lambda: not Path(f"/proc/{worker}").exists() or "zombie" in Path(f"/proc/{worker}/status").read_text()
    )


def test_a_worker_that_ends_slowly_was_not_killed_by_another():
    """Its output closes before the process is gone; its own exit code is what counts."""
    script = "import os, sys, time; print('last words', file=sys.stderr); os.close(1); time.sleep(0.5); os._exit(3)"
    (outcome,) = run_jobs([Job("slow", "ok", (sys.executable, "-c", script), (), 30.0)], 1)
    assert outcome.lost == "the process ended with exit code 3: last words"


def test_a_worker_that_cannot_start_is_not_started_for_every_job(tmp_path):
    """An import that fails does so for all jobs of its kind; another kind is not touched."""
    starts = tmp_path / "starts"
    script = f"open({str(starts)!r}, 'a').write('x'); import sys; sys.exit('ImportError: no cutlass')"
    bad = [Job(f"bad{n}", "ok", (sys.executable, "-c", script), (), 30.0) for n in range(20)]
    good = Job("good", "ok", (sys.executable, "-c", WORKER), (), 30.0)
    outcomes = {outcome.key: outcome for outcome in run_jobs([*bad, good], 1)}
    assert len(starts.read_text()) == 2
    assert {outcomes[job.key].lost for job in bad} == {
        "the process ended with exit code 1: ImportError: no cutlass"
    }
    assert not outcomes["good"].lost


# A process with a card whose context can die. Each job is appended to the file named first.
CARD = """
import json, os, sys, time
print(json.dumps({"ready": True}), flush=True)
dead = False
for line in sys.stdin:
    job = json.loads(line)
    with open(sys.argv[1], "a") as log:
        print(os.getpid(), job, file=log)
    if job.startswith("hang"):
        time.sleep(600)
    dead = dead or job == "crash"
    error = {"words": "an illegal memory access", "fatal": True} if dead else None
    print(json.dumps({"job": job, "error": error}), flush=True)
    dead = dead or job == "crash later"
    if job == "exit later":
        print("torch.AcceleratorError: CUDA error: an illegal memory access was encountered", file=sys.stderr)
        print("For debugging consider passing CUDA_LAUNCH_BLOCKING=1\\n", file=sys.stderr)
        os._exit(1)
"""


@pytest.fixture
def card(tmp_path):
    """Runs jobs one after another on CARD; gives their outcomes, and what each process was asked."""

    def run(*names: str, again: bool = True) -> tuple[dict[str, Outcome], list[list[str]]]:
        command = (sys.executable, "-c", CARD, str(tmp_path / "log"))
        jobs = [Job(name, name, command, (), 1.0 if name == "hang" else 30.0, again) for name in names]
        outcomes = {outcome.key: outcome for outcome in run_jobs(jobs, 1)}
        return outcomes, asked(tmp_path / "log")

    return run


def asked(log: Path) -> list[list[str]]:
    """The jobs of each process, in the order of their start."""
    processes: dict[str, list[str]] = {}
    for line in log.read_text().splitlines():
        process, _, job = line.partition(" ")
        processes.setdefault(process, []).append(job)
    return list(processes.values())


def test_a_crash_costs_one_job_and_the_next_has_a_fresh_process(card):
    outcomes, processes = card("a", "crash", "b", "c")
    assert [name for name in outcomes if outcomes[name].fatal] == ["crash"]
    assert outcomes["crash"].answer["error"]["words"] == "an illegal memory access"
    assert processes == [["a", "crash"], ["crash"], ["b", "c"]]


def test_the_victim_of_an_earlier_job_is_asked_again_and_not_blamed(card):
    outcomes, processes = card("a", "crash later", "b", "c")
    assert not any(outcome.fatal for outcome in outcomes.values())
    assert processes == [["a", "crash later", "b"], ["b", "c"]]


def test_so_is_one_whose_process_ended_before_it_was_asked(card):
    outcomes, processes = card("a", "exit later", "b")
    assert not any(outcome.fatal for outcome in outcomes.values())
    assert processes == [["a", "exit later"], ["b"]]


def test_a_process_that_ended_long_before_it_was_asked_is_closed_without_a_word(tmp_path):
    """Its pipe is broken when the job is written, and once more when the pipe is closed."""
    command = (sys.executable, "-c", CARD, str(tmp_path / "log"))
    worker = Worker(Job("a", "exit later", command, (), 30))
    assert not worker.ask(Job("a", "exit later", command, (), 30)).fatal
    worker.kill()
    assert worker.ask(Job("b", "b", command, (), 30)).fatal
    worker.close()


def test_what_fails_as_the_first_of_its_process_is_asked_once(card):
    outcomes, processes = card("crash", "hang", "a")
    assert [outcomes[name].fatal for name in ("crash", "hang", "a")] == [True, True, False]
    assert outcomes["hang"].lost == "timed out after 1 s and was killed"
    assert processes == [["crash"], ["hang"], ["a"]]


def test_a_hang_behind_others_is_asked_twice_at_most(card):
    outcomes, processes = card("a", "hang", "b")
    assert [outcomes[name].fatal for name in ("a", "hang", "b")] == [False, True, False]
    assert processes == [["a", "hang"], ["hang"], ["b"]]


def test_nothing_is_asked_again_that_does_not_allow_it(card):
    outcomes, processes = card("a", "crash later", "b", "c", again=False)
    assert [name for name in outcomes if outcomes[name].fatal] == ["b"]
    assert processes == [["a", "crash later", "b"], ["c"]]


def test_a_run_that_is_broken_off_asks_nothing_again(tmp_path):
    command = (sys.executable, "-c", CARD, str(tmp_path / "log"))
    worker = LastingWorker()
    assert not worker.ask(Job("a", "a", command, (), 20, again=True)).fatal
    outcomes: list[Outcome] = []
    hanging = Job("hang", "hang", command, (), 60, again=True)
    thread = threading.Thread(target=lambda: outcomes.append(worker.ask(hanging)))
    thread.start()
    until(lambda: asked(tmp_path / "log") == [["a", "hang"]])
    worker.kill()
    thread.join(20)
    assert [outcome.lost for outcome in outcomes] == ["the process was killed by SIGKILL"]
    assert asked(tmp_path / "log") == [["a", "hang"]]


@pytest.mark.parametrize(
    ("outcome", "fatal"),
    [
        (Outcome("a", lost="timed out"), True),
        (Outcome("a", {"error": {"fatal": True}}), True),
        (Outcome("a", {"error": {"fatal": False}}), False),
        (Outcome("a", {"error": {"words": "refused"}}), False),
        (Outcome("a", {"error": None}), False),
        (Outcome("a", {"error": "in words"}), False),
        (Outcome("a", {"samples": {}}), False),
        (Outcome("a", [1, "a"]), False),
    ],
)
def test_which_outcomes_are_fatal(outcome, fatal):
    assert outcome.fatal is fatal


ADVICE = "CUDA kernel errors might be asynchronously reported\nCompile with `TORCH_USE_CUDA_DSA`\n"


@pytest.mark.parametrize(
    ("end", "reason", "message"),
    [
        (
            "os._exit(1)",
            f"torch.AcceleratorError: CUDA error: misaligned address\n{ADVICE}",
            "1: torch.Accel",
        ),
        (
            "os.abort()",
            f"terminate called\n  what():  CUDA error: misaligned address\n{ADVICE}",
            "SIGABRT: CUDA",
        ),
        ("os._exit(1)", f"nothing of the kind\n{ADVICE}", "1: Compile with `TORCH_USE_CUDA_DSA`"),
        ("os.kill(os.getpid(), 9)", f"ValueError: long ago\n{ADVICE}", "SIGKILL: Compile with"),
    ],
)
def test_the_reason_of_a_death_names_the_exception_not_the_advice_below_it(end, reason, message):
    script = f"import os, sys; print({reason!r}, file=sys.stderr, flush=True); {end}"
    (outcome,) = run_jobs([Job("a", "a", (sys.executable, "-c", script), (), 20)], 1)
    assert message in outcome.lost
    assert ("misaligned address" in reason) == outcome.lost.endswith("CUDA error: misaligned address")
