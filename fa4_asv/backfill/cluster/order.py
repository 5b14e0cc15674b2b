"""What a driver sends to a node and what comes back: JSON, nothing that would run when it is read."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import parse_json

# Whose fault a failure is: the task's, to be tried elsewhere a few times, or the node's, to be left alone.
FAULTS = ("", "task", "node")


@dataclass(frozen=True)
class Order:
    """One task for one node.

    `arguments` go to the node's interpreter, in a staged checkout that holds the record `known`. `work` is the
    node's folder for what can be rebuilt ("" for the checkout's own). `locks` are files below the checkout that
    the task needs and that its sources may lack; `variables` are added to its environment.
    """

    arguments: list[str]
    flavour: str
    machine: str
    work: str
    timeout: float
    known: bytes = b""
    locks: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def dump(self) -> bytes:
        return _dump(asdict(self))

    @classmethod
    def load(cls, content: bytes) -> Order:
        """Raises Fa4AsvError on anything that `dump` does not write."""
        try:
            return cls(**_load(content, "known"))
        except TypeError as error:
            raise Fa4AsvError(f"this order is not from this version of the suite ({error})") from None


@dataclass(frozen=True)
class Answer:
    """What a node says: `results` are a parcel, or there is a `fault` ("task", "node") and `why`."""

    fault: str = ""
    why: str = ""
    host: str = ""
    seconds: float = 0.0
    log: str = ""
    results: bytes = b""

    def dump(self) -> bytes:
        return _dump(asdict(self))

    @classmethod
    def load(cls, content: bytes) -> Answer:
        """Raises Fa4AsvError on anything that `dump` does not write."""
        try:
            answer = cls(**_load(content, "results"))
        except TypeError as error:
            raise Fa4AsvError(f"the node's answer is of another version of the suite ({error})") from None
        if answer.fault not in FAULTS or not all(
            isinstance(s, str) for s in (answer.why, answer.host, answer.log)
        ):
            raise Fa4AsvError(f"the node's answer is not valid: fault {answer.fault!r}, why {answer.why!r}")
        return answer


def _dump(data: dict[str, Any]) -> bytes:
    coded = {
        key: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for key, value in data.items()
    }
    return json.dumps(coded).encode()


def _load(content: bytes, parcel: str) -> dict[str, Any]:
    try:
        data = parse_json(content)
        data[parcel] = base64.b64decode(data.get(parcel, ""), validate=True)
    except (ValueError, TypeError, AttributeError) as error:
        raise Fa4AsvError(f"a message of {len(content)} bytes is none of the suite's ({error})") from None
    return dict(data)
