"""What the commands say of flavour plain, which is recorded without a GPU, and only for kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.catalog.flavours import INSTALLED, PLAIN

Command = TypeVar("Command", bound=Callable[..., Any])

ON_A_CARD = (
    "a card has no series plain: there FA4 reads the CUDA of the torch that is installed; "
    "cu12 has the same packages"
)
ROUTE = "plain has no route of its own: its packages are cu12's, and so is its route"


def installed_flavour(why: str = ON_A_CARD, **more: Any) -> Callable[[Command], Command]:
    """The option `--flavour` of a command that has no plain: it is refused in one line that says why."""

    def refuse(_: click.Context, __: click.Parameter, value: Any) -> Any:
        if PLAIN in ([value] if isinstance(value, str) else value or ()):
            raise Fa4AsvError(f"--flavour {PLAIN}: {why}")
        return value

    known = click.Choice((*INSTALLED, PLAIN))
    return click.option("--flavour", type=known, metavar=f"[{'|'.join(INSTALLED)}]", callback=refuse, **more)


def refuse_plain_on_card(machine: str, flavours: Sequence[str]) -> None:
    """Raises Fa4AsvError where plain is asked of a machine whose clock or card measures."""
    if machine != NOGPU and PLAIN in flavours:
        raise Fa4AsvError(f"--flavour {PLAIN}: {ON_A_CARD}; without a GPU: --machine {NOGPU}")
