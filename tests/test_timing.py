"""Bursts, rests, controls, compiles and clocks, on a simulated card; the real one where there is one."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec

import pynvml
import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.measure.runtime import clocks
from fa4_asv.measure.runtime.clocks import NvmlReader, Reading, SmiReader, clock_reader, reasons_in_words
from fa4_asv.measure.runtime.timing import (
    CONTROL_BURST,
    FIRST_SPIN,
    FLUSH,
    LONG,
    Counts,
    CpuTimer,
    CudaTimer,
    Pace,
    measure,
)
from tests.support.simulated_clock import SimulatedCard, SimulatedCuda


def test_bursts_controls_and_rests_take_turns():
    card = SimulatedCard(within=0)
    timing = measure(card.kernel(1e-3), card, card.kernel(5e-4, "control"), rest=card.rest)
    turns = card.log[card.log.index("rest") :]
    work = ["call"] * 10 + ["control"] * round(CONTROL_BURST / 5e-4) + ["rest"]
    assert turns == ["rest", *work * (len(timing.samples.accepted) - 1)]
    assert timing.samples.seconds == pytest.approx([1e-3] * len(timing.samples.accepted))
    assert len(timing.samples.accepted) == pytest.approx(25, abs=1)
    assert timing.control == pytest.approx(5e-4)
    assert timing.notes["calls a sample"] == "10" and timing.notes["power"] == "cool-down"
    assert timing.notes["sm clock"] == "1980 to 1980 MHz, median 1980"
    assert card.rested == pytest.approx(len(timing.samples.accepted) * (10e-3 + CONTROL_BURST))


CALM = Pace(burst=4e-3, control_burst=5e-4, warm_ups=2, rest=0.5, long_rest=1.5, control_wakes=True)


@pytest.mark.parametrize(("seconds", "share"), [(1e-3, CALM.rest), (8e-3, CALM.long_rest)])
def test_a_calm_pace_wakes_by_the_control_and_rests_after_every_burst(seconds, share):
    """A long call never runs twice without a rest between: what it heats would be in the first samples."""
    card = SimulatedCard(within=0)
    timing = measure(card.kernel(seconds), card, card.kernel(5e-4, "control"), rest=card.rest, pace=CALM)
    count, before = timing.counts.call, " ".join(card.log).split("rest")
    assert (seconds >= LONG) == (count == 1)
    assert all(part.split().count("call") <= count for part in before)
    samples = [part.split() for part in before if part.split().count("control") > 1 and "call" in part]
    assert samples and all(part == ["control", *["call"] * count, "control"] for part in samples[-3:])
    assert card.rested >= share * len(timing.samples.accepted) * count * seconds


def test_known_counts_need_no_warm_up():
    card = SimulatedCard(within=0)
    counts = measure(card.kernel(1e-3), card, card.kernel(5e-4, "control"), rest=card.rest, pace=CALM).counts
    card.log.clear()
    again = measure(
        card.kernel(1e-3), card, card.kernel(5e-4, "control"), rest=card.rest, pace=CALM, counts=counts
    )
    assert counts == again.counts == Counts(4, 1)
    assert card.log[:3] == ["control", "call", "rest"], "one call, since its inputs are new"
    assert card.log[3:9] == ["control", *["call"] * 4, "control"]


def test_the_same_seed_gives_the_same_samples():
    def seconds(seed: int) -> list[float]:
        card = SimulatedCard(seed)
        return measure(card.kernel(1e-3), card, rest=card.rest).samples.seconds

    assert seconds(1) == seconds(1) != seconds(2)


def test_a_short_call_fills_a_burst_of_limited_length():
    card = SimulatedCard()
    assert measure(card.kernel(5e-6), card, rest=card.rest).notes["calls a sample"] == "64"
    long = measure(card.kernel(0.08), card, rest=card.rest)
    assert long.notes["calls a sample"] == "1" and len(long.samples.accepted) == 20


def test_drift_and_modes_are_told():
    drifting = SimulatedCard(disturb=lambda now: 1 + 0.03 * now)
    notes = measure(drifting.kernel(1e-3), drifting, rest=drifting.rest).notes
    assert "drifts: the last third is" in notes["notes"]
    switching = SimulatedCard(disturb=lambda now: 1.03 if int(now / 0.1) % 2 else 1.0)
    timing = measure(switching.kernel(1e-3), switching, rest=switching.rest)
    assert timing.samples.two_modes in timing.notes["notes"] and timing.samples.two_modes


def test_another_call_may_wake_the_card():
    torch = SimulatedCuda(launch=1e-6, work=1e-4)
    timer = CudaTimer(torch, lambda: Reading())
    burst = timer.burst(torch.call, 2, wake=lambda: torch._queue("wake", 1e-4))
    assert torch.order[:2] == ["event", "wake"] and torch.order.count("call") == len(burst.seconds) == 2


def test_a_disturbed_call_does_not_reach_the_sample():
    rare = SimulatedCard(disturb=lambda now: 4.0 if int(now * 1000) % 37 == 0 else 1.0)
    timing = measure(rare.kernel(1e-3), rare, rest=rare.rest)
    assert timing.samples.centre == pytest.approx(1e-3, rel=2e-3) and "notes" not in timing.notes


def test_a_throttled_burst_is_rejected_with_its_reason():
    def throttles(now: float) -> bool:
        return int(now / 0.1) % 3 == 0

    card = SimulatedCard(
        disturb=lambda now: 1.2 if throttles(now) else 1.0,
        reading=lambda now: Reading(
            1500.0 if throttles(now) else 1980.0, throttled="hardware slowdown" * throttles(now)
        ),
    )
    timing = measure(card.kernel(1e-3), card, card.kernel(5e-4), rest=card.rest)
    assert timing.samples.centre == pytest.approx(1e-3, rel=2e-3) and timing.samples.rejected
    assert timing.control == pytest.approx(5e-4, rel=2e-3)
    assert timing.notes["rejected"] == str(len(timing.samples.rejected))
    assert "hardware slowdown" in timing.notes["rejected for"]


def test_a_card_that_only_throttles_has_no_figure_and_no_control():
    card = SimulatedCard(reading=lambda now: Reading(1200.0, throttled="hardware slowdown"))
    timing = measure(card.kernel(1e-3), card, card.kernel(5e-4), rest=card.rest)
    assert timing.samples.broken.startswith("throttled: 5") and timing.samples.seconds == []
    assert timing.control is None and "control: throttled" in timing.notes["notes"]


def test_a_compile_while_timing_is_an_error():
    card = SimulatedCard()
    kernel, compiled = card.kernel(1e-3), []

    def compiles_again() -> None:
        kernel()
        compiled.append(1)

    with pytest.raises(Fa4AsvError, match="compiled 10 more times while timing"):
        measure(compiles_again, card, compiles=lambda: len(compiled), rest=card.rest)
    first_only = measure(kernel, card, compiles=lambda: 3, rest=card.rest)
    assert not first_only.samples.broken


def test_what_a_call_raises_passes_through():
    with pytest.raises(ZeroDivisionError):
        measure(lambda: 1 / 0, CpuTimer(), rest=lambda seconds: None)


def test_the_cpu_timer_times_each_call():
    ticks = iter(range(100))
    burst = CpuTimer(clock=lambda: float(next(ticks))).burst(lambda: None, 3)
    assert burst.seconds == (1.0, 1.0, 1.0) and burst.busy == 7.0 and burst.reading == Reading()


def cuda_timer(launch: float, work: float, waits: bool = False) -> tuple[SimulatedCuda, CudaTimer]:
    torch = SimulatedCuda(launch, work, waits)
    return torch, CudaTimer(torch, lambda: Reading(1980.0))


def test_each_call_is_flushed_spun_and_bracketed():
    torch, timer = cuda_timer(5e-6, 20e-6)
    assert torch.flushed == FLUSH * torch.L2
    burst = timer.burst(torch.call, 2)
    bracket = ["flush", "spin", "event", "call", "event"]
    assert torch.order == ["event", "call", *bracket, *bracket, "event"]
    assert burst.seconds == pytest.approx((20e-6, 20e-6)) and burst.reading.sm_mhz == 1980.0


@pytest.mark.parametrize("launch", [5e-6, 80e-6, 700e-6])
def test_what_a_launch_costs_the_host_is_not_in_the_figure(launch):
    torch, timer = cuda_timer(launch, 20e-6)
    timing = measure(torch.call, timer, rest=lambda seconds: None)
    assert timing.samples.centre == pytest.approx(20e-6) and "notes" not in timing.notes


def test_the_control_spins_only_as_long_as_its_own_launch_needs():
    torch, timer = cuda_timer(700e-6, 20e-6)

    def gemm() -> None:
        torch.host += 5e-6
        torch._queue("gemm", 100e-6)

    timing = measure(
        torch.call, timer, gemm, beside=timer.beside, warm=timer.quiet(), rest=lambda seconds: None, pace=CALM
    )
    assert timing.samples.centre == pytest.approx(20e-6) and timing.control == pytest.approx(100e-6)
    assert timer.spin > 700e-6 * torch.HERTZ / 2 and timer.beside.spin == FIRST_SPIN
    assert timer.beside is timer.beside, "what it has learned lasts"


def test_a_call_that_waits_for_the_card_is_told():
    torch, timer = cuda_timer(50e-6, 20e-6, waits=True)
    timing = measure(torch.call, timer, rest=lambda seconds: None)
    assert "the launch could not be hidden" in timing.notes["notes"]
    assert timing.samples.centre > 20e-6


class Nvml:
    """The module pynvml as far as it is read; it has nothing that sets."""

    NVMLError = pynvml.NVMLError
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = pynvml.NVML_CLOCK_SM, pynvml.NVML_TEMPERATURE_GPU

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != "GPU-1":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return "card"

    def nvmlDeviceGetPowerUsage(self, card):
        return 412_500

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, card):
        return 0x24

    def nvmlDeviceGetClockInfo(self, card, kind):
        return {pynvml.NVML_CLOCK_SM: 1980}[kind]

    def nvmlDeviceGetTemperature(self, card, sensor):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def test_nvml_is_read():
    assert NvmlReader(Nvml(), "GPU-1")() == Reading(1980.0, 412.5, None, "software thermal slowdown", True)
    with pytest.raises(pynvml.NVMLError, match="Not Found"):
        NvmlReader(Nvml(), "GPU-2")


def test_nvmls_module_has_all_that_is_asked_of_it():
    """The stand-in above is no proof of the real module's names."""
    asked = [name for name in vars(Nvml) if name.startswith(("nvml", "NVML_"))]
    assert len(asked) == 8 and all(hasattr(pynvml, name) for name in asked)


