"""Work in a child of a process that has imported FA4 and compiled nothing: as in a new process, without the import."""

from __future__ import annotations

import json
import os
import resource
import traceback
from collections.abc import Callable
from typing import Any

from fa4_asv.base.launcher import end_with


def in_a_child(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `action` answers in a forked child, with the processor seconds it used. Where that dies, this process does likewise."""
    before, parent = _used_by_children(), os.getpid()
    source, target = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            end_with(parent)
            os.write(target, json.dumps(action()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(target)
    with open(source, "rb") as stream:  # noqa: PTH123 - a pipe, not a file
        answer = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        os.kill(os.getpid(), -code)
    if code:
        # Who started this reads the last output on stderr, and how it ended.
        os._exit(code)
    return {**json.loads(answer), "used": _used_by_children() - before}


def _used_by_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
