"""The engine of a sweep with processes that are a few lines of Python: turns, phases, crashes, several cards."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fa4_asv.backfill.sweep import engine as module
from fa4_asv.backfill.sweep.engine import Call, Engine, Station, Subject
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.measure import pool
from fa4_asv.measure.runtime import journal
from fa4_asv.measure.runtime.card import Card
from fa4_asv.measure.runtime.journal import YARDSTICK_FILE, Plan
from tests.support import ROOT

WORKER = str(ROOT / "tests" / "support" / "sweep_worker.py")
FULL, CAUSAL = "b2_s256_h4_d64_full", "b2_s256_h4_d64_causal"
CALLS = [
    Call(f"{direction}-history-cpu", ("fa4", shape))
    for shape in (FULL, CAUSAL)
    for direction in ("forward", "backward")
]
FORWARD, BACKWARD = CALLS[:2]
NAMES = ("old", "mid", "new")
CARD = Card(0, "processor", "cpu")


def subject(name: str, **more: Any) -> Subject:
    # The folder is the name under which the worker writes down what it does.
    return Subject(
        name, f"{name}.jsonl", sys.executable, (f"/nowhere/{name}",), f"/nowhere/cache-{name}", **more
    )


YARDSTICKS = Subject("yardsticks", YARDSTICK_FILE, sys.executable, ("/nowhere/yardsticks",), "/nowhere/none")


@dataclass
class Runs:
    """Sweeps in one folder, one after another; and what their processes wrote down."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    told: list[tuple[str, int, int]] = field(default_factory=list)

    def engine(
        self,
        names: Sequence[str] = NAMES,
        calls: Sequence[Call] = CALLS,
        plan: Plan = Plan(2, 2),  # noqa: B008 - frozen
        told: dict[str, str] | None = None,
        cards: Sequence[Card] = (CARD,),
        yardsticks: bool = False,
        seed: int = 1,
        subjects: Sequence[Subject] = (),
        **more: Any,
    ) -> Engine:
        # Without site-packages and PYTHONPATH: a start takes 20 ms.
        self.monkeypatch.setattr(module, "_WORKER", ("-S", "-E", WORKER))
        self.monkeypatch.setenv("FA4_ASV_SWEEP_LOG", str(self.folder / "log"))
        self.monkeypatch.setenv("FA4_ASV_SWEEP_TOLD", json.dumps(told or {}))
        chosen = subjects or [subject(name) for name in names]
        wanted = dict.fromkeys(calls, frozenset(each.file for each in chosen))
        if yardsticks:
            beside = [Call(call.group, ("cudnn", call.case[1])) for call in calls]
            wanted |= dict.fromkeys(beside, frozenset({YARDSTICK_FILE}))
        share = [dict(list(wanted.items())[number :: len(cards)]) for number in range(len(cards))]
        stations = [
            Station(card, self.folder / card.uuid, mine, {"sweep": "s", "card": card.digest})
            for card, mine in zip(cards, share, strict=True)
        ]
        tell = more.pop("tell", lambda *arguments: self.told.append(arguments))
        return Engine(
            [replace(station, seed=seed) for station in stations],
            chosen,
            [YARDSTICKS] if yardsticks else [],
            plan,
            more.pop("cores", 2),
            tell,
            **more,
        )

    def run(self, *arguments: Any, **options: Any) -> dict[str, float]:
        return self.engine(*arguments, **options).run()

    def log(self) -> list[dict[str, Any]]:
        """What the processes did, in the order of the machine's clock."""
        lines = [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]
        return sorted(lines, key=lambda line: line["at"])

    def begun(self, *whats: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["what"] in whats and line.get("begun")]

    def entries(self, name: str, card: Card = CARD) -> list[dict[str, Any]]:
        return journal.read(self.folder / card.uuid / f"{name}.jsonl")

    def rounds(self, name: str, call: Call = FORWARD, card: Card = CARD) -> list[dict[str, Any]]:
        return journal.rounds_of(self.entries(name, card), call.key)

    def record(self, name: str, call: Call = FORWARD) -> Any:
        return journal.record_of(self.entries(name), call.key, self.entries("yardsticks"))

    def asked(self, name: str, what: str, call: Call) -> int:
        label = f"{call.group.partition('-')[0]} {call.case[1]}"
        return sum(line["who"] == name and line["call"] == label for line in self.begun(what))


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Runs:
    return Runs(tmp_path, monkeypatch)


