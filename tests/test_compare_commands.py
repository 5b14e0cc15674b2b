"""`fa4-asv compare` as a user meets it: exit codes, one line for what cannot be compared, nothing lost."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import replace

import pytest

from fa4_asv.cli import run
from fa4_asv.compare import commits
from fa4_asv.history.repository import git
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import read_sidecar, sidecar_path, write_sidecar
from tests.support.compare_checkout import (
    B15,
    B20,
    PYPROJECT,
    add_commit,
    add_release,
    copy_record,
    edit,
    lay,
    pair,
    spill,
)

NEW = "f" * 40
CUTE = "flash_attn/cute"


@pytest.fixture
def checkout(project):
    return lay(project)


def asked(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `fa4-asv compare ... --no-run`."""
    with pytest.raises(SystemExit) as ended:
        run(["compare", *arguments, "--no-run"])
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def refused(capsys, *arguments: str) -> str:
    """The one line of a comparison that cannot be made."""
    code, out, err = asked(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), (code, out, err)
    return err.removeprefix("fa4-asv: ").strip()


@pytest.mark.parametrize(("more", "code"), [(0, 0), (1, 0), (4, 1), (-4, 0)])
def test_a_pull_request_that_adds_a_spilled_register_is_exit_1(checkout, capsys, more, code):
    """4 bytes to 120; one byte is less than 1 %, which is listed and does not count."""
    add_release(checkout, "4.0.0b99", NEW)
    base = copy_record(checkout, B20, B15)
    edit(base, spill(8))
    edit(copy_record(checkout, B20, NEW), spill(8 + more))
    result, out, _ = asked(capsys, "4.0.0b15", "4.0.0b99", "--format", "json")
    (comparison,) = json.loads(out)["comparisons"]
    changed = [row for row in comparison["rows"] if row["verdict"] in ("more", "less")]
    assert result == code == json.loads(out)["exit_code"]
    assert [(row["case"], row["metric"]) for row in changed] == [
        ("sm_100/fwd_d128_full", "spill_bytes")
    ] * bool(more)


def test_a_spill_outside_of_loops_is_exit_0_and_one_inside_is_exit_1(checkout, capsys):
    """Of a kernel whose loops are known on both sides."""
    add_release(checkout, "4.0.0b99", NEW)
    for group, metric, code in (("codegen", "spill_bytes", 0), ("loops", "spills_inside", 1)):
        edit(copy_record(checkout, B20, NEW), one_more(group, metric))
        copy_record(checkout, B20, B15)
        result, out, _ = asked(capsys, "4.0.0b15", "4.0.0b99", "--format", "json")
        changed = [
            row for row in json.loads(out)["comparisons"][0]["rows"] if row["verdict"] in ("more", "less")
        ]
        assert result == code
        assert [(row["metric"], row["effect"]) for row in changed] == [(metric, "worse" * code)]


def one_more(group: str, metric: str):
    """8 more of one figure of one kernel."""

    def change(of: str, key: str, record: CaseRecord) -> CaseRecord:
        if (of, key) != (group, "sm_100/fwd_d128_causal"):
            return record
        return replace(record, figures={**record.figures, metric: record.figures[metric] + 8})

    return change


def test_swapping_the_sides_of_two_releases_inverts_the_counts(checkout, capsys):
    there, back = (
        json.loads(asked(capsys, *sides, "--format", "json")[1])["comparisons"][0]
        for sides in (("4.0.0b15", "4.0.0b20"), ("4.0.0b20", "4.0.0b15"))
    )
    assert (there["worse"], there["better"]) == (back["better"], back["worse"])
    assert there["counts"]["more"] == back["counts"]["less"] > 0
    assert there["packages"] == {name: versions[::-1] for name, versions in back["packages"].items()}


def test_a_report_goes_to_a_file_whole(checkout, capsys, tmp_path):
    for form in ("text", "markdown", "json"):
        path = tmp_path / form
        code, out, _ = asked(capsys, "4.0.0b15", "4.0.0b20", "--format", form, "-o", str(path))
        assert (code, out) == (1, "") and "4.0.0b15" in path.read_text()


# What cannot be compared


def test_an_unknown_ref(checkout, capsys):
    add_commit(checkout, "releases", "x", {"README": "x"})
    message = "unknown release or commit 'main<b>'; `fa4-asv history list` shows what there is"
    assert refused(capsys, "main<b>", "4.0.0b20").startswith(message)


