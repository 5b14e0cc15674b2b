"""The process that asks one torch to drive one FA4 beyond SDPA, without a GPU: packed sequences, or FlexAttention.

Started as `python -m fa4_asv.measure.route.beyond_worker`, as measure.route.worker is. Reads one JSON line {"route": "varlen"
or "flex"}, answers {"torch": version, "broken": {check: reason}, "refused": {check: reason}, "checks": how many}, or {"error":
...} where this torch has no such route. One job per process: what is activated is a state of the process.
"""

from __future__ import annotations

from typing import Any

from fa4_asv.base import scratch
from fa4_asv.measure.driver_stubs import Lacking, describe, open_answers, serve
from fa4_asv.measure.route import flex, varlen
from fa4_asv.measure.route.no_card import stand_in_for_a_card
from fa4_asv.measure.route.refusals import run_checks


def main() -> None:
    answers = open_answers()
    import torch

    mode = stand_in_for_a_card(torch)

    def answer(job: dict[str, str]) -> dict[str, Any]:
        with scratch.folder("flex") as folder:
            try:
                driver, checks = (
                    (varlen.VarlenDriver(torch, mode), varlen.CHECKS)
                    if job["route"] == "varlen"
                    else (flex.FlexDriver(torch, mode, folder), flex.CHECKS)
                )
            except Lacking as lacking:
                return {"error": describe(lacking)}
            result = run_checks(checks, driver)
        reasons = {"broken": result.broken, "refused": result.refused}
        return {"torch": torch.__version__, "checks": len(checks), **reasons}

    serve(answers, answer)


if __name__ == "__main__":
    main()
