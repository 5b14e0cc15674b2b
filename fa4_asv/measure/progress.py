"""One line on the terminal that says how far measuring is."""

from __future__ import annotations

from fa4_asv.base.escape import visible
from fa4_asv.measure.context import Context


def progress(context: Context, message: str) -> None:
    """One line that overwrites itself, on the terminal that asv runs on, if it does."""
    if not context.terminal:
        return
    try:
        with open(context.terminal, "w") as terminal:  # noqa: PTH123 - a device, not a file
            terminal.write(f"\r\033[K{visible(message)}")
    except OSError:
        pass
