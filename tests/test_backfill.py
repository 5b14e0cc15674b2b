"""Backfill: what is missing, one writer, nothing half-written; asv itself is stood in for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from fa4_asv.backfill.tasks import Attempt, BackfillRequest, Task, commits_of, missing, patterns
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.cli import run
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import iter_results, read_sidecar
from tests.support import ROOT
from tests.support.backfills import CODEGEN, ENVIRONMENT, KERNELS, asv_that, commits, record


def good(staged, task):
    record(staged, task.commit, task.name)


def test_ranges_are_gits_and_a_release_is_itself(history):
    first, second, third = commits(history)
    assert commits_of(history, []) == [first, second, third]
    assert commits_of(history, ["fa4-v4.0.0b3..releases"]) == [second, third]
    assert commits_of(history, ["fa4-v4.0.0b4"]) == commits_of(history, ["4.0.0b4"]) == [second]
    assert commits_of(history, ["4.0.0b3..4.0.0b4", "4.0.0b10^!"]) == [second, third]
    assert commits_of(history, ["..releases"]) == []
    assert commits_of(history, ["fa4-v4.0.0b4", "releases"]) == [second, first, third]
    assert commits_of(history, [], every=2) == [first, third]
    with pytest.raises(Fa4AsvError, match="unknown release or commit 'fa4-v9'"):
        commits_of(history, ["fa4-v9..releases"])


def test_missing_is_what_has_no_state(history):
    first, second, third = commits(history)
    record(history, first, "4.0.0b3")
    record(history, second, "4.0.0b4", CaseRecord("unsupported", why="no cu13 extra"))
    record(history, third, "4.0.0b10", sm_90__fwd_d64_full=CaseRecord("not run", why="not selected"))
    tasks = missing(history, commits(history), CODEGEN)
    assert tasks == [Task(third, "4.0.0b10", "cu13", ("codegen",), ENVIRONMENT)]
    everything = missing(history, commits(history), BackfillRequest(flavours=("cu13",)))
    assert [task.name for task in everything] == ["4.0.0b3", "4.0.0b4", "4.0.0b10"]
    assert everything[0].groups == tuple(
        g.name for g in GROUPS.values() if g.exact and g.name not in ("codegen", "route") and not g.on_request
    )
    assert (
        len(
            missing(
                history, commits(history), BackfillRequest(flavours=("cu12",), bench=("^codegen.Kernels",))
            )
        )
        == 3
    )


def test_broken_is_recorded_and_measured_again_only_when_asked(history):
    commit = commits(history)[0]
    record(history, commit, "4.0.0b3", sm_90__fwd_d64_full=CaseRecord("broken", why="killed by SIGSEGV"))
    assert missing(history, [commit], CODEGEN) == []
    again = BackfillRequest(flavours=("cu13",), bench=("^codegen.Kernels",), retry_broken=True)
    assert len(missing(history, [commit], again)) == 1


def test_what_an_older_version_of_a_benchmark_recorded_is_missing(history, monkeypatch):
    first = commits(history)[0]
    record(history, first, "4.0.0b2")
    assert missing(history, [first], CODEGEN) == []
    monkeypatch.setitem(GROUPS, "codegen", replace(GROUPS["codegen"], version="2"))
    (task,) = missing(history, [first], CODEGEN)
    assert task.groups == ("codegen",) and task.environment == ENVIRONMENT


def test_each_benchmark_has_the_version_that_the_table_says():
    for group in GROUPS.values():
        module, name, _ = group.stem.split(".")
        spec = spec_from_file_location(module, ROOT / "benchmarks" / f"{module}.py")
        loaded = module_from_spec(spec)
        spec.loader.exec_module(loaded)
        assert getattr(loaded, name).version == group.version, group.name


def test_a_file_that_cannot_be_read_is_missing(history):
    commit = commits(history)[0]
    path = record(history, commit, "4.0.0b3")
    path.write_text(path.read_text()[:100])
    assert len(missing(history, [commit], CODEGEN)) == 1


def test_a_commit_is_measured_aside_and_moved_when_sound(history, monkeypatch):
    seen = []

    def watched(staged, task):
        seen.append(staged.root)
        assert staged.results != history.results
        good(staged, task)

    asv_that(watched, monkeypatch)
    task = missing(history, commits(history), CODEGEN)[0]
    moved = Attempt(history, task, CODEGEN).run()
    assert [path.suffix for path in moved] == [".sidecar", ".json"]
    assert read_sidecar(moved[0]).release == task.name == "4.0.0b3"
    assert len(list(iter_results(history.results))) == 1
    assert not seen[0].exists()
    assert len(missing(history, commits(history), CODEGEN)) == 2


def test_what_is_unsound_is_not_moved(history, monkeypatch):
    def edited(staged, task):
        path = record(staged, task.commit, task.name)
        path.write_text(path.read_text().replace("[[16,", "[[17,", 1))

    asv_that(edited, monkeypatch)
    task = missing(history, commits(history), CODEGEN)[0]
    with pytest.raises(Fa4AsvError, match=r"4\.0\.0b3 cu13: .*log: "):
        Attempt(history, task, CODEGEN).run()
    assert not list(iter_results(history.results))


def test_new_groups_are_added_to_what_was_there(history, monkeypatch):
    """asv merges into the pair that was copied beside it; another flavour's pair stays where it is."""
    commit = commits(history)[0]
    old = record(history, commit, "4.0.0b3", sm_90__fwd_d64_full=CaseRecord("not run", why="not selected"))
    seen = []
    asv_that(
        lambda staged, task: seen.append(sorted(p.name for p in iter_results(staged.results))), monkeypatch
    )
    Attempt(history, missing(history, [commit], CODEGEN)[0], CODEGEN).run()
    assert seen == [[old.name]]


