"""What moved kernels that two flavours share is found once: plain's kernels that are cu12's have cu12's causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import Case, key_of
from fa4_asv.catalog.flavours import AS_CU12, PLAIN, torch_cuda
from fa4_asv.explain.attribution import investigate
from fa4_asv.explain.corners import CODEGEN, Corner, Tell
from fa4_asv.explain.pairs import Workshop
from fa4_asv.record.explanation import MACHINE, Culprit, Explanation, read_explanation
from fa4_asv.record.formatting import counted
from fa4_asv.record.schema import Records
from fa4_asv.record.store import series_sidecars


def explained(
    shop: Workshop,
    base: Corner,
    head: Corner,
    cases: Sequence[Case],
    tell: Tell,
    culprits: bool,
    known: Sequence[Explanation] = (),
) -> Explanation:
    """What changed in `cases`, and why (see investigate); of plain only what is not cu12's is compiled.

    `known`: what this command has explained of other flavours.
    """
    keys = [*map(key_of, cases)]
    part = shared(shop.project, base, head, keys, known) if shop.flavour == PLAIN else None
    if part is None:
        return investigate(shop, base, head, cases, tell, culprits)
    done = part.cases.keys() | part.states.keys()
    tell(f"{counted(len(done), 'kernel')} of plain that changed: as under cu12")
    rest = [case for case in cases if key_of(case) not in done]
    return joined(part, investigate(shop, base, head, rest, tell, culprits) if rest else part)


def shared(
    project: Project, base: Corner, head: Corner, cases: Sequence[str], known: Sequence[Explanation]
) -> Explanation | None:
    """The part of cu12's explanation that is plain's, too; None where there is none.

    Those of `cases` whose kernel is recorded as cu12's on both sides. The same torch on both sides has the same CUDA, so the
    cross pairs are cu12's as well; of two CUDA versions nothing is taken over.
    """
    if torch_cuda(base.lock.packages) != torch_cuda(head.lock.packages):
        return None
    of_cu12 = _of_cu12(project, base, head, known)
    if of_cu12 is None:
        return None
    sides = [_recorded(project, side) for side in (base, head)]
    keys = {case for case in cases if all(case in side and side[case].why == AS_CU12 for side in sides)} & (
        of_cu12.cases.keys() | of_cu12.states.keys()
    )
    part = replace(
        of_cu12,
        flavour=PLAIN,
        base=base.side,
        head=head.side,
        cases=_only(of_cu12.cases, keys),
        states=_only(of_cu12.states, keys),
        opcodes=_only(of_cu12.opcodes, keys),
        culprits=tuple(left for each in of_cu12.culprits if (left := _culprit(each, keys)).cases),
    )
    return part if keys else None


def _of_cu12(
    project: Project, base: Corner, head: Corner, known: Sequence[Explanation]
) -> Explanation | None:
    """cu12's explanation of the same commits under the same packages: just made, or kept in the record."""
    wanted = [(side.source.commit, side.lock.installed.digest) for side in (base, head)]
    file_name = Explanation("cu12", base.side, head.side).file_name
    candidates = [each for each in known if each.flavour == "cu12"]
    try:
        candidates.append(read_explanation(project.results / MACHINE / file_name))
    except Fa4AsvError:
        pass  # none, or damaged: `fa4-asv verify` says so
    return next(
        (each for each in candidates if [(s.commit, s.digest) for s in (each.base, each.head)] == wanted),
        None,
    )


def _recorded(project: Project, side: Corner) -> Records:
    records: Records = {}
    for sidecar in series_sidecars(project.results / MACHINE, side.source.commit, PLAIN, "day"):
        if sidecar.toolchain.digest == side.lock.digest:
            records |= sidecar.groups.get(CODEGEN.name, {})
    return records


def is_recorded(project: Project, commit: str) -> bool:
    """Whether plain is recorded of a commit."""
    return any(True for _ in series_sidecars(project.results / MACHINE, commit, PLAIN, "day"))


def _only(values: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in keys}


def _culprit(culprit: Culprit, keys: set[str]) -> Culprit:
    return replace(culprit, cases=tuple(case for case in culprit.cases if case in keys))


def joined(part: Explanation, rest: Explanation) -> Explanation:
    """Two explanations of the same sides whose cases do not overlap."""
    return replace(
        rest,
        cases={**part.cases, **rest.cases},
        states={**part.states, **rest.states},
        opcodes={**part.opcodes, **rest.opcodes},
        culprits=_united((*part.culprits, *rest.culprits)),
        notes=tuple(dict.fromkeys((*part.notes, *rest.notes))),
        threads=tuple(dict.fromkeys((*part.threads, *rest.threads))),
    )


def _united(culprits: Sequence[Culprit]) -> tuple[Culprit, ...]:
    """The same package or commit once, with all its cases."""
    cases: dict[Culprit, set[str]] = {}
    for culprit in culprits:
        cases.setdefault(replace(culprit, cases=()), set()).update(culprit.cases)
    return tuple(replace(culprit, cases=tuple(sorted(names))) for culprit, names in cases.items())
