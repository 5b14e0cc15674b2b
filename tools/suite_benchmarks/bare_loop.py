"""Compile the codegen calls of one architecture in this process, nothing more: what `run` compares with.

Started by run.py with the target in the environment; prints one JSON line: seconds of the imports
and of each call, and how many kernels were compiled. With `--keep`, FA4's own cache lives from call to call, so
that a preprocess kernel which several calls share is compiled once; without, each call compiles all of its
own, as the suite does, whose cases must not depend on those before them.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    begin = time.perf_counter()
    import cutlass.cute as cute
    import torch
    from cutlass.utils import HardwareInfo
    from torch._subclasses.fake_tensor import FakeTensorMode

    from fa4_asv.catalog.kernels import CASES
    from fa4_asv.measure.driver_stubs import forget_personal_settings, stand_in_for_the_driver
    from fa4_asv.measure.fake_calls import make_call
    from fa4_asv.measure.kernels.worker import clear_compiled

    forget_personal_settings()
    stand_in_for_the_driver(torch, HardwareInfo)
    from flash_attn.cute import interface

    kernels = [0]
    compile_kernel = cute.compile

    def counted(*args: object, **kwargs: object) -> object:
        kernels[0] += 1
        return compile_kernel(*args, **kwargs)

    cute.compile = counted
    imports = time.perf_counter() - begin
    seconds = {}
    for name, call in {case.call.name: case.call for case in CASES.values()}.items():
        if "--keep" not in sys.argv:
            clear_compiled(interface)
        start = time.perf_counter()
        try:
            with FakeTensorMode():
                make_call(torch, interface, call)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:80]}", flush=True)
        seconds[name] = time.perf_counter() - start
    print(json.dumps({"imports": imports, "calls": seconds, "kernels": kernels[0]}))


if __name__ == "__main__":
    main()
