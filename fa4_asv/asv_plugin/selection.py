"""What this asv process was asked: command, machine, benchmarks, terminal; and which contexts it made.

asv gives an environment no way to ask, so the machine is noted where the command begins (see commands.py) and
the rest is read from the command line by asv's own parser.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from asv import util
from asv.commands import make_argparser

from fa4_asv.base.machine import NOGPU
from fa4_asv.measure.context import Context

_machine: list[str] = []
_contexts: dict[tuple[str, str], Context] = {}


def machine() -> str:
    """The machine name that asv chose for this run; `nogpu` before it chose."""
    return _machine[-1] if _machine else NOGPU


def set_machine(name: str) -> None:
    """Called where asv chooses the machine to record under: `run`, `continuous` and `find` do."""
    _machine[:] = [name]


def is_measuring() -> bool:
    """Whether asv chose a machine: what it saves then was measured now. `rm` and `update` choose none."""
    return bool(_machine)


def remember(context: Context) -> None:
    _contexts[context.commit, context.environment] = context


def forget(commit: str, environment: str) -> None:
    """Called before a commit is laid: until it is, nothing stands behind its figures."""
    _contexts.pop((commit, environment), None)


def context_of(commit: str, environment: str) -> Context | None:
    """The context that this process laid for a commit and environment."""
    return _contexts.get((commit, environment))


def terminal() -> str:
    """The device that asv writes to, "" where it is not a terminal."""
    try:
        return os.ttyname(1) if sys.stdout.isatty() else ""
    except OSError:
        return ""


def asked(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """asv's command line as asv parses it; empty where it is none, as when asv was called as a library."""
    return _parsed(tuple(sys.argv[1:] if arguments is None else arguments))


@functools.cache
def _parsed(arguments: tuple[str, ...]) -> argparse.Namespace:
    parser, _ = make_argparser()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            namespace: argparse.Namespace = parser.parse_args(arguments)
            return namespace
    except (SystemExit, TypeError):  # TypeError: asv's parser of `find` cannot say what is missing
        return argparse.Namespace()


def command_class(arguments: Sequence[str] | None = None) -> type[Any] | None:
    """asv's command class, None where there is none."""
    command: type[Any] | None = getattr(getattr(asked(arguments), "func", None), "__self__", None)
    return command


def command(arguments: Sequence[str] | None = None) -> str:
    """The name of asv's command class ("Run", "Find"), "" where there is none."""
    return getattr(command_class(arguments), "__name__", "")


def benchmarks(arguments: Sequence[str] | None = None) -> list[str]:
    """The regular expressions that select benchmarks; [] for all, also when asv was called as a library."""
    namespace = asked(arguments)
    if command(arguments) == "Profile":
        return [f"^{namespace.benchmark}$"]
    bench = getattr(namespace, "bench", None) or []
    return [bench] if isinstance(bench, str) else list(bench)


def saves_nothing(arguments: Sequence[str] | None = None) -> bool:
    """Whether asv was told to leave results/ alone.

    asv's help says of `run --quick` that its results are not saved.
    """
    namespace = asked(arguments)
    quick = command(arguments) == "Run" and namespace.quick
    return bool(quick or getattr(namespace, "dry_run", False) or getattr(namespace, "skip_save", False))


def refuse_existing(arguments: Sequence[str] | None = None) -> None:
    """Raises asv's UserError, one line, where asv's environment `existing` is selected: it lays no FA4."""
    for spec in getattr(asked(arguments), "env_spec", None) or []:
        if spec == ":same" or spec.partition(":")[0] == "existing":
            raise util.UserError(
                f"environment {spec!r} holds no commit of FA4; write `-E fa4:same` for the Python that runs asv"
            )
