"""The card's state beside a sample: SM clock, power, temperature and why it is held back. Only ever read.

NVML comes with every driver and answers within a millisecond, so that a reading falls into the burst that it
describes; NVIDIA's own module pynvml (nvidia-ml-py) asks it. nvidia-smi, 50 times slower, is the fallback where the
driver's library does not answer. Nothing here sets a clock, a power limit or a mode.
"""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fa4_asv.base.errors import Fa4AsvError

# NVML's clocksThrottleReasons bits that reject a sample. Not among them: idle (0x1), clocks that a person set
# (0x2) and the display's (0x100), which do not come and go within a run; and the software power cap (0x4), which
# an H200 reports for every burst of a fast kernel while its clock stays within a few steps of the top. How far
# the clock really fell is judged from the clock itself; that the cap was reported is told.
POWER_CAP = 0x4
REASONS = {
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
_SMI_FIELDS = "clocks.sm,power.draw,temperature.gpu,clocks_throttle_reasons.active"
_SMI_TIMEOUT = 10.0


@dataclass(frozen=True)
class Reading:
    """None for what the card does not tell; `throttled` is "" where nothing holds it back."""

    sm_mhz: float | None = None
    watts: float | None = None
    celsius: float | None = None
    throttled: str = ""
    capped: bool = False  # the software power cap steered the clock


ClockReader = Callable[[], Reading]


def no_clocks() -> Reading:
    """Of a machine without a card."""
    return Reading()


def reasons_in_words(bits: int) -> str:
    """ "hardware slowdown, sync boost" for 0x18; "" where only harmless bits are set."""
    return ", ".join(text for bit, text in REASONS.items() if bits & bit)


def clock_reader(uuid: str) -> ClockReader:
    """A reader of the card with this UUID, with or without "GPU-" before it (torch leaves it out).

    By UUID, since CUDA_VISIBLE_DEVICES renumbers cards for CUDA alone. Raises Fa4AsvError without pynvml, and where
    neither NVML nor nvidia-smi answers: a time without clocks cannot be told from a throttled one.
    """
    uuid = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    nvml = _pynvml()
    try:
        return NvmlReader(nvml, uuid)
    except nvml.NVMLError as error:
        reader = SmiReader(uuid)
        try:
            reader()
        except Fa4AsvError as other:
            raise Fa4AsvError(f"cannot read the clocks of card {uuid}: {error}; {other}") from other
        return reader


def _pynvml() -> Any:
    try:
        return importlib.import_module("pynvml")  # by name: most machines that import this file have no card
    except ImportError:
        raise Fa4AsvError(
            "no clocks: this Python has no pynvml; `pip install nvidia-ml-py` into the environment that holds torch, "
            "or write the project of the pack anew (`fa4-asv pack --project-only`)"
        ) from None


class NvmlReader:
    """Through the driver's own library; `nvml` is the module pynvml, or a stand-in. Raises its NVMLError."""

    def __init__(self, nvml: Any, uuid: str) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._card = nvml.nvmlDeviceGetHandleByUUID(uuid)

    def __call__(self) -> Reading:
        milliwatts = self._ask("PowerUsage")
        reasons = self._ask("CurrentClocksThrottleReasons") or 0
        return Reading(
            sm_mhz=self._ask("ClockInfo", self._nvml.NVML_CLOCK_SM),
            watts=None if milliwatts is None else milliwatts / 1000,
            celsius=self._ask("Temperature", self._nvml.NVML_TEMPERATURE_GPU),
            throttled=reasons_in_words(reasons),
            capped=bool(reasons & POWER_CAP),
        )

    def _ask(self, name: str, *arguments: int) -> int | None:
        """One figure; None where this card does not tell it."""
        try:
            return int(getattr(self._nvml, f"nvmlDeviceGet{name}")(self._card, *arguments))
        except self._nvml.NVMLError:
            return None


class SmiReader:
    """Through nvidia-smi; a reading takes tens of milliseconds and describes the end of a burst."""

    def __init__(self, uuid: str, program: str = "nvidia-smi") -> None:
        self._command = [
            program,
            f"--id={uuid}",
            f"--query-gpu={_SMI_FIELDS}",
            "--format=csv,noheader,nounits",
        ]

    def __call__(self) -> Reading:
        try:
            done = subprocess.run(self._command, capture_output=True, text=True, timeout=_SMI_TIMEOUT)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Fa4AsvError(f"nvidia-smi: {error}") from error
        fields = [field.strip() for field in done.stdout.strip().split(",")]
        if done.returncode or len(fields) != len(_SMI_FIELDS.split(",")):
            message = (done.stdout + done.stderr).strip()[:200]
            raise Fa4AsvError(f"nvidia-smi answered {message!r}")
        clock, watts, celsius = (_number(field) for field in fields[:3])
        bits = _bits(fields[3])
        return Reading(clock, watts, celsius, reasons_in_words(bits), bool(bits & POWER_CAP))


def _number(field: str) -> float | None:
    """None for "[N/A]" and its like."""
    try:
        return float(field)
    except ValueError:
        return None


def _bits(field: str) -> int:
    try:
        return int(field, 16)
    except ValueError:
        return 0
