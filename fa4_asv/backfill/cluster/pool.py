"""What the driver of a cluster needs of an engine: take an order, tell what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class News:
    """Of one order: it `started` on a node, its `answer` is `body`, or it is `lost` with the reason `why`."""

    ticket: int
    kind: str
    node: str = ""
    body: bytes = b""
    why: str = ""


class Pool(Protocol):
    """An engine that runs each order once, somewhere, and never again on its own account."""

    def submit(self, ticket: int, order: bytes, avoid: frozenset[str]) -> None:
        """Queue an order for any node but those in `avoid` (ids), now or when one joins."""

    def wait(self, seconds: float) -> list[News]:
        """What happened; [] where nothing did for `seconds`."""

    def cancel(self, ticket: int) -> None:
        """End an order, its processes with it; no more news of it."""

    def nodes(self) -> dict[str, str]:
        """Id and host of each node that is alive and large enough for an order."""

    def slots(self) -> int:
        """How many orders those nodes can run at once."""

    def demand(self) -> str:
        """What an order asks for, as text."""

    def close(self) -> None:
        """End whatever still runs, and let go of the cluster."""
