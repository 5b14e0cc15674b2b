"""The only way to a person's terminal: whatever is written there, no character of it steers the terminal.

Words come from commits, result files, FA4, packages and tools. Who writes them need not know: `say` and the console
show control and bidirectional characters and halves of surrogate pairs as escapes ("\\x1b", "\\u202e", "\\ud800").
"""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

import click
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.console import RenderHook as _RenderHook
from rich.segment import Segment

from fa4_asv.base.escape import visible

_NEW_LINE = "\r\x1b[K"  # to the begin of the line, and clear it


def say(text: str = "", err: bool = False, nl: bool = True, file: TextIO | None = None) -> None:
    """Write text to stdout, stderr or `file`. Its line ends stay: a foreign word that may hold some goes through one_line."""
    click.echo(visible(text), err=err, nl=nl, file=file)


def say_json(value: Any) -> None:
    """Write a value to stdout as JSON in ASCII, with every character escaped that steers a terminal."""
    click.echo(json_text(value))


def json_text(value: Any) -> str:
    """JSON that may be shown. json.dumps leaves one control character as it is, DEL."""
    return json.dumps(value, indent=1, allow_nan=False).replace("\x7f", "\\u007f")


def say_again(line: str, last: bool) -> None:
    """Replace the line that a terminal shows on stderr; `last` ends it."""
    click.echo(f"{_NEW_LINE}{visible(line)}", nl=last, err=True)


def new_console(width_of_log: int = 120, **options: Any) -> Console:
    """A console of rich that shows control characters as escapes; what is not a terminal has `width_of_log` columns."""
    made = Console(**options)
    if not made.is_terminal:
        made.width = width_of_log  # rich guesses 80
    made.push_render_hook(_Visible())
    return made


class _Visible(_RenderHook):
    """Gives everything that a console is to render to `_Shown`."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Shown(console_renderable) for console_renderable in renderables]


class _Shown:
    """Renders as what it holds, character by character visible; colours are rich's own and stay."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from map(_segment, console.render(self._inner, options))


def _segment(segment: Segment) -> Segment:
    return segment if segment.control else Segment(visible(segment.text), segment.style)


def show_what_cannot_be_encoded() -> None:
    """Characters that the terminal's encoding lacks are written as escapes, too, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
