"""The process that compiles: one call of FA4 a line, its cubins in a folder of their own.

Started as `python -m fa4_asv.measure.kernels.worker` by the compile pool with the target architecture in the
environment (read by FA4 and the DSL at import). Reads a JSON line {"call": name, "into": folder, "around":
whether pre- and postprocess are read, too}, answers {"kernels": [{"kernel", "cubin", "seconds"}],
"error": null or {"kind", "words", "refused"}}.

FA4 runs on fake CUDA tensors: it compiles its real kernels and launches none. What it asks the driver
for (SM count, current stream) is answered for the target SKU.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from fa4_asv.catalog.kernels import CALLS
from fa4_asv.measure.compile_stubs import stand_in_without_a_card, without_driver
from fa4_asv.measure.driver_stubs import describe, open_answers, serve
from fa4_asv.measure.fake_calls import make_call
from fa4_asv.measure.source_lines import remember_source_lines

_AROUND = ("_bwd_preprocess", "_bwd_postprocess")


class CompileTap:
    """What is done in the place of `cute.compile`: after each compile the new cubins are moved aside.

    The DSL truncates the names of its dumps, so kernels of different cases, and even the dQ and dK/dV
    kernels of one call, overwrite each other's files. Taken one compile at a time they cannot mix.
    """

    def __init__(self, dump: Path) -> None:
        self._dump = self.into = dump
        self.kernels: list[dict[str, Any]] = []

    def start(self, into: Path) -> None:
        """Forget the last call; cubins of the next go to `into`."""
        self._clear()
        self.into, self.kernels = into, []
        into.mkdir(parents=True, exist_ok=True)

    def _clear(self) -> None:
        for left in self._dump.iterdir():
            if left.is_file():
                left.unlink()

    def __call__(self, real: Any, kernel: Any, *args: Any, **kwargs: Any) -> Any:
        self._clear()
        begin = time.perf_counter()
        compiled = without_driver(lambda: real(kernel, *args, **kwargs), lambda: self._take(kernel, begin))
        self._take(kernel, begin)
        return compiled

    def _take(self, kernel: Any, begin: float) -> bool:
        seconds = time.perf_counter() - begin
        name = getattr(kernel, "__name__", None) or type(kernel).__name__
        cubins = sorted(self._dump.glob("*.cubin"))
        for cubin in cubins:
            target = self.into / f"{len(self.kernels):02d}.cubin"
            cubin.replace(target)
            self.kernels.append({"kernel": name, "cubin": str(target), "seconds": seconds})
        return bool(cubins)


def clear_compiled(interface: Any, around: bool = True) -> None:
    """Empty FA4's in-process caches, so that a case does not depend on the cases before it.

    Not `around`: what stands before and behind a backward is kept, for calls of which only the main kernel is read.
    """
    for function in list(vars(interface).values()):
        if not around and getattr(function, "__name__", "").startswith(_AROUND):
            continue
        for name, cache in list(getattr(function, "__dict__", {}).items()):
            if name.startswith("compile_cache") and hasattr(cache, "clear"):
                cache.clear()


def main() -> None:
    answers = open_answers("CUTE_DSL_KEEP_CUBIN")
    # One dump folder a process: the names of the DSL's dumps collide between processes, too.
    dump = Path(tempfile.mkdtemp(dir=os.environ["FA4_ASV_DUMPS"]))
    os.environ["CUTE_DSL_DUMP_DIR"] = str(dump)
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    tap = CompileTap(dump)
    stand_in_without_a_card(torch, tap)
    remember_source_lines()
    from flash_attn.cute import interface

    def answer(job: dict[str, Any]) -> dict[str, Any]:
        tap.start(Path(job["into"]))
        clear_compiled(interface, job["around"])
        error = None
        try:
            with FakeTensorMode():
                make_call(torch, interface, CALLS[job["call"]])
        except Exception as caught:
            error = describe(caught)
        return {"kernels": tap.kernels, "error": error}

    serve(answers, answer)


if __name__ == "__main__":
    main()
