"""The option `--toolchain` of commands that measure: what FA4_ASV_TOOLCHAIN asks for, for one call."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fa4_asv.compare.commits import TOOLCHAIN_VARIABLE

Command = TypeVar("Command", bound=Callable[..., Any])
_HELP = (
    "day, pins such as nvidia-cutlass-dsl==4.8.1, or as:REF, the toolchain of one release or commit for all. "
    f"Default: {TOOLCHAIN_VARIABLE}, else day."
)


def toolchain_option(command: Command) -> Command:
    """Adds `--toolchain`: processes that the command starts inherit it, and it ends with the command."""

    def ask(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is None:
            return
        before = os.environ.get(TOOLCHAIN_VARIABLE)
        os.environ[TOOLCHAIN_VARIABLE] = value
        context.call_on_close(lambda: _restore(before))

    option = click.option("--toolchain", metavar="POLICY", callback=ask, expose_value=False, help=_HELP)
    return option(command)


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(TOOLCHAIN_VARIABLE, None)
    else:
        os.environ[TOOLCHAIN_VARIABLE] = before
