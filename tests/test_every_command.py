"""Every command under faults of files and of its output: an exit code and at most one line of error, never a traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fa4_asv.cli import COMMANDS, run
from fa4_asv.cli import main as group
from tests.support import ROOT
from tests.support.backfills import commits

# What each command prints from the record alone, where it prints something without compiling or a network.
PRINTING = [
    "verify",
    "verify --json",
    "history list",
    "history list --json",
    "changes --last 3",
    "changes --last 3 --json",
    "route",
    "route --json",
    "route --markdown",
    "backfill --dry-run --flavour cu13",
    "backfill --dry-run --json --flavour cu13",
    "compare 4.0.0b3 4.0.0b4 --no-run",
    "compare 4.0.0b3 4.0.0b4 --no-run --format json",
    "compare 4.0.0b3 4.0.0b4 --no-run --format markdown",
    "doctor",
    "doctor --json",
    "report",
    "report --json",
    *(f"{name} --help" for name in COMMANDS),
    "--help",
    "--version",
]
READING = [
    "verify",
    "history list",
    "changes",
    "route",
    "backfill --dry-run",
    "compare 4.0.0b3 4.0.0b4 --no-run",
    "report",
]


def ended(command: str) -> int:
    with pytest.raises(SystemExit) as told:
        run(command.split())
    return int(told.value.code or 0)


def full() -> io.TextIOWrapper:
    """A stream like a pipe or a file: what is written stays in a buffer for a while."""
    return io.TextIOWrapper(open("/dev/full", "wb"), encoding="utf-8")  # noqa: PTH123, SIM115


@pytest.mark.fault(
    kind="output that cannot be written, under every command",
    inputs="`/dev/full` as stdout; everything that prints, and every `--help`",
    happens="one line, exit code 2",
)
def test_a_full_disk_behind_the_output(hostile, monkeypatch, capsys):
    for command in PRINTING:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", full())
            code = ended(command)
        error = capsys.readouterr().err.splitlines()
        assert (code, error[-1:]) == (2, ["fa4-asv: cannot write the output: No space left on device"]), (
            command
        )
        assert len(error) == 1 or command.startswith("report"), (command, error)


@pytest.mark.fault(
    kind="neither output nor errors can be written",
    inputs="`/dev/full` as stdout and stderr",
    happens="exit code 2",
)
@pytest.mark.parametrize("arguments", ["verify", "history list", "changes --machine nosuch"])
def test_a_full_disk_behind_output_and_errors(arguments):
    command = [sys.executable, "-m", "fa4_asv", *arguments.split()]
    with open("/dev/full", "wb") as nowhere:  # noqa: PTH123
        done = subprocess.run(command, cwd=ROOT, stdout=nowhere, stderr=nowhere)
    assert done.returncode == 2


def deny(patched: pytest.MonkeyPatch, path: Path) -> None:
    """As mode 000 does for everybody but root, who runs tests in containers: the file or folder cannot be opened."""

    def refusing(real):
        def call(asked=".", *arguments, **more):
            if isinstance(asked, (str, os.PathLike)) and Path(asked) == path:
                raise PermissionError(13, "Permission denied", str(path))
            return real(asked, *arguments, **more)

        return call

    for module, name in ((os, "open"), (os, "scandir"), (os, "listdir"), (io, "open")):
        patched.setattr(module, name, refusing(getattr(module, name)))
    patched.setattr(Path, "iterdir", refusing(Path.iterdir))


def denied(project) -> dict[str, Path]:
    first = commits(project)[0][:8]
    (result,) = (project.results / "nogpu").glob(f"{first}-*.json")
    return {
        "releases.json": project.manifest,
        "upstream.json": project.upstream,
        "benchmarks.json": project.results / "benchmarks.json",
        "machine.json": project.results / "nogpu" / "machine.json",
        "a result file": result,
        "a sidecar": result.with_suffix(".sidecar"),
        "a cause": next((project.results / "nogpu").glob("*.cause")),
        "a machine's folder": project.results / "nogpu",
        "results/": project.results,
        "history/": project.manifest.parent,
    }


def readers_of(folder: Path, patched: pytest.MonkeyPatch) -> set[str]:
    """Filled while files below `folder` are opened: the modules that ask base/files.py for them."""
    readers: set[str] = set()
    really_open = os.open

    def noted(path, *arguments, **more):
        if Path(path).is_relative_to(folder):
            frame = sys._getframe(1)
            while (
                not frame.f_globals["__name__"].startswith("fa4_asv.")
                or "base" in frame.f_globals["__name__"]
            ):
                frame = frame.f_back
            readers.add(frame.f_globals["__name__"].removeprefix("fa4_asv."))
        return really_open(path, *arguments, **more)

    patched.setattr(os, "open", noted)
    return readers


def test_the_record_is_read_by_three_modules(hostile, monkeypatch, capsys):
    """Nothing is read but through base/files.py, see test_direct_reads."""
    readers = readers_of(hostile.results, monkeypatch)
    for command in READING:
        ended(command)
    assert readers == {"record.store", "record.descriptions", "record.explanation"}


@pytest.mark.fault(
    kind="a file or folder of the checkout that may not be read, under every command that reads it",
    inputs="mode 000 on `releases.json`, `upstream.json`, `benchmarks.json`, a machine's file and folder, a result file, a "
    "sidecar, a cause, `results/`, `history/`",
    happens="exit code 0, 1 or 2 as the command says; one line for each file; `verify` and `report` name it",
)
def test_what_may_not_be_read(hostile, monkeypatch, capsys):
    for name, path in denied(hostile).items():
        for command in READING:
            with monkeypatch.context() as patched:
                deny(patched, path)
                code = ended(command)
            out, err = capsys.readouterr()
            assert code in (0, 1, 2), (name, command)
            assert "Traceback" not in out + err, (name, command)
            assert code != 2 or len(err.splitlines()) == 1, (name, command, err)
            if command == "verify" and name != "history/":
                assert code, (name, out)
                assert "Permission denied" in out + err, (name, out + err)


def test_every_command_is_asked():
    """A command that is added prints, or is named here with its reason."""
    without = {
        "noise": "needs a sweep of a card",
        "sweep": "needs a card, or compiles",
        "explain": "compiles",
        "check-card": "needs a card",
        "audit": "compiles",
        "quickstart": "compiles: test_quickstart.py",
        "pack": "installs toolchains",
        "publish": "runs asv: test_publish.py, test_foreign_words.py",
    }
    asked = {
        command.split()[0] for command in PRINTING if "--help" not in command and not command.startswith("-")
    }
    assert asked | set(without) == set(COMMANDS)
    assert set(group.list_commands(None)) == set(COMMANDS)  # type: ignore[arg-type]
