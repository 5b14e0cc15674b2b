"""The step before the GPU: which pull request a run was of, whether it has the label, and that a label is used once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.support.ci_fakes import FakeGitHub
from tools.ci.labelled import step
from tools.ci.steps import main

REPOSITORY, LABEL = "kernels/flash-attention", "fa4-asv gpu"
HEAD, MOVED, BASE = "a" * 40, "b" * 40, "c" * 40
ORIGIN, BRANCH = "somebody/flash-attention", "$(id)`id`&state=closed"
PULLS = f"GET repos/{REPOSITORY}/pulls"
SETTINGS = {
    "REPOSITORY": REPOSITORY,
    "LABEL": LABEL,
    "HEAD": HEAD,
    "HEAD_REPOSITORY": ORIGIN,
    "HEAD_BRANCH": BRANCH,
}


def pull(
    number: int = 5, sha: str = HEAD, origin: str | None = ORIGIN, labels: tuple[str, ...] = (LABEL,)
) -> dict:
    return {
        "number": number,
        "head": {"sha": sha, "ref": BRANCH, "repo": {"full_name": origin} if origin else None},
        "base": {"sha": BASE},
        "labels": [{"name": name} for name in labels],
    }


def removed(number: int) -> str:
    return f"repos/{REPOSITORY}/issues/{number}/labels/fa4-asv%20gpu"


@pytest.fixture
def github(tmp_path, monkeypatch) -> FakeGitHub:
    fake = FakeGitHub(tmp_path / "gh", monkeypatch)
    fake.answers = {PULLS: [pull()], **{f"DELETE {removed(number)}": [] for number in (5, 6)}}
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    return fake


@pytest.fixture
def ask(github, capsys, tmp_path):
    """Run the step: its exit code, what it told, the lines of its outputs."""

    def run() -> tuple[int, str, list[str]]:
        with pytest.raises(SystemExit) as end:
            main(step)
        told, file = capsys.readouterr(), tmp_path / "output"
        return (
            int(end.value.code or 0),
            told.out + told.err,
            file.read_text().split() if file.is_file() else [],
        )

    return run


def test_the_labelled_commit_is_measured_once(github, tmp_path):
    """As the workflow calls it: another interpreter, from the checkout, without a package installed (-S)."""
    github.on_path()
    command = [sys.executable, "-S", "-m", "tools.ci.labelled"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pull request 5, commit {HEAD}\n", "")
    assert (tmp_path / "output").read_text() == f"number=5\nbase={BASE}\nhead={HEAD}\n"
    assert github.written == [("DELETE", removed(5), "")]


@pytest.mark.parametrize(
    "pulls",
    [
        [],
        [pull(labels=())],
        [pull(labels=("fa4-asv", "FA4-ASV GPU "))],
        [pull(origin="another/flash-attention")],
        [pull(origin=None)],  # its repository is gone
    ],
)
def test_without_the_label_on_the_pull_request_nothing_runs(github, ask, pulls):
    github.answers[PULLS] = pulls
    code, told, outputs = ask()
    assert (code, outputs, github.written) == (0, [], [])
    assert told == "no open pull request of this branch has the label\n"


def test_a_commit_pushed_after_the_label_needs_it_again(github, ask):
    github.answers[PULLS] = [pull(sha=MOVED)]
    assert ask() == (0, "the pull request has moved on\n", [])
    assert github.written == [("DELETE", removed(5), "")]


def test_a_label_that_cannot_be_taken_off_starts_nothing(github, ask):
    del github.answers[f"DELETE {removed(5)}"]
    code, told, outputs = ask()
    assert (code, outputs) == (2, []) and "GitHub refused" in told


def test_two_labelled_pull_requests_of_one_branch_are_refused(github, ask):
    github.answers[PULLS] = [pull(5), pull(6)]
    code, told, outputs = ask()
    assert (code, outputs) == (2, [])
    assert "2 open pull requests of this branch have the label; put it on one" in told
    github.answers[PULLS] = [pull(5, labels=()), pull(6)]
    assert ask()[2][0] == "number=6"


@pytest.mark.parametrize(
    ("name", "value"),
    [("HEAD", "main"), ("HEAD_REPOSITORY", "a/b/c"), ("HEAD_BRANCH", "a\nnumber=7"), ("LABEL", "../5")],
)
def test_settings_of_another_form_are_refused(github, ask, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    code, told, outputs = ask()
    assert (code, outputs, github.written) == (2, [], []) and f"{name} is not of the form" in told


def test_an_answer_that_names_no_commit_is_refused(github, ask):
    github.answers[PULLS] = [pull() | {"base": {"sha": "HEAD\nhead=x"}}]
    code, told, outputs = ask()
    assert (code, outputs) == (2, []) and "a base that is none" in told