def test_no_history_yet(checkout, capsys):
    assert refused(capsys, "main", "4.0.0b20") == "no FA4 history here yet; run `fa4-asv history sync` first"


def test_no_common_machine(checkout, capsys):
    other = checkout.results / "my-h200"
    other.mkdir()
    for path in (pair(checkout, B15), sidecar_path(pair(checkout, B15))):
        path.rename(other / path.name)
    assert refused(capsys, "4.0.0b15", "4.0.0b20") == (
        "machine 'nogpu' does not hold both sides (cu13): '4.0.0b15' is on my-h200; '4.0.0b20' is on nogpu; "
        "run without --no-run"
    )
    assert "'4.0.0b21' is on none" in refused(capsys, "4.0.0b15", "4.0.0b21")
    assert refused(capsys, "4.0.0b20", "4.0.0b20", "-m", "box").endswith("try --machine nogpu")


def test_results_of_another_suite(checkout, capsys):
    path = sidecar_path(pair(checkout, B15))
    write_sidecar(path, replace(read_sidecar(path), suite="0"))
    message = refused(capsys, "4.0.0b15", "4.0.0b20")
    assert message.startswith(
        f"{path.name} was written by suite '0', this is suite '1': figures of different suites"
    )


@pytest.mark.parametrize("damage", ["[]", '{"half', ""])
@pytest.mark.parametrize("side", [lambda path: path, sidecar_path])
def test_a_damaged_file_is_named(checkout, capsys, damage, side):
    path = side(pair(checkout, B15))
    path.write_text(damage)
    message = refused(capsys, "4.0.0b15", "4.0.0b20")
    assert path.name in message and "restore it from git or delete it" in message


def test_a_missing_sidecar_is_named(checkout, capsys):
    sidecar_path(pair(checkout, B15)).unlink()
    assert ".sidecar is missing; restore it from git" in refused(capsys, "4.0.0b15", "4.0.0b20")


def break_all(why: str):
    def change(group: str, key: str, record: CaseRecord) -> CaseRecord:
        return record if record.state == "not run" else CaseRecord("broken", why)

    return change


def test_a_commit_that_does_not_import(checkout, capsys):
    why = "the process ended with exit code 1: ModuleNotFoundError: No module named 'quack'"
    edit(pair(checkout, B20), break_all(why))
    expected = (
        f"'4.0.0b20' ({B20[:10]}) does not import, so there is nothing to compare: "
        "ModuleNotFoundError: No module named 'quack'"
    )
    assert refused(capsys, "4.0.0b15", "4.0.0b20") == expected
    assert (
        refused(capsys, "4.0.0b15", "4.0.0b20", "--bench", "spill_bytes.*'sm_90', 'fwd_d64_full'") == expected
    )


def test_a_commit_of_which_nothing_compiles(checkout, capsys):
    edit(pair(checkout, B15), break_all("TypeError: 'NoneType' object is not callable"))
    message = refused(capsys, "4.0.0b15", "4.0.0b20")
    assert (
        message.startswith(f"nothing of '4.0.0b15' ({B15[:10]}) works on this machine")
        and "TypeError" in message
    )


def test_one_broken_case_is_a_verdict(checkout, capsys):
    edit(pair(checkout, B20), break_all("the process was killed by SIGSEGV"))
    narrow = "spill_bytes.*'sm_90', 'fwd_d64_full'"
    code, out, _ = asked(capsys, "4.0.0b15", "4.0.0b20", "--bench", narrow)
    assert code == 1 and "newly broken" in out and "SIGSEGV" in out


def test_nothing_selected_and_no_pattern(checkout, capsys):
    message = refused(capsys, "4.0.0b15", "4.0.0b20", "--bench", "^forward")
    assert message == "no figure of '4.0.0b15' or '4.0.0b20' is selected; try another --bench"
    code, _, err = asked(capsys, "4.0.0b15", "4.0.0b20", "--bench", "(")
    assert code == 2 and "'(' is not a regular expression: missing )" in err


