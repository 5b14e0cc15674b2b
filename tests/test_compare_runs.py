"""What `fa4-asv compare` measures before it compares: what is missing, under which toolchain, in turns."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from fa4_asv.backfill import comparison, tasks
from fa4_asv.backfill.tasks import Attempt, BackfillRequest, Interleaving, Task, asv_words
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.cli import run
from fa4_asv.compare.commits import TOOLCHAIN_VARIABLE
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import read_sidecar, sidecar_path, write_sidecar
from tests.support.compare_checkout import B15, B20, PYPROJECT, add_commit, copy_record, edit, lay, pair

CUTE = "flash_attn/cute"


@pytest.fixture
def checkout(project, monkeypatch):
    """b15 and b20 recorded; no torch to ask, a history to walk."""
    lay(project)
    add_commit(project, "releases", "first", {f"{CUTE}/pyproject.toml": PYPROJECT.format(pin="==4.5.2")})
    monkeypatch.setattr(comparison, "torches_here", lambda *_: ())
    return project


@pytest.fixture
def attempts(monkeypatch):
    """Every Attempt that was run, with the policy it ran under; `made` may be given something to do."""
    made = []

    def stand_in(self: Attempt) -> list:
        made.append((self.task, self._turns, os.environ.get(TOOLCHAIN_VARIABLE, "")))
        stand_in.then(self)
        return []

    stand_in.then = lambda attempt: None
    monkeypatch.setattr(Attempt, "run", stand_in)
    return made, stand_in


def compare(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run(["compare", *arguments])
    return int(ended.value.code or 0)


def test_what_is_recorded_is_not_measured(checkout, attempts):
    assert compare("4.0.0b15", "4.0.0b20") == 1
    assert attempts[0] == []


def test_only_what_is_missing_is_measured_and_then_compared(checkout, attempts, capsys):
    made, by = attempts

    def lacking(group: str, key: str, record: CaseRecord) -> CaseRecord:
        return CaseRecord("not run") if group == "memory" else record

    edit(pair(checkout, B20), lacking)
    by.then = lambda attempt: copy_record(checkout, B15, B20, release="4.0.0b20")
    assert compare("4.0.0b15", "4.0.0b20") == 0, "what was recorded meanwhile is B15's own record"
    ((task, turns, policy),) = made
    assert (task.commit, task.groups, turns, policy) == (B20, ("memory",), None, "")
    assert "measuring 4.0.0b20 cu13 (1 of 1" in capsys.readouterr().err


def test_a_commit_that_cannot_be_measured_is_one_line(checkout, attempts, capsys):
    def fails(attempt: Attempt) -> None:
        raise Fa4AsvError("4.0.0b21 cu13: asv recorded nothing (exit code 1); log: .asv/backfill/logs/x.log")

    attempts[1].then = fails
    assert compare("4.0.0b20", "4.0.0b21") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("fa4-asv: 4.0.0b21 cu13: asv recorded nothing")


def test_ctrl_c_is_no_verdict(checkout, attempts, capsys):
    def interrupted(attempt: Attempt) -> None:
        raise KeyboardInterrupt

    attempts[1].then = interrupted
    assert compare("4.0.0b20", "4.0.0b21") == 130
    assert "what was measured is in results/; run it again to go on" in capsys.readouterr().err


# Toolchains


@pytest.fixture
def branch(checkout, monkeypatch):
    """A branch of two commits with the same pins; the day's locks are given, as uv would resolve them."""
    first = add_commit(checkout, "main", "x", {f"{CUTE}/pyproject.toml": PYPROJECT.format(pin=">=4.4")})
    second = add_commit(checkout, "pr", "y", {f"{CUTE}/x.py": ""}, first)

    def lock(versions: tuple[str, str]) -> None:
        folder = checkout.work / "toolchain-locks" / "day" / "cu13"
        folder.mkdir(parents=True, exist_ok=True)
        for commit, version in zip((first, second), versions, strict=True):
            (folder / f"{commit}.txt").write_text(f"nvidia-cutlass-dsl=={version}\n")

    return checkout, first, second, lock


@pytest.mark.parametrize("asked", [None, "day"])
def test_head_gives_its_toolchain_to_both(branch, attempts, monkeypatch, asked):
    if asked:
        monkeypatch.setenv(TOOLCHAIN_VARIABLE, asked)
    project, first, second, lock = branch
    lock(("4.4.2", "4.5.0"))
    policy = f"as-{second[:8]}"
    attempts[1].then = lambda attempt: copy_record(project, B20, attempt.task.commit, policy)
    assert compare("main", "pr") == 0
    assert [(task.commit, used) for task, _, used in attempts[0]] == [
        (first, f"as:{second}"),
        (second, f"as:{second}"),
    ]
    assert os.environ.get(TOOLCHAIN_VARIABLE) == asked


