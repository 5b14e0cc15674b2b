"""The figures of a compiled kernel, by name and unit; which calls are short; how large an error of an answer may be."""

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

# No element of an answer may be further from MATH in fp32 than this many times what MATH in the low dtype is, plus
# rounding. Twice: FA4 keeps P in the low dtype and sums in another order, which MATH in that dtype does as well.
# Sidecars keep errors as multiples of MATH's own.
TIMES_OWN_ERROR = 2.0
