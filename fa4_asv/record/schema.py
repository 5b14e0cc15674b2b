"""Frozen records of what was measured, and their JSON form. Standard library only."""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.metrics import LOOP_METRICS, OF_ALL_LOOPS

FORMAT = 2  # of the sidecar file, as it is written
_READ = (1, FORMAT)  # 1: the state and the reason of every case in full, opcodes as a dictionary
SUITE = "1"  # raised when figures of the same name are no longer comparable
STATES = ("measured", "unsupported", "broken", "not run")
NOT_SELECTED = "not selected, or not to be had here"  # why most of what is not run is not
_MEASURED, _NOT_RUN = STATES[0], STATES[3]
# Names and counts in turn: "BAR 40 BRA 244". No part can match in two ways, so no input makes the search go back.
_OPCODES = re.compile(r"(?:[!-~]+ [0-9]{1,18}(?: [!-~]+ [0-9]{1,18})*)?")


def _typed(data: Any, name: str, kind: type) -> Any:
    return _of(data.get(name, kind()) if isinstance(data, dict) else None, name, kind)


def _of(value: Any, name: str, kind: type) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Fa4AsvError(f"{name} is {value!r}, expected {kind.__name__}")
    return value


def _counts(counts: Any, name: str) -> dict[str, int]:
    _of(counts, name, dict)
    # All of them at once: of a million dictionaries none is wrong.
    if counts and (
        set(map(type, counts.values())) != {int} or min(counts.values()) < 0 or not _is_text(counts)
    ):
        for key, value in counts.items():
            if not isinstance(key, str) or type(value) is not int or value < 0:
                raise Fa4AsvError(f"{name}[{key!r}] is {value!r}, expected a count")
    return dict(counts)


def _opcodes(value: Any, name: str) -> dict[str, int]:
    """Counts by opcode from `_opcodes_text`, or from a dictionary, as format 1 and the workers have them."""
    text = _opcodes_text(_counts(value, name)) if isinstance(value, dict) else _text(value, name)
    words = text.split()
    counts = dict(zip(words[::2], map(int, words[1::2]), strict=True)) if _OPCODES.fullmatch(text) else None
    if counts is None or 2 * len(counts) != len(words):
        raise Fa4AsvError(
            f"{name} is {text!r:.200}, expected each opcode once with its count: 'BAR 40 BRA 244'"
        )
    return counts


def _opcodes_text(counts: dict[str, int]) -> str:
    return " ".join([f"{name} {count}" for name, count in sorted(counts.items())])


def _is_text(values: Iterable[Any]) -> bool:
    return set(map(type, values)) <= {str}


def _notes(entries: Any, name: str) -> dict[str, str]:
    _of(entries, name, dict)
    for key, value in entries.items():
        if not isinstance(value, str):
            raise Fa4AsvError(f"{name}[{key!r}] is {value!r}, expected text")
    return dict(entries)


def _text(value: Any, name: str) -> str:
    return str(_of(value, name, str))


def _is_finite(value: Any) -> bool:
    whole = type(value) is int and abs(value) <= sys.float_info.max  # JSON's integers have no bound
    return whole or (type(value) is float and math.isfinite(value))


def _samples(samples: Any, name: str) -> dict[str, list[float]]:
    _of(samples, name, dict)
    for key, values in samples.items():
        good = isinstance(values, list) and all(map(_is_finite, values))
        if not good or not values:
            raise Fa4AsvError(f"{name}[{key!r}] is {values!r}, expected finite numbers")
    return dict(samples)


_IN_FILES = {"notes": "words"}  # fields whose key in a file has another name
# By key in a file: the field, and what reads it.
_READERS: dict[str, tuple[str, Callable[[Any, str], Any]]] = {
    "why": ("why", _text),
    "figures": ("figures", _counts),
    "samples": ("samples", _samples),
    "sha256": ("sha256", _text),
    "kernel": ("kernel", _text),
    "opcodes": ("opcodes", _opcodes),
    "parts": ("parts", _counts),
    "words": ("notes", _notes),
}


