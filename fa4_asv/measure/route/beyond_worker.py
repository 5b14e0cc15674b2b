"""The process that asks one torch to drive one FA4 beyond SDPA, without a GPU: packed sequences, or FlexAttention.

Started as `python -m fa4_asv.measure.route.beyond_worker`, as measure.route.worker is. Reads one JSON line {"route": "varlen"
or "flex"}, answers {"torch": version, "broken": {check: words}, "refused": {check: words}, "checks": how many}, or {"error":
...} where this torch has no such route. One job a process: what is activated is a state of the process.
"""

from __future__ import annotations

from typing import Any

from fa4_asv.base import scratch
from fa4_asv.measure.compile_stubs import CompileStub, compile_nothing
from fa4_asv.measure.driver_stubs import Lacking, describe, open_answers, serve, stand_in_for_the_driver
from fa4_asv.measure.route import flex, varlen
from fa4_asv.measure.route.refusals import run_checks


def main() -> None:
    answers = open_answers()
    import cutlass.cute as cute
    import torch
    from cutlass.utils import HardwareInfo
    from torch._subclasses import fake_tensor

    stand_in_for_the_driver(torch, HardwareInfo)
    cute.compile = CompileStub(cute.compile, compile_nothing)
    # torch's adapter refuses to serve a machine without a GPU; fake tensors then must not look for one.
    torch.cuda.is_available = lambda: True
    fake_tensor.init_gpu_context = lambda *_: None

    def answer(job: dict[str, str]) -> dict[str, Any]:
        mode = fake_tensor.FakeTensorMode
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
