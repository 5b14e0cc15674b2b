"""A few kernels of the newest recorded release, compiled anew and held against the record; results/ is only read."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.backfill.audit import Maker
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.project import Project
from fa4_asv.history.manifest import Manifest
from fa4_asv.integrity.audit import KERNELS, Finding, compared
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import Pair, series_pairs, sidecar_path

# A forward and a backward with what stands around it, on both architectures: two compiles each.
CASES = tuple(
    f"{arch}/{name}"
    for arch in ("sm_90", "sm_100")
    for name in ("fwd_d128_causal", "bwd_pre_d128_varlen", "bwd_d128_full_varlen", "bwd_post_dq_d128_varlen")
)
_LOOPS = "loops"  # of main kernels, read from the same compile


@dataclass(frozen=True)
class Reproduced:
    """A kernel that was compiled here, and all that differs from what is recorded of it."""

    case: str
    anew: CaseRecord
    findings: tuple[Finding, ...]


def newest_recorded(project: Project, flavour: str) -> Pair:
    """What `nogpu` recorded of the newest release with `flavour` under its toolchain of the day. Raises Fa4AsvError."""
    folder = project.results / NOGPU
    for release in reversed(Manifest.load(project.manifest).releases):
        for pair in series_pairs(folder, release.commit, flavour, "day"):
            if all(case in pair.sidecar.groups.get(KERNELS, {}) for case in CASES):
                return pair
    raise Fa4AsvError(
        f"no release is recorded with flavour {flavour!r} in {folder}; restore results/ from git"
    )


def reproduce(pair: Pair, maker: Maker) -> list[Reproduced]:
    """CASES of `pair` made anew and compared: figures, digest of the cubin, opcodes, loops. Raises Fa4AsvError."""
    recorded_loops = pair.sidecar.groups.get(_LOOPS, {})
    asked: Mapping[str, tuple[str, ...]] = {
        KERNELS: CASES,
        _LOOPS: tuple(case for case in CASES if case in recorded_loops),
    }
    anew = maker.records(pair.sidecar, {group: cases for group, cases in asked.items() if cases})
    return [
        Reproduced(
            case,
            anew[KERNELS][case],
            tuple(
                finding
                for group, cases in asked.items()
                if case in cases
                for finding in compared(pair, {}, group, case, anew[group][case])
            ),
        )
        for case in CASES
    ]


def is_committed(project: Project, pair: Pair) -> bool:
    """Whether both files of `pair` are as git has them; False where git does not know them or is not here."""
    paths = [str(path) for path in (pair.path, sidecar_path(pair.path))]
    questions: Sequence[Sequence[str]] = (
        ("ls-files", "--error-unmatch"),
        ("diff", "--no-ext-diff", "--quiet", "HEAD"),
    )
    return all(_git_says_yes(project.root, [*question, "--", *paths]) for question in questions)


def _git_says_yes(folder: Path, arguments: Sequence[str]) -> bool:
    try:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True).returncode == 0
    except OSError:
        return False