def test_the_command_retries_reports_and_goes_on(history, monkeypatch, capsys):
    calls = []

    def flaky(staged, task):
        calls.append(task.name)
        if task.name == "4.0.0b4" or calls.count(task.name) == 1:
            return
        good(staged, task)

    asv_that(flaky, monkeypatch, code=2)
    with pytest.raises(SystemExit) as ended:
        run(["backfill", "--flavour", "cu13", "-b", "^codegen.Kernels", "--retries", "1"])
    assert ended.value.code == 1
    assert calls == ["4.0.0b3", "4.0.0b3", "4.0.0b4", "4.0.0b4", "4.0.0b10", "4.0.0b10"]
    out, err = capsys.readouterr()
    assert "[2/3] 4.0.0b4 cu13: failed" in out
    assert f"{KERNELS} measured" in out
    assert "asv recorded nothing (exit code 2); log: .asv/backfill/logs/4.0.0b4-cu13.log" in err
    calls.clear()
    asv_that(good, monkeypatch)
    with pytest.raises(SystemExit) as ended:
        run(["backfill", "--flavour", "cu13", "-b", "^codegen.Kernels"])
    assert ended.value.code == 0
    assert f"[1/1] 4.0.0b4 cu13: {KERNELS} measured" in capsys.readouterr().out


def test_what_is_recorded_is_not_measured_again_whatever_bench_says():
    (pattern,) = patterns(["memory"], ["^(codegen|memory).*sm_90"])
    assert re.search(pattern, "memory.Traced.track_peak_bytes('sm_90', 'x')")
    assert not re.search(pattern, "memory.Traced.track_peak_bytes('sm_100', 'x')")
    assert not re.search(pattern, "codegen.Kernels.track_registers('sm_90', 'x')")
    assert patterns(["growth"], []) == [r"^memory\.Growth\.track_"]


def test_a_dry_run_tells_and_touches_nothing(history, capsys):
    record(history, commits(history)[0], "4.0.0b3")
    with pytest.raises(SystemExit) as ended:
        run(["backfill", "--dry-run", "--flavour", "cu13", "-b", "^codegen.Kernels"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "4.0.0b10 cu13: codegen" in out
    assert "2 runs are missing over 3 commits, about 3 min by what was recorded so far" in out
    with pytest.raises(SystemExit):
        run(["backfill", "--dry-run", "--json", "--flavour", "cu13", "-b", "^codegen.Kernels"])
    plan = json.loads(capsys.readouterr().out)
    assert (plan["seconds"], plan["unknown"]) == (200.0, [])
    assert [task["name"] for task in plan["tasks"]] == ["4.0.0b4", "4.0.0b10"]
    with pytest.raises(SystemExit):
        run(["backfill", "--dry-run", "--flavour", "cu13", "-m", "new-box", "-b", "^compile"])
    assert "; not counted, as new-box has no record of them: compile, import\n" in capsys.readouterr().out


def test_an_interrupt_keeps_what_finished(history, monkeypatch, capsys):
    def interrupted(staged, task):
        if task.name == "4.0.0b4":
            raise KeyboardInterrupt
        good(staged, task)

    asv_that(interrupted, monkeypatch)
    with pytest.raises(SystemExit) as ended:
        run(["backfill", "--flavour", "cu13", "-b", "^codegen.Kernels"])
    assert ended.value.code == 130
    assert "interrupted: 1 of 3 runs are in results/; run it again to go on" in capsys.readouterr().err
    assert len(list(iter_results(history.results))) == 1


def test_one_backfill_at_a_time(history, monkeypatch, capsys):
    lock = history.work / "backfill" / ".lock"
    lock.parent.mkdir(parents=True)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl,sys,time;h=open(sys.argv[1],'w');fcntl.flock(h,2);print(1,flush=True);time.sleep(60)",
            str(lock),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        holder.stdout.readline()
        with pytest.raises(SystemExit) as ended:
            run(["backfill", "--flavour", "cu13"])
    finally:
        holder.kill()
        holder.wait()
    assert ended.value.code == 2
    assert (
        "a backfill, comparison or sweep measures in this checkout; wait for it, or stop it"
        in capsys.readouterr().err
    )
