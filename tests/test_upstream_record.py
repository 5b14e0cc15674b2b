"""Upstream's commits in the record: what is kept beside them, and what a checkout without their branch does."""

from __future__ import annotations

import json
import shutil

import pytest
from asv.config import Config
from asv.environment import get_environments

from fa4_asv.asv_plugin.environment import Fa4Environment  # noqa: F401 - asv finds it by its name
from fa4_asv.asv_plugin.repo import branches_here
from fa4_asv.backfill.tasks import Attempt, commits_of, missing
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.cli import run
from fa4_asv.history.branches import sync_branches
from fa4_asv.history.commits import Commit, add_commits, load_commits
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.registry import Registry
from fa4_asv.history.repository import git
from fa4_asv.history.source import lay_source
from fa4_asv.history.sync import sync
from fa4_asv.history.toolchain import Policy, keep_lock, lock_for
from fa4_asv.integrity.provenance import note
from fa4_asv.integrity.verify import verify
from fa4_asv.record.store import iter_results, read_sidecar, sidecar_path
from tests.support import ROOT
from tests.support.backfills import CODEGEN, KERNELS, asv_that, record
from tests.support.toolchains import DAY, LOCK, PYPROJECT
from tests.support.upstream_fake import make_upstream

EVIL = "<b>faster</b> [red]$(x)[/red]"


@pytest.fixture
def beside(history, upstream):
    """Releases and upstream's main in one history, nothing recorded."""
    sync_branches(history, str(upstream))
    return history


def main_of(project) -> list[str]:
    """Upstream's five commits, oldest first."""
    return git(project.repository, "rev-list", "--reverse", "main").decode().split()


def test_ranges_hold_the_commits_that_touch_fa4(beside):
    before, first, package, second, kernel = main_of(beside)
    assert commits_of(beside, ["main~4..main"]) == [first, package, kernel]
    assert commits_of(beside, ["main"]) == [first, package, kernel]
    assert commits_of(beside, ["main~1"]) == commits_of(beside, ["main~1^!"]) == [second]
    assert commits_of(beside, [second[:10]]) == [second]
    tasks = missing(beside, [package, kernel], CODEGEN)
    assert [task.name for task in tasks] == [package[:10], kernel[:10]]
    with pytest.raises(Fa4AsvError, match="unknown release or commit 'my-branch'.*sync --source"):
        commits_of(beside, ["main..my-branch"])


def test_backfill_records_commits_with_their_toolchains(beside, monkeypatch, capsys):
    *_, package, _, kernel = main_of(beside)
    asv_that(lambda staged, task: record(staged, task.commit, ""), monkeypatch)
    with pytest.raises(SystemExit) as ended:
        run(["backfill", "--flavour", "cu13", "-b", "^codegen", "main~3..main", "main~2"])
    assert ended.value.code == 0
    assert f"{kernel[:10]} cu13: {KERNELS} measured" in capsys.readouterr().out
    noted = load_commits(beside.upstream)
    assert [(c.date, c.branch, c.subject) for c in noted.values()] == [
        ("2026-05-03T12:00:00Z", "main", "a package"),
        ("2026-05-05T12:00:00Z", "main", EVIL),
    ]
    sidecar = read_sidecar(sidecar_path(next(iter_results(beside.results, "nogpu"))))
    path = beside.locks / "day" / "cu13" / f"{package}.txt"
    lock = lock_for(
        beside,
        package,
        PYPROJECT + "[project.optional-dependencies]\ncu13 = []\n",
        DAY,
        "cu13",
        Policy("day"),
        False,
    )
    assert (lock.path, lock.packages) == (path, sidecar.toolchain.packages)
    assert verify(beside) == []


def test_what_is_noted_never_changes_and_is_in_order(tmp_path):
    path = tmp_path / "upstream.json"
    late, early = (
        Commit("b" * 40, "2026-05-05T12:00:00Z", "main", EVIL),
        Commit("a" * 40, "2026-05-01T00:00:00Z", "main", "x"),
    )
    add_commits(path, [late])
    add_commits(path, [early, Commit(late.commit, late.date, "other", "rewritten")])
    assert list(load_commits(path).values()) == [early, late]
    written = path.read_bytes()
    add_commits(path, [late, early])
    assert path.read_bytes() == written
    for damage in (
        "{}",
        "[]",
        '{"format": 2, "commits": []}',
        '{"format": 1, "commits": [{"commit": 1}]}',
        "{",
    ):
        path.write_text(damage)
        with pytest.raises(Fa4AsvError, match="is (damaged|not JSON) .*; restore it from git"):
            load_commits(path)


def test_releases_are_not_noted(beside):
    release = Manifest.load(beside.manifest).releases[0]
    note(beside, [read_sidecar(sidecar_path(record(beside, release.commit, release.version)))])
    assert not beside.upstream.exists()


