"""What the record cost: files, bytes, and seconds of collecting, by machine, history and toolchain policy, as Markdown.

    python -m tools.suite_benchmarks record                  # the table of docs/record.md

Seconds are those that asv wrote into each result file: of collecting (all cores of the machine that did it work then) and of
the processes that asked for figures. A case that was measured again counts with its last time.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fa4_asv.base.project import Project
from fa4_asv.record.store import iter_results, read_sidecar, sidecar_path

Row = tuple[Path, float, int, int]


def seconds_of(path: Path) -> float:
    """Seconds in `durations`, and of each benchmark."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return float(sum(data["durations"].values()) + sum(seconds for _, seconds in figures_of(data)))


def figures_of(data: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(benchmark, seconds that asv spent on its figures) of a result file's content."""
    for name, row in data["results"].items():
        entry = dict(zip(data["result_columns"], row, strict=False))
        yield name, float(entry.get("duration") or 0.0)


def rows(project: Project) -> Iterator[tuple[tuple[str, str, str], Row]]:
    for path in iter_results(project.results):
        beside = sidecar_path(path)
        sidecar = read_sidecar(beside)
        states = [record.state for cases in sidecar.groups.values() for record in cases.values()]
        history = "releases" if sidecar.release else "upstream"
        size = path.stat().st_size + beside.stat().st_size
        key = (sidecar.machine, history, sidecar.toolchain.policy)
        yield key, (path, seconds_of(path), size, states.count("measured"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def main(arguments: argparse.Namespace) -> int:
    rows_of_series: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for key, row in rows(Project.find()):
        rows_of_series[key].append(row)
    print(
        "| machine | history | toolchain | files | MB | measured cases | hours |\n|---|---|---|---|---|---|---|"
    )
    for key, group in sorted(rows_of_series.items()):
        hours, size = sum(row[1] for row in group) / 3600, sum(row[2] for row in group) / 1e6
        print(
            f"| {' | '.join(key)} | {len(group)} | {size:.1f} | {sum(row[3] for row in group)} | {hours:.1f} |"
        )
    everything = [row for group in rows_of_series.values() for row in group]
    size, hours = sum(row[2] for row in everything) / 1e6, sum(row[1] for row in everything) / 3600
    print(f"| all | | | {len(everything)} | {size:.1f} | {sum(row[3] for row in everything)} | {hours:.1f} |")
    return 0
