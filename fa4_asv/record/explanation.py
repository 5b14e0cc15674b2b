"""Why figures changed between two commits: verdicts, and the files that keep them.

A `.cause` file stands among the results of machine `nogpu` (asv ignores it) and holds what `fa4-asv explain
--keep` found for one pair of commits under one flavour. Four corners are compared: old source with old
toolchain (base), new with new (head), new source with old toolchain (`source`: the source alone moved), old
source with new toolchain (`toolchain`: the toolchain alone moved).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import read_json, write_atomic
from fa4_asv.catalog.metrics import METRICS
from fa4_asv.record.schema import STATES, SUITE, package_changes

CAUSES = ("source", "toolchain", "both together", "either alone", "unknown")
# A side explains a change if switching only that side gives 90 to 110 % of it; of a change below 10, exactly head's figure.
NEAR = 0.1

FORMAT = 1
MACHINE = "nogpu"
_RESTORE = "restore it from git or explain again"
T = TypeVar("T", int, str)


@dataclass(frozen=True)
class Verdict(Generic[T]):
    """The four corners of one figure (or of a case's state) and what moved it; None: not to be had.

    `why` says, for an unknown cause, what stood in the way.
    """

    base: T
    head: T
    source: T | None
    toolchain: T | None
    cause: str
    why: str = ""


@dataclass(frozen=True)
class Side:
    """One side of a pair; `release` is "" for a commit that is none."""

    commit: str
    release: str
    digest: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Culprit:
    """What moved `cases`: a package (`name`, `before` -> `after`) or a commit (`commit`, `subject`)."""

    kind: str
    cases: tuple[str, ...]
    name: str = ""
    before: str = ""
    after: str = ""
    commit: str = ""
    subject: str = ""

    def to_json(self) -> dict[str, Any]:
        own: dict[str, Any] = (
            {"name": self.name, "from": self.before, "to": self.after}
            if self.kind == "package"
            else {"commit": self.commit, "subject": self.subject}
        )
        return {"kind": self.kind, **own, "cases": list(self.cases)}


@dataclass(frozen=True)
class Explanation:
    """What moved the figures of one pair of commits under one flavour: the content of a `.cause` file.

    `cases` maps a case and a metric to a verdict, `states` a case whose state changed; `opcodes` a case and
    a role to the instructions at base and head; `notes` say what could not be named; `threads` are links to
    public reports, kept by hand.
    """

    flavour: str
    base: Side
    head: Side
    files: tuple[str, ...] = ()
    cases: dict[str, dict[str, Verdict[int]]] = field(default_factory=dict)
    states: dict[str, Verdict[str]] = field(default_factory=dict)
    opcodes: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    culprits: tuple[Culprit, ...] = ()
    notes: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()
    suite: str = SUITE
    machine: str = MACHINE
    policy: str = "day"

    @property
    def packages(self) -> dict[str, tuple[str, str]]:
        """Versions that differ, "" where a side lacks the package."""
        return package_changes(self.base.packages, self.head.packages)

    @property
    def file_name(self) -> str:
        return f"{self.head.commit[:8]}-{self.base.commit[:8]}-{self.flavour}.cause"

    @property
    def unknown(self) -> list[str]:
        """The cases of which something has no known cause."""
        names = {
            case for case, metrics in self.cases.items() for v in metrics.values() if v.cause == "unknown"
        }
        return sorted(names | {case for case, verdict in self.states.items() if verdict.cause == "unknown"})


def write_explanation(path: Path, explanation: Explanation) -> None:
    """Atomic; the same content gives the same bytes; one line per case, so that a diff can be read."""
    write_atomic(path, to_text(explanation))


def to_text(explanation: Explanation) -> str:
    """The JSON of a `.cause` file."""
    rows = {
        "cases": {
            case: {metric: _verdict_json(verdict) for metric, verdict in metrics.items()}
            for case, metrics in sorted(explanation.cases.items())
        },
        "states": {case: _verdict_json(verdict) for case, verdict in sorted(explanation.states.items())},
        "opcodes": {
            case: {r: list(pair) for r, pair in p.items()} for case, p in sorted(explanation.opcodes.items())
        },
    }
    head = {
        "format": FORMAT,
        **{name: getattr(explanation, name) for name in ("suite", "machine", "flavour", "policy")},
        "base": asdict(explanation.base),
        "head": asdict(explanation.head),
        "files": list(explanation.files),
        "packages": {name: list(pair) for name, pair in explanation.packages.items()},
        "culprits": [culprit.to_json() for culprit in explanation.culprits],
        "notes": list(explanation.notes),
        "threads": list(explanation.threads),
    }
    lines = [f"{_one(key)}: {_one(value)}" for key, value in head.items()]
    for key, cases in rows.items():
        inner = ",\n".join(f" {_one(case)}: {_one(value)}" for case, value in cases.items())
        lines.append(f"{_one(key)}: {{\n{inner}\n}}" if cases else f"{_one(key)}: {{}}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _one(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _verdict_json(verdict: Verdict[Any]) -> dict[str, Any]:
    data = asdict(verdict)
    return data if verdict.why else {key: value for key, value in data.items() if key != "why"}


def read_explanation(path: Path) -> Explanation:
    """Raises Fa4AsvError naming the file and what is wrong."""
    data = read_json(path, advice=_RESTORE)
    try:
        return _explanation(data)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise Fa4AsvError(f"{path} is not a .cause file ({reason}); {_RESTORE}") from None


def _explanation(data: Any) -> Explanation:
    if data["format"] != FORMAT:
        raise ValueError(f"format is {data['format']!r}, this suite reads {FORMAT}")
    explanation = Explanation(
        _text(data["flavour"]),
        _side(data["base"]),
        _side(data["head"]),
        tuple(map(_text, data["files"])),
        {case: _metrics(case, metrics) for case, metrics in data["cases"].items()},
        {case: _verdict(case, value, _state) for case, value in data.get("states", {}).items()},
        {
            case: {_text(role): (_count(old), _count(new)) for role, (old, new) in roles.items()}
            for case, roles in data["opcodes"].items()
        },
        tuple(_culprit(entry) for entry in data["culprits"]),
        tuple(map(_text, data.get("notes", []))),
        tuple(map(_text, data["threads"])),
        _text(data["suite"]),
        _text(data["machine"]),
        _text(data["policy"]),
    )
    if {name: list(pair) for name, pair in explanation.packages.items()} != data["packages"]:
        raise ValueError("packages are not those in which base and head differ")
    return explanation


def _side(data: Any) -> Side:
    packages = {_text(name): _text(version) for name, version in data["packages"].items()}
    side = Side(_text(data["commit"]), _text(data["release"]), _text(data["digest"]), packages)
    if not re.fullmatch(r"[0-9a-f]{40}", side.commit):
        raise ValueError(f"commit is {side.commit!r}, expected 40 hexadecimal digits")
    return side


def _metrics(case: str, metrics: Any) -> dict[str, Verdict[int]]:
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        raise ValueError(f"{case}: no metric {unknown[0]!r}")
    return {metric: _verdict(f"{case} {metric}", value, _count) for metric, value in metrics.items()}


def _verdict(label: str, data: Any, read: Any) -> Verdict[Any]:
    source, toolchain = (None if data[n] is None else read(data[n]) for n in ("source", "toolchain"))
    verdict = Verdict(
        read(data["base"]), read(data["head"]), source, toolchain, data["cause"], data.get("why", "")
    )
    expected = decide(verdict.base, verdict.head, source, toolchain)
    if verdict.cause != expected:
        raise ValueError(f"{label}: cause is {verdict.cause!r}, its corners say {expected!r}")
    return verdict


def _culprit(data: Any) -> Culprit:
    cases = tuple(map(_text, data["cases"]))
    if data["kind"] == "package":
        return Culprit("package", cases, *(_text(data[key]) for key in ("name", "from", "to")))
    if data["kind"] != "commit":
        raise ValueError(f"kind of culprit is {data['kind']!r}, expected package or commit")
    return Culprit("commit", cases, commit=_text(data["commit"]), subject=_text(data["subject"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is not a count")
    return value


def _state(value: Any) -> str:
    if value not in STATES:
        raise ValueError(f"state is {value!r}, expected one of {', '.join(STATES)}")
    return str(value)


def decide(base: T, head: T, source: T | None, toolchain: T | None) -> str:
    """What moved a figure from `base` to `head`: which side alone gets it there (see NEAR).

    One of CAUSES: "source", "toolchain", "either alone" (each gets it there), "both together" (neither does).
    Swapping base with head and source with toolchain answers the same for exact moves.
    """
    if source is None or toolchain is None:
        return "unknown"
    by_source, by_toolchain = explains(base, head, source), explains(base, head, toolchain)
    if by_source and by_toolchain:
        return "either alone"
    if by_source or by_toolchain:
        return "source" if by_source else "toolchain"
    return "both together"


def explains(base: int | str, head: int | str, alone: int | str) -> bool:
    """Whether switching only one side, which gives `alone`, explains the change: states equal head's, counts are within NEAR of it."""
    if isinstance(base, str) or isinstance(head, str) or isinstance(alone, str):
        return alone == head
    return abs(alone - head) <= NEAR * abs(head - base)