def words_of(call: Call) -> str:
    return f"{call.group.partition('-')[0]} {call.case[1]}"


def complete(
    runs: Runs, names: Sequence[str] = NAMES, calls: Sequence[Call] = CALLS, rounds: int = 4
) -> None:
    """Each call of each release has exactly its rounds, and none of them twice."""
    for name in names:
        for call in calls:
            record = runs.record(name, call)
            assert record is not None and record.state == "measured", (name, call, record)
            numbers = record.samples["round"]
            assert len(numbers) == len(set(numbers)) == rounds, (name, call, numbers)


# Turns and phases.


def test_every_call_has_its_rounds_from_two_processes(runs):
    took = runs.run()
    complete(runs)
    assert list(took) == [
        "guard and compile", "start 1", "rounds 1", "start 2", "rounds 2", "profiler",
    ]  # fmt: skip
    for name in NAMES:
        for call in CALLS:
            samples = runs.record(name, call).samples
            assert samples["process"] == [0, 0, 1, 1] and samples["round"] == [0, 1, 2, 3]
    assert runs.record("old", BACKWARD).samples["kernel main"] == [0.0015]
    assert "kernel main" not in runs.record("old").samples
    assert runs.record("old").notes["sweep"] == "s"


def test_a_process_lives_through_all_rounds_of_its_slot(runs):
    runs.run()
    for name in NAMES:
        turns = [line["pid"] for line in runs.begun("turn") if line["who"] == name]
        loads = [line["pid"] for line in runs.begun("load") if line["who"] == name]
        assert len(turns) == 2 * 2 * len(CALLS) and len(loads) == 2 * len(CALLS)
        assert len(set(turns[:8])) == len(set(turns[8:])) == 1 and turns[0] != turns[-1]
        assert loads[0] == turns[0] and loads[-1] == turns[-1], "what has loaded is what is timed"
        guards = {line["pid"] for line in runs.begun("first") if line["who"] == name}
        assert not guards & set(turns), "the guard's inputs would share the card with those that are timed"


def phases(log: Sequence[dict[str, Any]]) -> list[str]:
    """Runs of the same kind of question, as they follow each other by the clock."""
    kinds = {
        "ready": "start",
        "import": "start",
        "first": "guard",
        "load": "start",
        "turn": "turn",
        "profiler": "profiler",
        "kernels": "kernels",
    }
    result = [kinds[line["what"]] for line in log if line["what"] != "leave"]
    return [kind for kind, before in zip(result, ["", *result], strict=False) if kind != before]


def test_nothing_compiles_or_starts_while_anything_is_timed(runs, monkeypatch):
    monkeypatch.setenv("FA4_ASV_SWEEP_TOOK", "0.004")
    runs.run(cores=4)
    result = phases(runs.log())
    assert result[result.index("turn") :] == ["turn", "start", "turn", "profiler", "kernels"]


def test_one_call_at_a_time_is_on_the_card(runs, monkeypatch):
    monkeypatch.setenv("FA4_ASV_SWEEP_TOOK", "0.004")
    runs.run(cores=4)
    spans = [line for line in runs.log() if line["what"] in ("turn", "kernels", "leave")]
    turns = [line for line in spans if line["what"] == "turn"]
    for begin, end in zip(turns[::2], turns[1::2], strict=True):
        assert begin["begun"] and not end["begun"] and begin["pid"] == end["pid"], "two at once"


@pytest.mark.parametrize("what", ["first", "load", "profiler"])
def test_what_needs_no_turn_is_side_by_side(runs, what):
    """One process waits until another is asked the same: one after another, it would wait in vain."""
    runs.run(["old", "new"], CALLS[:2], told={f"* * {what}": "once meet"})
    complete(runs, ["old", "new"], CALLS[:2])
    first, second = [line for line in runs.log() if line["what"] == what][:2]
    assert first["pid"] != second["pid"] and second.get("begun"), "begun before the first has ended"


