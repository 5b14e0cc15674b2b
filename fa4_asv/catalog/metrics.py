"""The figures of a compiled kernel: what they are called and in which unit."""

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
