"""What a newcomer runs first: eight kernels held against the committed record, nothing written, all that differs named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fa4_asv.backfill.reproduction import CASES, newest_recorded
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.cli import quickstart as module
from fa4_asv.cli import run
from fa4_asv.record.schema import CaseRecord, Sidecar
from fa4_asv.record.store import read_sidecar, sidecar_path
from tests.support import ROOT

B36 = ROOT / "results" / "nogpu" / "d14f663b-fa4-pyany-flavourcu13-toolchainday.json"
TRUTH = read_sidecar(sidecar_path(B36))
KERNEL = "sm_100/bwd_d128_full_varlen"
Change = Callable[[CaseRecord], CaseRecord]


@pytest.fixture
def checkout(project, monkeypatch) -> Project:
    """b36 under cu13, committed."""
    (project.root / "history").mkdir()
    data = json.loads((ROOT / "history" / "releases.json").read_text())
    data["releases"] = [each for each in data["releases"] if each["version"] in ("4.0.0b35", "4.0.0b36")]
    (project.root / "history" / "releases.json").write_text(json.dumps(data))
    folder = project.results / "nogpu"
    folder.mkdir(parents=True)
    for path in (B36, sidecar_path(B36)):
        shutil.copy(path, folder)
    identity = ("-c", "user.name=x", "-c", "user.email=x@x.invalid")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "record")):
        subprocess.run(["git", *command], cwd=project.root, check=True)
    monkeypatch.setattr(module, "has_history", lambda _: True)
    return project


class Maker:
    """Makes what is recorded of b36; `changes` is what comes out otherwise, by group and case."""

    def __init__(self, changes: dict[tuple[str, str], Change]) -> None:
        self._changes = changes

    def __call__(self, *_: object) -> Maker:
        return self

    def records(self, side: Sidecar, cases: dict[str, tuple[str, ...]]) -> dict[str, dict[str, CaseRecord]]:
        return {
            group: {
                case: self._changes.get((group, case), lambda record: record)(TRUTH.groups[group][case])
                for case in keys
            }
            for group, keys in cases.items()
        }


@pytest.fixture
def quickstart(checkout, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """The command; its exit code and what it said."""

    def call(changes: dict[tuple[str, str], Change] | None = None, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(module, "base_here", lambda *_: Path(sys.executable))
        monkeypatch.setattr(module, "torch_of", lambda _: "2.13.0")
        monkeypatch.setattr(module, "Anew", Maker(changes or {}))
        with pytest.raises(SystemExit) as ended:
            run(["quickstart", *arguments])
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return call


def status(project: Project) -> str:
    command = ["git", "status", "--porcelain"]
    return subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=True).stdout


def test_a_sound_checkout_equals_the_committed_record(checkout, quickstart):
    code, out, _ = quickstart()
    assert code == 0
    assert "8 of 8 figures and cubins equal the committed record\n" in out
    assert "The report of the whole record: html/report/index.html\n" in out
    assert all(case in out for case in CASES)
    assert max(map(len, out.splitlines())) <= 80
    assert status(checkout) == ""


def figure(name: str, value: int) -> Change:
    return lambda record: replace(record, figures={**record.figures, name: value})


@pytest.mark.parametrize(
    ("changes", "equal", "named"),
    [
        ({("codegen", KERNEL): figure("spill_bytes", 99)}, 7, [f"codegen {KERNEL}: spill_bytes: recorded 16, anew 99"]),
        ({("codegen", KERNEL): lambda r: replace(r, sha256="0" * 64)}, 7, [f"codegen {KERNEL}: sha256: recorded "]),
        ({("loops", KERNEL): figure("spills_inside", 99)}, 7, [f"loops {KERNEL}: spills_inside: recorded 3, anew 99"]),
        (
            {("codegen", case): lambda _: CaseRecord("broken", why="no compiler") for case in CASES[:2]},
            6,
            [f"codegen {case}: state: recorded measured, anew broken (no compiler)" for case in CASES[:2]],
        ),
    ],
    ids=["a figure", "a cubin", "a figure of a loop", "kernels that do not compile"],
)  # fmt: skip
def test_what_differs_is_counted_and_named(checkout, quickstart, changes, equal, named):
    code, out, err = quickstart(changes)
    assert code == 1
    assert f"{equal} of 8 figures and cubins equal the committed record\n" in out
    for line in named:
        assert f"differs: results/nogpu/{B36.stem}.sidecar: {line}" in err
    assert status(checkout) == ""


def edited(project: Project) -> None:
    path = sidecar_path(project.results / "nogpu" / B36.name)
    path.write_text(path.read_text() + "\n")


def unknown_to_git(project: Project) -> None:
    shutil.rmtree(project.root / ".git")


@pytest.mark.parametrize("change", [edited, unknown_to_git])
def test_a_record_that_is_not_as_committed_is_not_called_so(checkout, quickstart, change):
    change(checkout)
    code, out, _ = quickstart()
    assert (code, "equal the committed record" in out) == (0, False)
    assert "8 of 8 figures and cubins equal the record in results/, which is not as committed" in out


def test_a_release_without_a_record_is_passed_over(checkout):
    data: dict[str, Any] = json.loads(checkout.manifest.read_text())
    data["releases"].append({**data["releases"][-1], "version": "4.0.0b99", "commit": "0" * 40})
    checkout.manifest.write_text(json.dumps(data))
    assert newest_recorded(checkout, "cu13").sidecar.release == "4.0.0b36"
    with pytest.raises(
        Fa4AsvError, match="no release is recorded with flavour 'cu12' in .*; restore results/"
    ):
        newest_recorded(checkout, "cu12")


def test_without_a_history_it_says_what_to_run(project, capsys):
    with pytest.raises(SystemExit) as ended:
        run(["quickstart"])
    assert ended.value.code == 2
    assert "run `fa4-asv history sync` first" in capsys.readouterr().err


def test_make_quickstart_publishes_nothing_and_keeps_the_list_of_releases():
    """What it runs, with the suite installed already."""
    command = ["make", "--no-print-directory", "-n", "-o", ".venv/.suite", "quickstart"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        ".venv/bin/fa4-asv history sync --known",
        ".venv/bin/fa4-asv quickstart --flavour cu13",
    ]
