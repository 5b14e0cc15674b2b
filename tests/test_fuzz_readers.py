"""tests/proofs/fuzz_readers.py finds what it is there to find."""

from __future__ import annotations

import time

import pytest

from fa4_asv.base.errors import Fa4AsvError
from tests.proofs import fuzz_readers
from tests.support import fuzzing


def raising(error: Exception):
    def read(path):
        if b"==" in path.read_bytes():
            return path
        raise error

    return read


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (KeyError("x"), "lock: KeyError at test_fuzz_readers.py"),
        (RecursionError(), "lock: RecursionError at test_fuzz_readers.py"),
        (Fa4AsvError("two\nlines"), "lock: AssertionError at fuzzing.py"),
        (Fa4AsvError("\x1b[2J"), "lock: AssertionError at fuzzing.py"),
    ],
)
def test_a_planted_fault_is_found_and_told_once(monkeypatch, capsys, error, key):
    monkeypatch.setattr(fuzz_readers, "EXAMPLES", 60)
    monkeypatch.setitem(fuzzing.READERS, "lock", raising(error))
    counts, result = fuzz_readers.fuzz(["lock"], time.monotonic() + 1, 1)
    (told,) = result
    assert told.startswith(key)
    assert capsys.readouterr().out.count("seed 1") == 1
    assert counts["lock"]["taken"] > 0


def test_a_reader_that_refuses_in_one_line_is_sound(monkeypatch):
    monkeypatch.setattr(fuzz_readers, "EXAMPLES", 20)
    counts, result = fuzz_readers.fuzz(["lock", "machine"], time.monotonic() + 0.5, 1)
    assert result == {} and counts["lock"].total() > 0