def test_without_pynvml_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(Fa4AsvError, match="no pynvml; `pip install nvidia-ml-py`") as refused:
        clock_reader("1")
    assert "\n" not in str(refused.value)


def test_nvidia_smi_is_the_fallback(tmp_path, monkeypatch):
    def missing():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!{sys.executable}\nprint("1755, [N/A], 61, 0x0000000000000044")\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert clock_reader("1")() == Reading(1755.0, None, 61.0, "hardware thermal slowdown", True)
    program.write_text(f'#!{sys.executable}\nprint("No devices were found")\n')
    with pytest.raises(
        Fa4AsvError,
        match="cannot read the clocks of card GPU-1: .*Shared Library Not Found.*No devices were found",
    ):
        clock_reader("1")
    with pytest.raises(Fa4AsvError, match="nvidia-smi: "):
        SmiReader("GPU-1", str(tmp_path / "none"))()


def test_harmless_reasons_are_none():
    assert reasons_in_words(0x1 | 0x2 | 0x100) == ""
    assert clocks.no_clocks() == Reading()


@pytest.mark.slow
def test_a_real_card_times_a_gemm():
    """Event time of a known amount of work; also shows that clocks are read while the card works."""
    if not find_spec("torch"):
        pytest.skip("needs torch")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA card")
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(512, 512, device="cuda", dtype=torch.bfloat16)
    timer = CudaTimer(torch, clock_reader(str(torch.cuda.get_device_properties(0).uuid)))
    big = measure(lambda: a @ a, timer, control=lambda: a[:2048] @ a)
    small = measure(lambda: b @ b, timer)
    print(big.samples.centre, small.samples.centre, big.control, big.notes, small.notes)
    assert not big.samples.broken and not small.samples.broken
    assert "sm clock" in big.notes and big.control
    # No card multiplies faster than 5 PFLOP/s, and a small GEMM ends far below a launch's 5 us of host time.
    assert 2 * 8192**3 / 5e15 < big.samples.centre < 0.1
    assert math.isfinite(small.samples.centre) and small.samples.centre < 50e-6
