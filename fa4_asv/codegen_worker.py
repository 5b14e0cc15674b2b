"""The process that compiles: one call of FA4 a line, its cubins in a folder of their own.

Started as `python -m fa4_asv.codegen_worker` by the compile pool with the target architecture in the
environment (read by FA4 and the DSL at import). Reads a JSON line {"call": name, "into": folder},
answers {"kernels": [{"kernel", "cubin", "seconds"}], "error": null or {"kind", "words", "refused"}}.

FA4 runs on fake CUDA tensors: it compiles its real kernels and launches none. What it asks the driver
for (SM count, current stream) is answered for the target SKU.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fa4_asv.cases import CALLS, TARGETS, Call
from fa4_asv.compile_pool import die_with_parent


def target_environment(arch: str, flavour: str, dumps: str) -> tuple[tuple[str, str], ...]:
    """Environment of a worker for `arch` ("sm_90"); each makes its dump folder below `dumps`."""
    target, sms = TARGETS[arch]
    return (
        ("FLASH_ATTENTION_ARCH", arch),
        ("CUTE_DSL_ARCH", target),
        ("FLASH_ATTENTION_NUM_SMS", str(sms)),
        ("CUTE_DSL_KEEP_CUBIN", "1"),
        ("FA4_ASV_DUMPS", dumps),
        ("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "0"),
        ("FA4_ASV_ARCH", arch),
        ("FA4_ASV_CUDA", CUDA_OF_FLAVOUR[flavour]),
        ("CUTE_DSL_DISABLE_FILE_CACHING", "1"),
        ("PYTHONHASHSEED", "0"),
        ("OMP_NUM_THREADS", "1"),
    )


# FA4 asks torch for its CUDA version to choose a schedule (two-CTA instructions on Blackwell). A user of
# a flavour has the torch of that CUDA; which build of torch compiles here must not matter.
CUDA_OF_FLAVOUR = {"cu12": "12.8", "cu13": "13.0"}
# What a person has set for their own work must not reach the compiler.
_STEERING = ("FA_", "FLASH_ATTENTION_", "CUTE_", "QUACK_")


def forget_personal_settings(keep: set[str]) -> None:
    """Remove every variable that steers FA4, the DSL or quack, but those in `keep`."""
    for name in list(os.environ):
        if name.startswith(_STEERING) and name not in keep:
            del os.environ[name]


class _Hardware:
    """Answers for the target SKU in place of the driver."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.sms = int(os.environ["FLASH_ATTENTION_NUM_SMS"])

    def get_device_multiprocessor_count(self) -> int:
        return self.sms

    def get_max_active_clusters(self, cluster_size: int, *_: Any, **__: Any) -> int:
        return self.sms // cluster_size


def stand_in_for_the_driver(torch: Any, hardware: Any) -> None:
    """Substitute what FA4 asks of a GPU while it compiles: SM count, capability, device, stream.

    Methods of the DSL's class are replaced, not the class, because FA4 imports it under several names.
    """
    arch = os.environ["FA4_ASV_ARCH"].removeprefix("sm_")
    torch.version.cuda = os.environ["FA4_ASV_CUDA"]
    for name in ("__init__", "get_device_multiprocessor_count", "get_max_active_clusters"):
        setattr(hardware, name, getattr(_Hardware, name))
    torch.cuda.get_device_capability = lambda *_: (int(arch[:-1]), int(arch[-1]))
    torch.cuda.current_device = lambda: 0
    torch.cuda.current_stream = lambda *_: SimpleNamespace(cuda_stream=0)
    torch.cuda.get_device_properties = lambda *_: SimpleNamespace(
        multi_processor_count=int(os.environ["FLASH_ATTENTION_NUM_SMS"]),
        major=int(arch[:-1]),
        minor=int(arch[-1]),
    )


class CompileTap:
    """Stands in for `cute.compile`: after each compile the new cubins are moved aside.

    The DSL truncates the names of its dumps, so kernels of different cases, and even the dQ and dK/dV
    kernels of one call, overwrite each other's files. Taken one compile at a time they cannot mix.
    """

    def __init__(self, compile_function: Any, dump: Path) -> None:
        self._compile, self._dump = compile_function, dump
        self.into = dump
        self.kernels: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compile, name)

    def __getitem__(self, options: Any) -> CompileTap:
        tap = CompileTap(self._compile[options], self._dump)
        tap.into, tap.kernels = self.into, self.kernels
        return tap

    def start(self, into: Path) -> None:
        """Forget the last call; cubins of the next go to `into`."""
        self._clear()
        self.into, self.kernels = into, []
        into.mkdir(parents=True, exist_ok=True)

    def _clear(self) -> None:
        for left in self._dump.iterdir():
            if left.is_file():
                left.unlink()

    def __call__(self, kernel: Any, *args: Any, **kwargs: Any) -> Any:
        self._clear()
        begin = time.perf_counter()
        try:
            compiled = self._compile(kernel, *args, **kwargs)
        except Exception as error:
            # DSL 4.4 writes the cubin and only then fails to load it without a driver.
            if "CudaDriverDependencyError" not in f"{type(error).__name__} {error}" or not self._take(
                kernel, begin
            ):
                raise
            return _never_run
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


