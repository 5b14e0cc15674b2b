"""`fa4-asv compare BASE --worktree PATH`: verdicts and exit codes, what is refused, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fa4_asv.backfill.sweep import worktree
from fa4_asv.backfill.sweep.engine import Subject
from fa4_asv.base import core_locks
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.cli import run
from fa4_asv.cli import worktree as command
from fa4_asv.history import toolchain
from fa4_asv.history import worktree as history
from fa4_asv.history.repository import CUTE
from fa4_asv.measure.runtime import card, journal
from fa4_asv.measure.runtime.card import CONTEXT_MIB, INPUTS_MIB, Card, cpu_card
from fa4_asv.measure.runtime.journal import Plan
from tests.support import ROOT
from tests.support.worktree_fake import FORWARD, lay_base, lay_tree, use_fakes

CPU = ("--set", "cpu", "-m", "box", "-b", FORWARD)


@pytest.fixture
def checkout(project, monkeypatch):
    """A history whose main is the fake's FA4; its lock on this machine's cores is its own."""
    monkeypatch.setattr(core_locks, "lock_path", lambda: project.root / "test.lock")
    monkeypatch.delenv("FA4_ASV_TOOLCHAIN", raising=False)
    lay_base(project)
    use_fakes(monkeypatch, project)
    return project


def compare(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        run(["compare", *map(str, arguments)])
    return int(ended.value.code or 0)


def against(capsys, tree: Path, *arguments: object) -> tuple[int, dict]:
    """Exit code and the one comparison of main and a tree, by three processes per side."""
    code = compare("main", "--worktree", tree, *CPU, "--processes", 3, "--format", "json", *arguments)
    return code, json.loads(capsys.readouterr().out)["comparisons"][0]


def refused(capsys, *arguments: object) -> str:
    """The one line of a comparison that cannot be made."""
    assert compare(*arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    return err.removeprefix("fa4-asv: ").strip()


def left(project: Project) -> list[str]:
    """What stays of a comparison: nothing but what can be rebuilt, and no journal."""
    assert not project.results.exists()
    assert not (project.work / "sweeps").exists()
    return [path.name for path in (project.work / "backfill").iterdir() if path.is_dir()]


# Verdicts.


def test_a_tree_that_equals_base_is_no_worse(checkout, capsys, tmp_path):
    code, result = against(capsys, lay_tree(tmp_path / "mine"))
    (row,) = result["rows"]
    assert (code, row["verdict"] in ("same", "unclear")) == (0, True), row
    head = result["head"]
    assert (head["ref"], head["commit"], head["release"]) == ("mine", "", "")
    assert (len(head["tree"]), head["subject"]) == (12, "no source file differs from BASE")
    assert "tree" not in result["base"]
    assert result["toolchains"] == "both with BASE's toolchain: the pins are the same"
    assert result["base"]["toolchain"] == head["toolchain"]
    assert left(checkout) == []


def test_a_slower_tree_is_exit_1_in_every_format(checkout, capsys, tmp_path):
    tree = lay_tree(tmp_path / "mine", "takes 1.05")
    code, result = against(capsys, tree)
    (row,) = result["rows"]
    assert (code, row["verdict"], row["reason"]) == (1, "slower", "interval-excludes-0")
    assert row["ratio"] == pytest.approx(1.05, abs=0.005)
    assert result["head"]["subject"] == "1 source file differs from BASE: interface.py"
    digest = result["head"]["tree"]
    for form in ("text", "markdown"):
        assert compare("main", "--worktree", tree, *CPU, "--processes", 3, "--format", form) == 1
        out, err = capsys.readouterr()
        assert f"uncommitted tree {digest}" in out
        assert "slower" in out
        assert f"tree {digest}, 1 call, 3 processes per side, 2 rounds each, on " in err
    assert left(checkout) == []


def test_a_faster_tree_is_exit_0(checkout, capsys, tmp_path):
    code, result = against(capsys, lay_tree(tmp_path / "mine", "takes 0.95"))
    assert (code, [row["verdict"] for row in result["rows"]]) == (0, ["faster"])


def test_a_wrong_tree_is_newly_broken_and_nothing_is_timed(checkout, capsys, tmp_path):
    tree = lay_tree(tmp_path / "mine", "wrong dq is off")
    assert compare("main", "--worktree", tree, *CPU, "--format", "json") == 1
    out, err = capsys.readouterr()
    (row,) = json.loads(out)["comparisons"][0]["rows"]
    assert (row["verdict"], row["reason"]) == ("newly broken", "measured-to-broken")
    assert row["words"] == "guard: dq is off"
    assert "guard and compile: 2 of 2" in err
    assert "rounds" not in err.splitlines()[-1]


def test_a_base_that_does_not_work_is_no_comparison(checkout, capsys, tmp_path):
    lay_base(checkout, "wrong nothing works")
    arguments = (
        "main",
        "--worktree",
        lay_tree(tmp_path / "mine"),
        "--set",
        "cpu",
        "-m",
        "box",
        "-b",
        "forward.*d64",
    )
    assert compare(*arguments, "--processes", 3) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("fa4-asv: nothing of 'main'")
    assert last.endswith("guard: nothing works")


def test_edits_during_the_run_do_not_matter(checkout, capsys, tmp_path, monkeypatch):
    tree = lay_tree(tmp_path / "mine")
    compare_tree = worktree.compare_tree

    def edit_first(*arguments):
        (tree / CUTE / "interface.py").write_text("# wrong everything\n")
        return compare_tree(*arguments)

    monkeypatch.setattr("fa4_asv.cli.worktree.compare_tree", edit_first)
    code, result = against(capsys, tree)
    assert (code, result["head"]["subject"]) == (0, "no source file differs from BASE")


def test_other_pins_bring_the_tree_its_own_toolchain(checkout, capsys, tmp_path, monkeypatch):
    asked = []

    def resolve(key, pyproject, day, *_):
        asked.append((key, day))
        return "nvidia-cutlass-dsl==2.5\n"

    monkeypatch.setattr(toolchain, "_resolve", resolve)
    code, result = against(capsys, lay_tree(tmp_path / "mine", pin=">=2"))
    assert code == 0
    assert result["toolchains"].endswith("its own, resolved now: the pins in pyproject.toml differ")
    assert result["packages"] == {"nvidia-cutlass-dsl": ["1.0", "2.5"]}
    ((key, day),) = asked
    assert key == f"tree-{result['head']['tree']}"
    assert abs(time.time() - day.timestamp()) < 60
    assert left(checkout) == []
    assert not list(checkout.work.rglob("tree-*.txt")), "what was resolved for a tree is not kept"


def test_a_fixed_toolchain_serves_both(checkout, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FA4_ASV_TOOLCHAIN", "nvidia-cutlass-dsl==1.5")
    monkeypatch.setattr(toolchain, "_resolve", lambda *_: "nvidia-cutlass-dsl==1.5\n")
    _, result = against(capsys, lay_tree(tmp_path / "mine"))
    assert result["toolchains"] == (
        "both with BASE's toolchain under FA4_ASV_TOOLCHAIN (nvidia-cutlass-dsl==1.5): the pins are the same"
    )
    assert result["packages"] == {}


# What is refused.


def test_a_path_without_fa4(checkout, capsys, tmp_path):
    assert refused(capsys, "main", "--worktree", tmp_path, "-m", "box").endswith(
        "has no flash_attn/cute/interface.py; name the root of a checkout of flash-attention"
    )


@pytest.mark.fault(
    kind="a source tree with what is not a file",
    inputs="a pipe, a link, a linked folder",
    happens="one line; nothing is measured",
)
@pytest.mark.parametrize("what", ["pipe", "link", "linked folder"])
def test_what_is_no_regular_file(checkout, capsys, tmp_path, what):
    tree = lay_tree(tmp_path / "mine")
    odd = tree / CUTE / "odd.py"
    if what == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to("interface.py" if what == "link" else tmp_path)
    message = refused(capsys, "main", "--worktree", tree, "-m", "box")
    why = "it is not a regular file" if what == "pipe" else "it is a link"
    assert message == f"cannot copy 'flash_attn/cute/odd.py': {why}; only regular files are timed"
    assert left(checkout) == []


def test_a_linked_package(checkout, capsys, tmp_path):
    tree = lay_tree(tmp_path / "mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "flash_attn").symlink_to(tree / "flash_attn")
    assert "is a link; name the checkout that it leads to" in refused(
        capsys, "main", "--worktree", tmp_path / "other", "-m", "box"
    )


@pytest.mark.parametrize("most", ["MOST_FILES", "MOST_BYTES"])
def test_a_tree_that_is_too_large(checkout, capsys, tmp_path, monkeypatch, most):
    monkeypatch.setattr(history, most, 2)
    assert "move other files out of it" in refused(
        capsys, "main", "--worktree", lay_tree(tmp_path / "mine"), "-m", "box"
    )


def test_a_tree_that_says_no_toolchain(checkout, capsys, tmp_path):
    tree = lay_tree(tmp_path / "mine")
    (tree / CUTE / "pyproject.toml").unlink()
    assert compare("main", "--worktree", tree, *CPU) == 2
    assert "'mine' has no flash_attn/cute/pyproject.toml" in capsys.readouterr().err


def test_no_card(checkout, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("fa4_asv.cli.worktree.commit_of", lambda *_: None)  # git is on the path, too
    message = refused(capsys, "main", "--worktree", lay_tree(tmp_path / "mine"), "-m", "box")
    assert message.startswith("no card: nvidia-smi is not installed")


def test_the_first_card_that_nobody_uses(checkout, monkeypatch):
    result = [Card(number, "NVIDIA H200", f"GPU-{number}", 140_000) for number in range(2)]
    used = {"GPU-0": ["python3 (pid 42)"]}
    monkeypatch.setattr(command, "cards", lambda: result)
    for module in (command, card):
        monkeypatch.setattr(module, "strangers", lambda each, *_: used.get(each.uuid, []))
    assert command._card(checkout, "my-h200", "cuda") is result[1]
    with pytest.raises(Fa4AsvError, match="the name my-h100 says H100, and this card is NVIDIA H200"):
        command._card(checkout, "my-h100", "cuda")
    used["GPU-1"] = ["python3 (pid 43)"]
    with pytest.raises(Fa4AsvError, match=r"NVIDIA H200 \(card 0\) is used by python3 \(pid 42\)"):
        command._card(checkout, "my-h200", "cuda")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("main", "other", "--worktree", "x", "-m", "box"), "--worktree replaces HEAD: leave out 'other'"),
        (("main", "--worktree", "x", "-m", "box", "--no-run"), "an uncommitted tree is never recorded: leave out --no-run"),
        (("main", "--worktree", "x"), "--worktree times on a card: name the machine with -m, not 'nogpu'"),
        (("main", "-m", "box"), "name HEAD, or a checkout with --worktree; --processes and --set go with --worktree"),
        (("main", "--worktree", "x", "-m", "box", "-b", "nosuch"), "no call of history matches 'nosuch'"),
        (("4.9", "--worktree", "x", "-m", "box"), "unknown release or commit '4.9'; "),
    ],
)  # fmt: skip
def test_words_that_say_nothing_of_a_tree(checkout, capsys, arguments, why):
    assert refused(capsys, *arguments).startswith(why)


# Nothing stays behind.


def test_ctrl_c_keeps_nothing(checkout, capsys, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fa4_asv.cli.worktree.compare_tree", interrupt)
    assert compare("main", "--worktree", lay_tree(tmp_path / "mine"), *CPU) == 130
    assert "interrupted: nothing of an uncommitted tree is kept" in capsys.readouterr().err
    assert left(checkout) == []


def test_what_a_kill_leaves_is_cleared_by_the_next_run(checkout, capsys, tmp_path):
    tree = lay_tree(tmp_path / "mine", "hangs")
    arguments = ("compare", "main", "--worktree", str(tree), *CPU, "--processes", "3")
    killed = subprocess.Popen(
        [sys.executable, "-m", "tests.support.worktree_fake", *arguments],
        cwd=checkout.root,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        await_(lambda: list((checkout.work / "backfill").glob("*/journals-cu13/base-*.jsonl")))
        workers = await_(lambda: len(result := children_of(killed.pid)) >= 6 and result)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert len(left(checkout)) == 1
    await_(lambda: not any(map(is_alive, workers)))
    assert against(capsys, lay_tree(tmp_path / "again"))[0] == 0
    assert left(checkout) == []


def await_(what):
    """What becomes true within a minute."""
    until = time.monotonic() + 60
    while not (result := what()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return result


def children_of(parent: int) -> list[int]:
    results = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            results.append(int(stat.parent.name))
    return results


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Its parts.


def test_a_tree_is_known_by_what_is_in_it(tmp_path):
    tree = lay_tree(tmp_path / "mine")
    first = history.copy_tree(tree, tmp_path / "a")
    (tree / CUTE / "__pycache__").mkdir()
    (tree / CUTE / "__pycache__" / "x.pyc").write_bytes(b"")
    (tree / CUTE / ".hidden").write_text("x")
    second = history.copy_tree(tree, tmp_path / "b")
    assert (first.name, first.digest) == (second.name, second.digest) == ("mine", first.digest)
    assert not list((tmp_path / "b").rglob("*.pyc")) + list((tmp_path / "b").rglob(".hidden"))
    (tree / CUTE / "new.py").write_text("")
    third = history.copy_tree(tree, tmp_path / "c")
    assert third.digest != first.digest
    assert history.differing(third.folder, first.folder) == ["new.py"]
    assert list(third.folder.glob("flash_attn_4-0+tree.*.dist-info/METADATA"))


def test_all_processes_of_both_sides_take_turns_in_every_round(checkout, tmp_path):
    """A round holds each process once, both sides, in an order of its own."""
    sides = [
        Subject(side, f"{side}.jsonl", sys.executable, (str(lay_tree(tmp_path / side)),), str(tmp_path))
        for side in ("base", "head")
    ]
    asked = worktree.Asked(
        "box", tuple(worktree.chosen_calls("cpu", [FORWARD])), Plan(4, 3), 2, cpu_card(), Path()
    )
    records, took = worktree._measure(tmp_path / "journals", sides, asked, lambda *_: None)
    orders: dict[int, dict[int, str]] = {}
    for path in (tmp_path / "journals").glob("*-*.jsonl"):
        for entry in journal.rounds_of(journal.read(path), asked.calls[0].key):
            orders.setdefault(entry["round"], {})[entry["order"]] = path.name
    assert [sorted(order) for order in orders.values()] == [list(range(8))] * 3
    assert all(len(set(order.values())) == 8 for order in orders.values())
    assert len({tuple(order[place] for place in range(8)) for order in orders.values()}) > 1
    assert set(took) == {"guard and compile", "start 1", "rounds 1"}
    for each in records:
        (record,) = each.values()
        assert (len(record.samples["centre"]), len(record.samples["control"])) == (4, 4), (
            "one value per process"
        )
        assert len(record.samples["seconds"]) == 4 * 3 * 3


def entry(process: int, seconds: list[float], control: float | None = 0.5, kind: str = "round") -> dict:
    return {"kind": kind, "call": "c", "process": process, "seconds": seconds, "control": control, "words": {}, "why": "noisy"}  # fmt: skip


def first(state: str = "measured") -> dict:
    record = (
        {"state": state, "why": "guard: no"}
        if state != "measured"
        else {"state": state, "samples": {"first_seconds": [1]}}
    )
    return {"kind": "first", "call": "c", "record": record}


def test_a_process_is_one_value_and_a_replaced_one_two():
    lists = [[first(), entry(0, [1.0]), entry(0, [4.0], 2.0)], [first(), entry(0, [3.0]), entry(1, [5.0])]]
    record = worktree.record_of([first()], lists, "c")
    assert record.samples["centre"] == pytest.approx([2.5, 3.0, 5.0])
    assert record.samples["control"] == pytest.approx([1.25, 0.5, 0.5]), "both rounds of the first say 2"
    assert record.samples["seconds"] == [1.0, 4.0, 3.0, 5.0]


@pytest.mark.parametrize(
    ("lists", "state", "why"),
    [
        ([[first(), entry(0, [])], [first(), entry(0, [])]], "broken", "noisy"),
        ([[first(), entry(0, [1.0])], [first(), {"kind": "failed", "call": "c", "why": "died"}]], "broken", "died"),
        ([], "measured", ""),
    ],
)  # fmt: skip
def test_what_has_no_time(lists, state, why):
    record = worktree.record_of([first()], lists, "c")
    assert (record.state, record.why) == (state, why)
    assert "centre" not in record.samples
    assert worktree.record_of([first("broken")], lists, "c").why == "guard: no"


def test_a_control_that_lacks_in_one_round_is_none():
    record = worktree.record_of([first()], [[first(), entry(0, [1.0]), entry(0, [1.0], None)]], "c")
    assert "control" not in record.samples


def test_what_a_card_has_no_room_for_goes_one_after_another():
    sides = [worktree.numbered(Subject(side, f"{side}.jsonl", "", (), ""), 3) for side in ("base", "head")]
    roomy, small, full = (
        Card(0, "NVIDIA H200", "GPU-1", mib)
        for mib in (140_000, INPUTS_MIB + 5 * CONTEXT_MIB, INPUTS_MIB + CONTEXT_MIB)
    )
    assert [[each.name for each in batch] for batch in worktree.batches(sides, small)] == [
        ["base#1", "base#2", "head#1", "head#2"],
        ["base#3", "head#3"],
    ]
    assert len(list(worktree.batches(sides, roomy))) == len(list(worktree.batches(sides, cpu_card()))) == 1
    with pytest.raises(Fa4AsvError, match="2 processes need about .* end what else runs on it"):
        list(worktree.batches(sides, full))


def test_six_calls_of_three_shapes_unless_others_are_named():
    calls = worktree.chosen_calls("history", [])
    assert len(calls) == 6
    assert len({call.case for call in calls}) == 3
    assert len(worktree.chosen_calls("history", ["d256"])) == 4
