"""A git command that asks the network: bounded in time, in silence and in what it brings."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fa4_asv.base.errors import Fa4AsvError

# git's own floor for https: bytes per second, and for how many seconds less than that is borne.
SLOWEST, PATIENCE = 2048, 60
_POLL, _LAST_MOMENT = 0.2, 5.0


@dataclass(frozen=True)
class GitLimits:
    """`size` of all that comes and `output` of what is printed, in bytes; `silence` is the time without a byte."""

    # flash-attention has 0.1 GB; a server may count its objects for a minute before the first byte.
    size: int = 4 << 30
    output: int = 64 << 20
    seconds: float = 3600.0
    silence: float = 300.0


def call_bounded(
    command: Sequence[str],
    environment: Mapping[str, str],
    into: Path | None = None,
    limits: GitLimits = GitLimits(),  # noqa: B008 - frozen
) -> subprocess.CompletedProcess[bytes]:
    """Run a command that fetches into the folder `into`. Raises Fa4AsvError where it goes over a limit; it is ended then.

    Its process group is ours: ssh may ask a person for a passphrase.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=dict(environment)
        )
        try:
            _watch(process, out, into, limits)
        finally:
            _end(process)
        out.seek(0)
        errors.seek(0)
        chunk = errors.read(1 << 16)
        return subprocess.CompletedProcess(process.args, process.returncode, out.read(limits.output), chunk)


def _watch(process: subprocess.Popen[bytes], out: BinaryIO, into: Path | None, limits: GitLimits) -> None:
    begin = last = time.monotonic()
    seen = 0
    while not _has_ended(process):
        printed = os.fstat(out.fileno()).st_size
        come = printed + (_size(into) if into else 0)
        now = time.monotonic()
        if come != seen:
            seen, last = come, now
        if printed > limits.output or come > limits.size:
            raise Fa4AsvError(
                f"it sends more than {limits.output if printed > limits.output else limits.size:,} bytes"
            )
        if now - begin > limits.seconds:
            raise Fa4AsvError(f"it did not end within {limits.seconds:.0f} s")
        if now - last > limits.silence:
            raise Fa4AsvError(f"nothing came for {limits.silence:.0f} s")


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL)
    except subprocess.TimeoutExpired:
        return False
    return True


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # a temporary file that has been renamed
            continue
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    """git's helpers end with it: their pipes close."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_LAST_MOMENT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
