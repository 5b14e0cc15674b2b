"""Everything that is measured, in one table: which benchmark, which figures, for which cases, on whose name.

Writers (measure, asv_plugin, backfill) and readers (verify, changes, pages) look it up here. A *case* is
the tuple of a benchmark's parameters; in a sidecar its key is those words joined by "/".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from fa4_asv.catalog.kernels import ARCHES, BEYOND, CASES, KERNEL_GROUPS, KernelGroup
from fa4_asv.catalog.launch import LAUNCH_CALLS, STEPS
from fa4_asv.catalog.metrics import LOOP_METRICS, METRICS
from fa4_asv.catalog.shapes import (
    HOST_SHAPES,
    SdpaShape,
    core,
    for_accuracy,
    for_cpu,
    further,
    history,
    history_more,
    models,
    serving_on_card,
    serving_on_cpu,
    shapes_on_card,
    standard,
)

Case = tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """`stem` + metric is asv's benchmark; `metrics` maps a metric to (unit, title); lower is better.

    `exact` figures are the same wherever they are made and stand under machine `nogpu`; others belong
    to the machine whose clock measured them. `device` ("cuda", "cpu"), `backward` and `what` are those of run-time
    groups: what one process measures of a case, see measure/runtime/worker.py. `version` is the only
    version number of its benchmarks: asv is told it, and the caches of measured records and of refused answers have it in their
    key. Raise it when cases, inputs, stand-ins, guard or what is read or timed change meaning; what an older one recorded is missing then.
    `flavours` are those under which it is recorded, none for all: what the compiler's libraries cannot change is recorded once.
    `read_from` names the group of the kernels that these figures are read from, "" for none: the states of such a group
    say whether there was something to read, and nothing new of FA4. A measured case may lack a metric; its `notes` say why.
    A group `on_request` is measured where `--bench` selects it, and never without patterns.
    """

    name: str
    stem: str
    metrics: dict[str, tuple[str, str]]
    cases: tuple[Case, ...]
    exact: bool = True
    device: str = ""
    backward: bool = False
    what: str = ""
    version: str = "1"
    flavours: tuple[str, ...] = ()
    read_from: str = ""
    on_request: bool = False

    @property
    def timed(self) -> bool:
        """Whether its seconds are those of attention on a card or a CPU: `turn` is a short round, as a sweep takes it."""
        return self.what in ("seconds", "turn")

    def is_of(self, flavour: str) -> bool:
        """Whether it is recorded under a CUDA flavour."""
        return not self.flavours or flavour in self.flavours

    def benchmark(self, metric: str) -> str:
        """The name of the benchmark that holds `metric`."""
        return self.stem + metric

    def selected(self, patterns: Sequence[str]) -> list[Case]:
        """The cases that asv's `--bench` patterns select, matched as asv matches; without patterns all, or none of a
        group that is measured on request."""
        if self.on_request and not patterns:
            return []
        return [case for case in self.cases if self.selected_metrics(case, patterns)]

    def selected_metrics(self, case: Case, patterns: Sequence[str]) -> list[str]:
        """The metrics of `case` whose benchmark a pattern selects; all without patterns."""
        return [
            metric
            for metric in self.metrics
            if not patterns
            or any(re.search(pattern, self.benchmark(metric) + self._words(case)) for pattern in patterns)
        ]

    def _words(self, case: Case) -> str:
        return "" if self.only_case else f"({', '.join(map(repr, case))})"

    @property
    def only_case(self) -> str:
        """The key of a group with one case, whose benchmark then has no parameters; else ""."""
        return key_of(self.cases[0]) if len(self.cases) == 1 else ""


def key_of(case: Case) -> str:
    return "/".join(case)


_DIRECTIONS = ("fwd", "bwd")
_STANDARD = {
    "d64": standard(64),
    "d128": standard(128),
    "d192_128": standard(192, 128),
    "d256": standard(256),
}

# Of traced memory and of its growth, which are read from the same traces. Measured peaks are compared with them as
# well (`untraced_bytes`): raise the version of `allocated`, too.
_TRACE_VERSION = "1"

# What is traced: direction, then the shape. Full attention stands for causal: a mask allocates nothing.
TRACED: dict[str, tuple[bool, SdpaShape]] = {
    f"{direction}_{shape.name}": (direction == "bwd", shape)
    for direction in _DIRECTIONS
    for shape in [*(shape for shapes in _STANDARD.values() for shape in shapes), *models()]
}

# The same of a CPU, where only a stand-in of FA4 runs.
CPU_CALLS: dict[str, tuple[bool, SdpaShape]] = {
    f"{direction}_{shape.name}": (direction == "bwd", shape)
    for direction in _DIRECTIONS
    for shape in for_cpu()
}


def traced_call(name: str) -> tuple[bool, SdpaShape]:
    """Whether it is a backward, and the shape, of one of TRACED or CPU_CALLS."""
    return TRACED[name] if name in TRACED else CPU_CALLS[name]


# Traced cases that differ in nothing but how a fixed number of tokens is cut into sequences.
FAMILIES: dict[str, tuple[str, ...]] = {
    f"{direction}_{dims}": tuple(f"{direction}_{shape.name}" for shape in shapes)
    for direction in _DIRECTIONS
    for dims, shapes in _STANDARD.items()
}

# PyTorch releases whose SDPA can be asked to run FA4 (activate_flash_attention_impl), the last patch of each.
TORCHES = ("2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0")

# Groups whose cases name a torch: each is measured by the torches at hand.
BY_TORCH = ("route", "route-varlen", "route-flex")
# How a note of these begins where torch or FA4 says no, beside checks that are broken.
REFUSED = "refused: "

# Calls whose compile time is watched: plain, varlen, a whole backward, and one with GQA's extra kernels.
TIMED_CALLS = ("fwd_d128_full", "fwd_d128_causal_varlen", "bwd_d128_causal", "bwd_d128_causal_gqa4")

# Processes a turn with which each is timed: the fewest with which asv's Mann-Whitney test can tell anything.
SAMPLES = 6
# What a record says where those of a call are children of one process: they share its random offset and count as one.
CHILDREN = "children of one that has imported FA4"

SECONDS = {"seconds": ("seconds", "seconds")}

# Backends beside FA4 are yardsticks: few shapes, since they do not change with FA4.
YARDSTICKS = ("fa4-sdpa", "fa2", "cudnn", "efficient", "math")
YARD_SHAPES = tuple(
    shape.name
    for shape in core()
    if shape.seq_len == 8192 or (shape.seq_len == 1024 and shape.head_dim == 128)
)


def names(shapes: Iterable[SdpaShape], backward: bool) -> tuple[str, ...]:
    """Names of those that a direction has: not every variant has a backward, and one is nothing else."""
    return tuple(
        shape.name
        for shape in shapes
        if (shape.has_backward if backward else shape.variant != "deterministic")
    )


KINDS = ("gaussian", "hard")  # of inputs
CPU_BACKENDS = ("fa4", "fa2", "math")


def _timed() -> list[Group]:
    """Seconds of forward and backward, each as core, further, yardsticks and on a CPU."""
    sets = {
        "Core": ("", ("fa4",), core(), "cuda"),
        "Further": ("-further", ("fa4",), further(), "cuda"),
        "Yardsticks": (
            "-yardsticks",
            YARDSTICKS,
            [shape for shape in core() if shape.name in YARD_SHAPES],
            "cuda",
        ),
        "Cpu": ("-cpu", CPU_BACKENDS, for_cpu(), "cpu"),
    }
    return [
        Group(
            direction + suffix,
            f"{direction}.{title}.track_",
            SECONDS,
            tuple(product(backends, names(shapes, direction == "backward"))),
            exact=False,
            device=device,
            backward=direction == "backward",
            what="seconds",
        )
        for direction in ("forward", "backward")
        for title, (suffix, backends, shapes, device) in sets.items()
    ]


# Sets of a sweep: the groups of each.
SWEEP_SETS = {
    "history": ("forward-history", "backward-history"),
    "more": ("forward-history-more", "backward-history-more"),
    "serving": ("forward-serving",),
    "shapes": ("forward-shapes", "backward-shapes"),
    "cpu": ("forward-history-cpu", "backward-history-cpu"),
    "serving-cpu": ("forward-serving-cpu",),
}
CPU_SETS = ("cpu", "serving-cpu")  # timed on a processor, each alone


def _swept() -> list[Group]:
    """Seconds of the same call from release to release, which a sweep takes in turns."""
    sets = {
        "History": ("-history", history(), "cuda"),
        "HistoryMore": ("-history-more", history_more(), "cuda"),
        "HistoryCpu": ("-history-cpu", for_cpu(), "cpu"),
    }
    return [
        Group(
            direction + suffix,
            f"{direction}.{title}.track_",
            SECONDS,
            tuple(("fa4", shape.name) for shape in shapes),
            exact=False,
            device=device,
            backward=direction == "backward",
            what="turn",
            # 1: long calls were timed at the card's power limit, after warm-ups without a rest. 2: longer rests; the control
            # spun as long as the call.
            version="3",
        )
        for direction in ("forward", "backward")
        for title, (suffix, shapes, device) in sets.items()
    ]


def _beside_the_history() -> list[Group]:
    """Seconds of what servers, video and new models ask for: by sweep, on request."""
    sets = (
        ("Serving", "forward", serving_on_card(), "cuda"),
        ("Shapes", "forward", shapes_on_card(), "cuda"),
        ("Shapes", "backward", shapes_on_card(), "cuda"),
        ("ServingCpu", "forward", serving_on_cpu(), "cpu"),
    )
    return [
        Group(
            f"{direction}-{title.replace('Cpu', '-cpu').lower()}",
            f"{direction}.{title}.track_",
            SECONDS,
            tuple(("fa4", shape.name) for shape in shapes),
            exact=False,
            device=device,
            backward=direction == "backward",
            what="turn",
            on_request=True,
        )
        for title, direction, shapes, device in sets
    ]


# How a call is made that costs the host: as it stands, or as a CUDA graph that has recorded it.
LAUNCHES = ("eager", "graph")


def _decode_host() -> Group:
    decoded = [shape.name for shape in serving_on_card() if shape.seq_len == 1]
    return Group(
        "decode-host",
        "decode.Host.track_",
        SECONDS,
        tuple(product(LAUNCHES, decoded)),
        exact=False,
        device="cuda",
        what="decode-host",
        on_request=True,
    )


def _errors() -> list[Group]:
    """Errors of out, and of dQ, dK and dV, on a card and on a CPU."""
    error = "MATH's own error"
    sets = {
        "": ("", ("fa4", "fa4-sdpa"), for_accuracy(), "cuda"),
        "Cpu": ("-cpu", CPU_BACKENDS, for_cpu(), "cpu"),
    }
    return [
        Group(
            f"accuracy-{direction}{suffix}",
            f"accuracy.{direction.title()}{title}.track_",
            {name: (error, f"error of {name}") for name in tensors},
            tuple(product(backends, (shape.name for shape in shapes), KINDS)),
            exact=False,
            device=device,
            backward=direction == "backward",
            what="errors",
        )
        for direction, tensors in (("forward", ("out",)), ("backward", ("dq", "dk", "dv")))
        for title, (suffix, backends, shapes, device) in sets.items()
    ]


PEAK = {"peak_bytes": ("bytes", "peak memory")}
TRACE = {**PEAK, "extra_bytes": ("bytes", "memory beyond inputs and outputs")}


def _beyond_the_core() -> list[Group]:
    """Kernels of the other groups of calls, each with its loops, and what these calls allocate."""
    return [
        *(_kernels_of(KERNEL_GROUPS[name]) for name in BEYOND),
        *(_traces_of(KERNEL_GROUPS[name]) for name in TRACED_GROUPS),
    ]


def _beyond_sdpa() -> list[Group]:
    """The ways to FA4 that are not SDPA: packed sequences, and FlexAttention; and both on a card."""
    metrics = {"broken": ("checks", "broken checks"), "refused": ("checks", "refused checks")}
    cases = tuple(product(TORCHES, ARCHES))
    ways = [
        Group(f"route-{way.lower()}", f"beyond_sdpa.{way}.track_", metrics, cases, on_request=True)
        for way in ("Varlen", "Flex")
    ]
    card = Group(
        "route-beyond-card",
        "beyond_sdpa.Card.track_",
        metrics,
        (("varlen",), ("flex",)),
        exact=False,
        device="cuda",
        what="route-beyond",
        on_request=True,
    )
    return [*ways, card]


def _kernels_of(group: KernelGroup) -> Group:
    cases = tuple(product(group.arches, group.cases))
    return Group(group.name, group.stem, {**METRICS, **LOOP_METRICS}, cases, on_request=True)


def _traces_of(group: KernelGroup) -> Group:
    calls = dict.fromkeys(case.call.name for case in group.cases.values())
    return Group(
        f"{group.name}-memory",
        f"{group.name}.Traced.track_",
        TRACE,
        tuple(product(group.arches, calls)),
        version=_TRACE_VERSION,
        on_request=True,
    )


# Other architectures allocate what these do.
TRACED_GROUPS = ("serving", "flex", "mla", "dims")

_GROUPS = (
    Group(
        "codegen",
        "codegen.Kernels.track_",
        METRICS,
        tuple(product(ARCHES, CASES)),
    ),
    # Kernels around a backward have no iteration loop.
    Group(
        "loops",
        "codegen.Loops.track_",
        LOOP_METRICS,
        tuple(product(ARCHES, (name for name, case in CASES.items() if case.role == "main"))),
        read_from="codegen",
    ),
    Group(
        "memory",
        "memory.Traced.track_",
        TRACE,
        tuple(product(ARCHES, TRACED)),
        version=_TRACE_VERSION,
    ),
    Group(
        "growth",
        "memory.Growth.track_",
        {"growth_bytes": ("bytes", "growth of peak memory with the sequence")},
        tuple(product(ARCHES, FAMILIES)),
        version=_TRACE_VERSION,
    ),
    Group(
        "route",
        "route.Sdpa.track_",
        {"broken": ("checks", "broken checks")},
        tuple(product(TORCHES, ARCHES)),
    ),
    *_beyond_the_core(),
    *_beyond_sdpa(),
    Group(
        "launch",
        "launch.Contract.track_",
        {
            "compiles": ("kernels", "kernels compiled anew"),
            "host_reads": ("reads", "host reads of the card"),
            "allocations": ("allocations", "allocations on the card"),
        },
        tuple(product(ARCHES, LAUNCH_CALLS, STEPS)),
        flavours=("cu13",),
    ),
    Group(
        "compile",
        "compile.Jit.track_",
        SECONDS,
        tuple(product(ARCHES, TIMED_CALLS)),
        exact=False,
        version="2",  # 1: the process of each sample imported FA4 itself
    ),
    Group("import", "compile.Import.track_", SECONDS, (("flash_attn.cute",),), exact=False),
    *_timed(),
    *_swept(),
    *_beside_the_history(),
    _decode_host(),
    *_errors(),
    Group(
        "allocated",
        "memory.Allocated.track_",
        {**PEAK, "untraced_bytes": ("bytes", "distance of the peak from its trace")},
        tuple(product(ARCHES, TRACED)),
        exact=False,
        device="cuda",
        what="bytes",
    ),
    Group(
        "allocated-cpu",
        "memory.AllocatedCpu.track_",
        PEAK,
        tuple(("cpu", name) for name in CPU_CALLS),
        exact=False,
        device="cpu",
        what="bytes",
    ),
    Group(
        "route-card",
        "route.Card.track_",
        {"broken": ("checks", "broken checks")},
        (("bf16",), ("fp16",)),
        exact=False,
        device="cuda",
        what="route",
    ),
    Group(
        "route-host",
        "route.Host.track_",
        SECONDS,
        tuple((direction, shape.name) for direction in _DIRECTIONS for shape in HOST_SHAPES),
        exact=False,
        device="cuda",
        what="host",
    ),
)
GROUPS = {group.name: group for group in _GROUPS}


def group_of(benchmark: str) -> tuple[Group, str] | None:
    """The group and metric of one of asv's benchmark names; None for a benchmark that is none of ours."""
    for group in _GROUPS:
        metric = benchmark.removeprefix(group.stem)
        if metric != benchmark and metric in group.metrics:
            return group, metric
    return None
