"""The night: what measuring hands over, and what the job that may write takes of it."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from fa4_asv.base.project import Project
from fa4_asv.record.store import sidecar_path
from tests.support.backfills import ENVIRONMENT, PACKAGES, as_asv_writes, commits, record, write_lock
from tests.support.ci_fakes import FakeGitHub, FakeSuite, git
from tests.support.results import MEASURED
from tools.ci import accept, audit, measure, site
from tools.ci.steps import main

REPOSITORY, RUN, PAIR = "kernels/fa4-asv", 31, "results/nogpu/{}-" + ENVIRONMENT


@pytest.fixture
def checkout(history, tmp_path, monkeypatch):
    """A repository with one release of three recorded, pushed to a bare one; OUT is empty."""
    record(history, commits(history)[0], "4.0.0b3", MEASURED)
    as_asv_writes(history)
    for version in ("4.0.0b3", "4.0.0b4"):
        write_lock(history, version, PACKAGES)
    (history.root / ".gitignore").write_text(".asv/\n")
    git(history.root, "init", "--quiet", "--initial-branch", "main")
    git(history.root, "add", ".")
    git(history.root, "commit", "--quiet", "-m", "the record")
    git(tmp_path, "init", "--quiet", "--bare", "origin")
    git(history.root, "remote", "add", "origin", str(tmp_path / "origin"))
    git(history.root, "push", "--quiet", "origin", "main")
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    return history


def run(step) -> int:
    with pytest.raises(SystemExit) as end:
        main(step)
    return int(end.value.code or 0)


# Measuring.


def records(project: Project, tmp_path: Path) -> str:
    """What a backfill does that records the second release: copies a pair in."""
    aside = Project(tmp_path / "aside")
    path = record(aside, commits(project)[1], "4.0.0b4")
    pairs = [(str(each), str(project.results / "nogpu" / each.name)) for each in (path, sidecar_path(path))]
    return f"import shutil; [shutil.copyfile(*pair) for pair in {pairs!r}]"


@pytest.mark.parametrize("failed", [0, 1])
def test_only_what_changed_is_handed_over(checkout, tmp_path, monkeypatch, failed):
    suite = FakeSuite(tmp_path / "suite", monkeypatch, measure)
    suite.ready(backfill=records(checkout, tmp_path) + f"; sys.exit({failed})")
    monkeypatch.setenv("RANGES", "fa4-v4.0.0b3..releases ")
    monkeypatch.setenv("BENCH", "^codegen\n")
    assert run(measure.step) == failed
    assert suite.calls == [
        ["history", "sync", "--quiet"],
        ["backfill", "fa4-v4.0.0b3..releases", "--bench", "^codegen"],
        ["verify"],
    ]
    out = tmp_path / "out"
    stem = PAIR.format(commits(checkout)[1][:8])
    paths = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert paths == {f"{stem}.json", f"{stem}.sidecar"}
    assert f"exit code of backfill: {failed}" in (tmp_path / "summary").read_text()


@pytest.mark.parametrize("inherited", [signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def test_when_the_time_is_over_what_is_finished_is_handed_over(checkout, tmp_path, monkeypatch, inherited):
    suite = FakeSuite(tmp_path / "suite", monkeypatch, measure)
    wait = "\ntry:\n    time.sleep(30)\nexcept KeyboardInterrupt:\n    sys.exit(130)"
    suite.ready(backfill=records(checkout, tmp_path) + wait)
    monkeypatch.setattr(measure, "MINUTE", 2.0)
    monkeypatch.setenv("MINUTES", "1")
    before = signal.signal(signal.SIGINT, inherited)
    begin = time.monotonic()
    try:
        assert run(measure.step) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begin < 20
    assert "the time was over" in (tmp_path / "summary").read_text()
    assert len(list((tmp_path / "out").rglob("*.json"))) == 1


def test_nothing_leaves_a_night_that_went_wrong(checkout, tmp_path, monkeypatch, capfd):
    suite = FakeSuite(tmp_path / "suite", monkeypatch, measure)
    suite.ready(backfill=records(checkout, tmp_path))
    for command, message in (
        ("verify", "unsound"),
        ("backfill", "could not start"),
        ("history", "could not be synced"),
    ):
        suite.ready(**{command: "sys.exit(2)"})
        assert run(measure.step) == 2
        assert message in capfd.readouterr().out
        assert not (tmp_path / "out").exists()


def test_ranges_are_ranges(project, tmp_path, monkeypatch):
    suite = FakeSuite(tmp_path / "suite", monkeypatch, measure)
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    for value in ("--machine x", "a --json", "a;id", "$(id)", "a\nb"):
        monkeypatch.setenv("RANGES", value)
        assert run(measure.step) == 2
    assert not suite.calls


# Accepting.


@pytest.fixture
def github(tmp_path, monkeypatch, checkout) -> FakeGitHub:
    fake = FakeGitHub(tmp_path / "gh", monkeypatch)
    for name, value in {"REPOSITORY": REPOSITORY, "RUN": str(RUN), "BRANCH": "main"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(accept, "sync", lambda: None)
    return fake


def pair_of(project: Project, number: int, tmp_path: Path) -> dict[str, bytes]:
    """An artifact that holds a sound pair of the release `number` (0: 4.0.0b3)."""
    night = Project(tmp_path / f"night{number}")
    path = record(night, commits(project)[number], ("4.0.0b3", "4.0.0b4")[number], MEASURED)
    as_asv_writes(night)
    stem = PAIR.format(path.name[:8])
    return {f"{stem}.json": path.read_bytes(), f"{stem}.sidecar": sidecar_path(path).read_bytes()}


def leave(fake: FakeGitHub, files: dict[str, bytes]) -> None:
    fake.artifact(REPOSITORY, RUN, "fa4-asv-record", files)


def pushed(tmp_path: Path) -> list[str]:
    return git(tmp_path / "origin", "log", "--format=%s", "main").splitlines()


def test_a_sound_pair_is_committed_and_pushed(checkout, github, tmp_path):
    leave(github, pair_of(checkout, 1, tmp_path))
    assert run(accept.step) == 0
    assert pushed(tmp_path) == ["Results of the night", "the record"]
    names = git(tmp_path / "origin", "show", "--format=%an", "--name-only", "main").split()
    stem = PAIR.format(commits(checkout)[1][:8])
    assert names == ["github-actions[bot]", f"{stem}.json", f"{stem}.sidecar"]
    assert "a token" not in (checkout.root / ".git" / "config").read_text()


def test_nothing_new_is_no_commit(checkout, github, tmp_path, capsys):
    leave(github, pair_of(checkout, 0, tmp_path))
    assert run(accept.step) == 0
    github.answers = {f"GET repos/{REPOSITORY}/actions/runs/{RUN}/artifacts": {"artifacts": []}}
    assert run(accept.step) == 0
    assert capsys.readouterr().out == "nothing is new\n" * 2
    assert pushed(tmp_path) == ["the record"]


def test_what_somebody_pushed_meanwhile_stays(checkout, github, tmp_path):
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", "--branch", "main", str(tmp_path / "origin"), str(other))
    git(other, "commit", "--quiet", "--allow-empty", "-m", "meanwhile")
    git(other, "push", "--quiet", "origin", "main")
    leave(github, pair_of(checkout, 1, tmp_path))
    assert run(accept.step) == 0
    assert pushed(tmp_path) == ["Results of the night", "meanwhile", "the record"]


def test_a_branch_that_refuses_says_so_after_three_attempts(checkout, github, tmp_path, capsys):
    hook = tmp_path / "origin" / "hooks" / "pre-receive"
    hook.write_text(f"#!/bin/sh\necho >> {tmp_path}/attempts\nexit 1\n")
    hook.chmod(0o755)
    leave(github, pair_of(checkout, 1, tmp_path))
    assert run(accept.step) == 2
    assert "main refused the push 3 times" in capsys.readouterr().out
    assert len((tmp_path / "attempts").read_text().splitlines()) == 3
    assert pushed(tmp_path) == ["the record"]


OUTSIDE = (
    "../../pwned",
    "results/nogpu/../../fa4_asv/cli/__init__.py",
    "/tmp/pwned.json",
    "results/nogpu/machine.json",
    "results/h200-sxm/01234567-x.json",
    "results/benchmarks.json",
    "history/releases.json",
    ".github/workflows/nightly.yml",
    "results/nogpu/01234567-x.json\n",
    "results/nogpu/01234567-x/y.json",
)


@pytest.mark.fault(
    kind="a hostile artifact of the night",
    inputs="`..`, absolute names, code, workflows, the history, another machine",
    happens="refused whole; nothing is committed",
)
def test_a_file_that_is_no_pair_refuses_the_whole_artifact(checkout, github, tmp_path, capsys):
    def files() -> dict[Path, int]:
        paths = (path for path in checkout.root.rglob("*") if ".git" not in path.parts)
        return {path: path.stat().st_mtime_ns for path in paths}

    good, before = pair_of(checkout, 1, tmp_path), files()
    for name in OUTSIDE:
        leave(github, good | {name: b"{}"})
        assert run(accept.step) == 2
        assert "no result file of nogpu" in capsys.readouterr().out
    assert files() == before
    assert pushed(tmp_path) == ["the record"]


def spoil(files: dict[str, bytes], old: bytes, new: bytes) -> dict[str, bytes]:
    return {name: data.replace(old, new) for name, data in files.items()}


@pytest.mark.fault(
    kind="an unsound artifact of the night",
    inputs="half a pair, no JSON, another commit, 2001 files, a large file",
    happens="refused whole; nothing is committed",
)
def test_an_unsound_or_oversized_pair_is_refused(checkout, github, tmp_path, capsys, monkeypatch):
    good = pair_of(checkout, 1, tmp_path)
    (stem,) = {name.rpartition(".")[0] for name in good}
    for files, message in [
        ({f"{stem}.json": good[f"{stem}.json"]}, "has only one of its two files"),
        (good | {f"{stem}.sidecar": b"::add-mask::\n{"}, "is not JSON"),
        (spoil(good, commits(checkout)[1].encode(), b"f" * 40), "is not in the history"),
        ({f"results/nogpu/{number:08x}-x.json": b"" for number in range(2001)}, "at most 2000"),
        (good | {f"{stem}.json": b"0" * (4 * 2**20 + 1)}, "more than 4194304 bytes"),
    ]:
        leave(github, files)
        assert run(accept.step) == 2
        told = capsys.readouterr().out
        assert message in told
        assert len(told.splitlines()) == 1
    assert pushed(tmp_path) == ["the record"]


def test_a_recorded_figure_is_never_replaced(checkout, github, tmp_path, capsys):
    """Both halves of the pair agree with each other, and not with what is recorded."""
    recorded = pair_of(checkout, 0, tmp_path)
    other = spoil(spoil(recorded, b"[16, ", b"[17, "), b'"spill_bytes": 16', b'"spill_bytes": 17')
    assert other != recorded
    leave(github, other)
    assert run(accept.step) == 2
    assert "is recorded as 16, what arrives says 17" in capsys.readouterr().out
    assert not git(checkout.root, "status", "--porcelain")


def test_the_history_is_brought_up_to_date_by_the_job_itself(tmp_path, monkeypatch):
    suite = FakeSuite(tmp_path / "suite", monkeypatch, accept)
    monkeypatch.setenv("GH_TOKEN", "a token")
    suite.ready(history="assert 'GH_TOKEN' not in os.environ")
    accept.sync()
    assert suite.calls == [["history", "sync", "--quiet"], ["history", "lock"]]
    suite.ready(history="sys.exit(2)")
    with pytest.raises(accept.Refused, match="could not be synced"):
        accept.sync()


# The site.


def test_a_refused_file_costs_itself_and_is_told(tmp_path, monkeypatch, capsys):
    suite = FakeSuite(tmp_path / "suite", monkeypatch, site)
    suite.ready(publish='print(\'{"published": 3, "withheld": 1}\'); sys.exit(1)')
    assert run(site.step) == 0
    assert capsys.readouterr().out.startswith("::warning::1 result files are refused")
    suite.ready(publish="sys.exit(2)")
    assert run(site.step) == 2
    suite.ready(history="sys.exit(2)")
    assert run(site.step) == 2
    assert [message[0] for message in suite.calls] == ["history", "publish"] * 2 + ["history"]


# The audit.

FOUND = {
    "seed": 7,
    "files": {"checked": 3, "of": 73, "left_out": 177},
    "cases": {"codegen": {"checked": 36, "of": 6862, "chance_of_finding_1_percent": 0.3}},
    "differences": [
        {"file": "results/nogpu/x.sidecar", "group": "codegen", "case": "sm_90/a", "what": "registers"}
    ],
    "not_checked": [],
}


@pytest.mark.parametrize("code", [0, 1])
def test_an_audit_is_told_on_the_runs_page(tmp_path, monkeypatch, capsys, code):
    suite = FakeSuite(tmp_path / "suite", monkeypatch, audit)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    result = FOUND if code else {**FOUND, "differences": []}
    suite.ready(audit=f"print({json.dumps(result)!r}); sys.exit({code})")
    monkeypatch.setenv("MINUTES", "15")
    monkeypatch.setenv("SOURCE", "https://example.org/fa4")
    assert run(audit.step) == code
    assert suite.calls == [
        ["history", "sync", "--quiet"],
        ["history", "sync", "--quiet", "--source", "https://example.org/fa4"],
        ["audit", "--minutes", "15", "--json"],
    ]
    page = (tmp_path / "summary").read_text()
    assert "seed 7" in page and "codegen: 36 of 6862 made anew" in page
    assert ("results/nogpu/x.sidecar: codegen sm_90/a: registers" in page) == bool(code)
    assert json.loads(capsys.readouterr().out) == result


def test_an_audit_without_upstream_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    suite = FakeSuite(tmp_path / "suite", monkeypatch, audit)
    monkeypatch.setenv("SOURCE", "https://example.org/fa4")
    suite.ready(history="sys.exit(2 if '--source' in words else 0)", audit=f"print({json.dumps(FOUND)!r})")
    assert run(audit.step) == 0
    assert "::warning::upstream's branch could not be synced" in capsys.readouterr().out
    for value in ("ext::sh -c id", "https://x/$(id)", "--all"):
        monkeypatch.setenv("SOURCE", value)
        assert run(audit.step) == 2


def test_an_audit_that_cannot_be_done_is_red(tmp_path, monkeypatch, capsys):
    suite = FakeSuite(tmp_path / "suite", monkeypatch, audit)
    for command, message in (("audit", "could not be audited"), ("history", "could not be synced")):
        suite.ready(**{command: "sys.exit(2)"})
        assert run(audit.step) == 2
        assert message in capsys.readouterr().out
