"""Waiting for what happens in other processes."""

from __future__ import annotations

import time


def until(true, seconds: float = 20) -> None:
    for _ in range(round(10 * seconds)):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError(f"did not happen within {seconds:g} s")
