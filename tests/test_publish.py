"""Publishing: real asv on a small history; a bad file costs itself, a failure leaves the old site."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fa4_asv import publish as module
from fa4_asv.cli import run
from fa4_asv.errors import Fa4AsvError
from fa4_asv.publish import sound_files, swap
from fa4_asv.results import sidecar_path
from fa4_asv.staging import seed, stage, take
from fa4_asv.verify import verify
from tests.conftest import ROOT
from tests.test_backfill import CODEGEN, ENVIRONMENT, commits, history, record  # noqa: F401 - a fixture


@pytest.fixture
def recorded(history):  # noqa: F811
    """Three releases, each recorded; asv finds the plug-in and the benchmarks where a checkout has them."""
    for name in ("fa4_asv", "benchmarks"):
        (history.root / name).symlink_to(ROOT / name)
    for commit, version in zip(commits(history), ("4.0.0b3", "4.0.0b4", "4.0.0b10"), strict=True):
        record(history, commit, version)
    shutil.copy(ROOT / "results" / "benchmarks.json", history.results)
    return history


def path_of(project, number: int) -> Path:
    return project.results / "nogpu" / f"{commits(project)[number][:8]}-{ENVIRONMENT}.json"


def publish(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run(["publish", *words])
    return int(ended.value.code or 0)


def published(project) -> int:
    """How many commits have a figure in the graph of one kernel's registers."""
    found = (project.html / "graphs").rglob("codegen.Kernels.track_registers.json")
    (graph,) = (path for path in found if "summary" not in path.parts)
    return sum(any(value is not None for value in values) for _, values in json.loads(graph.read_text()))


def test_a_sound_record_is_published_whole(recorded, capsys):
    assert publish() == 0
    assert published(recorded) == 3
    assert "3 result files published in html, 0 problems" in capsys.readouterr().out
    assert not [path for path in (recorded.work / "publish").iterdir() if path.is_dir()]


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
    assert f"refused: results/nogpu/{first.name}: is no asv result file" in err
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
    assert "benchmarks.json cannot be read" in capsys.readouterr().err
    assert (recorded.html / "index.html").read_text() == "old"

    def interrupted(_):
        raise KeyboardInterrupt

    shutil.copy(ROOT / "results" / "benchmarks.json", recorded.results)
    monkeypatch.setattr(module, "_asv_publish", interrupted)
    with pytest.raises(SystemExit) as ended:
        run(["publish"])
    assert ended.value.code not in (0, None)
    assert [path.name for path in recorded.html.iterdir()] == ["index.html"]


def test_leftovers_of_a_killed_publish_are_removed(recorded, monkeypatch):
    (recorded.work / "publish" / "killed" / "checkout").mkdir(parents=True)
    monkeypatch.setattr(module, "_asv_publish", lambda staged: (staged.html / "index.html").write_text("x"))
    assert publish() == 0
    assert not (recorded.work / "publish" / "killed").exists()


@pytest.mark.parametrize("exchange", [True, False])
def test_the_swap_keeps_what_git_tracks(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(module, "_exchange", lambda *_: False)
    new, target = tmp_path / "aside" / "html", tmp_path / "html"
    for folder, text in ((new, "new"), (target, "old")):
        folder.mkdir(parents=True)
        (folder / "index.html").write_text(text)
    (target / ".gitkeep").touch()
    (target / "gone.html").touch()
    swap(new, target)
    assert sorted(path.name for path in target.iterdir()) == [".gitkeep", "index.html"]
    assert (target / "index.html").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aside", "html"]


def test_a_staged_checkout_shares_all_but_its_record(recorded, tmp_path):
    staged = stage(recorded, tmp_path / "staged")
    assert (staged.work / "history.git" / "HEAD").is_file()
    assert not list(staged.results.iterdir())
    with pytest.raises(Fa4AsvError, match="cannot make"):
        stage(recorded, tmp_path / "staged")


def test_seed_and_take_are_inverse_and_unsound_pairs_stay_out(recorded, tmp_path):
    path = path_of(recorded, 1)
    before = {p: p.read_bytes() for p in (path, sidecar_path(path))}
    staged = stage(recorded, tmp_path / "staged")
    seed(recorded, staged, commits(recorded)[1], ENVIRONMENT)
    assert take(staged, recorded) == [sidecar_path(path), path]
    assert {p: p.read_bytes() for p in before} == before
    copied = staged.results / "nogpu" / path.name
    copied.write_text(before[path].decode().replace("[[16, ", "[[17, ", 1))
    with pytest.raises(
        Fa4AsvError, match="the result file has 17, the sidecar 16; .*not moved into results/"
    ):
        take(staged, recorded)
    assert verify(recorded) == [] and len(sound_files(recorded, [])) == 3
