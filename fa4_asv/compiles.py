"""How many kernels FA4 has asked the DSL for: none may be compiled while a clock runs."""

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
