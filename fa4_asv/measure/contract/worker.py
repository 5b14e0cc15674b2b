"""The process that asks the launch contract: a call of FA4 a line, in its steps, on fake CUDA tensors.

Started as `python -m fa4_asv.measure.contract.worker` with the target architecture in the environment. Reads a JSON line
{"call": name, "steps": [...], "exports": whether FA4's disk cache is written}, answers {"steps": {step: {"parts": {what
and where: count}, "error": null or {"kind", "words", "refused"}}}, "error": of the import}.

Each call is done by a child that has compiled nothing before. Kernels are counted where FA4 asks for them and not compiled,
so a step takes milliseconds. Where imports have started threads, a child might wait for them for ever: then this process
does one call itself and ends.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fa4_asv.base.side_by_side import is_one_thread
from fa4_asv.catalog.launch import LAUNCH_CALLS, STEPS, LaunchCall
from fa4_asv.measure.compile_stubs import CompileStub, NeverLaunched
from fa4_asv.measure.contract.calls import Tape, make_call, record_calls
from fa4_asv.measure.contract.watch import UnknownValue, Watch, prepare
from fa4_asv.measure.driver_stubs import describe, open_answers, stand_in_for_the_driver
from fa4_asv.measure.forks import in_a_child


class Exported(NeverLaunched):
    """A kernel that was not compiled; FA4's disk cache gets a file in its place."""

    writes = False

    def export_to_c(self, object_file_path: str, function_name: str = "", **_: Any) -> None:
        if Exported.writes:
            Path(object_file_path).write_bytes(b"not compiled: fa4-asv counts kernels")


def count_kernels(cute: Any, watch: Watch) -> None:
    """Have `watch` count what FA4 compiles and what it finds in its disk cache."""

    def compile_with(_real: Any, kernel: Any, *_args: Any, **_kwargs: Any) -> Exported:
        watch.compiled(kernel)
        return Exported()

    def load(*_: Any, **__: Any) -> NeverLaunched:
        watch.found()
        return NeverLaunched()

    cute.compile = CompileStub(cute.compile, compile_with)
    cute.runtime.load_module = load


def count_waits(torch: Any, watch: Watch) -> None:
    """Have `watch` count where the host waits for the card without reading a tensor."""
    torch.cuda.synchronize = watch.read
    torch.cuda.Stream.synchronize = torch.cuda.Event.synchronize = watch.read
    torch.cuda.current_stream = lambda *_: SimpleNamespace(cuda_stream=0, synchronize=watch.read)


def steps_of(torch: Any, interface: Any, watch: Watch, call: LaunchCall, names: list[str]) -> dict[str, Any]:
    """What each step asked for; a step that raises does not end the others."""
    tape = record_calls(interface)
    return {name: _step(torch, interface, tape, watch, call, name) for name in names}


def _step(
    torch: Any, interface: Any, tape: Tape, watch: Watch, call: LaunchCall, name: str
) -> dict[str, Any]:
    watch.start()
    error = None
    try:
        for form in STEPS[name]:
            make_call(torch, interface, tape, watch, call, form)
    except UnknownValue as unknown:
        error = {**describe(unknown), "refused": True}
    except Exception as caught:
        error = describe(caught)
    return {"parts": dict(watch.parts), "error": error}


def _import_fa4(watch: Watch) -> tuple[Any, Any]:
    """torch and FA4's interface, whose kernels are counted from here on."""
    import cutlass.cute as cute
    import torch
    from cutlass.utils import HardwareInfo

    stand_in_for_the_driver(torch, HardwareInfo)
    count_waits(torch, watch)
    count_kernels(cute, watch)
    from flash_attn.cute import interface

    _prepare_tensors(torch)
    return torch, interface


def _prepare_tensors(torch: Any) -> None:
    """The first fake tensor makes torch import its compiler, for a second: once here instead of in every child."""
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    prepare(FakeTensor)
    with FakeTensorMode():
        torch.empty(1, device="cuda").detach()


def main() -> None:
    answers = open_answers("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR")
    watch, error = Watch(), None
    torch = interface = None
    try:
        torch, interface = _import_fa4(watch)
    except Exception as caught:  # said once per call; dying would import once per call
        error = describe(caught)
    forks = is_one_thread()
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        job = json.loads(line)
        Exported.writes = job["exports"]
        if error:
            answers.write(json.dumps({"error": error}) + "\n")
            continue
        steps = partial(steps_of, torch, interface, watch, LAUNCH_CALLS[job["call"]], job["steps"])
        action = partial(_answer, steps)
        answers.write(json.dumps(in_a_child(action) if forks else action()) + "\n")
        if not forks:
            return


def _answer(steps: partial[dict[str, Any]]) -> dict[str, Any]:
    return {"steps": steps(), "error": None}


if __name__ == "__main__":
    main()
