"""The process that makes exact figures anew, started as `python -m fa4_asv.measure.anew` by an interpreter with a toolchain.

Its context stands in the environment (`context`), with a root of its own: what other runs left in a cache is not
there. Reads a JSON object {group: [case, ...]} from stdin, answers {"group", "records"} per group, a line each.
"""

from __future__ import annotations

import json
import sys

from fa4_asv.catalog.benchmarks import BY_TORCH, TRACED_GROUPS
from fa4_asv.catalog.kernels import BEYOND
from fa4_asv.measure.benchmark_api import Measure
from fa4_asv.measure.context import current
from fa4_asv.measure.contract import collect as contract
from fa4_asv.measure.kernels import collect as kernels
from fa4_asv.measure.memory import collect as memory
from fa4_asv.measure.route import collect as route
from fa4_asv.record.schema import records_to_json

MEASURES: dict[str, Measure] = {
    "codegen": kernels.measure,
    "loops": kernels.measure_loops,
    "memory": memory.measure,
    "growth": memory.measure_growth,
    **{name: route.measure_group(name) for name in BY_TORCH},
    "launch": contract.measure,
    **{name: kernels.measure_group(name) for name in BEYOND},
    **{f"{name}-memory": memory.measure_group(f"{name}-memory") for name in TRACED_GROUPS},
}


def main() -> None:
    context = current()
    for group, cases in json.load(sys.stdin).items():
        records = MEASURES[group](context, [tuple(case) for case in cases])
        print(json.dumps({"group": group, "records": records_to_json(records)}), flush=True)


if __name__ == "__main__":
    main()