def orders(runs: Runs, names: Sequence[str] = NAMES) -> list[list[str]]:
    """The order of releases in each round, by the rounds' own words."""
    result: dict[int, dict[int, str]] = {}
    for name in names:
        for entry in runs.rounds(name):
            result.setdefault(entry["round"], {})[entry["order"]] = name
    return [[result[number][place] for place in sorted(result[number])] for number in sorted(result)]


def test_each_round_has_an_order_of_its_own_and_a_seed_repeats_it(tmp_path, monkeypatch):
    names = [f"r{number}" for number in range(7)]
    made = []
    for number, seed in enumerate((1, 1, 2)):
        runs = Runs(tmp_path / str(number), monkeypatch)
        runs.run(names, CALLS[:1], Plan(1, 4), seed=seed)
        made.append(orders(runs, names))
        assert all(sorted(each) == names for each in made[-1])
        # What is written down is what was done.
        did = [line["who"] for line in runs.begun("turn")]
        assert did == [name for each in made[-1] for name in each]
    assert made[0] == made[1] != made[2]
    assert len({tuple(each) for each in made[0]}) == 4, "a fresh order in each round"


def test_yardsticks_take_a_turn_in_each_round(runs):
    runs.run(yardsticks=True)
    complete(runs)
    for name in NAMES:
        for call in CALLS:
            assert len(runs.record(name, call).samples["cudnn"]) == 4
    assert "fa2" not in runs.record("old").samples
    kernels = [line for line in runs.begun("kernels") if line["who"] == "yardsticks"]
    assert not kernels, "only FA4's kernels are profiled"


def test_a_release_that_comes_later_has_yardsticks_of_its_own_rounds(runs):
    """And round numbers that no release before had, though it is timed alone."""
    runs.run(["old"], CALLS[:2], yardsticks=True)
    before = runs.record("old", BACKWARD)
    runs.run(["new"], CALLS[:2], yardsticks=True)
    assert runs.record("old", BACKWARD) == before
    samples = runs.record("new", BACKWARD).samples
    assert samples["round"] == [4, 5, 6, 7] and len(samples["cudnn"]) == 4
    runs.run(["mid"], CALLS[:1])
    assert runs.record("mid").samples["round"] == [8, 9, 10, 11], "without yardsticks as well"


def test_a_yardstick_that_pytorch_lacks_costs_one_question(runs):
    told = {f"yardsticks {words_of(BACKWARD)} cudnn first": "refuse"}
    runs.run(told=told, calls=CALLS[:2], yardsticks=True)
    complete(runs, calls=CALLS[:2])
    assert "cudnn" in runs.record("old").samples and "cudnn" not in runs.record("old", BACKWARD).samples
    turns = [line["call"] for line in runs.begun("turn") if line["who"] == "yardsticks"]
    assert set(turns) == {f"{words_of(FORWARD)} cudnn"}


def test_work_put_in_by_hand_is_handed_to_the_process(runs):
    both = [subject("plain"), subject("more", added=0.5)]
    runs.run(subjects=both, calls=CALLS[:1])
    plain, more = (sum(runs.record(name).samples["centre"]) for name in ("plain", "more"))
    assert 1.4 < more / plain < 1.6


def test_progress_tells_each_step_once(runs):
    runs.run(["old", "new"], CALLS[:2])
    by_phase: dict[str, list[int]] = {}
    for phase, done, steps in runs.told:
        by_phase.setdefault(phase, []).append(done)
        assert 1 <= done <= steps
    assert {phase: sorted(done) for phase, done in by_phase.items()} == {
        "guard and compile": [1, 2, 3, 4],
        **{f"{what} {slot}": list(range(1, last + 1)) for slot in (1, 2) for what, last in (("start", 2), ("rounds", 4))},
    }  # fmt: skip


# Crashes. `die` is a segfault, `hang` ends in a timeout, `fatal` an answer after which the context is dead.

CRASHES = {
    "die": "the process was killed by SIGSEGV",
    "hang": "timed out after 0.5 s and was killed",
    "fatal": "AcceleratorError: CUDA error: an illegal memory access was encountered",
    "nonsense": "answered no JSON",
}


