"""Publishing: real asv on a small history; a bad file costs itself, a failure leaves the old site."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fa4_asv.base import site
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import only_one
from fa4_asv.base.site import recover, swap
from fa4_asv.cli import publish as module
from fa4_asv.cli import run
from fa4_asv.history.manifest import Manifest
from fa4_asv.integrity.verify import verify
from fa4_asv.record.store import sidecar_path
from tests.support import ROOT
from tests.support.backfills import commits
from tests.support.publishing import path_of, publish


def published(project) -> int:
    """How many commits have a figure in the graph of one kernel's registers."""
    paths = (project.html / "graphs").rglob("codegen.Kernels.track_registers.json")
    (graph,) = (path for path in paths if "summary" not in path.parts)
    return sum(any(value is not None for value in values) for _, values in json.loads(graph.read_text()))


def test_a_sound_record_is_published_whole(recorded, capsys):
    assert publish() == 0
    assert published(recorded) == 3
    assert "3 result files published in html, 0 refused" in capsys.readouterr().out
    assert not [path for path in (recorded.work / "publish").iterdir() if path.is_dir()]


@pytest.mark.fault(
    kind="bad files in the record while the site is made",
    inputs="half a file, a word for a figure, another figure in the sidecar, another suite",
    happens="each named, the rest published, exit code 1",
)
def test_each_bad_file_is_refused_by_name_and_the_rest_published(recorded, capsys):
    """Truncated, hand-edited, wrongly typed, of another suite: one at a time, then together."""
    first, second, third = (path_of(recorded, number) for number in range(3))
    keep = {path: path.read_text() for path in (first, second, sidecar_path(second))}

    def restore():
        for path, text in keep.items():
            path.write_text(text)

    first.write_text(keep[first][:200])
    assert publish() == 1
    assert published(recorded) == 2
    assert f"refused: results/nogpu/{first.name}: is not JSON" in capsys.readouterr().err
    restore()
    data = json.loads(keep[first])
    data["results"]["codegen.Kernels.track_registers"][0][0] = "many"
    first.write_text(json.dumps(data))
    second.write_text(keep[second].replace("[[16, ", "[[17, ", 1))
    assert publish() == 1
    assert published(recorded) == 1
    err = capsys.readouterr().err
    assert f"refused: results/nogpu/{first.name}: is not an asv result file" in err
    assert f"refused: results/nogpu/{sidecar_path(second).name}: " in err
    restore()
    sidecar_path(second).write_text(keep[sidecar_path(second)].replace('"suite": "1"', '"suite": "0"'))
    assert publish("--json") == 1
    assert published(recorded) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["published"] == 2
    assert answer["refused"][0]["what"].startswith("was written by suite '0', this is suite '1'")


def test_another_machines_results_appear_without_another_step(recorded):
    box = recorded.results / "someones-h200"
    box.mkdir()
    (box / "machine.json").write_text('{"machine": "someones-h200", "version": 1}')
    for path in (path_of(recorded, 2), sidecar_path(path_of(recorded, 2))):
        (box / path.name).write_text(path.read_text().replace('"nogpu"', '"someones-h200"'))
    assert publish() == 0
    index = json.loads((recorded.html / "index.json").read_text())
    assert sorted(index["params"]["machine"]) == ["nogpu", "someones-h200"]
    (box / "machine.json").write_text("{")
    assert publish() == 1
    assert json.loads((recorded.html / "index.json").read_text())["params"]["machine"] == ["nogpu"]


def test_a_failure_leaves_the_old_site(recorded, capsys, monkeypatch):
    recorded.html.mkdir()
    (recorded.html / "index.html").write_text("old")
    (recorded.results / "benchmarks.json").write_text("{")
    assert publish() == 2
    assert "benchmarks.json is not JSON" in capsys.readouterr().err
    assert (recorded.html / "index.html").read_text() == "old"

    def interrupted(*_):
        raise KeyboardInterrupt

    shutil.copy(ROOT / "results" / "benchmarks.json", recorded.results)
    monkeypatch.setattr(module, "_make_site", interrupted)
    with pytest.raises(SystemExit) as ended:
        run(["publish"])
    assert ended.value.code not in (0, None)
    assert [path.name for path in recorded.html.iterdir()] == ["index.html"]


