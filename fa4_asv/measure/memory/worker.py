"""The process that traces memory: one call of FA4 a line, on fake CUDA tensors of real size.

Started as `python -m fa4_asv.measure.memory.worker` with the target architecture in the environment. Reads a
JSON line {"backward": bool, "shape": SdpaShape as JSON}, answers {"peak_bytes", "extra_bytes", "parts",
"error": null or {"kind", "words", "refused"}}.

FA4's host code allocates, its kernels do not: nothing is compiled, and a case takes milliseconds. What a
CUDA operator of torch takes for itself while it runs is not seen.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.compile_stubs import CompileStub, compile_nothing
from fa4_asv.measure.driver_stubs import describe, open_answers, stand_in_for_the_driver
from fa4_asv.measure.memory.tracker import Ledger, following

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def _inputs(torch: Any, backward: bool, shape: SdpaShape) -> dict[str, Any]:
    """Tensors of one call in FA4's layout: (batch, seq, heads, dim)."""

    def make(heads: int, dim: int) -> Any:
        size = (shape.batch, shape.seq_len, heads, dim)
        return torch.empty(*size, dtype=getattr(torch, _DTYPES[shape.dtype]), device="cuda")

    inputs = {
        "q": make(shape.num_heads, shape.head_dim),
        "k": make(shape.kv_heads, shape.head_dim),
        "v": make(shape.kv_heads, shape.head_dim_v),
    }
    if backward:
        inputs["out"] = make(shape.num_heads, shape.head_dim_v)
        inputs["dout"] = make(shape.num_heads, shape.head_dim_v)
        size = (shape.batch, shape.num_heads, shape.seq_len)
        inputs["lse"] = torch.empty(size, dtype=torch.float32, device="cuda")
    return inputs


def trace(torch: Any, interface: Any, backward: bool, shape: SdpaShape) -> dict[str, Any]:
    """Figures and parts of one call, inputs included. Raises what FA4 raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    options: dict[str, Any] = {"causal": shape.causal}
    if shape.window is not None:
        options |= {"window_size_left": shape.window, "window_size_right": 0}
    ledger = Ledger()
    with FakeTensorMode(), following(ledger):
        inputs = _inputs(torch, backward, shape)
        ledger.name(inputs)
        if backward:
            returned = interface._flash_attn_bwd(*inputs.values(), **options)
            outputs = dict(zip(("dq", "dk", "dv"), returned, strict=False))
        else:
            returned = interface._flash_attn_fwd(*inputs.values(), return_lse=True, **options)
            outputs = dict(zip(("out", "lse"), returned, strict=False))
        ledger.name(outputs)
        return {"peak_bytes": ledger.peak, "extra_bytes": ledger.extra(), "parts": ledger.parts()}


def _import_fa4() -> tuple[Any, Any]:
    """torch and FA4's interface, which compiles nothing from here on."""
    import cutlass.cute as cute
    import torch
    from cutlass.utils import HardwareInfo

    stand_in_for_the_driver(torch, HardwareInfo)
    cute.compile = CompileStub(cute.compile, compile_nothing)
    from flash_attn.cute import interface

    return torch, interface


def main() -> None:
    answers = open_answers()
    torch = interface = broken = None
    try:
        torch, interface = _import_fa4()
    except Exception as caught:  # said once a case; dying would import once a case
        broken = describe(caught)
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        job = json.loads(line)
        answer: dict[str, Any] = {"error": broken}
        if not broken:
            try:
                answer |= trace(torch, interface, job["backward"], SdpaShape(**job["shape"]))
            except Exception as caught:
                answer["error"] = describe(caught)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
