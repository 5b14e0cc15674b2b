"""The process that traces memory: one call of FA4 a line, on fake CUDA tensors of real size.

Started as `python -m fa4_asv.traced_worker` with the target architecture in the environment. Reads a
JSON line {"backward": bool, "shape": SdpaShape as JSON}, answers {"peak_bytes", "extra_bytes", "parts",
"error": null or {"kind", "words", "refused"}}.

FA4's host code allocates, its kernels do not: nothing is compiled, and a case takes milliseconds. What a
CUDA operator of torch takes for itself while it runs is not seen.
"""

from __future__ import annotations

import json
import sys
import weakref
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from fa4_asv.no_compile import CompileNothing
from fa4_asv.shapes import SdpaShape
from fa4_asv.stand_ins import describe, open_answers, stand_in_for_the_driver

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_WORKSPACE = "workspace"


@dataclass
class Allocation:
    """One storage, described by the tensor that showed it first; dead when `ref` is."""

    nbytes: int
    words: str
    ref: Any = None
    role: str = _WORKSPACE


class Ledger:
    """Live storages of one device type, each counted once however many tensors share it.

    `peak` is the most that was ever live at once, `at_peak` what that was. Nothing is kept alive.
    """

    def __init__(self, device: str = "cuda") -> None:
        self._device = device
        self._live: dict[int, Allocation] = {}
        self.now = self.peak = 0
        self.at_peak: list[tuple[Allocation, int]] = []

    def see(self, tensor: Any) -> Allocation | None:
        """Note a tensor's storage, new or resized; None for one that lives elsewhere."""
        if tensor.device.type != self._device:
            return None
        storage = tensor.untyped_storage()
        key, nbytes = storage._cdata, storage.nbytes()
        known = self._live.get(key)
        if known is None:
            words = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
            # torch keeps the Python object of a storage for as long as the storage lives
            ref = weakref.ref(storage, lambda _: self._forget(key))
            known = self._live[key] = Allocation(0, words, ref)
        self.now += nbytes - known.nbytes
        known.nbytes = nbytes
        if self.now > self.peak:
            self.peak = self.now
            self.at_peak = [(allocation, allocation.nbytes) for allocation in self._live.values()]
        return known

    def _forget(self, key: int) -> None:
        self.now -= self._live.pop(key).nbytes

    def name(self, tensors: dict[str, Any]) -> None:
        """Give live tensors their roles: inputs, and outputs once they are returned. The first name stays."""
        for role, tensor in tensors.items():
            allocation = None if tensor is None else self.see(tensor)
            if allocation is not None and allocation.role == _WORKSPACE:
                allocation.role = role

    def extra(self) -> int:
        """The peak less everything with a role: never negative while those are live."""
        return self.peak - sum(a.nbytes for a in self._live.values() if a.role != _WORKSPACE)

    def parts(self) -> dict[str, int]:
        """Bytes live at the peak by "role dtype[shape]"; their sum is the peak."""
        found: Counter[str] = Counter()
        for allocation, nbytes in self.at_peak:
            found[f"{allocation.role} {allocation.words}"] += nbytes
        return dict(found)


def following(ledger: Ledger) -> AbstractContextManager[Any]:
    """While entered, `ledger` sees every tensor that an operator of torch returns.

    Enter it inside of FakeTensorMode: the mode entered last is asked first, and gets fake tensors back.
    """
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    class Following(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            # All of an operator's results are live at once, and resize_() returns what it resized.
            for leaf in tree_iter(result):
                if isinstance(leaf, Tensor):
                    ledger.see(leaf)
            return result

    return Following()


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
    cute.compile = CompileNothing(cute.compile)
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