@pytest.fixture
def impatient(monkeypatch, word):
    for name in ("FIRST", "LOAD", "TURN") if word == "hang" else ():
        monkeypatch.setattr(module, name, 0.5)


@pytest.mark.parametrize("what", ["first", "load", "turn"])
@pytest.mark.parametrize("word", CRASHES)
def test_a_crash_costs_the_call_that_crashes_and_no_other(runs, impatient, word, what):
    """A mutant of each kind, at each question: the culprit is broken with its reason, all others are measured."""
    runs.run(["old", "new"], CALLS[:3], told={f"new {words_of(BACKWARD)} {what}": word})
    culprit = runs.record("new", BACKWARD)
    assert culprit.state == "broken" and CRASHES[word] in culprit.why, culprit
    assert not culprit.samples
    complete(runs, ["new"], [FORWARD, CALLS[2]])
    complete(runs, ["old"], CALLS[:3])
    assert runs.asked("new", what, BACKWARD) <= 2, "once more in a fresh process, and never again"
    assert runs.asked("new", "turn", FORWARD) == 4, "what was finished is not asked again"


@pytest.mark.parametrize(
    ("word", "what"),
    [("die", "first"), ("die", "load"), ("die", "turn"), ("hang", "turn"), ("fatal", "turn")],
)
def test_a_victim_of_another_call_is_asked_again_in_a_fresh_process(runs, impatient, word, what):
    runs.run(["old", "new"], told={f"new {words_of(BACKWARD)} {what}": f"once {word}"})
    complete(runs, ["old", "new"])
    assert runs.asked("new", what, BACKWARD) == {"first": 1, "load": 2, "turn": 4}[what] + 1
    processes = runs.record("new", BACKWARD).samples["process"]
    assert len(set(processes)) == 2, "the one that was lost has timed nothing of it"


def test_a_replaced_process_has_a_number_of_its_own(runs):
    told = {f"old {words_of(CALLS[2])} turn": "once die"}
    runs.run(["old"], told=told, plan=Plan(2, 3))
    samples = {call: runs.record("old", call).samples for call in CALLS}
    # It dies in the first round, in the third call: from there on another process answers.
    assert samples[CALLS[1]]["process"] == [0, 1, 1, 2, 2, 2]
    assert samples[CALLS[2]]["process"] == [1, 1, 1, 2, 2, 2]


def test_a_call_that_the_guard_refuses_is_never_timed(runs):
    told = {f"old {words_of(FORWARD)} first": "guard", f"new {words_of(FORWARD)} first": "refuse"}
    runs.run(["old", "new"], told=told)
    assert (runs.record("old").state, runs.record("old").why) == (
        "broken",
        "guard: dq is 1.0 from the reference",
    )
    assert runs.record("new").state == "unsupported"
    assert not runs.asked("old", "load", FORWARD) and not runs.asked("new", "turn", FORWARD)
    complete(runs, ["old", "new"], CALLS[1:])


def test_a_release_that_fails_at_everything_costs_the_others_nothing(runs):
    runs.run(["old", "new"], told={"new * first": "no module named cutlass.nowhere"})
    complete(runs, ["old"])
    for call in CALLS:
        assert runs.record("new", call).why == "RuntimeError: no module named cutlass.nowhere"
    assert not [line for line in runs.begun("load", "turn") if line["who"] == "new"]


def test_yardsticks_beside_calls_that_all_fail_are_not_timed(runs):
    runs.run(["old"], CALLS[:1], told={"old * load": "out of order"}, cores=1, yardsticks=True)
    assert runs.record("old").why.startswith("RuntimeError: out of order")
    assert not runs.begun("turn")


def test_noise_in_a_round_is_no_failure_of_the_call(runs):
    runs.run(["old"], told={f"old {words_of(FORWARD)} turn": "once noise"})
    assert runs.record("old").samples["round"] == [1, 2, 3]
    assert len(runs.rounds("old")) == 4


