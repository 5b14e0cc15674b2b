"""The step that compares a pull request, on a real repository with names as a stranger may choose them."""

from __future__ import annotations

import pytest

from tests.support.ci_fakes import FakeSuite, git
from tools.ci import compare
from tools.ci.steps import main

HOSTILE = "$(touch;pwned)`id`;<img/src=x>&&'\"|"
REPORT = "pathlib.Path(words[words.index('-o') + 1]).write_text(' '.join(words)); sys.exit({code})"


@pytest.fixture
def fork(tmp_path):
    """A target branch that went on after the pull request left it; commits by 1, 2 (target), 3 (head)."""
    folder = tmp_path / "fork $(id)"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commits = {}
    for number, branch in enumerate(("main", "main", HOSTILE), 1):
        if branch != "main":
            git(folder, "checkout", "--quiet", "-b", branch, commits[1])
        git(
            folder, "commit", "--quiet", "--allow-empty", "-m", f"{HOSTILE}\n\n@everyone #{number} </details>"
        )
        commits[number] = git(folder, "rev-parse", "HEAD")
    return folder, commits


@pytest.fixture
def suite(fork, tmp_path, monkeypatch) -> FakeSuite:
    fake = FakeSuite(tmp_path / "suite", monkeypatch, compare)
    folder, commits = fork
    settings = {"FORK": str(folder), "OUT": str(tmp_path / "out"), "BASE": commits[2], "HEAD": commits[3]}
    settings |= {"NUMBER": "12", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return fake


def run() -> int:
    with pytest.raises(SystemExit) as end:
        main(compare.step)
    return int(end.value.code or 0)


@pytest.mark.parametrize("code", [0, 1])
def test_the_verdict_is_of_the_commit_they_parted_at(suite, fork, tmp_path, code):
    suite.ready(compare=REPORT.format(code=code))
    assert run() == code
    folder, commits = fork
    sync, first, second = suite.calls
    assert sync[:5] == ["history", "sync", "--quiet", "--source", str(folder)]
    assert sync[5:] == ["--branch", f"{commits[1]}:pull-base", "--branch", f"{commits[3]}:pull-head"]
    assert first[:3] == ["compare", commits[1], commits[3]]
    assert first[3:9] == ["--flavour", "cu13", "--machine", "nogpu", "--format", "markdown"]
    assert {"--no-run", "json"} <= set(second)
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"number", "report.md", "report.json"}
    assert (out / "number").read_text() == "12\n"
    assert (tmp_path / "summary").read_text().rstrip() == (out / "report.md").read_text()


def test_what_was_asked_for_reaches_compare_as_arguments(suite, monkeypatch):
    monkeypatch.setenv("FLAVOURS", "cu12 cu13")
    monkeypatch.setenv("BENCH", "^codegen\n\n $(id) 'fwd'\n")
    monkeypatch.setenv("MACHINE", "h100-sxm")
    suite.ready(compare=REPORT.format(code=0))
    assert run() == 0
    wanted = ["--flavour", "cu12", "--flavour", "cu13", "--bench", "^codegen", "--bench", "$(id) 'fwd'"]
    assert suite.calls[1][3:13] == [*wanted, "--machine", "h100-sxm"]


def test_what_could_not_be_compared_is_reported_as_code(suite, tmp_path):
    message = "no common machine </details>\n    ```\n@everyone"
    suite.ready(compare=f"sys.stderr.write({message!r}); sys.exit(2)")
    assert run() == 2
    report = (tmp_path / "out" / "report.md").read_text()
    assert report.startswith("**fa4-asv could not compare.**\n\n")
    assert all(line.startswith("    ") for line in report.splitlines()[2:])
    assert "no common machine </details>" in report
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_history_that_does_not_sync_and_a_crash_are_code_2(suite, tmp_path):
    suite.ready(history="sys.exit('fa4-asv: the copy is shallow')")
    assert run() == 2
    assert len(suite.calls) == 1
    assert "    fa4-asv: the copy is shallow" in (tmp_path / "out" / "report.md").read_text()
    suite.ready(history="", compare="os.kill(os.getpid(), 9)")
    assert run() == 2
    assert "no reason was given" in (tmp_path / "out" / "report.md").read_text()


def test_commits_without_a_common_one_are_refused(suite, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("BASE", "f" * 40)
    assert run() == 2
    assert "no common commit" in (tmp_path / "out" / "report.md").read_text()
    assert "fetch-depth: 0" in capsys.readouterr().out
    assert not suite.calls


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BASE", "main"),
        ("HEAD", "--upload-pack=x"),
        ("HEAD", HOSTILE),
        ("NUMBER", "1; id"),
        ("NUMBER", "0"),
        ("FLAVOURS", "cu13 --no-run"),
        ("MACHINE", "../x"),
        ("MACHINE", "--help"),
        ("FORK", ""),
    ],
)
def test_a_setting_of_another_form_stops_the_step(suite, monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    assert run() == 2
    told = capsys.readouterr().out
    assert told.startswith(f"::error::{name} is ")
    assert len(told.splitlines()) == 1
    assert not suite.calls
