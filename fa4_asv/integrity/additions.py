"""Whether a pair of files only adds to what is recorded: exact figures never change, they are only missing or there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from fa4_asv.base.escape import one_line
from fa4_asv.catalog.benchmarks import GROUPS, group_of
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import Pair, Result, is_number

_LONGEST = 80  # characters of a value in a message
_NOTHING = object()
_HEAD = ("format", "suite", "machine", "commit", "environment", "release")


def changes(old: Pair, new: Pair, strict: bool = True) -> Iterator[str]:
    """What `new` says otherwise than `old`, or leaves out, in one line each.

    A group is passed over where this suite's table has another version than `old`, and `new` the table's: it means
    something else now and is measured anew. Not `strict`: cases that are broken or refused may change, and groups
    that a clock measures; a person retries those on purpose.
    """
    for name in _HEAD:
        yield from _differs(name, getattr(old.sidecar, name), getattr(new.sidecar, name))
    yield from _differs("toolchain", asdict(old.sidecar.toolchain), asdict(new.sidecar.toolchain))
    for group, cases in old.sidecar.groups.items():
        if is_kept(group, old.result, new.result, strict):
            arriving = new.sidecar.groups.get(group, {})
            for case, record in cases.items():
                if record.state == "measured" or (strict and record.state != "not run"):
                    yield from (f"{group} {case}: {message}" for message in _case(record, arriving.get(case)))
    yield from _figures(old.result, new.result, strict)


def is_kept(group: str, old: Result, new: Result, strict: bool = True) -> bool:
    """Whether what is recorded of a group must stay: it is, unless it was recorded by another version than today's."""
    table = GROUPS.get(group)
    if table is None:
        return True
    if not (strict or table.exact):
        return False
    names = [table.benchmark(metric) for metric in table.metrics]
    recorded = {old.versions.get(name, table.version) for name in names if _has(old, name)}
    arriving = {new.versions.get(name) for name in names}
    # A person may measure one metric of a raised version before the others.
    anew = arriving == {table.version} if strict else table.version in arriving
    return recorded <= {table.version} or not anew


def _has(result: Result, name: str) -> bool:
    return any(key[0] == name for key in result.figures)


def _case(old: CaseRecord, new: CaseRecord | None) -> Iterator[str]:
    """One case; metrics that `old` lacks may come (`asv rm benchmark=...` takes single ones)."""
    if new is None:
        yield f"is recorded as {old.state}, and is missing in what arrives"
        return
    there = {name: value for name, value in new.figures.items() if name in old.figures}
    arriving = replace(new, figures=there)
    if arriving != old:
        recorded, says = asdict(old), asdict(arriving)
        for name, value in recorded.items():
            yield from _differs(name, value, says[name])


def _figures(old: Result, new: Result, strict: bool) -> Iterator[str]:
    """The result file's own figures."""
    entries: dict[str, bool] = {}  # by benchmark
    for key, value in old.figures.items():
        if key[0] not in entries:
            pair = group_of(key[0])
            entries[key[0]] = strict if pair is None else is_kept(pair[0].name, old, new, strict)
        if entries[key[0]] and (value is None or is_number(value)) and (strict or value is not None):
            where = f"{key[0]}({', '.join(key[1])})"
            yield from _differs(where, value, new.figures.get(key, _NOTHING))
            yield from _differs(f"version of {where}", old.versions.get(key[0]), new.versions.get(key[0]))


def _differs(name: str, old: Any, new: Any) -> Iterator[str]:
    """A line where they differ; of two mappings the first entry that does."""
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in sorted(old | new) if old.get(key, _NOTHING) != new.get(key, _NOTHING))
        name, old, new = f"{name}[{key!r}]", old.get(key, _NOTHING), new.get(key, _NOTHING)
    yield f"{one_line(name)} is recorded as {_shown(old)}, what arrives says {_shown(new)}"


def _shown(value: Any) -> str:
    return "nothing" if value is _NOTHING else one_line(json.dumps(value), _LONGEST)
