"""A Hopper or Blackwell card and this suite: do they agree? One JSON line a finding, to stdout.

    PYTHONPATH=<source of a release>:. python tools/gpu_check.py --release 4.0.0b36 --flavour cu13

Runs with the interpreter that holds torch, FA4's toolchain and a card. For every core shape: guard, kernel
names, seconds by CUDA events and by the profiler, TFLOP/s, peak memory measured and traced (from results/). Then
whether the card compiles the cubins that the record holds. `--shapes REGEX` narrows; `--seconds` bounds the
whole: what is left over is named.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

DUMP = tempfile.mkdtemp(prefix="fa4-cubins-")
os.environ["CUTE_DSL_KEEP_CUBIN"], os.environ["CUTE_DSL_DUMP_DIR"] = "1", DUMP

import torch  # noqa: E402 - the DSL reads its variables when it is imported

from fa4_asv.base.project import Project  # noqa: E402
from fa4_asv.catalog.shapes import SHAPES, core  # noqa: E402
from fa4_asv.measure.runtime import worker  # noqa: E402
from fa4_asv.measure.runtime.backends import backend  # noqa: E402
from fa4_asv.measure.runtime.inputs import make  # noqa: E402
from fa4_asv.record.store import iter_results, read_sidecar, sidecar_path  # noqa: E402


def say(what: str, **found: Any) -> None:
    print(json.dumps({"what": what, **found}), flush=True)


def recorded(release: str, flavour: str) -> dict[str, Any]:
    """Groups of the committed sidecar of a release."""
    for path in iter_results(Project.find().results, "nogpu"):
        sidecar = read_sidecar(sidecar_path(path))
        key = (sidecar.release, sidecar.toolchain.flavour, sidecar.toolchain.policy)
        if key == (release, flavour, "day"):
            return sidecar.groups
    sys.exit(f"no record of {release} {flavour} in results/")


def kernel_seconds(call: Any) -> float:
    """Seconds of all kernels of one call, by the profiler; the median of five calls."""
    found = []
    for _ in range(5):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            call()
            torch.cuda.synchronize()
        found.append(sum(event.device_time for event in profile.events()) / 1e6)
    return median(found)


def peak(name: str, backward: bool) -> int:
    """Bytes allocated at the peak of one call, inputs included, as `memory.Traced` defines them."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    inputs = make(torch, SHAPES[name], "cuda")
    calls = backend("fa4").prepare(torch, inputs)
    # dout is there, but no input of a forward.
    beside = 0 if backward else inputs.dout.numel() * inputs.dout.element_size()
    if backward:
        calls.raw_backward()  # keeps out and lse, as a backward's inputs
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    (calls.raw_backward if backward else calls.raw_forward)()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before - beside


def one(name: str, which: str, backward: bool, timer: Any, control: Any, groups: dict[str, Any]) -> None:
    direction = "bwd" if backward else "fwd"
    job = {"backend": which, "shape": name, "backward": backward, "device": "cuda"}
    begin = time.monotonic()
    try:
        answer = guarded = worker.guard_case(torch, job)
        if "error" not in guarded:
            answer = worker.time_case(torch, job, timer, control)
    except Exception as error:
        say("failed", case=f"{which} {direction} {name}", words=f"{type(error).__name__}: {error}"[:400])
        return
    if "error" in answer:
        say("refused", case=f"{which} {direction} {name}", words=answer["error"]["words"][:300])
        return
    samples = answer["samples"]["seconds"]
    seconds = median(samples)
    calls = backend(which).prepare(torch, make(torch, SHAPES[name], "cuda"))
    call = calls.raw_backward if backward else calls.raw_forward
    call()
    by_profiler = kernel_seconds(call)
    found = {
        "seconds": seconds,
        "samples": len(samples),
        "spread": (max(samples) - min(samples)) / seconds,
        "profiler": by_profiler,
        "tflops": SHAPES[name].flops(backward) / seconds / 1e12,
        "control": answer["control"],
        "errors": {key: round(value, 2) for key, value in (guarded["errors"] | answer["errors"]).items()},
        "words": answer["words"],
        "took": time.monotonic() - begin,
    }
    del calls, call
    if which == "fa4":
        found["peak"] = peak(name, backward)
        traced = groups.get("memory", {}).get(f"sm_90/{direction}_{name}")
        found["traced"] = traced.figures.get("peak_bytes") if traced else None
    say("timed", case=f"{which} {direction} {name}", **found)


def cubins(groups: dict[str, Any]) -> None:
    """Which of the cubins that this process compiled stand in the record of the card's architecture."""
    known = {record.sha256: key for key, record in groups["codegen"].items() if record.sha256}
    found = {}
    for path in Path(DUMP).rglob("*.cubin"):
        found[path.name[-60:]] = known.get(hashlib.sha256(path.read_bytes()).hexdigest(), "not in the record")
    say("cubins", found=found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--release", default="4.0.0b36")
    parser.add_argument("--flavour", default="cu13")
    parser.add_argument("--shapes", default="")
    parser.add_argument("--backends", default="fa4")
    parser.add_argument("--seconds", type=float, default=3600)
    arguments = parser.parse_args()
    groups = recorded(arguments.release, arguments.flavour)
    worker.count_compiles()
    properties = torch.cuda.get_device_properties(0)
    say("machine", card=properties.name, sms=properties.multi_processor_count, torch=torch.__version__)
    timer, control = worker.timer_of(torch, "cuda"), worker.control_of(torch, "cuda")
    begin = time.monotonic()
    for shape in core():
        if not re.search(arguments.shapes, shape.name):
            continue
        for which in arguments.backends.split(","):
            for backward in (False, True):
                if time.monotonic() - begin > arguments.seconds:
                    say("left over", case=f"{which} {'bwd' if backward else 'fwd'} {shape.name}")
                    continue
                one(shape.name, which, backward, timer, control, groups)
    cubins(groups)


if __name__ == "__main__":
    main()
