"""What the steps of the workflows share: settings from the environment, commands, one line for a failure.

Everything reaches a step through its environment and is checked against a pattern here, so that no
workflow writes an expression into a shell. Nothing is imported that must be installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fa4_asv.base.escape import one_line, visible

COMMIT = r"[0-9a-f]{40}"
REPOSITORY = r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}"
NUMBER = r"[1-9][0-9]{0,17}"
FOLDER = r"[^\x00\n]{1,1000}"


class Refused(Exception):
    """A step cannot go on; one line, never with words from a pull request in it."""


def setting(name: str, pattern: str, default: str | None = None) -> str:
    """The environment variable `name`, whole of `pattern`. Raises Refused; the bad value is not repeated."""
    value = os.environ.get(name, "") or (default or "")
    if default is not None and value == default:
        return value
    if not re.fullmatch(pattern, value, re.ASCII):
        raise Refused(f"{name} is {'empty' if not value else 'not of the form it must have'} ({pattern})")
    return value


def benchmarks() -> list[str]:
    """BENCH, a regular expression a line, as `--bench` arguments."""
    patterns = [line.strip() for line in setting("BENCH", r"[^\x00]{0,2000}", "").splitlines()]
    return [word for pattern in patterns if pattern for word in ("--bench", pattern)]


def call(command: Sequence[str], **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run a command without a shell; its output is kept as bytes."""
    return subprocess.run(command, capture_output=True, check=False, **options)  # type: ignore[call-overload]


def summary(text: str) -> None:
    """Add `text` to the page of the run, where there is one."""
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if page:
        with Path(page).open("a", encoding="utf-8") as stream:
            stream.write(visible(text if text.endswith("\n") else text + "\n"))


def output(values: Mapping[str, str]) -> None:
    """Hand `values` to later jobs, where there are any; each is a line, so none may hold an end of line."""
    file = os.environ.get("GITHUB_OUTPUT")
    if any(end in value for value in values.values() for end in "\r\n"):
        raise Refused("an output of a step has more than one line")
    if file:
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.writelines(f"{name}={value}\n" for name, value in values.items())


def main(step: Callable[[], int]) -> None:
    """Run a step and exit with its code; 2 and one line, which GitHub shows on the run's page, where it refused."""
    try:
        code = step()
    except Refused as refused:
        print(f"::error::{one_line(str(refused), 2000)}")  # one line: a second one could be a command
        code = 2
    sys.exit(code)