def test_a_process_that_cannot_start_is_broken_with_its_words(runs, monkeypatch):
    engine = runs.engine(["old"], CALLS[:1])
    monkeypatch.setattr(module, "_WORKER", ("-c", "raise ImportError('no torch here')"))
    engine.run()
    why = "the process ended with exit code 1: ImportError: no torch here"
    assert runs.record("old").why == f"{why} (guard of fa4 {words_of(FORWARD)})"


def killing(runs: Runs, what: str, count: int) -> Callable[[], None]:
    """A thread's work: kill -9 the process that is asked the `count`th question of a kind."""

    def kill() -> None:
        for _ in range(2000):
            time.sleep(0.01)
            asked = runs.begun(what) if (runs.folder / "log").exists() else []
            if len(asked) >= count:
                os.kill(asked[count - 1]["pid"], signal.SIGKILL)
                return

    return kill


@pytest.mark.parametrize(
    ("what", "count"), [("first", 1), ("load", 1), ("load", 3), ("turn", 1), ("turn", 9)]
)
def test_kill_9_of_a_releases_process_costs_nothing(runs, monkeypatch, what, count):
    """Also as it answers its first question: nobody but a person or a full memory kills so."""
    monkeypatch.setenv("FA4_ASV_SWEEP_TOOK", "0.02")
    thread = threading.Thread(target=killing(runs, what, count))
    thread.start()
    runs.run(["old", "new"], CALLS[:2])
    thread.join()
    complete(runs, ["old", "new"], CALLS[:2])


# Going on, and asking again.


@pytest.mark.parametrize("steps", [0, 2, 3, 5, 8, 9, 12, 15])
def test_a_run_that_ends_anywhere_goes_on_where_it_was(runs, steps):
    count = iter(range(steps))

    def tell(*_: Any) -> None:
        if next(count, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run(["old", "new"], CALLS[:2], tell=tell)
    before = {name: runs.entries(name) for name in ("old", "new")}
    runs.run(["old", "new"], CALLS[:2])
    complete(runs, ["old", "new"], CALLS[:2])
    for name, entries in before.items():
        assert runs.entries(name)[: len(entries)] == entries, "what was finished stays as it is"


def test_what_is_complete_is_not_asked_again(runs):
    runs.run()
    count = len(runs.log())
    runs.run()
    assert len(runs.log()) == count
    runs.run(plan=Plan(2, 3))
    complete(runs, rounds=6)


def test_a_run_that_ends_before_the_profiler_takes_it_up_again(runs):
    def tell(phase: str, done: int, steps: int) -> None:
        if (phase, done) == ("rounds 2", steps):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run(["old"], CALLS[:2], tell=tell)
    assert runs.record("old", BACKWARD) is None and runs.record("old") is not None
    runs.run(["old"], CALLS[:2])
    assert runs.record("old", BACKWARD).samples["kernel main"] == [0.0015]
    assert runs.asked("old", "turn", BACKWARD) == 4
    runs.run(["old"], CALLS[:2])
    assert runs.asked("old", "kernels", BACKWARD) == 1


def test_what_the_profiler_cannot_say_is_left_out_and_not_asked_again(runs):
    runs.run(["old"], CALLS[:2], told={"old * kernels": "refuse"})
    assert runs.record("old", BACKWARD).state == "measured"
    assert "kernel main" not in runs.record("old", BACKWARD).samples
    runs.run(["old"], CALLS[:2])
    assert runs.asked("old", "kernels", BACKWARD) == 1


@pytest.mark.parametrize("what", ["first", "turn"])
def test_broken_calls_are_asked_again_on_request_only(runs, what):
    key = f"old {words_of(BACKWARD)} {what}"
    runs.run(["old"], told={key: "guard" if what == "first" else "die"})
    assert runs.record("old", BACKWARD).state == "broken"
    count = len(runs.log())
    runs.run(["old"])
    assert len(runs.log()) == count
    runs.run(["old"], retry_broken=True)
    complete(runs, ["old"])
    assert runs.asked("old", "first", FORWARD) == 1 and runs.asked("old", "first", BACKWARD) == 2


def test_only_noise_is_asked_again_on_request(runs):
    runs.run(["old"], CALLS[:1], told={f"old {words_of(FORWARD)} turn": "noise"})
    assert runs.record("old").state == "broken"
    runs.run(["old"], CALLS[:1], retry_broken=True)
    complete(runs, ["old"], CALLS[:1])


# The end: a full disk, Ctrl-C.


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and "Z" not in state(pid)}


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize("what", ["first", "load", "turn"])
def test_a_stop_is_quick_and_leaves_no_process(runs, what):
    """While a question takes ten minutes."""
    engine = runs.engine(["old", "new"], told={f"new * {what}": "hang"})

    def interrupt() -> None:
        while what not in [line["what"] for line in (runs.log() if (runs.folder / "log").exists() else [])]:
            time.sleep(0.01)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    thread.join()
    assert not alive({line["pid"] for line in runs.log()})
    lines = [line for name in ("old", "new") for line in runs.entries(name)]
    assert not [line for line in lines if line["kind"] == "failed"], "a killed process is nobody's failure"
    broken = [line for line in lines if line["kind"] == "first" and line["record"]["state"] != "measured"]
    assert not broken


