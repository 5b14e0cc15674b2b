"""Timing fresh processes: six quiet samples or words, with simulated machines and odd workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fa4_asv.base import core_locks
from fa4_asv.base.core_locks import Reading
from fa4_asv.measure import pool
from fa4_asv.measure.compile_stubs import CompileStub, compiles_so_far
from fa4_asv.measure.compile_time import collect as jit
from fa4_asv.measure.compile_time.collect import Machine, measure_call, measure_import
from fa4_asv.measure.compile_time.worker import counted_without_driver
from fa4_asv.measure.context import Context
from fa4_asv.measure.forks import in_a_child
from tests.support.contexts import a_context

# Answers as the real worker does; the first argument says what it does when asked, the second counts starts,
# the third counts calls.
WORKER = """
import json, os, sys, time
what, starts, calls = sys.argv[1:]
def count(path):
    with open(path, "a") as file:
        file.write("x")
    return os.path.getsize(path)
number = count(starts)
error = lambda kind, refused: {"kind": kind, "words": "words", "refused": refused}
if what == "no import":
    print(json.dumps({"seconds": 0.1, "error": error("ImportError", False)}), flush=True)
    sys.exit()
forks = what != "threads"
print(json.dumps({"seconds": number / 10, "forks": forks, "error": None}), flush=True)
for line in sys.stdin:
    number = count(calls)
    if what == "hang" and number == 3:
        time.sleep(600)
    if what == "die":
        print("last words", file=sys.stderr)
        os._exit(7)
    failed = {"refuse": error("AssertionError", True), "raise": error("TypeError", False)}.get(what)
    answer = {"seconds": number / 100, "used": 2.0, "kernels": what != "nothing", "error": failed}
    print(json.dumps(answer), flush=True)
    if not forks:
        break
