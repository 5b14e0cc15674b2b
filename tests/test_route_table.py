"""The table of the routes against golden files; which torches a run asks."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from asv import util
from click.testing import CliRunner
from rich.console import Console

from fa4_asv.asv_plugin import base_environments, selection
from fa4_asv.catalog.benchmarks import REFUSED, TORCHES
from fa4_asv.cli import main
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.toolchain import FLAVOURS
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import read_sidecar, sidecar_path, write_sidecar
from fa4_asv.report.route_table import all_grids, pairs_of, render
from tests.support.golden import assert_golden
from tests.support.results import record_release


def checked(**reasons: str) -> CaseRecord:
    return CaseRecord("measured", figures={"broken": len(reasons), "checks": 21}, notes=reasons)


UNPACK = "ValueError: too many values to unpack (expected 2) (in _fa4.py, _fa4_run_forward)"
NO = checked(forward_full=UNPACK, forward_causal=UNPACK, backward_full="needs forward_full")
ODD = checked(layout="the output | has <b>strides</b> `(1, 2)`")
FORWARD = checked(backward_full="x", backward_causal="x", deterministic="needs backward_full")


@pytest.fixture
def routes(project):
    """Two releases under three torches: all verdicts, cells that were not run, markup in the words."""
    old = {"2.13.0/sm_90": checked(), "2.13.0/sm_100": checked(), "2.15.0/sm_90": ODD, "2.15.0/sm_100": ODD}
    new = {
        "2.12.1/sm_90": FORWARD,
        "2.13.0/sm_90": NO,
        "2.13.0/sm_100": NO,
        "2.14.1/sm_90": CaseRecord("not run", why="not to be had here"),
        "2.15.0/sm_90": CaseRecord("broken", why="the process was killed by SIGSEGV"),
    }
    releases = []
    for version, commit, cases in (("4.0.0b18", "a" * 40, old), ("4.0.0b19", "b" * 40, new)):
        releases.append(record_release(project, version, commit, {}, {"nvidia-cutlass-dsl": "4.4.1"}))
        (path,) = (project.results / "nogpu").glob(f"{commit[:8]}-*.json")
        side = sidecar_path(path)
        write_sidecar(side, replace(read_sidecar(side), groups={"route": cases}))
    Manifest(tuple(releases)).save(project.manifest)
    return project


@pytest.mark.parametrize(
    ("options", "golden"), [([], "route.txt"), (["--all"], "route_all.txt"), (["--markdown"], "route.md")]
)
def test_the_whole_table(routes, options, golden):
    done = CliRunner().invoke(main, ["route", *options])
    assert done.exit_code == 0, done.output
    assert_golden(golden, done.output)


def test_the_json_has_every_pair_and_its_words(routes):
    rows = json.loads(CliRunner().invoke(main, ["route", "--json"]).output)
    assert len(rows) == 8, "what was not run is left out"
    (row,) = [row for row in rows if (row["release"], row["torch"], row["arch"]) == ("4.0.0b19", "2.13.0", "sm_90")]  # fmt: skip
    assert row["verdict"] == "no (3 of 21)"
    assert row["words"]["forward_full"] == UNPACK


@pytest.fixture
def beyond(routes):
    """The newest release with what packed sequences and FlexAttention answered, too."""
    (path,) = (routes.results / "nogpu").glob(f"{'b' * 8}-*.json")
    side = sidecar_path(path)
    sidecar = read_sidecar(side)
    words = {"forward": UNPACK, "pages": f"{REFUSED}paged KV not supported", "lse": f"{REFUSED}needs pages"}
    some = CaseRecord("measured", figures={"broken": 1, "refused": 2, "checks": 19}, notes=words)
    none = CaseRecord("measured", figures={"broken": 0, "refused": 0, "checks": 14})
    lacking = CaseRecord("unsupported", why="torch 2.12.1 has no torch.nn.attention.varlen")
    ways = {
        "route-varlen": {"2.12.1/sm_90": lacking, "2.15.0/sm_90": some, "2.15.0/sm_100": none},
        "route-flex": {f"2.15.0/{arch}": none for arch in ("sm_90", "sm_100")},
    }
    write_sidecar(side, replace(sidecar, groups={**sidecar.groups, **ways}))
    return routes


@pytest.mark.parametrize(
    ("options", "golden"), [([], "route_beyond.txt"), (["--all"], "route_beyond_all.txt")]
)
def test_the_table_of_the_ways_beyond_sdpa(beyond, options, golden):
    done = CliRunner().invoke(main, ["route", *options])
    assert done.exit_code == 0, done.output
    assert "not recorded" not in done.output
    assert_golden(golden, done.output)


def test_the_ways_fit_a_terminal_of_80_columns(beyond):
    told = io.StringIO()
    console = Console(file=told, width=80, force_terminal=True, color_system=None)
    grids = all_grids(pairs_of(beyond, FLAVOURS))
    assert [grid.title.partition(", ")[2] for grid in grids][-2:] == [
        "packed sequences",
        "sm_100 cu13, FlexAttention",
    ]
    for grid in grids:
        for every in (False, True):
            render(grid, console, every)
    assert max(map(len, told.getvalue().splitlines())) <= 80


def test_the_json_names_the_way_and_markdown_has_sdpa_alone(beyond):
    rows = json.loads(CliRunner().invoke(main, ["route", "--json"]).output)
    told = {
        (row["way"], row["torch"], row["arch"]): row["verdict"]
        for row in rows
        if row["release"] == "4.0.0b19"
    }
    assert told["route-varlen", "2.15.0", "sm_90"] == "1 broken, 2 refused of 19"
    assert told["route-varlen", "2.12.1", "sm_90"] == "unsupported"
    assert told["route-flex", "2.15.0", "sm_100"] == "yes"
    assert told["route", "2.13.0", "sm_90"] == "no (3 of 21)"
    assert_golden("route.md", CliRunner().invoke(main, ["route", "--markdown"]).output)


def test_an_empty_record_is_one_line(routes):
    done = CliRunner().invoke(main, ["route", "--flavour", "cu12"])
    assert "no route is recorded" in str(done.exception)


def test_torches_that_are_asked_for(monkeypatch):
    monkeypatch.delenv(base_environments.VARIABLE, raising=False)
    assert base_environments.torches_asked() == ()
    monkeypatch.setenv(base_environments.VARIABLE, "all")
    assert base_environments.torches_asked() == TORCHES
    monkeypatch.setenv(base_environments.VARIABLE, "2.15.0, 2.12.1,2.15.0")
    assert base_environments.torches_asked() == ("2.15.0", "2.12.1")
    monkeypatch.setenv(base_environments.VARIABLE, "2.15")
    with pytest.raises(util.UserError, match="no torch '2.15'; write `all` or some of 2.11.0"):
        base_environments.torches_asked()


def test_a_further_base_is_made_only_for_a_selected_route(project, monkeypatch):
    pins = project.root / "requirements" / "base.txt"
    pins.parent.mkdir()
    pins.write_text("# torch once\ntorch==2.13.0\nnumpy==2.3.5\ntriton==3.7.0\n")
    monkeypatch.setenv(base_environments.VARIABLE, "2.12.1,2.13.0")
    monkeypatch.setattr(selection, "benchmarks", lambda: ["codegen"])
    checked = base_environments.Bases(project, same=False)
    assert (checked._further(), checked.interpreters(), checked.are_whole()) == ([], {}, False)
    monkeypatch.setattr(selection, "benchmarks", lambda: ["route"])
    checked.folder.mkdir(parents=True)
    (checked.folder / "fa4_asv-pins.txt").write_text(pins.read_text())
    assert not checked.are_whole()
    further = checked.folder.with_name(checked.folder.name + "-torch2.12.1")
    further.mkdir()
    (further / "fa4_asv-pins.txt").write_text("# torch once\ntorch==2.12.1\nnumpy==2.3.5\ntriton\n")
    assert checked.are_whole()
    assert checked.interpreters() == {
        "2.13.0": checked.folder / "bin" / "python",
        "2.12.1": further / "bin" / "python",
    }
    assert checked.versions() == ("2.12.1", "2.13.0")
    monkeypatch.setattr(selection, "machine", lambda: "h100")
    assert checked.interpreters() == {}, "exact figures belong to nogpu"