def test_a_stop_while_a_process_starts_asks_it_nothing(runs, monkeypatch):
    """Its import takes seconds, and there is nothing to kill yet."""
    engine = runs.engine(["old"], CALLS[:1])
    started = pool.Worker

    def slow(job: Any) -> Any:
        worker = started(job)
        engine._stop.set()
        for seat in engine._seats:
            seat.kill()
        return worker

    monkeypatch.setattr(pool, "Worker", slow)
    with pytest.raises(module.Stopped):
        engine.run()
    assert [line["what"] for line in runs.log()] == ["ready"]
    assert not alive({line["pid"] for line in runs.log()})


def test_a_full_disk_ends_the_run_in_one_line(runs, monkeypatch):
    lines = iter(range(7))
    append = journal.append

    def full(path: Path, entry: Any) -> None:
        if next(lines, None) is None:
            raise Fa4AsvError(f"cannot write {path}: no space left; what was measured before is kept")
        append(path, entry)

    monkeypatch.setattr(journal, "append", full)
    with pytest.raises(Fa4AsvError, match="no space left"):
        runs.run(["old", "new"])
    monkeypatch.setattr(journal, "append", append)
    assert sum(len(runs.entries(name)) for name in ("old", "new")) == 7
    assert not alive({line["pid"] for line in runs.log()})
    runs.run(["old", "new"])
    complete(runs, ["old", "new"])


# Several cards.

CARDS = [Card(0, "NVIDIA H100", "GPU-1"), Card(1, "NVIDIA H100", "GPU-2")]


def test_stations_are_side_by_side_and_each_goes_through_its_own_calls(runs):
    runs.run(["old", "new"], cards=CARDS, cores=4, told={"* * turn": "once meet"})
    for number, card in enumerate(CARDS):
        for name in ("old", "new"):
            rounds = [line for line in runs.entries(name, card) if line["kind"] == "round"]
            assert all(line["seconds"] for line in rounds), "one card waited for the other"
            assert {line["call"] for line in rounds} == {call.key for call in CALLS[number::2]}
        numbers = [entry["round"] for entry in runs.rounds("old", CALLS[number], card)]
        assert numbers == [0, 1, 2, 3], "rounds are counted card by card"
    result = [line["what"] for line in runs.log() if line["what"] in ("turn", "load")]
    phases = [what for what, before in zip(result, ["", *result], strict=False) if what != before]
    assert phases == ["load", "turn"] * 2, "nobody starts while another card is timed"


def test_a_process_sees_its_card_and_its_cache_of_kernels(runs, monkeypatch):
    seen = []
    started = pool.Worker
    monkeypatch.setattr(pool, "Worker", lambda job: seen.append(dict(job.environment)) or started(job))
    runs.run(["old"], CALLS[:2], cards=CARDS)
    assert {each["CUDA_VISIBLE_DEVICES"] for each in seen} == {"GPU-1", "GPU-2"}
    assert {each["FLASH_ATTENTION_CUTE_DSL_CACHE_DIR"] for each in seen} == {"/nowhere/cache-old"}
    seen.clear()
    runs.run(["new"], CALLS[:2])
    assert not any("CUDA_VISIBLE_DEVICES" in each for each in seen), "there is no card to see"
