"""Figures of compiled kernels: spills, loads, stores, instructions, registers, code size."""
