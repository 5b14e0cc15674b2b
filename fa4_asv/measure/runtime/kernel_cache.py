"""The disk caches of compiled kernels, FA4's and CUDA's: where they lie, and the variables that switch them on.

FA4's key knows its sources and the compiler's version, but not the CUDA flavour: each toolchain has a folder of its own.
CUDA's lies in the home by default, which each process has for itself; cuDNN's kernels then compile for 20 s in each.
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
        ("CUDA_CACHE_PATH", str(Path(folder) / "cuda")),
    )
