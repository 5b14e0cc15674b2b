"""What stands in for GitHub in the tests of the workflows' steps: its command line, an artifact, an answer."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tests.support import ROOT
from tools.ci import artifact

if TYPE_CHECKING:
    import pytest  # slow to import, and the stand-in of `gh` starts anew for each call

GH = """#!{python}
import sys
sys.path.insert(0, {root!r})
from tests.support.ci_fakes import respond
code, data = respond({folder!r}, sys.argv[1:], sys.stdin.buffer.read() if "--input" in sys.argv else b"")
sys.stdout.buffer.write(data)
sys.exit(code)
"""


def respond(folder: str | Path, arguments: list[str], body: bytes) -> tuple[int, bytes]:
    """Exit code and output of `gh WORDS`, by what stands in `folder`; the call is remembered there."""
    here = Path(folder)
    assert arguments[0] == "api" and os.environ["GH_TOKEN"] == "a token"
    assert not any("a token" in word for word in arguments)
    method = arguments[arguments.index("--method") + 1] if "--method" in arguments else "GET"
    path = arguments[1].partition("?")[0]
    with (here / "calls").open("a") as calls:
        calls.write(json.dumps([method, path, body.decode()]) + "\n")
    data = json.loads((here / "answers").read_text()).get(f"{method} {path}")
    if data is None:
        return 1, b""
    return 0, (here / "zip").read_bytes() if path.endswith("/zip") else json.dumps(data).encode()


class FakeGitHub:
    """A `gh` that answers from `answers` ("GET repos/...": JSON) and remembers what it was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.answers = folder, dict[str, Any]()
        folder.mkdir()
        monkeypatch.setenv("GH_TOKEN", "a token")
        monkeypatch.setattr(artifact, "call", self._call)
        self._environment = monkeypatch

    def _call(self, command: list[str], input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        self.ready()
        assert command[0] == "gh"
        return subprocess.CompletedProcess(command, *respond(self.folder, command[1:], input or b""))

    def on_path(self) -> None:
        """As a program, for a step that runs in a process of its own."""
        tool = self.folder / "gh"
        tool.write_text(GH.format(python=sys.executable, root=str(ROOT), folder=str(self.folder)))
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        self._environment.setenv("PATH", f"{self.folder}:/usr/bin:/bin")
        self.ready()

    def artifact(self, repository: str, run: int, name: str, files: dict[str, bytes] | bytes) -> None:
        """The run left this artifact: files by name, or the bytes of what should be an archive."""
        data = files if isinstance(files, bytes) else archive_of(files)
        (self.folder / "zip").write_bytes(data)
        entry = {"id": 9, "name": name, "size_in_bytes": len(data), "expired": False}
        self.answers[f"GET repos/{repository}/actions/runs/{run}/artifacts"] = {"artifacts": [entry]}
        self.answers[f"GET repos/{repository}/actions/artifacts/9/zip"] = "the file zip"

    def ready(self) -> None:
        """Write the answers down where the tool finds them."""
        (self.folder / "answers").write_text(json.dumps(self.answers))

    @property
    def written(self) -> list[tuple[str, str, str]]:
        """Every call that would have changed something: method, path, text of the comment ("" without one)."""
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.is_file() else []
        rows = [json.loads(line) for line in lines]
        changes = [row for row in rows if row[0] != "GET"]
        return [(method, path, json.loads(body)["body"] if body else "") for method, path, body in changes]


class FakeSuite:
    """Stands in for `python -m fa4_asv`: remembers its arguments, does what `does[command]` says.

    That is Python with `words`, the arguments, in scope; what raises nothing exits with 0.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, step: ModuleType) -> None:
        self.folder, self.does = folder, dict[str, str]()
        folder.mkdir()
        (folder / "suite.py").write_text(
            "import json, os, pathlib, sys, time\n"
            f"words, here = sys.argv[1:], pathlib.Path({str(folder)!r})\n"
            "with (here / 'calls').open('a') as calls:\n    calls.write(json.dumps(words) + '\\n')\n"
            "exec(json.loads((here / 'does').read_text()).get(words[0], ''))\n"
        )
        monkeypatch.setattr(step, "FA4_ASV", [sys.executable, "-S", str(folder / "suite.py")])
        self.ready()

    def ready(self, **does: str) -> None:
        """Write down what each command does."""
        self.does |= does
        (self.folder / "does").write_text(json.dumps(self.does))

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of each call."""
        calls = self.folder / "calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.is_file() else []


def archive_of(files: dict[str, bytes]) -> bytes:
    """A zip archive; names are taken as they are, ways out of the folder included."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def git(folder: Path, *arguments: str) -> str:
    """A git command with a name of its own; its answer."""
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
