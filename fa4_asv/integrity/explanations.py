"""The kept `.cause` files: one more explanation merged into them, and whether they agree with the record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.history.manifest import Manifest
from fa4_asv.integrity.consistency import cause_checks
from fa4_asv.record.explanation import (
    MACHINE,
    Culprit,
    Explanation,
    Side,
    read_explanation,
    write_explanation,
)
from fa4_asv.record.schema import SUITE, CaseRecord, Sidecar
from fa4_asv.record.store import series_of, without_path


def keep(project: Project, explanation: Explanation) -> Path:
    """Write `explanation` into the record, over what stands there of other cases; the file's path. Atomic."""
    path = project.results / MACHINE / explanation.file_name
    old = None
    if path.is_file():
        try:
            old = read_explanation(path)
        except Fa4AsvError:
            old = None  # damaged: what is known now is whole
    write_explanation(path, combined(old, explanation))
    return path


def combined(old: Explanation | None, new: Explanation) -> Explanation:
    """`new` over `old`, case by case; what `old` says of other cases stays, and its threads.

    Nothing of `old` is kept where it is of other toolchains.
    """
    if old is None or (old.base, old.head, old.suite) != (new.base, new.head, new.suite):
        return new
    fresh = new.cases.keys() | new.states.keys()
    rest = (old.cases.keys() | old.states.keys()) - fresh
    culprits = [
        replace(culprit, cases=left)
        for culprit in old.culprits
        if (left := tuple(case for case in culprit.cases if case not in fresh))
    ]
    return replace(
        new,
        cases={**_without(old.cases, fresh), **new.cases},
        states={**_without(old.states, fresh), **new.states},
        opcodes={**_without(old.opcodes, fresh), **new.opcodes},
        culprits=_united([*culprits, *new.culprits]),
        notes=tuple(dict.fromkeys([*(old.notes if rest else ()), *new.notes])),
        threads=tuple(dict.fromkeys([*old.threads, *new.threads])),
    )


def _without(cases: Mapping[str, Any], fresh: set[str]) -> dict[str, Any]:
    return {case: value for case, value in cases.items() if case not in fresh}


def _united(culprits: list[Culprit]) -> tuple[Culprit, ...]:
    """Culprits that are the same but for their cases become one."""
    names: dict[Culprit, set[str]] = {}
    for culprit in culprits:
        names.setdefault(replace(culprit, cases=()), set()).update(culprit.cases)
    return tuple(replace(culprit, cases=tuple(sorted(cases))) for culprit, cases in names.items())


@dataclass
class Explanations:
    """The `.cause` files of a record, read once, and of its sidecars what they are compared with."""

    by_path: dict[Path, Explanation] = field(default_factory=dict)
    damaged: list[tuple[Path, str]] = field(default_factory=list)
    sides: dict[tuple[str, tuple[str, str, str]], Sidecar] = field(default_factory=dict)
    wanted: set[tuple[str, tuple[str, str, str]]] = field(default_factory=set)

    @classmethod
    def of(cls, root: Path) -> Explanations:
        explanations = cls()
        for path in sorted(root.glob("*/*.cause")):
            try:
                explanation = explanations.by_path[path] = read_explanation(path)
            except Fa4AsvError as error:
                explanations.damaged.append((path, without_path(path, error)))
                continue
            for side in (explanation.base, explanation.head):
                explanations.wanted.add(
                    (path.parent.name, (side.commit, explanation.flavour, explanation.policy))
                )
        return explanations

    def note(self, sidecar: Sidecar, folder: Path) -> None:
        """Remember a sidecar of a machine's folder where a cause is about it."""
        key = (folder.name, series_of(sidecar))
        if key in self.wanted:
            self.sides[key] = replace(sidecar, groups={"codegen": sidecar.groups.get("codegen", {})})

    def problems(self, manifest: Manifest) -> Iterator[tuple[Path, str]]:
        """What is wrong with each file by itself, its name, the releases and the sidecars that were noted."""
        yield from self.damaged
        for path, explanation in self.by_path.items():
            yield from ((path, what) for what in self._of(path, explanation, manifest))

    def _of(self, path: Path, explanation: Explanation, manifest: Manifest) -> Iterator[str]:
        if path.name != explanation.file_name:
            yield f"holds what belongs in {explanation.file_name}; rename it or explain again"
        if (explanation.suite, explanation.machine) != (SUITE, path.parent.name):
            yield (
                f"is of suite {explanation.suite!r} and machine {explanation.machine!r}, expected {SUITE!r} and "
                f"{path.parent.name!r}; explain again"
            )
        yield from (f"{case}: {wrong}; explain again" for case, wrong in cause_checks(explanation) if wrong)
        for name, side in (("base", explanation.base), ("head", explanation.head)):
            release = manifest.by_commit(side.commit)
            if release is not None and release.version != side.release:
                yield f"says {name} is {side.release!r}, but its commit is {release.version!r}; explain again"
            sidecar = self.sides.get(
                (path.parent.name, (side.commit, explanation.flavour, explanation.policy))
            )
            if sidecar is not None:
                yield from _against(explanation, name, side, sidecar)


def _against(explanation: Explanation, name: str, side: Side, sidecar: Sidecar) -> Iterator[str]:
    """Digest and figures of one side against what is recorded of it."""
    if sidecar.toolchain.digest != side.digest:
        yield f"{name} has toolchain {side.digest}, the record {sidecar.toolchain.digest}; explain again"
        return
    records = sidecar.groups.get("codegen", {})
    for case, metrics in explanation.cases.items():
        record = records.get(case, CaseRecord("not run"))
        for metric, verdict in metrics.items():
            figure, known = getattr(verdict, name), record.figures.get(metric)
            if record.state != "not run" and figure != known:
                yield f"{case} {metric}: {name} is {figure}, the record says {known}; explain again"
    for case, roles in explanation.opcodes.items():
        record = records.get(case, CaseRecord("not run"))
        if record.opcodes:
            counted = sum(pair[name == "head"] for pair in roles.values())
            total = sum(record.opcodes.values())
            if counted != total:
                yield f"{case}: {name} has {counted} opcodes, the record {total}; explain again"
    for case, change in explanation.states.items():
        known_state = records.get(case, CaseRecord("not run")).state
        if known_state not in ("not run", getattr(change, name)):
            yield f"{case}: {name} is {getattr(change, name)}, the record says {known_state}; explain again"
