"""FA4's disk cache of compiled kernels: where it lies, and the variables that switch it on.

FA4's key knows its sources and the compiler's version, but not the CUDA flavour: each toolchain has a folder of its own.
"""

from __future__ import annotations

from pathlib import Path


def folder_of(work: Path, digest: str) -> Path:
    """The folder of a toolchain's kernels below a checkout's `.asv`."""
    return work / "cache" / "fa4-kernels" / digest


def variables(folder: Path | str) -> tuple[tuple[str, str], ...]:
    """What a process is told, so that it compiles nothing that another has compiled."""
    return (
        ("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1"),
        ("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(folder)),
    )
