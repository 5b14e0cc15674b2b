"""The step that comments: what it posts where, and that a hostile artifact gets nowhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.support.ci_fakes import FakeGitHub, archive_of
from tools.ci.comment import JOINER, LARGEST_REPORT, disarm, step
from tools.ci.steps import main

REPOSITORY, RUN, NUMBER = "kernels/flash-attention", 77, 5
HEAD, MOVED = "a" * 40, "b" * 40
PULLS = f"GET repos/{REPOSITORY}/pulls/{NUMBER}"
COMMENTS = f"repos/{REPOSITORY}/issues/{NUMBER}/comments"
MARK = "<!-- fa4-asv report of fa4-asv -->"
SETTINGS = {
    "REPOSITORY": REPOSITORY,
    "RUN": str(RUN),
    "HEAD": HEAD,
    "WORKFLOW": "fa4-asv",
    "HEAD_REPOSITORY": "somebody/flash-attention",
    "HEAD_BRANCH": "$(id)`id`<b>@all",
}


def pull(sha: str = HEAD, repository: str = "somebody/flash-attention", state: str = "open") -> dict:
    return {
        "state": state,
        "head": {"sha": sha, "ref": SETTINGS["HEAD_BRANCH"], "repo": {"full_name": repository}},
    }


@pytest.fixture
def github(tmp_path, monkeypatch) -> FakeGitHub:
    """An open pull request whose run left a sound report; no comment yet."""
    fake = FakeGitHub(tmp_path / "gh", monkeypatch)
    fake.answers = {PULLS: pull(), f"GET {COMMENTS}": [[]], f"POST {COMMENTS}": {"id": 1}}
    leave(fake, b"# Nothing is worse\n\n| kernel | before |\n|---|---|\n")
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    return fake


def leave(fake: FakeGitHub, report: bytes, number: bytes = b"5\n", **others: bytes) -> None:
    files = {"report.md": report, "number": number} | others
    fake.artifact(REPOSITORY, RUN, "fa4-asv-report", files)


@pytest.fixture
def comment(github, capsys):
    """Run the step: its exit code and what it told."""

    def run() -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main(step)
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out + told.err

    return run


def test_a_first_report_is_posted_and_says_whose_words_it_is(github):
    """As the workflow calls it: another interpreter, from the checkout, without a package installed (-S)."""
    github.on_path()
    command = [sys.executable, "-S", "-m", "tools.ci.comment"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "posted on pull request 5\n", "")
    ((method, path, text),) = github.written
    assert (method, path) == ("POST", COMMENTS)
    page = f"https://github.com/{REPOSITORY}/actions/runs/{RUN}"
    assert text.splitlines()[0] == MARK
    assert text.splitlines()[1].startswith(f"Made by [the run]({page}) of aaaaaaaa")
    assert "| kernel | before |\n|---|---|" in text


def test_the_next_report_replaces_ours_and_nobody_elses(github, comment):
    ours, bot = {"login": "github-actions[bot]"}, f"{MARK}\nold"
    pages = [
        [
            {"id": 1, "user": {"login": "somebody"}, "body": bot},
            {"id": 2, "user": ours, "body": "other"},
            {"id": 3, "user": None, "body": bot},
            {"id": 4, "user": ours, "body": "<!-- fa4-asv report of fa4-asv-gpu -->\nold"},
        ],
        [{"id": 6, "user": ours, "body": bot}],
    ]
    github.answers[f"GET {COMMENTS}"] = pages
    github.answers[f"PATCH repos/{REPOSITORY}/issues/comments/6"] = {"id": 6}
    assert comment()[1] == "replaced on pull request 5\n"
    assert [(method, path[-1]) for method, path, _ in github.written] == [("PATCH", "6")]


def test_without_a_report_or_behind_a_newer_commit_nothing_happens(github, comment):
    github.answers[PULLS] = pull(MOVED)
    assert comment()[1] == "the pull request has moved on; its next run reports\n"
    github.answers[PULLS] = pull(state="closed")
    assert comment()[0] == 0
    github.answers[f"GET repos/{REPOSITORY}/actions/runs/{RUN}/artifacts"] = {"artifacts": []}
    assert comment()[1] == "the run left no report; nothing to post\n"
    assert not github.written


@pytest.mark.fault(
    kind="an artifact with another report or pull request",
    inputs="another number, no number, 1000 digits, a large report, no UTF-8",
    happens="refused; its words are not repeated",
)
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"number": b"6\n"}, "GitHub refused"),  # a pull request that does not exist
        ({"number": b"5/../6"}, "its number is not a number"),
        ({"number": b"5\n6"}, "its number is not a number"),
        ({"number": "٥".encode()}, "its number is not a number"),
        ({"number": b"5" * 1000}, "number in the artifact has more than 32 bytes"),
        ({"report": b"x" * (LARGEST_REPORT + 1)}, "report.md in the artifact has more than 61440 bytes"),
        ({"report": b"\xff\xfe"}, "report.md in the artifact is not UTF-8"),
    ],
)
def test_a_false_artifact_is_refused_and_its_words_are_not_repeated(github, files, message, comment):
    leave(github, files.get("report", b"fine"), files.get("number", b"5"))
    code, told = comment()
    assert code == 2
    assert message in told
    assert len(told.splitlines()) == 1
    assert not github.written


def test_another_persons_pull_request_gets_no_comment(github, comment):
    github.answers[PULLS] = pull(MOVED, repository="else/flash-attention")
    code, told = comment()
    assert "pull request 5 is not the one this run was of" in told
    github.answers[PULLS] = {
        "state": "open",
        "head": {"sha": MOVED, "ref": "x", "repo": None},
    }  # fork deleted
    assert comment()[0] == code == 2
    assert not github.written


@pytest.mark.fault(
    kind="a hostile artifact of a compared pull request",
    inputs="no archive, names that lead out, 40 MB behind 40 KB, half, damaged",
    happens="refused without being unpacked",
)
@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"no archive", "is not a zip archive"),
        (archive_of({"../report.md": b"x", "/number": b"5"}), "holds no report.md"),
        (archive_of({"report.md": b"x" * 40_000_000, "number": b"5"}), "more than 61440 bytes"),
        (archive_of({"report.md": b"x" * 99})[:-90], "is not a zip archive"),
        (archive_of({"report.md": b"xyz"}).replace(b"PK\x03\x04", b"PK\x03\x05"), "cannot be read"),
    ],
    # An archive holds the time at which it was made: as a name it would differ between the processes of one run.
    ids=["no archive", "out of the folder", "40 MB", "half", "damaged"],
)
def test_a_hostile_archive_is_refused_without_being_unpacked(github, archive, message, tmp_path, comment):
    """Paths out of the folder, 40 MB behind 40 kB, half an archive, a damaged one."""
    github.artifact(REPOSITORY, RUN, "fa4-asv-report", archive)
    before = set(tmp_path.rglob("*"))
    code, told = comment()
    assert code == 2
    assert message in told
    assert not github.written
    assert {path.name for path in set(tmp_path.rglob("*")) - before} == {"answers", "calls"}


def test_an_artifact_of_too_many_bytes_is_not_even_downloaded(github, comment):
    entry = {"id": 9, "name": "fa4-asv-report", "size_in_bytes": 10**9, "expired": False}
    github.answers[f"GET repos/{REPOSITORY}/actions/runs/{RUN}/artifacts"] = {"artifacts": [entry]}
    assert "more than" in comment()[1]
    assert "/zip" not in (github.folder / "calls").read_text()


@pytest.mark.parametrize("name", ["REPOSITORY", "RUN", "HEAD", "WORKFLOW"])
@pytest.mark.parametrize("value", ["", "a\nb", "../..", "-->", "$(id)"])
def test_settings_are_checked(github, monkeypatch, name, value, comment):
    monkeypatch.setenv(name, value)
    code, told = comment()
    assert code == 2
    assert told.startswith(f"::error::{name} is ")
    assert not (github.folder / "calls").exists()


@pytest.mark.fault(
    kind="a report with Markdown and HTML that acts",
    inputs="tags, comments, mentions, entities, links, images, references, code blocks, commands",
    happens="shown as text in the comment",
)
@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<details open onclick=alert(1)>",
        "<!-- hidden -->",
        "@everyone @org/team mail@example.org",
        "&#64;everyone &commat;everyone &#x40;everyone",
        "[text](https://example.org) [text][a]\n\n[a]: /x",
        "![](x) ![a][b]",
        "https://example.org http://a www.example.org _www.example.org",
        "#12 else/where#12 GH-12",
        "```mermaid\nx\n```",
        "/approve\n  /merge",
    ],
)
def test_nothing_that_acts_survives_and_no_word_is_lost(text):
    """Each character that would begin something is followed by a joiner; without them it is the text again."""
    safe = disarm(text)
    assert safe.replace(JOINER, "") == text
    for start in ("<", "@", "&", "](", "][", "]:", "![", "://", "www.", "GH-", "```mermaid", "\n/", "\n  /"):
        assert start not in safe or start in ("<", "@", "&")
    for start in "<@&":
        assert safe.count(start) == safe.count(start + JOINER)


def test_a_report_keeps_its_form():
    report = (
        "## 2 figures are worse\n\n| kernel | change |\n|:--|--:|\n| `fwd_d128` | +3 % |\n\n"
        "<details>\n<summary>The rest</summary>\n\n```\n&lt;b&gt; &amp; x\n```\n\n</details>\n"
    )
    assert disarm(report) == report
    for page in (ROOT / "docs" / "examples").glob("*.md"):  # what `compare` really writes
        assert disarm(page.read_text(encoding="utf-8")) == page.read_text(encoding="utf-8")
    assert disarm("a\u202eb\x00c\x1b[31m\r\nd") == r"a\u202eb\x00c\x1b[31m" + "\nd"


def test_a_report_that_grew_too_long_is_left_in_the_artifact(github, comment):
    leave(github, b"@" * LARGEST_REPORT)
    assert comment()[0] == 0
    ((_, _, text),) = github.written
    assert "too long for a comment" in text
    assert "@" not in text
