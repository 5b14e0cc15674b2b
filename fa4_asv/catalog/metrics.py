"""The figures of a compiled kernel: what they are called and in which unit; and which calls are short."""

from __future__ import annotations

# metric: (unit, title). Lower is better, always.
METRICS = {
    "spill_bytes": ("bytes", "spill (stack frame)"),
    "local_loads": ("instructions", "local loads"),
    "local_stores": ("instructions", "local stores"),
    "instructions": ("instructions", "instructions"),
    "text_bytes": ("bytes", "code size"),
    "registers": ("registers", "registers"),
}

# Seconds. Longer calls bring a Hopper card to its power limit: they rest longer, and their noise is told apart.
SHORT_CALL = 2.5e-3
