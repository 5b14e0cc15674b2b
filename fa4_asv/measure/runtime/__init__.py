"""Correctness, seconds, errors and peak memory of kernels that run."""
