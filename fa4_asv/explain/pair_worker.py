"""The process that compiles one source under one toolchain, started as `python -m fa4_asv.explain.pair_worker`.

Its interpreter holds the toolchain, its context stands in the environment (`context`). Reads a JSON list of
(arch, case) from stdin, answers their records by key.
"""

from __future__ import annotations

import json
import sys

from fa4_asv.measure.context import current
from fa4_asv.measure.kernels.collect import measure
from fa4_asv.record.schema import records_to_json


def main() -> None:
    records = measure(current(), [(arch, case) for arch, case in json.load(sys.stdin)])
    json.dump(records_to_json(records), sys.stdout)


if __name__ == "__main__":
    main()
