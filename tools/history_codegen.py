"""What codegen says of a call's kernels, against what the clock says: for docs/history.md."""

from __future__ import annotations

from collections import Counter

from history_record import (
    ARCH,
    BACKWARD,
    LARGE,
    Call,
    History,
    Release,
    Swept,
    change,
    shape_of,
    table,
    told,
)

from fa4_asv.catalog.kernels import main_kernel
from fa4_asv.compare.rows import Row


def kernels_of(call: Call) -> list[str]:
    """The watched kernels that a call runs, the main one first; none where its main kernel is not watched."""
    size, backward = shape_of(call), call[0] == BACKWARD
    main = main_kernel(size, backward)
    if not main or not backward:
        return [main] if main else []
    dim = "d192_128" if size.head_dim != size.head_dim_v else f"d{size.head_dim}"
    packed = "_varlen" if size.packed else ""
    result = [main, f"bwd_pre_{dim}{packed}", f"bwd_post_dq_{dim}{packed}"]
    if size.kv_heads != size.num_heads:
        result.append("bwd_post_dkv_d128_gqa4")
    return result


def shown(history: History, before: Release, after: Release, call: Call) -> tuple[str, str, str]:
    """What codegen and the cause files say of the main kernel: instructions, spills, what moved the former."""
    kernels = kernels_of(call)
    if not kernels:
        return "not watched", "–", "–"
    result = [_moved(history, before, after, kernels[0], name) for name in ("instructions", "spill_bytes")]
    return result[0], result[1], _cause(history, before, after, kernels[0])


def _moved(history: History, before: Release, after: Release, kernel: str, metric: str) -> str:
    old, new = (history.code(name, kernel).figures[metric] for name in (before, after))
    return f"{old:,}" if old == new else f"{old:,} -> {new:,}"


def _cause(history: History, before: Release, after: Release, kernel: str) -> str:
    sides = [history.codegen[name].sidecar.toolchain.digest for name in (before, after)]
    pair = history.causes.get((before, after))
    result = pair.cases.get(f"{ARCH}/{kernel}", {}).get("instructions") if pair else None
    if result:
        return result.cause
    return "source" if sides[0] == sides[1] else "unknown"


MOVES = (
    "fewer by 2 % or more",
    "fewer",
    "as many, other code",
    "more",
    "more by 2 % or more",
    "same machine code",
    "no kernel watched",
)


def move_of(history: History, before: Release, after: Release, call: Call) -> str:
    """How the machine code behind a call changed: one of MOVES, by the instructions of its main kernel."""
    kernels = kernels_of(call)
    if not kernels:
        return MOVES[6]
    sides = [[history.code(name, kernel) for kernel in kernels] for name in (before, after)]
    if [each.sha256 for each in sides[0]] == [each.sha256 for each in sides[1]]:
        return MOVES[5]
    old, new = (side[0].figures["instructions"] for side in sides)
    if old == new:
        return MOVES[2]
    return (MOVES[1], MOVES[3])[new > old] if abs(new / old - 1) < LARGE else (MOVES[0], MOVES[4])[new > old]


def spills_of(history: History, before: Release, after: Release, call: Call) -> str:
    kernels = kernels_of(call)
    if not kernels:
        return ""
    old, new = (history.code(name, kernels[0]).figures["spill_bytes"] for name in (before, after))
    return "" if old == new else "fewer" if new < old else "more"


def clocked(row: Row) -> str:
    """The row of the table that a verdict belongs to."""
    if not told(row):
        return row.verdict
    return f"{row.verdict}, {'2 % or more' if abs(change(row)) >= LARGE else 'below 2 %'}"


def crossed(history: History) -> list[str]:
    count, spills = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for pair in history.first.steps:
        for call, row in history.first.rows(*pair).items():
            count[clocked(row), move_of(history, *pair, call)] += 1
            spills[clocked(row), spills_of(history, *pair, call)] += 1
    names = (
        "faster, 2 % or more",
        "faster, below 2 %",
        "same",
        "unclear",
        "slower, below 2 %",
        "slower, 2 % or more",
    )
    rows = [
        (
            name,
            *(str(count[name, move]) for move in MOVES),
            str(spills[name, "fewer"]),
            str(spills[name, "more"]),
        )
        for name in names
    ]
    return table(f"clock | {' | '.join(MOVES)} | spills: fewer | spills: more", rows, 1)


def unchanged(history: History, swept: Swept) -> tuple[int, int]:
    """False alarms, and of how many steps: all kernels of a call are the same machine code on both sides."""
    result = [
        row
        for pair in swept.steps
        for call, row in swept.rows(*pair).items()
        if row.ratio is not None and move_of(history, *pair, call) == MOVES[5]
    ]
    return sum(map(told, result)), len(result)
