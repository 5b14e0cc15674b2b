"""Known threads: public reports of what the record shows, kept by hand in history/threads.json."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import read_json

FORMAT = 1
_NAME = re.compile(r"[\w.-]+#[0-9]{1,7}")
_URL = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/([0-9]{1,7})")
_RESTORE = "restore it from git"


@dataclass(frozen=True)
class Thread:
    """One report: `thread` is its name ("flash-attention#2729"), `line` what it is about.

    `group`, `metric` and `cases` name figures of the record; without a metric, cases that are broken. `arch` is theirs where they
    do not name it, as calls on a card. `spans` maps a flavour to the first release that had it and
    the first that no longer had it ("" while it stands). `compilers` are versions that a report is about; of such a one
    the record need not have figures.
    """

    thread: str
    url: str
    line: str
    group: str = ""
    metric: str = ""
    cases: tuple[str, ...] = ()
    arch: str = ""
    compilers: tuple[str, ...] = ()
    spans: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def number(self) -> str:
        """Such as "2729"."""
        return self.thread.partition("#")[2]

    def begins_or_ends(self, group: str, case: str, flavour: str, release: str) -> bool:
        """Whether it came or went in `release`, for a case and a flavour."""
        return group == self.group and case in self.cases and release in self.spans.get(flavour, ())

    def stands(self, flavour: str, release: str, order: Sequence[str]) -> bool:
        """Whether `release` had it under a flavour; `order` are all releases, oldest first."""
        first, gone = self.spans.get(flavour, ("", ""))
        if first not in order or release not in order:
            return False
        at = order.index(release)
        return order.index(first) <= at and (gone not in order or at < order.index(gone))


def load_threads(path: Path) -> tuple[Thread, ...]:
    """All of them in the order of the file; none where there is no file. Raises Fa4AsvError naming what is wrong."""
    if not os.path.lexists(path):
        return ()
    data = read_json(path, advice=_RESTORE)
    try:
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}, this suite reads {FORMAT}")
        return tuple(_thread(entry) for entry in data["threads"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Fa4AsvError(f"{path} is damaged ({one_line(str(error))}); {_RESTORE}") from None


def _thread(data: Any) -> Thread:
    thread = Thread(
        thread=_text(data["thread"]),
        url=_text(data["url"]),
        line=_text(data["line"]),
        group=_text(data["group"]),
        metric=_text(data["metric"]),
        cases=tuple(map(_text, data["cases"])),
        arch=_text(data.get("arch", "")),
        compilers=tuple(map(_text, data["compilers"])),
        spans={_text(name): (_text(first), _text(gone)) for name, (first, gone) in data["spans"].items()},
    )
    match = _URL.fullmatch(thread.url)
    if not _NAME.fullmatch(thread.thread) or not match or match[2] != thread.number:
        raise ValueError(f"{thread.thread!r} is not the thread of {thread.url!r}")
    return thread


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 300 or not value.isprintable():
        raise TypeError(f"{value!r:.60} is not a line of at most 300 characters")
    return value
