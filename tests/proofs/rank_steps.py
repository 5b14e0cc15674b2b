"""Which release changed compiled code most: all its kernels, architectures and flavours together, as Markdown.

    python -m tests.proofs.rank_steps

A step's score is the sum over kernels of |log(after / before)| of instructions and of spilled bytes, 64 added to
both sides of the latter; a kernel whose state changed counts aside. From `results/` alone, toolchains of the day.
"""

from __future__ import annotations

from collections import defaultdict
from math import log

from fa4_asv.base.project import Project
from fa4_asv.compare.changes import changes_between, recorded
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.toolchain import FLAVOURS

SCORED = ("instructions", "spill_bytes")
Scores = dict[str, dict[str, float]]


def scores(project: Project) -> Scores:
    """Release -> instructions, spill_bytes, state (a count); those that changed nothing are left out."""
    manifest = Manifest.load(project.manifest)
    result: Scores = {}
    for flavour in FLAVOURS:
        records = [
            record
            for record in recorded(project.results, manifest, flavour)
            if any(case.state == "measured" for case in record.sidecar.groups.get("codegen", {}).values())
        ]
        for before, after in zip(records, records[1:], strict=False):
            for change in changes_between(before, after):
                counter = result.setdefault(after.release, defaultdict(float))
                if change.metric in SCORED:
                    counter[change.metric] += log(change.weight)
                elif change.states:
                    counter["state"] += 1
    return result


def ranked(result: Scores) -> list[tuple[str, float]]:
    """Releases by score, the largest first."""
    total = {release: sum(counter[name] for name in SCORED) for release, counter in result.items()}
    return sorted(total.items(), key=lambda pair: -pair[1])


def main() -> None:
    result = scores(Project.find())
    print("| release | score | of instructions | of spills | states that changed |\n|---|---|---|---|---|")
    for release, score in ranked(result):
        if score or result[release]["state"]:
            parts = " | ".join(f"{result[release][name]:.1f}" for name in SCORED)
            print(f"| {release} | {score:.1f} | {parts} | {result[release]['state']:.0f} |")


if __name__ == "__main__":
    main()
