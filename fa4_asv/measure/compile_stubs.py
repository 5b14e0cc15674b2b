"""Stand-ins for `cute.compile`: one that counts what is compiled, one that compiles nothing.

Counting is for a clock: no kernel may be compiled while it runs. Compiling nothing is for instruments that ask
what the host code does (what it allocates, whom it calls), which then runs in milliseconds.
"""

from __future__ import annotations

from typing import Any

_compiled = [0]


def compile_counter() -> Any:
    """How many kernels FA4 has asked the DSL for so far."""
    return lambda: _compiled[0]


def count_compiles() -> None:
    """Wrap `cute.compile`, before FA4 is imported, where there is a DSL at all."""
    try:
        import cutlass.cute as cute
    except ImportError:
        return
    real = cute.compile

    class Counted:
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            _compiled[0] += 1
            return real(*args, **kwargs)

        def __getitem__(self, options: Any) -> Any:
            chosen = real[options]

            def compile_with(*args: Any, **kwargs: Any) -> Any:
                _compiled[0] += 1
                return chosen(*args, **kwargs)

            return compile_with

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    cute.compile = Counted()


class NeverLaunched:
    """Stands where a compiled kernel would: does nothing when called, and is asked for anything."""

    def __call__(self, *_: Any, **__: Any) -> None:
        """A launch on fake tensors has nothing to do."""

    def __getattr__(self, name: str) -> Any:
        # copy, pickle and inspect probe dunder names and must not be told that they exist
        if name.startswith("__"):
            raise AttributeError(name)
        return NeverLaunched()


class CompileNothing:
    """`cute.compile = CompileNothing(cute.compile)` before FA4 is imported.

    Called, it answers with a do-nothing kernel; `cute.compile[options]` is the same stand-in; anything
    else is the real function's.
    """

    def __init__(self, compile_function: Any = None) -> None:
        self._compile = compile_function
        self.asked = 0

    def __call__(self, *_: Any, **__: Any) -> NeverLaunched:
        self.asked += 1
        return NeverLaunched()

    def __getitem__(self, options: Any) -> CompileNothing:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compile, name)
