"""Rounds of timed cases: what is collected, handed out, remembered. With a worker that only plays one."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fa4_asv.base import core_locks
from fa4_asv.catalog.benchmarks import GROUPS, key_of
from fa4_asv.measure.context import Context
from fa4_asv.measure.runtime import collect as runtime
from fa4_asv.measure.runtime.collect import next_record
from tests.support.contexts import a_context

GROUP = GROUPS["forward-cpu"]
FIRST, SECOND = GROUP.cases[:2]

# Answers as the real worker does. Each job is appended to the file named first; the second argument is JSON:
# shape -> what to do instead of measuring.
WORKER = """
import json, os, sys, time
log, odd = sys.argv[1], json.loads(sys.argv[2])
print(json.dumps({"ready": True}), flush=True)
for number, line in enumerate(sys.stdin):
    job = json.loads(line)
    with open(log, "a") as file:
        file.write(json.dumps({**job, "process": os.getpid()}) + "\\n")
    what = odd.get(job["shape"])
    if what == "hang" or what == "hang later" and job["what"] == "seconds":
        time.sleep(600)
    if what == "starve once":
        what = "starve" if not os.path.exists(log + ".starved") else None
        open(log + ".starved", "w").close()
    if what == "die":
        os._exit(9)
    kinds = {"starve": ("OutOfMemoryError", "words"), "starved driver": ("RuntimeError", "CUDA error: out of memory"),
             "wrong": ("guard", "words of wrong")}
    kind, words = kinds.get(what, ("ValueError", f"words of {what}"))
    error = {"kind": kind, "words": words, "refused": what == "refuse", "guard": what == "wrong"}
    if job["what"] == "guard":
        measured = {"samples": {}, "control": None, "errors": {"out gaussian": 0.5}, "words": {}}
        print(json.dumps({"error": error} if what and what != "hang later" else measured), flush=True)
        continue
    start = os.path.getsize(log)
    measured = {"samples": {"seconds": [start + 0.25, start + 0.5]}, "control": 0.001, "errors": {"out sampled": 0.4}, "words": {}}
    print(json.dumps({"error": error} if what and what != "hang later" else measured), flush=True)
