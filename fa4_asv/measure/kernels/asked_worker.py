"""The process that makes FA4's calls and compiles nothing: what each would have had compiled.

Started as `python -m fa4_asv.measure.kernels.asked_worker` with the target architecture and torch's CUDA in the
environment. Reads a JSON line {"calls": [names]}, answers {name: a digest of what reached the compiler}.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fa4_asv.catalog.kernels import CALLS
from fa4_asv.measure.compile_stubs import NeverLaunched, compile_nothing, stand_in_without_a_card
from fa4_asv.measure.driver_stubs import describe, open_answers, serve
from fa4_asv.measure.fake_calls import make_call
from fa4_asv.measure.kernels.worker import clear_compiled

_DEEP = 5  # a kernel holds its settings at its first level; what is deeper are types and layouts


class Noting:
    """What is done in the place of `cute.compile`: what it is given is noted, and nothing is compiled."""

    def __init__(self) -> None:
        self.noted: list[Any] = []

    def __call__(self, _real: Any, *args: Any, **kwargs: Any) -> NeverLaunched:
        self.noted.append([plain(args), plain(kwargs)])
        return compile_nothing()


def plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON without addresses: numbers and words as they are, objects as their type and attributes."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, type) or hasattr(value, "__code__"):
        return value.__qualname__
    name = type(value).__qualname__
    if depth >= _DEEP:
        return name
    if isinstance(value, (tuple, list)):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    return [
        name,
        {key: plain(item, depth + 1) for key, item in sorted(getattr(value, "__dict__", {}).items())},
    ]


def noted_of(torch: Any, interface: Any, call: str, noting: Noting) -> str:
    """The digest of what one call gives to the compiler, and of its error where it raises one."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    noting.noted = []
    clear_compiled(interface)
    error = None
    try:
        with FakeTensorMode():
            make_call(torch, interface, CALLS[call])
    except Exception as caught:
        error = describe(caught)
    return hashlib.sha256(json.dumps([noting.noted, error], sort_keys=True).encode()).hexdigest()


def main() -> None:
    answers = open_answers()
    import torch

    noting = Noting()
    stand_in_without_a_card(torch, noting)
    from flash_attn.cute import interface

    def answer(job: dict[str, Any]) -> dict[str, str]:
        return {call: noted_of(torch, interface, call, noting) for call in job["calls"]}

    serve(answers, answer)


if __name__ == "__main__":
    main()
