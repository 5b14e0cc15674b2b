"""A stand-in for `cute.compile` that compiles nothing: FA4's host code then runs in milliseconds.

For instruments that ask what the host code does (what it allocates, whom it calls), not what it compiles.
"""

from __future__ import annotations

from typing import Any


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
