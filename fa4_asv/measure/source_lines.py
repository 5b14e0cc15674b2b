"""Source lines of frames, looked up once: what the DSL asks for each operation of a kernel.

DSL 4.5.2 and 4.6.0 take the place of each of a kernel's operations (tens of thousands) from
`inspect.getframeinfo`, which walks the code's positions from the start and searches the file by regular
expression: a third to three quarters of a compile's seconds. DSL 4.8.1 has a quick look-up of its own. The answers are
the same, and with them the kernels: all 188 of b15 and b20 have the recorded cubins. Never used where compile
time itself is the figure.
"""

from __future__ import annotations

import inspect
from types import CodeType, FrameType
from typing import Any


def remember_source_lines() -> None:
    """From here on `inspect.getframeinfo` looks up each place in each code object once."""
    look_up: Any = inspect.getframeinfo
    # By identity: code objects of two files may compare equal. Kept beside the answer, so that no id is given twice.
    known: dict[tuple[int, int, int], tuple[CodeType, Any]] = {}

    def remembered(frame: Any, context: int = 1) -> Any:
        if not isinstance(frame, FrameType):
            return look_up(frame, context)
        place = (id(frame.f_code), frame.f_lasti, context)
        if place not in known:
            known[place] = (frame.f_code, look_up(frame, context))
        return known[place][1]

    inspect.getframeinfo = remembered
