"""Waiting for what happens in other processes."""

from __future__ import annotations

import time


def until(true) -> None:
    for _ in range(200):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("did not happen within 20 s")