"""
CASE = ("sm_90", "fwd_d128_full")


class Simulated:
    """A machine of which others use the listed numbers of cores, one sample each; its clock is no clock."""

    def __init__(self, *cores: float | None) -> None:
        self._cores, self._reads = list(cores), 0
        self._now = Reading(0.0, 0.0, 0.0, 0.0)

    def __call__(self) -> Reading:
        """Every second reading ends a sample of 10 s in which we used 8 s of one core."""
        sample, ends = divmod(self._reads, 2)
        self._reads += 1
        if ends:
            others = self._cores[min(sample, len(self._cores) - 1)]
            now = self._now
            if others is None:
                self._now = replace(now, clock=now.clock + 10)
            else:
                busy = now.busy + 8 + 10 * others
                self._now = Reading(now.clock + 10, now.own + 8, busy, now.total + 20)
        return self._now

    @property
    def samples(self) -> int:
        return self._reads // 2


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "test.lock"
    monkeypatch.setattr(core_locks, "lock_path", lambda: path)
    return path


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return a_context(tmp_path)


@pytest.fixture
def worker(tmp_path: Path):
    """The command of a fake worker; its starts and calls are counted in files."""
    counts = (str(tmp_path / "starts"), str(tmp_path / "calls"))
    return lambda what="work": (sys.executable, "-c", WORKER, what, *counts)


def test_a_quiet_machine_gives_six_samples_after_one_start_that_is_not_recorded(context, worker, tmp_path):
    record = measure_call(context, CASE, Machine(Simulated(0.25)), worker())
    assert record.state == "measured"
    assert record.samples == {"seconds": [0.02, 0.03, 0.04, 0.05, 0.06, 0.07]}
    # The machine's counters say 0.25 of 10 s were others', of which the call's own process used 2 s.
    assert record.notes["alone"] == "others used at most 0.05 cores, 0.2 allowed"
    assert "cores" in record.notes["cpu"]
    assert (tmp_path / "starts").stat().st_size == 1, "one process imports, its children call"
    assert record.notes["processes"] == "children of one that has imported FA4"


def test_where_imports_leave_threads_each_sample_imports_for_itself(context, worker, tmp_path):
    record = measure_call(context, CASE, Machine(Simulated(0.0)), worker("threads"))
    assert (record.state, len(record.samples["seconds"])) == ("measured", 6)
    assert (tmp_path / "starts").stat().st_size == 8, "one that tells, one that is not recorded, six"
    assert record.notes["processes"] == "each imports FA4 itself"


def test_the_start_that_is_not_recorded_is_one_an_architecture(context, worker, tmp_path):
    for call in (CASE, ("sm_90", "bwd_d128_causal"), ("sm_100", "fwd_d128_full")):
        assert measure_call(context, call, Machine(Simulated(0.0)), worker()).state == "measured"
    assert (tmp_path / "calls").stat().st_size == 3 * 6 + 2


def test_an_import_is_timed_by_its_own_processes(context, worker):
    record = measure_import(context, ("flash_attn.cute",), Machine(Simulated(0.0)), worker())
    assert record.samples == {"seconds": [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]}, "the first start is no sample"


def test_a_disturbed_sample_is_repeated_and_said(context, worker):
    record = measure_import(context, ("flash_attn.cute",), Machine(Simulated(1.3, 0.4, 0.1)), worker())
    assert record.samples == {"seconds": [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}
    message = "others used at most 0.10 cores, 0.2 allowed; 2 disturbed samples were repeated"
    assert record.notes["alone"] == message


def test_a_machine_that_is_always_busy_has_no_time(context, worker):
    simulated = Simulated(1.3)
    record = measure_import(context, ("flash_attn.cute",), Machine(simulated), worker())
    assert (record.state, record.samples) == ("not run", {})
    message = "others used 1.3 cores while it ran: 0 of 13 samples were quiet enough, 6 are needed"
    assert record.why == message
    assert simulated.samples == 13, "after 13 of 18 attempts six can no longer come together"


def test_samples_between_disturbances_count_up_to_the_last_attempt(context, worker):
    simulated = Simulated(*[1.0] * 12, 0.0)
    record = measure_import(context, ("flash_attn.cute",), Machine(simulated), worker())
    assert (record.state, simulated.samples) == ("measured", 18)
    late = Simulated(0, 0, 0, 0, 0, 1.0)
    record = measure_import(context, ("flash_attn.cute",), Machine(late), worker())
    assert "5 of 18 samples were quiet enough" in record.why


def test_a_system_that_does_not_tell_is_taken_at_its_word(context, worker, tmp_path):
    record = measure_import(context, ("flash_attn.cute",), Machine(Simulated(None)), worker())
    assert record.state == "measured"
    assert record.notes["alone"] == "unknown: this system does not tell what others use"
    missing = core_locks.read_usage(tmp_path / "nothing")
    assert core_locks.others_used(missing, missing) is None


@pytest.mark.parametrize(
    ("what", "state", "why"),
    [
        ("refuse", "unsupported", "AssertionError: words"),
        ("raise", "broken", "TypeError: words"),
        ("no import", "broken", "ImportError: words"),
        ("die", "broken", "the process ended with exit code 7: last words"),
        ("nothing", "broken", "the call returned without compiling a kernel"),
    ],
)
def test_what_a_process_meets_is_the_verdict_of_its_case(context, worker, what, state, why):
    record = measure_call(context, CASE, Machine(Simulated(0.0)), worker(what))
    assert (record.state, record.why, record.samples) == (state, why, {})


def test_a_hang_is_killed_and_said(context, worker, monkeypatch):
    monkeypatch.setattr(jit, "CALL_TIMEOUT", 0.5)
    record = measure_call(context, CASE, Machine(Simulated(0.0)), worker("hang"))
    assert (record.state, record.why) == ("broken", "timed out after 0.5 s and was killed")
    monkeypatch.setattr(pool, "START_TIMEOUT", 0.3)
    sleeps = (sys.executable, "-c", "import time; time.sleep(600)")
    record = measure_import(context, ("flash_attn.cute",), Machine(Simulated(0.0)), sleeps)
    assert (record.state, record.why) == ("broken", "timed out after 0.3 s and was killed")
    record = measure_call(context, CASE, Machine(Simulated(0.0)), ("/nowhere/python",))
    assert (record.state, "/nowhere/python" in record.why) == ("broken", True)


def test_a_wrong_bound_is_no_fault_of_fa4(context, worker, monkeypatch):
    monkeypatch.setenv("FA4_ASV_OTHERS", "many")
    record = measure_call(context, CASE, Machine(Simulated(0.0)), worker())
    assert (record.state, record.why.partition(",")[0]) == ("not run", "FA4_ASV_OTHERS is 'many'")


def test_a_call_runs_in_a_child():
    def used():
        begin = time.process_time()
        while time.process_time() < begin + 0.1:
            pass
        return {"seconds": 1.5, "kernels": os.getpid(), "error": None}

    answer = in_a_child(used)
    assert answer["seconds"] == 1.5 and answer["kernels"] != os.getpid()
    assert 0.1 <= answer["used"] < 2


@pytest.mark.parametrize(
    ("death", "code", "arguments"),
    [
        ("os.abort()", -6, "LLVM ERROR"),
        ("sys.exit(3)", 1, "SystemExit: 3"),
        ("os.kill(os.getpid(), 9)", -9, "LLVM ERROR"),
    ],
)
def test_a_worker_whose_child_dies_does_likewise_and_its_words_are_heard(death, code, arguments):
    script = (
        "import os, sys\nfrom fa4_asv.measure.forks import in_a_child\n"
        f"def dies():\n    print('LLVM ERROR', file=sys.stderr, flush=True)\n    {death}\nin_a_child(dies)"
    )
    root = Path(core_locks.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert (done.returncode, arguments in done.stderr) == (code, True), done.stderr


def test_a_lock_that_is_not_ours_is_refused_and_never_followed(own_lock, tmp_path, context, worker):
    target = tmp_path / "precious"
    target.write_text("precious")
    own_lock.symlink_to(target)
    record = measure_call(context, CASE, Machine(Simulated(0.0)), worker())
    assert record.state == "not run" and f"cannot lock {own_lock}" in record.why
    own_lock.unlink()
    own_lock.hardlink_to(target)
    target.chmod(0o600)
    record = measure_call(context, CASE, Machine(Simulated(0.0)), worker())
    assert "not a private file of this user" in record.why
    with core_locks.shared(lambda message: None):
        pass  # an exact figure needs no lock
    own_lock.unlink()
    own_lock.touch()
    own_lock.chmod(0o666)
    record = measure_call(context, CASE, Machine(Simulated(0.0)), worker())
    assert "not a private file of this user" in record.why
    assert target.read_text() == "precious"


def test_only_the_drivers_absence_is_forgiven():
    class CudaDriverDependencyError(Exception):
        pass

    raised: list[Exception | None] = [None, CudaDriverDependencyError("ICE"), TypeError("not this one")]

    class Compile:
        options = "o"

        def __getitem__(self, options: str) -> Compile:
            return self

        def __call__(self) -> str:
            error = raised.pop(0)
            if error:
                raise error
            return "compiled"

    before = compiles_so_far()
    compile_function = CompileStub(Compile(), counted_without_driver)
    assert compile_function() == "compiled"
    never_run = compile_function["options"]()
    with pytest.raises(RuntimeError, match="without a driver"):
        never_run()
    with pytest.raises(TypeError):
        compile_function()
    assert (compiles_so_far() - before, compile_function.options) == (3, "o")


def test_the_worker_command_is_the_real_one(context):
    job = jit._job(context, "sm_100", {"call": "x"}, jit._WORKER)
    environment = dict(job.environment)
    assert job.command == (sys.executable, "-m", "fa4_asv.measure.compile_time.worker")
    assert environment["CUTE_DSL_ARCH"] == "sm_100a"
    assert environment["FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED"] == "0"
    assert environment["CUTE_DSL_DISABLE_FILE_CACHING"] == "1"
    assert "CUTE_DSL_KEEP_CUBIN" not in environment
    assert json.loads(json.dumps(job.payload)) == {"call": "x"}
