"""A disk cache of what is known of a source tree under a toolchain, so that nothing exact is made twice.

A second metric, a repeated run or `asv find` then costs milliseconds. What is broken is never kept: a
full disk or a missing tool is not a property of FA4.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import read_json, write_atomic
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.measure.context import Context
from fa4_asv.record.schema import CaseRecord

Records = dict[str, CaseRecord]


def cache_path(context: Context, group: str, *parts: str) -> Path:
    """Where records of an exact group are kept: keyed by its version, source tree, flavour, toolchain and parts.

    The version is the one that its benchmarks tell asv, so that none of the two can be raised alone.
    """
    words = (GROUPS[group].version, context.tree, context.flavour, context.digest, *parts)
    key = hashlib.sha256("\0".join(words).encode()).hexdigest()
    return Path(context.root) / ".asv" / "cache" / group / key[:2] / f"{key}.json"


def read_cache(path: Path) -> Records | None:
    """The records at `path`; None where there are none, or none that can be read."""
    try:
        data = read_json(path)
        return {key: CaseRecord.from_json(value) for key, value in data.items()}
    except (AttributeError, Fa4AsvError):
        return None


def write_cache(path: Path, records: Records) -> None:
    """Keep `records`, unless one of them is broken."""
    if all(record.state != "broken" for record in records.values()):
        write_atomic(path, json.dumps({key: record.to_json() for key, record in records.items()}))
