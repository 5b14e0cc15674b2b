"""Whole outputs kept as files, made of fixed records that tests invent; the growing record changes none of them.

After a change of an output that is meant: `GOLDEN=write python -m pytest tests/test_x.py`, then read the difference in git.
"""

from __future__ import annotations

import os

from tests.support import ROOT

FOLDER = ROOT / "tests" / "golden"


def assert_golden(name: str, text: str) -> None:
    """`text` is what the file says, to the last byte."""
    path = FOLDER / name
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
