"""Compile seconds by release as one machine took them, and how far samples of a case differ, as Markdown.

    python tools/compile_seconds.py xeon-2c
    python tools/compile_seconds.py xeon-2c --releases 4.0.0b19 4.0.0b36 --flavour cu13

Medians of the samples in the sidecars, toolchains of the day.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from statistics import median

from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.schema import CaseRecord, Sidecar
from fa4_asv.record.store import iter_results, read_sidecar, sidecar_path
from fa4_asv.report.compile_times import spreads

DSL = "nvidia-cutlass-dsl"


def cases_of(sidecar: Sidecar) -> dict[str, CaseRecord]:
    """Import and calls by the words that head their column."""
    named = {
        key: record for name in ("compile", "import") for key, record in sidecar.groups.get(name, {}).items()
    }
    return {key.replace("flash_attn.cute", "import"): record for key, record in named.items()}


def recorded(project: Project, machine: str) -> list[Sidecar]:
    """Sidecars of releases with compile seconds, toolchain of the day, oldest release first."""
    order = [release.commit for release in Manifest.load(project.manifest).releases]
    sidecars = [read_sidecar(sidecar_path(path)) for path in iter_results(project.results, machine)]
    found = [
        one for one in sidecars if one.commit in order and one.toolchain.policy == "day" and cases_of(one)
    ]
    return sorted(found, key=lambda one: order.index(one.commit))


def cell(record: CaseRecord | None) -> str:
    if record is None:
        return ""
    return f"{median(record.samples['seconds']):.1f}" if record.samples else record.state


def table(sidecars: list[Sidecar]) -> None:
    columns = ["import", *("/".join(case) for case in GROUPS["compile"].cases)]
    print(f"| release | DSL | {' | '.join(f'`{name}`' for name in columns)} |")
    print("|---|---|" + "---|" * len(columns))
    for sidecar in sidecars:
        cases = cases_of(sidecar)
        shown = " | ".join(cell(cases.get(name)) for name in columns)
        print(f"| {sidecar.release} | {sidecar.toolchain.packages.get(DSL, '')} | {shown} |")


def spread(sidecars: list[Sidecar]) -> str:
    samples = [
        record.samples["seconds"] for one in sidecars for record in cases_of(one).values() if record.samples
    ]
    found = [one for one in samples if len(one) > 1]
    return f"{len(samples)} cases, {sum(map(len, samples))} samples. {spreads(found)}." if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("machine", help="a folder of results/")
    parser.add_argument("--flavour", choices=("cu12", "cu13"), help="one flavour only")
    parser.add_argument("--releases", nargs="+", metavar="VERSION", help="some releases only")
    arguments = parser.parse_args()
    found: dict[str, list[Sidecar]] = defaultdict(list)
    for sidecar in recorded(Project.find(), arguments.machine):
        chosen = not arguments.releases or sidecar.release in arguments.releases
        if chosen and arguments.flavour in (None, sidecar.toolchain.flavour):
            found[sidecar.toolchain.flavour].append(sidecar)
    if not found:
        parser.exit(1, f"no compile seconds of {arguments.machine} in results/\n")
    for flavour, sidecars in sorted(found.items()):
        print(f"\n{flavour}\n")
        table(sidecars)
    print(f"\n{spread([sidecar for sidecars in found.values() for sidecar in sidecars])}")


if __name__ == "__main__":
    main()