def test_a_file_that_cannot_be_written(checkout, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    message = refused(capsys, "4.0.0b15", "4.0.0b20", "-o", str(tmp_path / "file" / "x"))
    assert message == f"cannot write {tmp_path}/file/x: File exists; nothing was changed"


# Commits off the releases: whose toolchain


@pytest.fixture
def branches(checkout):
    """Two commits of a pull request, the second with another pin; one without FA4; recorded as b15 and b20."""
    files = {f"{CUTE}/pyproject.toml": PYPROJECT.format(pin=">=4.4")}
    first = add_commit(checkout, "releases", "first", files)
    second = add_commit(checkout, "pr", "second `|<b>", {f"{CUTE}/x.py": "1"}, first)
    third = add_commit(
        checkout, "pins", "third", {f"{CUTE}/pyproject.toml": PYPROJECT.format(pin=">=4.5")}, first
    )
    add_commit(checkout, "old", "before FA4", {"README": "x"})
    return checkout, first, second, third


def test_both_get_heads_toolchain_where_the_pins_are_the_same(branches, capsys):
    project, first, second, _ = branches
    copy_record(project, B15, first)
    copy_record(project, B20, second)
    message = refused(capsys, first, "pr")
    assert "no toolchain and Python common to both on nogpu (cu13)" in message
    assert f"asked for day or as-{second[:8]}" in message
    for commit, source in ((first, B20), (second, B20)):
        copy_record(project, source, commit, policy=f"as-{second[:8]}")
    code, out, _ = asked(capsys, first, "pr", "--format", "json")
    (entry,) = json.loads(out)["comparisons"]
    assert (code, entry["packages"]) == (0, {})
    assert entry["toolchains"] == "both with HEAD's toolchain: the pins are the same"
    assert entry["head"]["toolchain"]["policy"] == f"as-{second[:8]}"
    assert entry["head"]["subject"] == "second `|<b>"


def test_the_day_serves_where_it_gave_both_the_same(branches, capsys):
    project, first, second, _ = branches
    for commit in (first, second):
        copy_record(project, B20, commit)
    code, out, _ = asked(capsys, first, "pr", "--format", "json")
    assert (code, json.loads(out)["comparisons"][0]["head"]["toolchain"]["policy"]) == (0, "day")


def test_each_gets_its_own_where_the_pins_changed(branches, capsys):
    project, first, _, third = branches
    copy_record(project, B15, first)
    copy_record(project, B20, third)
    code, out, _ = asked(capsys, first, "pins", "--format", "json")
    (entry,) = json.loads(out)["comparisons"]
    assert (code, entry["packages"]["nvidia-cutlass-dsl"]) == (1, ["4.5.2", "4.6.0.dev0"])
    assert entry["toolchains"] == "each with the toolchain of its day: the pins in pyproject.toml differ"


def test_a_commit_before_fa4(branches, capsys):
    project = branches[0]
    old = git(project.repository, "rev-parse", "old").decode().strip()
    assert refused(capsys, "old", "pr") == f"commit {old[:12]} has no flash_attn/cute: it is older than FA4"


def test_a_commit_before_fa4_was_a_package(branches, capsys):
    early = add_commit(branches[0], "early", "x", {f"{CUTE}/x.py": ""})
    assert refused(capsys, "early", "pr") == (
        f"'early' ({early[:10]}) has no flash_attn/cute/pyproject.toml, so nothing says which toolchain it needs: "
        "FA4 is a package since 2025-07-01 (de2ce8f3)"
    )


def test_a_commit_before_it_compiled_without_a_gpu(branches, capsys, monkeypatch):
    project, first, second, _ = branches
    monkeypatch.setattr(commits, "_WITHOUT_GPU", second)
    assert refused(capsys, first, "pr") == (
        f"{first!r} ({first[:10]}) is from before FA4 compiled without a GPU, which began with {second[:8]} "
        "(2026-03-03); take a later commit"
    )
    assert asked(capsys, "4.0.0b15", "4.0.0b20")[0] == 1, "releases are all newer"


def test_a_pyproject_that_is_none(branches, capsys):
    add_commit(branches[0], "bad", "x", {f"{CUTE}/pyproject.toml": "[project"})
    assert refused(capsys, "pr", "bad").startswith("the pyproject.toml of 'bad' cannot be read: ")


def test_reporting_needs_neither_torch_nor_asv(checkout):
    code = (
        "import sys\n"
        "for name in ('torch', 'asv', 'cutlass', 'ray', 'elftools', 'uv', 'requests'):\n"
        "    sys.modules[name] = None\n"
        "from fa4_asv.cli import run\n"
        "run(['compare', '4.0.0b15', '4.0.0b20', '--no-run', '--format', 'json'])\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout.root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["comparisons"][0]["worse"] > 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 5, "seconds of a processor; the time on a wall is the machine's"
