"""Memory, growth and route of flavour plain are cu12's: measured anew under plain, and compared with cu12's record.

    python -m tests.proofs.plain                             # b12, which reads torch's CUDA most, and b36
    python -m tests.proofs.plain 4.0.0b20

Needs the releases' toolchains, which are made where they are not here. Exit code 1 where a figure differs.
"""

from __future__ import annotations

import sys

from fa4_asv.asv_plugin.base_environments import base_here, torch_of
from fa4_asv.backfill.anew import Anew
from fa4_asv.base.project import Project
from fa4_asv.catalog.flavours import torch_cuda
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.schema import Records, Sidecar
from fa4_asv.record.store import series_sidecars

RELEASES = ("4.0.0b12", "4.0.0b36")
GROUPS = ("memory", "growth", "route")


def recorded(project: Project, commit: str, flavour: str) -> Sidecar:
    """What is recorded of a release without a GPU under the toolchain of its day."""
    (result,) = series_sidecars(project.results / "nogpu", commit, flavour, "day")
    return result


def wanted(cu12: Sidecar, torch: str) -> dict[str, Records]:
    """cu12's measured records by group; of the route those of the torch that is here."""
    return {
        group: {
            case: record
            for case, record in cu12.groups.get(group, {}).items()
            if record.state == "measured" and (group != "route" or case.startswith(f"{torch}/"))
        }
        for group in GROUPS
    }


def differing(known: dict[str, Records], made: dict[str, Records]) -> list[str]:
    """The cases whose figures, parts or reasons are others."""
    return [
        f"{group} {case}"
        for group, cases in known.items()
        for case, record in cases.items()
        if (made[group][case].state, made[group][case].figures, made[group][case].parts)
        != (record.state, record.figures, record.parts)
    ]


def main(releases: list[str]) -> int:
    project = Project.find()
    base = base_here(project, "")
    maker = Anew(project, base, torch_of(str(base)))
    commits = {each.version: each.commit for each in Manifest.load(project.manifest).releases}
    failed = 0
    for release in releases or RELEASES:
        plain = recorded(project, commits[release], "plain")
        known = wanted(recorded(project, commits[release], "cu12"), maker.torch)
        made = maker.records(plain, {group: list(cases) for group, cases in known.items() if cases})
        wrong = differing({group: cases for group, cases in known.items() if cases}, made)
        failed += len(wrong)
        counts = ", ".join(f"{len(cases)} of {group}" for group, cases in known.items())
        print(
            f"{release}, torch on CUDA {torch_cuda(plain.toolchain.packages)}: {counts}; {len(wrong)} differ from cu12"
        )
        print("".join(f"  {name}\n" for name in wrong), end="", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
