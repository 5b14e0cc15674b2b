"""What a card's record says, as Markdown: rates, what rounds differ by, allocated against traced memory, broken cases.

    python tools/card_summary.py h100-sxm            # every release recorded under that machine
    python tools/card_summary.py h100-sxm > docs/cards/h100-sxm.md

Rates are computed here from recorded seconds and the shape's exact operations; nothing is stored.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from statistics import median, stdev

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.shapes import SHAPES
from fa4_asv.record.schema import CaseRecord, Sidecar
from fa4_asv.record.store import iter_results, read_sidecar, sidecar_path

TIMED = ("forward", "forward-yardsticks", "backward", "backward-yardsticks")


def spread(record: CaseRecord) -> str:
    """How far the rounds' ratios to their control differ, in percent; "" with fewer than two."""
    pairs = zip(record.samples.get("centre", []), record.samples.get("control", []), strict=False)
    ratios = [seconds / control for seconds, control in pairs]
    return f"{stdev(ratios) / (sum(ratios) / len(ratios)):.2%}" if len(ratios) > 1 else ""


def rates(sidecar: Sidecar) -> Iterator[str]:
    """A table: each timed case with its median, rate, rounds' spread and samples."""
    head = [
        "| direction | backend | shape | ms | TFLOP/s | between rounds | samples |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in TIMED:
        backward = GROUPS[name].backward
        for key, record in sorted(sidecar.groups.get(name, {}).items()):
            if record.state != "measured":
                continue
            backend, shape = key.split("/")
            samples = record.samples["seconds"]
            seconds = median(samples)
            rate = SHAPES[shape].flops(backward) / seconds / 1e12
            cells = (
                "backward" if backward else "forward",
                backend,
                shape,
                f"{seconds * 1e3:.3f}",
                f"{rate:.0f}",
                spread(record),
                str(len(samples)),
            )
            yield from head
            head = []
            yield f"| {' | '.join(cells)} |"


def memory(sidecar: Sidecar) -> Iterator[str]:
    found = {
        key: record
        for key, record in sidecar.groups.get("allocated", {}).items()
        if record.state == "measured"
    }
    if not found:
        return
    apart = {key: record.samples["untraced_bytes"][0] for key, record in found.items()}
    apart = {key: away for key, away in apart.items() if away}
    yield f"Allocated against traced peaks: {len(found)} calls, {len(found) - len(apart)} equal to the byte."
    for key, away in sorted(apart.items()):
        yield f"- {key}: {away:,.0f} bytes apart of {found[key].samples['peak_bytes'][0]:,.0f}"


def route(sidecar: Sidecar) -> Iterator[str]:
    """Checks of the route through SDPA that are broken on the card."""
    for key, record in sorted(sidecar.groups.get("route-card", {}).items()):
        if record.state == "measured":
            words = record.words
            yield f"Route, {key}, torch {words['torch']}: {record.samples['broken'][0]:.0f} of {words['checks']} checks broken."


def not_measured(sidecar: Sidecar) -> Iterator[str]:
    """What is broken or refused, by its words."""
    words: dict[tuple[str, str, str], int] = {}
    for name, cases in sidecar.groups.items():
        for record in cases.values():
            if record.state in ("broken", "unsupported"):
                at = (name, record.state, record.why)
                words[at] = words.get(at, 0) + 1
    if words:
        yield "| group | state | cases | words |"
        yield "|---|---|---|---|"
    for (name, state, why), count in sorted(words.items()):
        yield f"| {name} | {state} | {count} | {why.replace('|', '/')} |"


def main() -> None:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    parser.add_argument("machine")
    arguments = parser.parse_args()
    paths = list(iter_results(Project.find().results, arguments.machine))
    if not paths:
        sys.exit(f"card_summary: no results of machine {arguments.machine!r}; results/ has one folder each")
    print(f"# {arguments.machine}\n\nPrinted by `python tools/card_summary.py {arguments.machine}`.")
    for path in paths:
        try:
            sidecar = read_sidecar(sidecar_path(path))
        except Fa4AsvError as error:
            sys.exit(f"card_summary: {error}")
        dsl = sidecar.toolchain.packages.get("nvidia-cutlass-dsl", "?")
        print(f"\n## {sidecar.release}, {sidecar.toolchain.flavour}, DSL {dsl}\n")
        for part in (rates(sidecar), memory(sidecar), route(sidecar), not_measured(sidecar)):
            lines = list(part)
            if lines:
                print("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