"""


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_locks, "lock_path", lambda: tmp_path / "test.lock")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return a_context(tmp_path)


@pytest.fixture
def worker(tmp_path: Path):
    """The command of a worker that treats some shapes oddly."""
    return lambda **odd: (sys.executable, "-c", WORKER, str(tmp_path / "log"), json.dumps(odd))


def jobs(tmp_path: Path, what: str = "seconds") -> list[dict]:
    """What a worker was asked to time, or to guard."""
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    return [job for job in lines if job["what"] == what]


def test_a_round_is_one_process_and_is_read_once_per_case(context, worker, tmp_path):
    first = next_record(context, GROUP, FIRST, command=worker())
    assert [(job["backend"], job["shape"]) for job in jobs(tmp_path)] == list(GROUP.cases)
    assert len({job["process"] for job in jobs(tmp_path)}) == 1
    other = next_record(context, GROUP, SECOND, command=worker())
    assert len(jobs(tmp_path)) == len(GROUP.cases), "the second case was in the first round"
    assert {first.state, other.state} == {"measured"}
    errors = {name: message for name, message in first.notes.items() if name.startswith("error")}
    assert errors == {"error out gaussian": "0.5", "error out sampled": "0.4"}, (
        "of the guard, of the clock's process"
    )
    assert first.samples["control"] == [0.001]
    middle = sum(first.samples["seconds"]) / 2
    assert (first.samples["centre"], first.samples["two modes"]) == ([middle], [0.0])


def test_asking_again_collects_anew_so_that_no_sample_is_pooled_twice(context, worker, tmp_path):
    rounds = [next_record(context, GROUP, FIRST, command=worker()) for _ in range(3)]
    seconds = [value for record in rounds for value in record.samples["seconds"]]
    assert len(seconds) == len(set(seconds)) == 6
    assert len({job["process"] for job in jobs(tmp_path)}) == 3, "a fresh process each round"


def test_every_case_is_guarded_once_by_other_processes_before_any_is_timed(context, worker, tmp_path):
    for _ in range(2):
        next_record(context, GROUP, FIRST, command=worker())
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    count = len(GROUP.cases)
    assert [job["what"] for job in lines] == ["guard"] * count + ["seconds"] * 2 * count
    guards = {job["process"] for job in jobs(tmp_path, "guard")}
    assert len(guards) == 1 and not guards & {job["process"] for job in jobs(tmp_path)}


def test_what_the_guard_did_not_pass_is_timed_in_no_round(context, worker, tmp_path):
    shape = FIRST[1]
    states = [next_record(context, GROUP, FIRST, command=worker(**{shape: "refuse"})).state]
    # The next rounds' processes would measure it: round 0 has said that they must not.
    states += [next_record(context, GROUP, FIRST, command=worker()).state for _ in range(2)]
    assert states == ["unsupported"] * 3
    assert FIRST not in {(job["backend"], job["shape"]) for job in jobs(tmp_path)}


def test_only_a_cards_own_kernels_are_guarded_side_by_side(monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 32)
    wide = {name: runtime._beside(GROUPS[name]) for name in ("forward", "forward-yardsticks", "forward-cpu")}
    assert wide == {"forward": runtime.GUARDS, "forward-yardsticks": 1, "forward-cpu": 1}


@pytest.mark.parametrize(
    ("what", "beside", "state", "asked"),
    [
        ("starve once", 4, "measured", 2),
        ("starve", 4, "broken", 2),
        ("starved driver", 4, "broken", 2),
        ("starve", 1, "broken", 1),
    ],
)
def test_what_found_no_memory_beside_others_is_guarded_alone(
    context, worker, tmp_path, monkeypatch, what, beside, state, asked
):
    monkeypatch.setattr(runtime, "_beside", lambda group: beside)
    narrow = replace(context, select=(rf"forward\.Cpu.*'{FIRST[0]}', '{FIRST[1]}'",))
    record = next_record(narrow, GROUP, FIRST, command=worker(**{FIRST[1]: what}))
    assert (record.state, len(jobs(tmp_path, "guard"))) == (state, asked)


def test_only_what_was_selected_is_measured(context, worker, tmp_path):
    narrow = replace(context, select=(r"forward\.Cpu.*'fa2', 'b1_s4352",))
    case = ("fa2", "b1_s4352_h1_d64_causal")
    assert next_record(narrow, GROUP, case, command=worker()).state == "measured"
    assert [(job["backend"], job["shape"]) for job in jobs(tmp_path)] == [case]
    left_out = next_record(narrow, GROUP, FIRST, command=worker())
    assert (left_out.state, left_out.why) == ("broken", "asv asked for a case that --bench did not select")


@pytest.mark.parametrize(
    ("what", "state", "why"),
    [
        ("refuse", "unsupported", "ValueError: words of refuse"),
        ("raise", "broken", "ValueError: words of raise"),
        ("die", "broken", "the process ended with exit code 9"),
        ("hang", "broken", "killed"),
        ("hang later", "broken", "killed"),
    ],
)
def test_a_case_that_fails_costs_itself(context, worker, monkeypatch, what, state, why):
    monkeypatch.setattr(runtime, "CASE_TIMEOUT", 2.0)
    context = replace(context, select=[r"forward\.Cpu.*'fa4'"])
    shape = FIRST[1]
    record = next_record(context, GROUP, FIRST, command=worker(**{shape: what}))
    assert (record.state, why in record.why) == (state, True), record
    assert not record.samples
    assert next_record(context, GROUP, SECOND, command=worker(**{shape: what})).state == "measured"


def test_a_wrong_answer_is_remembered_and_never_measured_again(context, worker, tmp_path):
    shape = FIRST[1]
    wrong = next_record(context, GROUP, FIRST, command=worker(**{shape: "wrong"}))
    assert (wrong.state, wrong.why, wrong.samples) == ("broken", "guard: words of wrong", {})
    assert FIRST not in {(job["backend"], job["shape"]) for job in jobs(tmp_path)}, "never timed"
    before = len(jobs(tmp_path))
    again = next_record(context, GROUP, FIRST, command=worker())
    assert again.state == "broken" and again.why.startswith("guard: words of wrong (failed before; remove ")
    asked = {(job["backend"], job["shape"]) for job in jobs(tmp_path)[before:]}
    assert FIRST not in asked and SECOND in asked
    fixed = replace(context, commit="d" * 40, spool=str(tmp_path / "other"))
    assert next_record(fixed, GROUP, FIRST, command=worker()).state == "measured", (
        "another commit is another case"
    )


def test_the_verdict_can_be_taken_back_by_removing_the_file_it_names(context, worker, tmp_path):
    shape = FIRST[1]
    next_record(context, GROUP, FIRST, command=worker(**{shape: "wrong"}))
    why = next_record(context, GROUP, FIRST, command=worker()).why
    path = why.split("remove ")[1].split(" to try")[0]
    (tmp_path / path).unlink()
    anew = replace(context, spool=str(tmp_path / "another asv"))
    assert next_record(anew, GROUP, FIRST, command=worker()).state == "measured"


def test_a_damaged_verdict_is_no_verdict(context, worker):
    path = runtime._verdict_path(context, GROUP.name, key_of(FIRST))
    path.parent.mkdir(parents=True)
    path.write_text("{half")
    assert next_record(context, GROUP, FIRST, command=worker()).state == "measured"


# As seen on an H200: a packed case dies of an illegal memory access, and a paged one is asked behind it. `how` the process
# is lost: it answers and ends, answers that it is of no use, or only ends. The first words are those of torch 2.11.
CRASH = """
import json, os, sys
log, how = sys.argv[1:]
print(json.dumps({"ready": True}), flush=True)
error = {"kind": "AcceleratorError", "words": "CUDA error: an illegal memory access was encountered"}
good = {"samples": {"seconds": [0.25, 0.5]}, "control": None, "errors": {}, "words": {}}
for line in sys.stdin:
    job = json.loads(line)
    with open(log, "a") as file:
        file.write(json.dumps({**job, "process": os.getpid()}) + "\\n")
    guilty = job["shape"].endswith("_varlen")
    if guilty and how != "ends":
        error |= {"refused": False, "guard": False, "fatal": how == "says so"}
        print(json.dumps({"error": error}), flush=True)
    if guilty:
        sys.exit(f"torch.AcceleratorError: {error['words']}\\nCompile with `TORCH_USE_CUDA_DSA`")
    print(json.dumps(good), flush=True)
