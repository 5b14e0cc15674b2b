"""The step that opens issues: which releases it is about, what stands in an issue, and that no word of it acts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import entries, iter_results
from fa4_asv.report.alerts import alerts
from fa4_asv.report.events import timeline
from fa4_asv.report.model import load
from tests.support.ci_fakes import FakeGitHub
from tests.support.fake_record import HOSTILE, write_pair, write_releases
from tests.support.results import FIGURES
from tools.ci.alert import AUTHOR, mark, step
from tools.ci.comment import JOINER
from tools.ci.steps import main

REPOSITORY = "kernels/flash-attention"
ISSUES = f"repos/{REPOSITORY}/issues"
KERNEL = "sm_100/fwd_d128_full"


def kernel(spill: int) -> CaseRecord:
    return CaseRecord("measured", figures={**FIGURES, "spill_bytes": spill})


@pytest.fixture
def worse(project):
    """b3 spills more than b2."""
    for release, spill in zip(write_releases(project, 3), (8, 8, 500), strict=True):
        write_pair(project, release, {"codegen": {KERNEL: kernel(spill)}})
    return project


def unverified(project, each):
    for entry in entries(project.results):
        each(entry)
    return []


@pytest.fixture
def github(tmp_path, monkeypatch, worse) -> FakeGitHub:
    fake = FakeGitHub(tmp_path / "gh", monkeypatch)
    fake.answers = {f"GET {ISSUES}": [[]], f"POST {ISSUES}": {"number": 1}}
    monkeypatch.setenv("REPOSITORY", REPOSITORY)
    monkeypatch.delenv("ALERTS", raising=False)
    monkeypatch.delenv("SITE", raising=False)
    # The record of the test has no git history beside it; what verify says is tested elsewhere.
    monkeypatch.setattr("fa4_asv.report.sound_record.verify", unverified)
    return fake


@pytest.fixture
def stepped(github, capsys):
    def run() -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main(step)
        return int(end.value.code or 0), capsys.readouterr().out

    return run


def alerts_of(project):
    model = load(project, list(iter_results(project.results)))
    return alerts(model, timeline(model, []), [], 2)


def test_a_release_that_is_worse_gets_an_issue_with_its_table_and_its_page(github, stepped):
    assert stepped() == (0, "4.0.0b3: opened\n")
    ((method, path, text),) = github.written
    assert (method, path) == ("POST", ISSUES)
    assert text.startswith(
        f"{mark('4.0.0b3')}\n[The page of this release](https://kernels.github.io/flash-attention/report/releases/4.0.0b3.html)"
    )
    assert "| `fwd_d128_full` | `sm_100, cu13` | `spill (stack frame)` | `8` | `500` |" in text
    assert "`source`" in text and "Packages that moved: none." in text


def test_the_next_night_updates_ours_once_and_nobody_elses(github, stepped):
    ours = {"login": AUTHOR}
    old = {"number": 7, "user": ours, "body": f"{mark('4.0.0b3')}\nold"}
    theirs = {"number": 8, "user": {"login": "somebody"}, "body": mark("4.0.0b3")}
    github.answers[f"GET {ISSUES}"] = [[theirs, old]]
    github.answers[f"PATCH {ISSUES}/7"] = {"number": 7}
    assert stepped() == (0, "4.0.0b3: updated\n")
    ((method, path, text),) = github.written
    assert (method, path) == ("PATCH", f"{ISSUES}/7")
    github.answers[f"GET {ISSUES}"] = [[{**old, "body": text}]]
    assert stepped() == (0, "4.0.0b3: unchanged\n")
    assert len(github.written) == 1


def test_it_is_silent_where_nothing_is_worse_and_where_it_is_off(worse, github, stepped, monkeypatch):
    monkeypatch.setenv("ALERTS", "off")
    assert stepped() == (0, "alerts are switched off\n")
    monkeypatch.setenv("ALERTS", "perhaps")
    assert stepped()[0] == 2
    monkeypatch.setenv("ALERTS", "on")
    model = load(worse, list(iter_results(worse.results)))
    write_pair(worse, model.releases[2], {"codegen": {KERNEL: kernel(0)}})
    assert stepped() == (0, "none of the newest 2 releases is worse than the one before it\n")
    assert github.written == []


def test_only_the_newest_releases_are_told(worse):
    assert [each.version for each in alerts_of(worse)] == ["4.0.0b3"]
    for release in write_releases(worse, 6)[3:]:
        write_pair(worse, release, {"codegen": {KERNEL: kernel(500)}})
    assert alerts_of(worse) == []


def test_words_of_others_are_text_and_act_on_nothing(worse, github, stepped):
    model = load(worse, list(iter_results(worse.results)))
    hostile = f"{HOSTILE} @everyone #1 [x](https://example.org) ![y](z)"
    broken = {KERNEL: CaseRecord("broken", hostile), "sm_100/fwd_d64_full": kernel(0)}
    write_pair(worse, model.releases[2], {"codegen": broken}, compiler="4.9<b>@all")
    assert stepped()[0] == 0
    ((_, _, text),) = github.written
    rest = text.partition("\n\n")[2]
    assert "<script" not in rest and "](http" not in rest.replace(JOINER, "\0")
    assert "@all" not in rest and f"@{JOINER}all" in rest


def test_the_site_of_a_setting_is_used(github, stepped, monkeypatch):
    monkeypatch.setenv("SITE", "https://lab.example.org/fa4")
    stepped()
    assert "(https://lab.example.org/fa4/report/releases/4.0.0b3.html)" in github.written[0][2]
    monkeypatch.setenv("SITE", "javascript:alert(1)")
    assert stepped()[0] == 2


def test_a_change_without_effect_is_no_alert(worse):
    model = load(worse, list(iter_results(worse.results)))
    smaller = replace(kernel(8), figures={**FIGURES, "spill_bytes": 8, "registers": 300})
    write_pair(worse, model.releases[2], {"codegen": {KERNEL: smaller}})
    assert alerts_of(worse) == []