def test_the_day_is_used_where_it_is_the_same(branch, attempts):
    project, _, _, lock = branch
    lock(("4.5.0", "4.5.0"))
    attempts[1].then = lambda attempt: copy_record(project, B20, attempt.task.commit)
    assert compare("main", "pr") == 0
    assert [used for _, _, used in attempts[0]] == ["", ""]


def test_a_person_may_ask_for_another_toolchain(checkout, attempts, monkeypatch):
    pins = "nvidia-cutlass-dsl==4.8.1"
    monkeypatch.setenv(TOOLCHAIN_VARIABLE, pins)
    attempts[1].then = lambda attempt: copy_record(checkout, B20, attempt.task.commit, policy=pins)
    assert compare("4.0.0b15", "4.0.0b20") == 0, "both are B20's record"
    assert [used for _, _, used in attempts[0]] == [pins, pins]
    assert os.environ[TOOLCHAIN_VARIABLE] == pins


def test_the_option_asks_for_a_toolchain_for_one_call(checkout, attempts, monkeypatch):
    pins = "nvidia-cutlass-dsl==4.8.1"
    monkeypatch.setenv(TOOLCHAIN_VARIABLE, "day")
    attempts[1].then = lambda attempt: copy_record(checkout, B20, attempt.task.commit, policy=pins)
    assert compare("4.0.0b15", "4.0.0b20", "--toolchain", pins) == 0
    assert [used for _, _, used in attempts[0]] == [pins, pins]
    assert os.environ[TOOLCHAIN_VARIABLE] == "day", "as it was"


# Times


def known_as(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".asv-machine.json").write_text(json.dumps({name: {"machine": name}, "version": 1}))


def test_times_of_both_are_taken_in_turns(checkout, attempts, tmp_path, monkeypatch, capsys):
    known_as("box", tmp_path, monkeypatch)
    narrow = ["--bench", "^forward.Core|^compile", "--rounds", "7"]
    assert compare("4.0.0b15", "4.0.0b20", "-m", "box", *narrow) == 2, "the stand-in records nothing"
    both = (B15, B20)
    assert [(task.groups, turns) for task, turns, _ in attempts[0]] == [
        (("import",), Interleaving(both, 2)),
        (("compile", "forward"), Interleaving(both, 7)),
    ]
    assert "machine 'box' does not hold both sides" in capsys.readouterr().err


def test_without_bench_only_groups_that_a_side_has_are_timed(checkout, attempts, tmp_path, monkeypatch):
    known_as("box", tmp_path, monkeypatch)
    compare("4.0.0b15", "4.0.0b20", "-m", "box")
    assert attempts[0] == []


def test_times_belong_to_the_machine_that_is_named(checkout, attempts, tmp_path, monkeypatch, capsys):
    known_as("box", tmp_path, monkeypatch)
    assert compare("4.0.0b15", "4.0.0b20", "-m", "my-h200", "--bench", "^compile") == 2
    err = capsys.readouterr().err
    assert "this machine is not 'my-h200', and times are only comparable on one machine" in err
    assert attempts[0] == []


def test_asv_is_told_to_interleave():
    task, request = Task("c" * 40, "a-b", "cu13", ("forward",)), BackfillRequest("box", bench=("Core",))
    command = asv_words(task, request, "fa4:same", Interleaving(("a", "b"), 5))
    assert command[:6] == ["-m", "asv", "run", "HASHFILE:commits", "--interleave-rounds", "--record-samples"]
    assert command[6:8] == ["--attribute", "rounds=5"] and "fa4:same" in command and "box" in command
    assert asv_words(task, request)[3] == f"{'c' * 40}^!"


def test_no_two_measure_in_one_checkout(checkout, attempts, monkeypatch, capsys):
    def busy(*_: object, busy: str = "") -> None:
        raise Fa4AsvError(busy)

    monkeypatch.setattr(tasks, "only_one", busy)
    assert compare("4.0.0b20", "4.0.0b21") == 2
    assert "sweep measures in this checkout; wait for it, or use --no-run" in capsys.readouterr().err


def test_an_older_suite_is_refused_before_anything_is_measured(checkout, attempts, capsys):
    path = sidecar_path(pair(checkout, B15))
    write_sidecar(path, replace(read_sidecar(path), suite="0"))
    assert compare("4.0.0b15", "4.0.0b21") == 2
    assert attempts[0] == []
    assert "was written by suite '0'" in capsys.readouterr().err


def test_a_damaged_file_is_measured_again(checkout, attempts):
    text = sidecar_path(pair(checkout, B15)).read_text()
    sidecar_path(pair(checkout, B15)).write_text("{half")
    attempts[1].then = lambda attempt: sidecar_path(pair(checkout, B15)).write_text(text)
    assert compare("4.0.0b15", "4.0.0b20") == 1
    assert [task.commit for task, _, _ in attempts[0]] == [B15]
