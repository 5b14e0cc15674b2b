"""Where output cannot be written, or a file cannot be read: one line and an exit code, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fa4_asv.cli import run
from fa4_asv.report.route_table import Grid, render

ROOT = Path(__file__).resolve().parent.parent
FA4_ASV = f"{sys.executable} -m fa4_asv"


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.fault(
    kind="output that cannot be written",
    inputs="`/dev/full`",
    happens="one line, exit code 2",
)
@pytest.mark.parametrize(
    "command", ["verify", "history list", "history list --json", "--help", "changes --last 2"]
)
def test_a_full_disk_behind_the_output_is_one_line(command):
    done = shell(f"{FA4_ASV} {command} > /dev/full")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1:] == ["fa4-asv: cannot write the output: No space left on device"]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.fault(
    kind="a reader that has enough",
    inputs="a closed pipe",
    happens="no error",
)
def test_a_reader_that_has_enough_is_no_error():
    done = shell(f"{FA4_ASV} history list --json | head -1")
    assert (done.stdout, done.stderr) == ("[\n", "")


@pytest.mark.fault(
    kind="no standard output",
    inputs="`>&-`",
    happens="no error",
)
def test_a_closed_output_is_no_error():
    assert shell(f"{FA4_ASV} --version >&-").stderr == ""


def test_a_file_that_cannot_be_read_is_one_line(monkeypatch, capsys):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "results/nogpu")

    monkeypatch.setattr("fa4_asv.cli.main.main", refused)
    with pytest.raises(SystemExit) as done:
        run(["verify"])
    assert done.value.code == 2
    assert capsys.readouterr().err == "fa4-asv: cannot use results/nogpu: Permission denied\n"


def test_no_word_of_the_route_steers_the_terminal_or_breaks_it(capsys):
    hostile = "\ud800 \x1b[31m \u202eevil\nsecond"
    render(
        Grid("sm_90 cu12", ["2.13.0"], [], [(hostile, "torch 2.13.0: 4.0.0b36")]),
        Console(width=200),
        every=True,
    )
    shown = capsys.readouterr().out
    assert r"\ud800 \x1b[31m \u202eevil second" in shown
