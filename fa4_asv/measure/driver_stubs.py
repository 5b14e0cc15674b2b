"""What every process that drives FA4 without a GPU needs: a target, answers for the driver, clean messages.

FA4 and the DSL read their target from the environment when they are imported, so it is set before a
process starts. Used by the workers only; torch and the DSL are handed in by them.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

from fa4_asv.base.escape import without_colours, without_places
from fa4_asv.catalog.flavours import FLAVOURS
from fa4_asv.catalog.kernels import TARGETS
from fa4_asv.measure.pool import NO_CARD


def target_environment(arch: str, flavour: str, cuda: str = "") -> tuple[tuple[str, str], ...]:
    """Environment of a worker process for `arch` ("sm_90") under a CUDA flavour; read at import by FA4.

    `cuda` is the torch's where the flavour says none ("13.0"). FA4 asks torch for it to choose a schedule (two-CTA
    instructions on Blackwell); which build of torch compiles here must not matter.
    """
    target, sms = TARGETS[arch]
    return (
        ("FLASH_ATTENTION_ARCH", arch),
        ("CUTE_DSL_ARCH", target),
        ("FLASH_ATTENTION_NUM_SMS", str(sms)),
        ("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "0"),
        ("FA4_ASV_ARCH", arch),
        ("FA4_ASV_CUDA", FLAVOURS[flavour].cuda or cuda),
        ("CUTE_DSL_DISABLE_FILE_CACHING", "1"),
        ("PYTHONHASHSEED", "0"),
        ("OMP_NUM_THREADS", "1"),
        (NO_CARD, "1"),
    )


class Lacking(NotImplementedError):
    """What this FA4 has no function or argument for: said by its signatures, not by the call."""


# What a person has set for their own work must not reach the compiler.
_STEERING = ("FA_", "FLASH_ATTENTION_", "CUTE_", "QUACK_")


def open_answers(*keep: str) -> TextIO:
    """The start of every worker: its stream of answers, one line of JSON each.

    Whatever a compiler prints goes to stderr from here on, so that it cannot mix with the answers.
    """
    forget_personal_settings(*keep)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def serve(answers: TextIO, answer: Callable[[Any], Any]) -> None:
    """Say that this process is ready; then a line of JSON for each line of JSON, until there are no more."""
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")


def forget_personal_settings(*more: str) -> None:
    """Remove every variable that steers FA4, the DSL or quack, but the target's own and those in `more`."""
    keep = {name for name, _ in target_environment("sm_90", "cu12")} | set(more)
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
    index_without_a_device(torch)
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


def index_without_a_device(torch: Any) -> None:
    """Let fake CUDA tensors be sliced: torch's own `tensor[...]` asks for the device, which is not there.

    The same views by torch's operators; an index by a tensor or a list stays torch's own.
    """
    real = torch.Tensor.__getitem__

    def indexed(tensor: Any, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        plain = all(part is None or part is ... or type(part) in (int, slice) for part in parts)
        return _view(torch, tensor, parts) if plain and tensor.device.type == "cuda" else real(tensor, index)

    torch.Tensor.__getitem__ = indexed


def _view(torch: Any, tensor: Any, parts: tuple[Any, ...]) -> Any:
    """`tensor[parts]` of numbers, slices, None and one ellipsis."""
    named = sum(part is not None and part is not ... for part in parts)
    rest = [slice(None)] * (tensor.dim() - named)
    place = parts.index(...) if ... in parts else len(parts)
    dim = 0
    for part in (*parts[:place], *rest, *parts[place + 1 :]):
        if part is None:
            tensor = tensor.unsqueeze(dim)
        elif isinstance(part, int):
            tensor = tensor.select(dim, part)
            continue
        elif part != slice(None):
            tensor = torch.ops.aten.slice.Tensor(tensor, dim, *part.indices(tensor.shape[dim]))
        dim += 1
    return tensor


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as text; `refused` when FA4 itself said no (an assertion or NotImplementedError)."""
    frames = traceback.extract_tb(error.__traceback__)
    own = bool(frames) and "flash_attn/cute/" in frames[-1].filename.replace(os.sep, "/")
    refused = isinstance(error, Lacking) or (own and isinstance(error, (AssertionError, NotImplementedError)))
    # The DSL colours its errors, terminal or not.
    message = without_places(" ".join(without_colours(str(error)).split()))[:400]
    if not message and frames:
        message = f"{frames[-1].line or 'assertion'} ({Path(frames[-1].filename).name}:{frames[-1].lineno})"
    return {"kind": type(error).__name__, "words": message, "refused": refused}
