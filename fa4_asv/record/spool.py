"""Records on their way to a sidecar: in caches, in the rounds of a run, in what a benchmark process leaves for asv's.

Files of the machine's own, read with the limits of any other. Standard library only.
"""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import read_json, write_atomic
from fa4_asv.record.schema import Records, combine, records_from_json, records_to_json

_AGAIN = "remove it and measure again"


def read_records(path: Path) -> Records:
    """What `write_records` wrote. Raises Fa4AsvError naming the file and what is wrong."""
    data = read_json(path, advice=_AGAIN)
    try:
        return records_from_json(data)
    except Fa4AsvError as error:
        raise Fa4AsvError(f"{path}: {one_line(str(error))}; {_AGAIN}") from None


def write_records(path: Path, records: Records) -> None:
    write_atomic(path, json.dumps(records_to_json(records)))


def spool(folder: Path, group: str, records: Records) -> None:
    """Leave records of a group in a folder, for `spooled`."""
    text = json.dumps({"group": group, "cases": records_to_json(records)})
    # Names sort by time: rounds of one case are put together in the order they were taken.
    write_atomic(folder / f"{group}-{time.time_ns():020}-{uuid.uuid4().hex}.json", text)


def has_spooled(folder: Path) -> bool:
    return any(folder.glob("*.json"))


def spooled(folder: Path) -> dict[str, Records]:
    """All that was left in a folder, by group; rounds of a case as one record. Raises Fa4AsvError naming a file."""
    groups: dict[str, Records] = {}
    for path in sorted(folder.glob("*.json")):
        data = read_json(path, advice=_AGAIN)
        try:
            known = groups.setdefault(data["group"], {})
            for key, record in records_from_json(data["cases"]).items():
                known[key] = combine(known.get(key), record)
        except (Fa4AsvError, LookupError, TypeError) as error:
            raise Fa4AsvError(f"{path} holds no records ({one_line(str(error))}); {_AGAIN}") from None
    return groups
