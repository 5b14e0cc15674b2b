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

# Of the iteration loops of a main kernel (measure/kernels/loops.py). A kernel may lack some: its `notes` say why.
LOOP_METRICS = {
    "turn_instructions": ("instructions", "instructions per turn"),
    "masked_instructions": ("instructions", "instructions per masked turn"),
    "spills_inside": ("instructions", "spilled accesses inside loops"),
    "spills_outside": ("instructions", "spilled accesses outside loops"),
    "slots_per_100_products": ("issue slots", "issue slots per 100 matrix instructions"),
}
OF_ALL_LOOPS = "loops"  # the note that says why a kernel has none of them
LOOP_DIGITS = 16  # of a cubin's digest, kept beside its loops
NO_KERNEL = "no kernel: codegen has the reason"  # why there are no loops
# Figures of a turn: comparable only where a turn does the same work.
TURN_METRICS = frozenset({"turn_instructions", "masked_instructions", "slots_per_100_products"})

# Seconds. Longer calls bring a Hopper card to its power limit: they rest longer, and their noise is told apart.
SHORT_CALL = 2.5e-3

# No element of an answer may be further from MATH in fp32 than this many times what MATH in the low dtype is, plus
# rounding. Twice: FA4 keeps P in the low dtype and sums in another order, which MATH in that dtype does as well.
# Sidecars keep errors as multiples of MATH's own.
TIMES_OWN_ERROR = 2.0