"""
DENSE, PACKED, PAGED = (
    ("fa4", "b8_s512_h16_d128_causal"),
    ("fa4", "b16_s2048_h16_d128_causal_varlen"),
    ("fa4", "b8_s4096_h32kv8_d128_causal_paged"),
)


@pytest.mark.parametrize(
    ("how", "why", "processes"),
    [
        # Its words come from an answer; the process it leaves behind is found dead by the next case.
        ("answers", "AcceleratorError: CUDA error: an illegal memory access was encountered", 2),
        (
            "says so",
            "AcceleratorError: CUDA error: an illegal memory access was encountered"
            " (guard of fa4 forward b16_s2048_h16_d128_causal_varlen)",
            3,
        ),
        (
            "ends",
            "the process ended with exit code 1: torch.AcceleratorError: CUDA error: an illegal memory access was"
            " encountered (guard of fa4 forward b16_s2048_h16_d128_causal_varlen)",
            3,
        ),
    ],
)
def test_a_paged_case_is_measured_behind_a_packed_one_that_crashes(
    context, tmp_path, monkeypatch, how, why, processes
):
    monkeypatch.setattr(runtime, "_beside", lambda group: 1)
    context = replace(context, select=[rf"forward\.Further.*'{name}'" for _, name in (DENSE, PACKED, PAGED)])
    command = (sys.executable, "-c", CRASH, str(tmp_path / "log"), how)
    group = GROUPS["forward-further"]
    records = {case: next_record(context, group, case, command=command) for case in (DENSE, PACKED, PAGED)}
    assert {case: record.state for case, record in records.items()} == {
        DENSE: "measured",
        PACKED: "broken",
        PAGED: "measured",
    }
    assert records[PACKED].why == why
    assert len({job["process"] for job in jobs(tmp_path, "guard")}) == processes
    assert len([job for job in jobs(tmp_path, "guard") if job["shape"] == PACKED[1]]) == processes - 1
    assert not (tmp_path / ".asv" / "guard").exists(), "a crash is no wrong answer, and is not remembered"


def test_a_case_that_hangs_behind_others_costs_its_limit_twice_and_no_other_case(
    context, worker, tmp_path, monkeypatch
):
    monkeypatch.setattr(runtime, "CASE_TIMEOUT", 2.0)
    context = replace(context, select=[r"forward\.Cpu.*'fa4'"])
    command = worker(**{SECOND[1]: "hang"})
    record = next_record(context, GROUP, SECOND, command=command)
    assert record.why == f"timed out after 2 s and was killed (guard of fa4 forward {SECOND[1]})"
    assert len([job for job in jobs(tmp_path, "guard") if (job["backend"], job["shape"]) == SECOND]) == 2
    for other in (FIRST, GROUP.cases[2]):
        assert next_record(context, GROUP, other, command=command).state == "measured"
