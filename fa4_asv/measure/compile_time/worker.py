"""The process that is timed: FA4 imported once, and called once by each of its children, as in a user's first step.

Started as `python -m fa4_asv.measure.compile_time.worker` by the jit instrument with the target architecture in the
environment. Answers {"seconds": of the import, "forks": whether it may, "error": null or {"kind", "words",
"refused"}} when it has imported FA4. Each JSON line {"call": name} is then done by a child that has compiled nothing
before, and answered with {"seconds": of the call, "kernels": how many it compiled, "used": processor seconds,
"error"}. Where imports have started threads (a torch with CUDA beside a driver does), a child would wait for
them for ever: then the one line that is read is done by this very process, and the next needs another.

The call sees fake CUDA tensors: it traces, lowers and assembles its real kernels and launches none.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from fa4_asv.base.side_by_side import is_one_thread
from fa4_asv.catalog.calls import Call
from fa4_asv.catalog.kernels import CALLS
from fa4_asv.measure.compile_stubs import compiles_so_far, counted, stand_in_without_a_card, without_driver
from fa4_asv.measure.driver_stubs import describe, open_answers, stand_in_for_the_driver
from fa4_asv.measure.fake_calls import make_call
from fa4_asv.measure.forks import in_a_child


def counted_without_driver(*args: Any, **kwargs: Any) -> Any:
    """Whether there is a cubin is codegen's to check: it keeps cubins, and here that would be timed."""
    return without_driver(lambda: counted(*args, **kwargs))


def timed(action: Callable[[], Any]) -> dict[str, Any]:
    """Seconds of `action`, and as text what it raised."""
    error = None
    begin = time.perf_counter()
    try:
        action()
    except Exception as caught:
        error = describe(caught)
    return {"seconds": time.perf_counter() - begin, "error": error}


def _import_fa4() -> None:
    import flash_attn.cute.interface  # noqa: F401


def main() -> None:
    answers = open_answers()
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    # The DSL is part of what is timed, so its own stand-in must wait until it has been imported.
    stand_in_for_the_driver(torch, type("NoHardwareYet", (), {}))
    imported = timed(_import_fa4)
    forks = is_one_thread()
    answers.write(json.dumps({**imported, "forks": forks}) + "\n")
    line = sys.stdin.readline()
    if not line:
        return
    from flash_attn.cute import interface

    stand_in_without_a_card(torch, counted_without_driver)

    def call_once(call: Call) -> dict[str, Any]:
        with FakeTensorMode():
            answer = timed(lambda: make_call(torch, interface, call))
        return {**answer, "kernels": compiles_so_far()}

    while line:
        call = CALLS[json.loads(line)["call"]]
        if not forks:
            answers.write(json.dumps({**call_once(call), "used": 0.0}) + "\n")
            return
        answers.write(json.dumps(in_a_child(partial(call_once, call))) + "\n")
        line = sys.stdin.readline()


if __name__ == "__main__":
    main()