@pytest.fixture
def elsewhere(beside, registry):
    """The same record in a checkout that never synced upstream; and the recorded commit."""
    for name in ("fa4_asv", "benchmarks"):
        (beside.root / name).symlink_to(ROOT / name)
    for release in Manifest.load(beside.manifest).releases:
        packages = read_sidecar(
            sidecar_path(record(beside, release.commit, release.version))
        ).toolchain.packages
        keep_lock(beside, release.version, "cu13", "day", packages)
    kernel = main_of(beside)[-1]
    path = record(beside, kernel, "")
    note(beside, [read_sidecar(sidecar_path(path))])
    shutil.copy(ROOT / "results" / "benchmarks.json", beside.results)
    shutil.rmtree(beside.repository)
    sync(beside, Registry())
    return beside, kernel


def test_verify_knows_what_was_noted_and_names_what_was_not(elsewhere):
    project, kernel = elsewhere
    assert verify(project) == []
    project.upstream.unlink()
    listed, problem = verify(project)
    assert (listed.path, listed.what[:38]) == (project.upstream, "missing, and 1 result file of upstream")
    assert f"commit {kernel} is not a release of the history and not in history/upstream.json" in problem.what


def test_a_commit_that_calls_itself_a_release_is_named(elsewhere):
    project, kernel = elsewhere
    path = next(path for path in iter_results(project.results) if path.name.startswith(kernel[:8]))
    record(project, kernel, "4.0.0b4")
    assert [(problem.path, problem.what) for problem in verify(project)] == [
        (
            sidecar_path(path),
            "says release '4.0.0b4', but its commit is 'no release'; restore both files from git or measure again",
        )
    ]


@pytest.mark.slow
def test_the_site_is_made_with_and_without_upstream(elsewhere, upstream, capsys):
    project, kernel = elsewhere
    with pytest.raises(SystemExit) as ended:
        run(["publish"])
    out, err = capsys.readouterr()
    assert ended.value.code == 0
    assert "3 result files published in html, 0 refused" in out
    assert "1 result files of commits that are no releases are left out" in err
    sync_branches(project, str(upstream))
    with pytest.raises(SystemExit) as ended:
        run(["publish", "--json"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{\n") :]) == {
        "published": 4,
        "left_out": 0,
        "withheld": 0,
        "refused": [],
    }
    index = json.loads((project.html / "index.json").read_text())
    assert kernel in index["revision_to_hash"].values()
    assert index["params"]["branch"] == ["releases", "main"]


def test_a_configured_branch_that_is_not_here_is_left_out(history, tmp_path):
    conf = Config.load("asv.conf.json")
    assert conf.branches == ["releases", "main"]
    assert branches_here(history, conf.branches) == ["releases"]
    list(get_environments(conf, ["fa4:same"]))
    assert conf.branches == ["releases"], "making an environment is asv's first step of a run"
    sync_branches(history, str(make_upstream(tmp_path / "fork")))
    assert branches_here(history, ["releases", "main"]) == ["releases", "main"]
    assert branches_here(history, ["nosuch"]) == ["releases"]
    shutil.rmtree(history.repository)
    assert branches_here(history, ["nosuch"]) == ["nosuch"], "without a history its own error comes first"


def test_a_commit_that_cannot_be_measured_says_why(beside, monkeypatch):
    before, first, *_ = main_of(beside)
    with pytest.raises(
        Fa4AsvError, match=f"commit {before[:12]} has no flash_attn/cute: it is older than FA4"
    ):
        lay_source(beside, before)
    with pytest.raises(
        Fa4AsvError, match="has no flash_attn/cute/pyproject.toml, so nothing says which toolchain"
    ):
        lay_source(beside, first).lock(beside, "cu12", Policy("day"))
    monkeypatch.setattr(Attempt, "_asv", lambda self, staged: 2)
    (task,) = missing(beside, [before], CODEGEN)
    log = Attempt(beside, task, CODEGEN).log
    log.parent.mkdir(parents=True)
    log.write_text("·· fa4-asv: commit 0 has no flash_attn/cute: it is older than FA4\n")
    with pytest.raises(
        Fa4AsvError, match=r"asv recorded nothing .exit code 2.: commit 0 has no flash_attn/cute"
    ):
        Attempt(beside, task, CODEGEN).run()


def test_a_lock_of_a_commit_stays_with_the_caches_until_it_is_recorded(project):
    path = project.work / "toolchain-locks" / "day" / "cu12" / "abc.txt"
    path.parent.mkdir(parents=True)
    path.write_text(LOCK)
    assert lock_for(project, "abc", PYPROJECT, DAY, "cu12", Policy("day"), committed=False).path == path
    assert not project.locks.exists()
