"""What 200 and 2,000 commits cost on a cluster, from the seconds in the record; where the bottleneck is then.

    python tools/cluster_cost.py            # the tables of docs/cluster.md

Compute is what asv recorded of whole sets on machine `nogpu` (two compile processes, so two cores for that part);
files whose set came from the cache are left out. What the driver spends on a task (an order, an answer unpacked,
verified and moved) is measured here and now, with a pair of the record. A card's seconds are those of the newest
result file with run times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from fa4_asv.backfill.cluster.archive import pack
from fa4_asv.backfill.cluster.order import Answer
from fa4_asv.backfill.cluster.record_gate import Desk, Site
from fa4_asv.backfill.tasks import Task, Wish
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS, group_of
from fa4_asv.integrity.staging import seed, stage
from fa4_asv.record.store import iter_results, read_sidecar, sidecar_path

COMMITS, CORES = (200, 2000), (2, 64, 640, 6400)
PROCESSES = 2  # of the compiling part, on the machine that made the record
CACHED = 60.0  # a whole set that took less compiled nothing, or little


def compute_of(path: Path) -> float | None:
    """Core-seconds of one result file's exact groups; None where they came from the cache."""
    data = json.loads(path.read_text(encoding="utf-8"))
    collecting = {name: seconds for name, seconds in data["durations"].items() if "<setup_cache" in name}
    codegen = [seconds for name, seconds in collecting.items() if "codegen:" in name]
    if not codegen or codegen[0] < CACHED:
        return None
    rest = sum(collecting.values()) - codegen[0]
    return PROCESSES * codegen[0] + rest + sum(seconds for _, seconds in figures_of(data))


def figures_of(data: dict[str, object]) -> list[tuple[str, float]]:
    """(benchmark, seconds that asv spent on its figures) of a result file's content."""
    found = []
    for name, row in data["results"].items():  # type: ignore[attr-defined]
        entry = dict(zip(data["result_columns"], row, strict=False))  # type: ignore[call-overload]
        found.append((name, float(entry.get("duration") or 0.0)))
    return found


def card_seconds(project: Project) -> tuple[str, float] | None:
    """The newest machine's name and the seconds of its run-time figures; None without any."""
    best = None
    for path in iter_results(project.results):
        data = json.loads(path.read_text(encoding="utf-8"))
        spent = [
            seconds
            for name, seconds in figures_of(data)
            if (found := group_of(name)) and GROUPS[found[0].name].device == "cuda"
        ]
        if sum(spent) and (best is None or data["date"] > best[0]):
            best = (data["date"], path.parent.name, sum(spent))
    return best[1:] if best else None


def driver_seconds(project: Project, rounds: int = 7) -> tuple[float, int, int]:
    """Seconds a task of the driver's time, bytes of an order and of an answer."""
    path = max(iter_results(project.results, "nogpu"), key=lambda each: each.stat().st_size)
    side = read_sidecar(sidecar_path(path))
    task = Task(side.commit, side.release, side.toolchain.flavour, ("codegen",), side.environment)
    spent = []
    with tempfile.TemporaryDirectory(dir=project.work, prefix="cost-") as folder:
        for number in range(rounds):
            staged = stage(project, Path(folder) / str(number))
            seed(project, staged, side.commit, side.environment)
            record = pack(staged.results)
            desk = Desk(staged, Wish(flavours=(task.flavour,)), "", Site(), 60.0)
            begin = time.perf_counter()
            order = desk.order(task)
            answer = Answer(results=record, log="x" * 60_000).dump()
            desk.keep(task, Answer.load(answer))
            spent.append(time.perf_counter() - begin)
    return statistics.median(spent), len(order), len(answer)


def words(seconds: float) -> str:
    for size, name in ((86400 * 2, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / (86400 if name == 'd' else size):.1f} {name}"
    return f"{seconds:.0f} s"


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    project = Project.find()
    # Upstream's commits and other toolchains are measured with a part of the set.
    sides = ((path, read_sidecar(sidecar_path(path))) for path in iter_results(project.results, "nogpu"))
    whole = [path for path, side in sides if side.release and side.toolchain.policy == "day"]
    computed = [found for path in whole if (found := compute_of(path))]
    if not computed:
        sys.exit("no whole set in results/nogpu to compute from")
    task = statistics.median(computed)
    sizes = [path.stat().st_size + sidecar_path(path).stat().st_size for path in whole]
    driver, order, answer = driver_seconds(project)
    size = statistics.mean(sizes)
    print(
        f"A task (one commit, one flavour, all exact groups): {task:.0f} core-seconds, the median of {len(computed)}"
    )
    print(
        f"result files ({min(computed):.0f} to {max(computed):.0f}). The driver: {driver:.2f} s a task, of which an"
    )
    print(
        f"order is {order / 1e3:.0f} kB and an answer {answer / 1e3:.0f} kB. The record: {size / 1e3:.0f} kB a task.\n"
    )
    print(
        "| commits | tasks | core-hours | "
        + " | ".join(f"{n:,} cores" for n in CORES)
        + " | driver | record |"
    )
    print("|---" * (5 + len(CORES)) + "|")
    for commits in COMMITS:
        tasks = 2 * commits
        # No faster than the driver lets results in, nor than one task takes on its one core.
        walls = [max(tasks * task / n, tasks * driver, task) for n in CORES]
        row = [f"{commits:,}", f"{tasks:,}", f"{tasks * task / 3600:.0f}", *map(words, walls)]
        row += [words(tasks * driver), f"{tasks * size / 1e6:.0f} MB"]
        print("| " + " | ".join(row) + " |")
    print(f"\nThe driver is the bottleneck from {task / driver:,.0f} cores on.")
    card = card_seconds(project)
    if card:
        machine, seconds = card
        costs = ", ".join(
            f"{commits:,} commits {commits * seconds / 3600:.0f} card-hours" for commits in COMMITS
        )
        print(
            f"Run times recorded for one commit on {machine}: {seconds:.0f} s of a whole card; {costs}, a flavour."
        )


if __name__ == "__main__":
    main()