def test_a_report_that_fails_leaves_the_old_site_and_its_words(recorded, capsys, monkeypatch):
    """It is made while asv runs, which is ended then."""
    old_site(recorded)
    started = []

    real = subprocess.Popen

    def patient(arguments, **options):
        if "asv" in arguments:
            arguments = [sys.executable, "-c", "import time; time.sleep(600)"]
        started.append(real(arguments, **options))
        return started[-1]

    def broken(*_):
        raise Fa4AsvError("no space left")

    monkeypatch.setattr(module.subprocess, "Popen", patient)
    monkeypatch.setattr(module, "write_pages", broken)
    assert publish() == 2
    assert "no report could be made (no space left); the old site is untouched" in capsys.readouterr().err
    assert [path.name for path in recorded.html.iterdir()] == ["index.html"]
    assert started[-1].returncode == -signal.SIGKILL


def test_leftovers_of_a_killed_publish_are_removed(recorded, monkeypatch):
    (recorded.work / "publish" / "killed" / "checkout").mkdir(parents=True)
    monkeypatch.setattr(module, "_make_site", lambda staged, _: (staged.html / "index.html").write_text("x"))
    assert publish() == 0
    assert not (recorded.work / "publish" / "killed").exists()


@pytest.mark.parametrize("exchange", [True, False])
def test_the_swap_puts_the_whole_new_site_in_place(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(site, "_exchange", lambda *_: False)
    new, target = tmp_path / "aside" / "html", tmp_path / "html"
    for folder, text in ((new, "new"), (target, "old")):
        folder.mkdir(parents=True)
        (folder / "index.html").write_text(text)
    (target / "gone.html").touch()
    swap(new, target)
    assert sorted(path.name for path in target.iterdir()) == ["index.html"]
    assert (target / "index.html").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aside", "html"]


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_would_end_asv_or_be_dropped_is_refused(recorded, capsys):
    first, second, third = (path_of(recorded, number) for number in range(3))
    edit(first, env_vars=[])
    edit(second, params={"machine": "nogpu", "ram": ["1"]})
    (recorded.results / "stray.json").write_text("{}")
    (recorded.results / "nogpu" / ".x.json.abc.tmp").touch()
    assert publish() == 1
    assert published(recorded) == 1
    told = capsys.readouterr()
    assert (
        f"refused: results/nogpu/{first.name}: is not an asv result file (ValueError: env_vars is []"
        in told.err
    )
    assert (
        f"refused: results/nogpu/{second.name}: is not an asv result file (ValueError: params['ram'] is ['1']"
        in told.err
    )
    assert "refused: results/stray.json: stands in no machine's folder" in told.err
    assert "note: results/nogpu/.x.json.abc.tmp: left behind" in told.err
    assert "1 result files published in html, 2 refused" in told.out


def test_a_commit_that_is_not_in_the_history_is_refused(recorded, capsys):
    """Results can be newer than the history of this checkout."""
    path = path_of(recorded, 0)
    commit = commits(recorded)[0]
    known = Manifest.load(recorded.manifest)
    newer = replace(known.releases[0], version="4.0.0b11", commit="d" * 40)
    Manifest((*known.releases, newer)).save(recorded.manifest)
    for each in (path, sidecar_path(path)):
        copy = each.with_name(each.name.replace(commit[:8], "d" * 8))
        copy.write_text(each.read_text().replace(commit, "d" * 40).replace('"4.0.0b3"', '"4.0.0b11"'))
    assert verify(recorded) == []
    assert publish() == 1
    err = capsys.readouterr().err
    assert f"{'d' * 40} is not in the local history; run `fa4-asv history sync`" in err


def old_site(project) -> None:
    project.html.mkdir()
    (project.html / "index.html").write_text("old")


@pytest.mark.fault(
    kind="a damaged `benchmarks.json` while the site is made",
    inputs="other types, other versions",
    happens="one line; the old site stays",
)
@pytest.mark.parametrize("text", ["[]", "null", '{"version": 2}', '{"version": 1}', '{"version": 2, "x": 3}'])
def test_a_damaged_list_of_benchmarks_is_one_line(recorded, capsys, text):
    old_site(recorded)
    (recorded.results / "benchmarks.json").write_text(text)
    assert publish() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "benchmarks.json is not asv's list of benchmarks (" in line
    assert (recorded.html / "index.html").read_text() == "old"


def test_when_asv_fails_or_nothing_is_sound_the_old_site_stays(recorded, capsys):
    old_site(recorded)
    edit(recorded.root / "asv.conf.json", regressions_thresholds=7)
    assert publish() == 2
    assert "asv publish failed (exit code 1); the old site is untouched" in capsys.readouterr().err
    (recorded.results / "nogpu" / "machine.json").write_text('{"machine": "nogpu"}')
    assert publish() == 2
    err = capsys.readouterr().err
    assert (
        "refused: results/nogpu/machine.json: is not an asv machine file (it has version None, asv reads"
        in err
    )
    assert "there is no sound result file" in err
    assert [path.name for path in recorded.html.iterdir()] == ["index.html"]


def test_a_folder_that_is_no_site_is_never_replaced(recorded, tmp_path, capsys):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").touch()
    assert publish("--html-dir", str(home)) == 2
    assert publish("--html-dir", str(tmp_path)) == 2
    assert publish("--html-dir", str(home / "thesis.txt")) == 2
    err = capsys.readouterr().err.splitlines()
    assert ["holds thesis.txt" in err[0], "holds this checkout" in err[1], "is not a folder" in err[2]] == [
        True
    ] * 3
    assert [path.name for path in home.iterdir()] == ["thesis.txt"]
    for _ in range(2):  # into a new folder, then over its own site
        assert publish("--html-dir", str(home / "site")) == 0
    assert not recorded.html.exists()


@pytest.mark.fault(
    kind="a kill while the site is made",
    inputs="SIGKILL",
    happens="the old site stays, the next command publishes",
)
def test_kill_9_in_the_middle_leaves_the_old_site_and_the_next_one_publishes(recorded):
    old_site(recorded)
    command = [sys.executable, "-m", "fa4_asv", "publish"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 60
    while not list((recorded.work / "publish").glob("*/checkout/html/*")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert [path.name for path in recorded.html.iterdir()] == ["index.html"]
    assert (recorded.html / "index.html").read_text() == "old"
    assert publish() == 0
    assert published(recorded) == 3
    assert [path.name for path in (recorded.work / "publish").iterdir()] == [".lock"]


def test_a_second_publish_is_told_to_wait(recorded, capsys):
    (recorded.work / "publish").mkdir()
    with only_one(recorded.work / "publish" / ".lock"):
        assert publish() == 2
    assert "another publish is running in this checkout" in capsys.readouterr().err


@pytest.mark.parametrize("killed", ["between the renames", "after the swap"])
def test_a_killed_swap_is_recovered(tmp_path, killed):
    target = tmp_path / "html"
    aside, old = site._beside(target)
    for folder in (aside, old):
        folder.mkdir()
        (folder / "index.html").write_text(folder.name)
    if killed == "after the swap":
        target.mkdir()
        (target / "index.html").write_text("whole")
    recover(target)
    assert (target / "index.html").read_text() == ("whole" if killed == "after the swap" else old.name)
    assert list(tmp_path.iterdir()) == [target]