@dataclass(frozen=True)
class CaseRecord:
    """One case: its state and, as text, why; exact figures, or samples, by metric; and what explains them.

    `opcodes` and `sha256` are of a kernel's cubin (of `loops`: the digest's first 16 digits); `parts` are bytes by tensor
    (memory), what a turn does (loops) or counts by place (launch); `notes` say what each broken check answered (route), or why a
    metric has no figure (loops).
    """

    state: str
    why: str = ""
    figures: dict[str, int] = field(default_factory=dict)
    sha256: str = ""
    kernel: str = ""
    opcodes: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def says_why_not(self, metric: str) -> bool:
        """Whether a measured case has a reason in place of this figure."""
        return bool(self.why_not(metric))

    def why_not(self, metric: str) -> str:
        """The reason in place of this figure, "" where there is none."""
        if metric in self.figures:
            return ""
        of_all = self.notes.get(OF_ALL_LOOPS, "") if metric in LOOP_METRICS else ""
        return self.notes.get(metric, of_all)

    def to_json(self) -> dict[str, Any]:
        """Only what is set, so that an unsupported case is one short line."""
        return {_IN_FILES.get(key, key): value for key, value in asdict(self).items() if value}

    def in_file(self) -> dict[str, Any] | str:
        """The same as a sidecar holds it: opcodes are one text, no state is "measured", and a case that was not selected is
        the words "not run".

        That is an eighth of the record's bytes less.
        """
        if self == CaseRecord(_NOT_RUN, why=NOT_SELECTED):
            return _NOT_RUN
        data = self.to_json()
        if self.state == _MEASURED:
            del data["state"]
        if self.opcodes:
            data["opcodes"] = _opcodes_text(self.opcodes)
        return data

    @classmethod
    def from_json(cls, data: Any) -> CaseRecord:
        """From `to_json` or `in_file`. Raises Fa4AsvError naming the field that is wrong and its value."""
        if data == _NOT_RUN:
            return cls(_NOT_RUN, why=NOT_SELECTED)
        if not isinstance(data, dict):
            raise Fa4AsvError(f"a case is {data!r}, expected its record, or {_NOT_RUN!r}")
        state = _text(data.get("state", _MEASURED), "state")
        if state not in STATES:
            raise Fa4AsvError(f"state is {state!r}, expected one of {', '.join(STATES)}")
        read = {key: _READERS[key] for key in data if key in _READERS}
        record = cls(state, **{name: reader(data[key], key) for key, (name, reader) in read.items()})
        if (state == "measured") != bool(record.figures or record.samples):
            values = record.figures or record.samples
            raise Fa4AsvError(f"state is {state!r} with figures {values!r}: one of them is wrong")
        return record


Records = dict[str, CaseRecord]  # by key: the words of a case joined by "/"


def records_to_json(records: Records) -> dict[str, Any]:
    return {key: record.to_json() for key, record in records.items()}


def records_from_json(data: Any, name: str = "records") -> Records:
    """Raises Fa4AsvError naming what is wrong; `name` is whose records they are."""
    return {key: CaseRecord.from_json(value) for key, value in _typed({name: data}, name, dict).items()}


def combine(old: CaseRecord | None, new: CaseRecord) -> CaseRecord:
    """One case after another round: broken once is broken, samples add up in the order they were taken."""
    if old is None or old.state != new.state or not old.samples:
        return old if old is not None and old.state == "broken" else new
    names = [*old.samples, *(name for name in new.samples if name not in old.samples)]
    samples = {name: old.samples.get(name, []) + new.samples.get(name, []) for name in names}
    return replace(new, samples=samples, notes={**old.notes, **new.notes})


def toolchain_digest(flavour: str, packages: dict[str, str]) -> str:
    """Identity of an installed set: flavour and versions, not the policy that led to them."""
    lines = [flavour, *(f"{name}=={version}" for name, version in sorted(packages.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def package_changes(old: dict[str, str], new: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Packages whose version differs: both versions, "" on a side that lacks the package."""
    names = sorted(old.keys() | new.keys())
    return {name: (old.get(name, ""), new.get(name, "")) for name in names if old.get(name) != new.get(name)}


@dataclass(frozen=True)
class Toolchain:
    """The versions behind a figure; `digest` is `toolchain_digest` of flavour and packages."""

    policy: str
    flavour: str
    digest: str
    packages: dict[str, str]

    @classmethod
    def from_json(cls, data: Any) -> Toolchain:
        packages = _typed(data, "packages", dict)
        for name, version in packages.items():
            if not isinstance(version, str):
                raise Fa4AsvError(f"packages[{name!r}] is {version!r}, expected a version")
        policy, flavour, digest = (_typed(data, name, str) for name in ("policy", "flavour", "digest"))
        return cls(policy, flavour, digest, packages)


@dataclass(frozen=True)
class Sidecar:
    """What asv cannot keep about one result file: states, notes, versions, histograms, digests.

    `groups` maps a benchmark group ("codegen") to its cases ("sm_90/fwd_d128_causal").
    """

    format: int
    suite: str
    machine: str
    commit: str
    environment: str
    release: str
    toolchain: Toolchain
    groups: dict[str, Records]

    @classmethod
    def from_json(cls, data: Any) -> Sidecar:
        """Raises Fa4AsvError naming what is wrong."""
        number = _typed(data, "format", int)
        if number not in _READ:
            raise Fa4AsvError(f"format is {number}, this suite reads {' and '.join(map(str, _READ))}")
        groups = {
            group: records_from_json(cases, group) for group, cases in _typed(data, "groups", dict).items()
        }
        toolchain = Toolchain.from_json(_typed(data, "toolchain", dict))
        names = ("suite", "machine", "commit", "environment", "release")
        notes = {name: _typed(data, name, str) for name in names}
        # The present format: what says the same is the same, in whichever form it was read.
        return cls(format=FORMAT, toolchain=toolchain, groups=groups, **notes)
