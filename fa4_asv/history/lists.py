"""The committed lists of the history, of releases and of commits: JSON with one line per entry, so that additions merge."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import read_json, write_atomic

FORMAT = 1
RESTORE = "restore it from git"
_TYPES = {"str": str, "int": int}
T = TypeVar("T")


def read_list(path: Path, name: str, kind: type[T]) -> list[T]:
    """The entries under `name`, each a `kind`: a dataclass of texts and whole numbers that has a `time`.

    Empty where there is no file. Raises Fa4AsvError when it cannot be read.
    """
    if not os.path.lexists(path):  # what is there and is not a file is told below
        return []
    data = read_json(path, advice=RESTORE)
    try:
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}, this suite reads {FORMAT}")
        return [_entry(kind, entry) for entry in data[name]]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Fa4AsvError(f"{path} is damaged ({one_line(str(error))}); {RESTORE}") from None


def _entry(kind: type[T], entry: Any) -> T:
    """Raises ValueError, TypeError or OverflowError where a field is not what `kind` says."""
    made: Any = kind(**entry)
    for each in fields(made):
        value = getattr(made, each.name)
        if type(value) is not _TYPES[str(each.type)]:
            raise TypeError(
                f"{each.name} of a {kind.__name__.lower()} is {value!r:.60}, expected {each.type}"
            )
    made.time.timestamp()
    return made  # type: ignore[no-any-return]


def write_list(path: Path, name: str, entries: Iterable[Any], **head: str) -> None:
    """Atomic; `head` stands above the entries."""
    rows = ",\n".join("  " + json.dumps(asdict(entry)) for entry in entries)
    lines = [
        f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in {"format": FORMAT, **head}.items()
    ]
    write_atomic(path, "{\n" + "".join(lines) + f' "{name}": [\n{rows}\n ]\n}}\n')


def time_of(text: str) -> datetime:
    """Of UTC as ISO 8601. Raises ValueError."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
