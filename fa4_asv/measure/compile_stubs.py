"""One stand-in for `cute.compile`, and what can be done in its place: count, compile nothing, do without a driver.

Counting is for a clock: no kernel may be compiled while it runs. Compiling nothing is for instruments that ask
what the host code does (what it allocates, whom it calls), which then runs in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fa4_asv.measure.driver_stubs import stand_in_for_the_driver

_compiled = [0]


class CompileStub:
    """`cute.compile = CompileStub(cute.compile, compile_with)`, before FA4 is imported.

    Called with a kernel, it gives what `compile_with(real, kernel, ...)` gives. `cute.compile[options]` is such a
    stand-in, too; anything else is the real function's.
    """

    def __init__(self, real: Any, compile_with: Callable[..., Any]) -> None:
        self._real, self._compile_with = real, compile_with

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compile_with(self._real, *args, **kwargs)

    def __getitem__(self, options: Any) -> CompileStub:
        return CompileStub(self._real[options], self._compile_with)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def compiles_so_far() -> int:
    """How many kernels FA4 has asked the DSL for in this process, where that is counted."""
    return _compiled[0]


def compile_counter() -> Callable[[], int]:
    return compiles_so_far


def counted(real: Any, *args: Any, **kwargs: Any) -> Any:
    """Compile, and count it."""
    _compiled[0] += 1
    return real(*args, **kwargs)


def count_compiles() -> None:
    """Count from here on, where there is a DSL at all; before FA4 is imported."""
    try:
        import cutlass.cute as cute
    except ImportError:
        return
    cute.compile = CompileStub(cute.compile, counted)


class NeverLaunched:
    """Stands where a compiled kernel would: does nothing when called, and is asked for anything."""

    def __call__(self, *_: Any, **__: Any) -> None:
        """A launch on fake tensors has nothing to do."""

    def __getattr__(self, name: str) -> Any:
        # copy, pickle and inspect probe dunder names and must not be told that they exist
        if name.startswith("__"):
            raise AttributeError(name)
        return NeverLaunched()


def compile_nothing(*_: Any, **__: Any) -> NeverLaunched:
    """A kernel that does nothing, in no time."""
    return NeverLaunched()


def stand_in_without_a_card(torch: Any, compile_with: Callable[..., Any] = compile_nothing) -> None:
    """The GPU of the environment's architecture for torch and the DSL, and `compile_with` in the place of `cute.compile`."""
    import cutlass.cute as cute
    from cutlass.utils import HardwareInfo

    stand_in_for_the_driver(torch, HardwareInfo)
    cute.compile = CompileStub(cute.compile, compile_with)


def without_driver(compile_kernel: Callable[[], Any], is_there: Callable[[], bool] = lambda: True) -> Any:
    """What `compile_kernel` gives. DSL 4.4 compiles, and then fails to load the kernel without a driver: where
    `is_there` says that it was written, a kernel that must not be launched stands for it."""
    try:
        return compile_kernel()
    except Exception as error:
        if "CudaDriverDependencyError" not in f"{type(error).__name__} {error}" or not is_there():
            raise
        return _never_run


def _never_run(*_: Any, **__: Any) -> None:
    raise RuntimeError("a kernel compiled without a driver was launched")
