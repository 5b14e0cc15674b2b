"""What a process that runs attention answers, and what every question to it begins with."""

from __future__ import annotations

from typing import Any

from fa4_asv.catalog.shapes import SHAPES, SdpaShape
from fa4_asv.measure.runtime.backends import Backend, backend

Answer = dict[str, Any]


def refused(message: str) -> Answer:
    return {
        "error": {"kind": "unsupported", "words": message, "refused": True, "guard": False, "fatal": False}
    }


def broken(kind: str, message: str, guard: bool = False, fatal: bool = False) -> Answer:
    """`fatal`: the process can answer nothing more."""
    return {"error": {"kind": kind, "words": message, "refused": False, "guard": guard, "fatal": fatal}}


def measured(samples: dict[str, list[float]], notes: dict[str, str] | None = None, **more: Any) -> Answer:
    """Six digits are a millionth; the events tell half a microsecond."""
    short = {name: [float(f"{value:.6g}") for value in values] for name, values in samples.items()}
    return {"samples": short, "control": None, "errors": {}, "words": notes or {}, **more}


def chosen(torch: Any, job: dict[str, Any]) -> tuple[Backend | None, SdpaShape, str]:
    """The backend and shape of a job, and why they cannot be had together here, "" where they can."""
    shape, device = SHAPES[job["shape"]], job["device"]
    if device == "cuda" and not torch.cuda.is_available():
        return None, shape, "needs a CUDA GPU, this machine has none that torch can use"
    each_backend = backend(job["backend"])
    return each_backend, shape, each_backend.why_not(torch, shape, device, job["backward"])


def card_arch(torch: Any) -> str:
    """The architecture that FA4 compiles for on this card, such as "sm_90"."""
    major, _ = torch.cuda.get_device_capability()
    return f"sm_{major}0"
