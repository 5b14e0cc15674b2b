"""What asv keeps beside results: each machine's machine.json, and benchmarks.json. Read, and checked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import holds_tags, one_line, steers_pages
from fa4_asv.base.files import read_json
from fa4_asv.record.store import MOST_KEYS

BENCHMARKS = "benchmarks.json"
MACHINE_FILE = "machine.json"
_MACHINE_VERSION = 1  # asv.machine.Machine of asv 0.6
_BENCHMARKS_VERSION = 2  # asv.benchmarks.Benchmarks of asv 0.6
_RESTORE = "restore it from git"
_RESTORE_BENCHMARKS = "restore it from git or run `asv run` once"


def read_machine(path: Path) -> dict[str, Any]:
    """What a machine.json says. Raises Fa4AsvError naming the file and what is wrong."""
    data = read_json(path, advice=_RESTORE)
    try:
        if data["machine"] != path.parent.name:
            raise ValueError(
                f"it describes machine {data['machine']!r:.60}, its folder is {path.parent.name!r}"
            )
        # asv leaves a machine without this version out of half of its pages.
        if data.get("version") != _MACHINE_VERSION:
            raise ValueError(f"it has version {data.get('version')!r:.60}, asv reads {_MACHINE_VERSION}")
        for name, value in data.items():
            if name != "version" and not isinstance(value, str):
                raise TypeError(f"{name} is {value!r:.60}, expected a word")
            if steers_pages(name) or steers_pages(str(value)):
                raise ValueError(f"{name} is {value!r:.60}, with markup or control characters")
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise Fa4AsvError(f"{path} is not an asv machine file ({_told(error)}); {_RESTORE}") from None
    return dict(data)


def read_benchmarks(path: Path) -> dict[str, Any]:
    """What a benchmarks.json says. Raises Fa4AsvError naming the file and what is wrong."""
    data = read_json(path, advice=_RESTORE_BENCHMARKS)
    try:
        if data["version"] != _BENCHMARKS_VERSION:
            raise ValueError(f"version is {data['version']!r:.60}, this suite reads {_BENCHMARKS_VERSION}")
        if len(data) == 1:
            raise ValueError("it lists no benchmark")
        count = 0
        for name, entry in data.items():
            if name != "version":
                _check(name, entry)
                count += math.prod(map(len, entry["params"]))
        if count > MOST_KEYS:
            raise ValueError(f"its parameters multiply to more than {MOST_KEYS:,}")
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise Fa4AsvError(
            f"{path} is not asv's list of benchmarks ({_told(error)}); {_RESTORE_BENCHMARKS}"
        ) from None
    return dict(data)


def _check(name: str, entry: dict[str, Any]) -> None:
    """Raises LookupError, TypeError or ValueError where an entry is not as asv writes it."""
    if not isinstance(entry, dict):
        raise TypeError(f"{name:.60} is {entry!r:.60}, expected a benchmark")
    for field in ("name", "pretty_name", "type", "unit", "version", "code"):
        if field in entry and not isinstance(entry[field], str):
            raise TypeError(f"{field} of {name:.60} is {entry[field]!r:.60}, expected text")
    texts = [name, entry.get("unit", ""), entry.get("pretty_name", "")]
    shown = [*texts, *_texts(name, "param_names", entry["param_names"])]
    if entry["name"] != name or any(map(steers_pages, shown)):
        raise ValueError(f"{name!r:.60} has another name in it, or markup or control characters")
    # asv shows the code in a tooltip, as HTML.
    if holds_tags(entry.get("code", "")):
        raise ValueError(f"code of {name:.60} holds what a page reads as markup, or control characters")
    params = entry["params"]
    if not isinstance(params, list) or len(params) != len(entry["param_names"]):
        raise TypeError(f"params of {name:.60} are {params!r:.60}, expected a list for each name")
    for axis in params:
        _texts(name, "params", axis)


def _texts(name: str, field: str, axis: Any) -> list[str]:
    if not isinstance(axis, list) or not all(isinstance(word, str) for word in axis):
        raise TypeError(f"{field} of {name:.60} are {axis!r:.60}, expected text")
    return axis


def _told(error: Exception) -> str:
    return one_line(f"it lacks {error}" if isinstance(error, KeyError) else str(error))