def _never_run(*_: Any, **__: Any) -> None:
    raise RuntimeError("a kernel compiled without a driver was launched")


def _tensors(torch: Any, call: Call) -> dict[str, Any]:
    """Fake tensors of one call in FA4's layout: (batch, seq, heads, dim), varlen (tokens, heads, dim)."""
    lead = (2048,) if call.varlen else (2, 1024)

    def make(heads: int, dim: int) -> Any:
        return torch.empty(*lead, heads, dim, dtype=torch.bfloat16, device="cuda")

    lse_shape = (16, 2048) if call.varlen else (2, 16, 1024)
    return {
        "q": make(16, call.head_dim),
        "k": make(call.kv_heads, call.head_dim),
        "v": make(call.kv_heads, call.head_dim_v),
        "out": make(16, call.head_dim_v),
        "dout": make(16, call.head_dim_v),
        "lse": torch.empty(lse_shape, dtype=torch.float32, device="cuda"),
    }


def make_call(torch: Any, interface: Any, call: Call) -> None:
    """One call of FA4 on fake tensors. Raises what FA4 raises."""
    tensors = _tensors(torch, call)
    options: dict[str, Any] = {"causal": call.causal}
    if call.window is not None:
        options |= {"window_size_left": call.window, "window_size_right": 0}
    if call.varlen:
        lengths = torch.empty(3, dtype=torch.int32, device="cuda")
        options |= {
            "cu_seqlens_q": lengths,
            "cu_seqlens_k": lengths,
            "max_seqlen_q": 1024,
            "max_seqlen_k": 1024,
        }
    q, k, v = tensors["q"], tensors["k"], tensors["v"]
    if not call.backward:
        interface._flash_attn_fwd(q, k, v, return_lse=call.return_lse, **options)
        return
    if call.deterministic:
        options["deterministic"] = True
    interface._flash_attn_bwd(q, k, v, tensors["out"], tensors["dout"], tensors["lse"], **options)


def clear_compiled(interface: Any) -> None:
    """Empty FA4's in-process caches, so that a case does not depend on the cases before it."""
    for function in list(vars(interface).values()):
        for name, cache in list(getattr(function, "__dict__", {}).items()):
            if name.startswith("compile_cache") and hasattr(cache, "clear"):
                cache.clear()


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as words; `refused` when FA4 itself said no (an assertion or NotImplementedError)."""
    frames = traceback.extract_tb(error.__traceback__)
    own = bool(frames) and "flash_attn/cute/" in frames[-1].filename.replace(os.sep, "/")
    refused = own and isinstance(error, (AssertionError, NotImplementedError))
    words = " ".join(str(error).split())[:400]
    if not words and frames:
        words = f"{frames[-1].line or 'assertion'} ({Path(frames[-1].filename).name}:{frames[-1].lineno})"
    return {"kind": type(error).__name__, "words": words, "refused": refused}


def main() -> None:
    die_with_parent()
    forget_personal_settings({name for name, _ in target_environment("sm_90", "cu12", "")})
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the compiler prints must not mix with the answers
    # One dump folder a process: the names of the DSL's dumps collide between processes, too.
    dump = Path(tempfile.mkdtemp(dir=os.environ["FA4_ASV_DUMPS"]))
    os.environ["CUTE_DSL_DUMP_DIR"] = str(dump)
    import cutlass.cute as cute
    import torch
    from cutlass.utils import HardwareInfo
    from torch._subclasses.fake_tensor import FakeTensorMode

    stand_in_for_the_driver(torch, HardwareInfo)
    tap = CompileTap(cute.compile, dump)
    cute.compile = tap
    from flash_attn.cute import interface

    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        job = json.loads(line)
        tap.start(Path(job["into"]))
        clear_compiled(interface)
        error = None
        try:
            with FakeTensorMode():
                make_call(torch, interface, CALLS[job["call"]])
        except Exception as caught:
            error = describe(caught)
        answers.write(json.dumps({"kernels": tap.kernels, "error": error}) + "\n")


if __name__ == "__main__":
    main()
