"""What this asv process was asked: machine, benchmarks, terminal; and which contexts it made.

asv gives an environment no way to ask, so the machine is noted where asv loads it (see hooks.py) and
`--bench` is read from the command line as asv's own parser reads it.
"""

from __future__ import annotations

import argparse
import os
import sys

from fa4_asv.base.machine import NOGPU
from fa4_asv.measure.context import Context

_machine = [NOGPU]
_contexts: dict[tuple[str, str], Context] = {}


def machine() -> str:
    """The machine name that asv chose for this run; `nogpu` before it chose."""
    return _machine[0]


def set_machine(name: str) -> None:
    _machine[0] = name


def remember(context: Context) -> None:
    _contexts[context.commit, context.environment] = context


def forget(commit: str, environment: str) -> None:
    """Called before a commit is laid: until it is, nothing stands behind its figures."""
    _contexts.pop((commit, environment), None)


def context_of(commit: str, environment: str) -> Context | None:
    """The context that this process laid for a commit and environment."""
    return _contexts.get((commit, environment))


def terminal() -> str:
    """The device that asv writes to, "" where it is no terminal."""
    try:
        return os.ttyname(1) if sys.stdout.isatty() else ""
    except OSError:
        return ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise ValueError(message)


def benchmarks(arguments: list[str] | None = None) -> list[str]:
    """The regular expressions that select benchmarks; [] for all, also when asv was called as a library."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = _Parser(add_help=False, allow_abbrev=True)
    parser.add_argument("--bench", "-b", action="append", default=[])
    for names in (("-E", "--environment"), ("-m", "--machine"), ("--config",), ("--launch-method",)):
        parser.add_argument(*names, action="append")
    parser.add_argument("-a", "--attribute", action="append")
    parser.add_argument("-j", "--parallel", nargs="?", type=int)
    try:
        known, rest = parser.parse_known_args(words)
    except ValueError:
        return []
    if "find" in rest:
        # `asv find RANGE BENCHMARK`, a regular expression as --bench is. In doubt everything: compiling
        # too much is slow, too little would be wrong.
        words = [word for word in rest[rest.index("find") + 1 :] if not word.startswith("-")]
        return [words[1]] if len(words) == 2 else []
    return list(known.bench)
