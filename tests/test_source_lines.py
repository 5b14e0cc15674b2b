"""Places in the source are looked up once a place, and the answers are inspect's own."""

from __future__ import annotations

import inspect

import pytest

from fa4_asv.measure.source_lines import remember_source_lines


@pytest.fixture
def lookups(monkeypatch):
    """The frames that the real `getframeinfo` was asked for."""
    asked = []
    real = inspect.getframeinfo

    def counted(frame, context=1):
        asked.append(frame)
        return real(frame, context)

    monkeypatch.setattr(inspect, "getframeinfo", counted)
    remember_source_lines()
    return asked, real


def halted():
    return (yield), (yield)


def test_a_place_is_looked_up_once_and_the_answer_is_inspects_own(lookups):
    asked, real = lookups
    generator = halted()
    next(generator)
    for _ in range(3):
        ours, theirs = inspect.getframeinfo(generator.gi_frame), real(generator.gi_frame)
        assert ours == theirs and ours.positions == theirs.positions
    assert len(asked) == 1
    first = ours.positions
    generator.send(None)
    # Another place on the same line, and more lines around it, are other answers.
    second = inspect.getframeinfo(generator.gi_frame)
    assert second.lineno == ours.lineno and second.positions != first
    assert inspect.getframeinfo(generator.gi_frame, 3).code_context != second.code_context
    assert len(asked) == 3


def test_equal_code_of_two_files_is_told_apart(lookups, tmp_path):
    files = []
    for name in ("a.py", "b.py"):
        path = tmp_path / name
        path.write_text("import inspect, sys\nfound = inspect.getframeinfo(sys._getframe()).filename\n")
        scope = {}
        exec(compile(path.read_text(), str(path), "exec"), scope)
        files.append(scope["found"])
    assert files == [str(tmp_path / "a.py"), str(tmp_path / "b.py")]


def test_a_traceback_is_passed_on(lookups):
    asked, real = lookups
    try:
        raise ValueError
    except ValueError as error:
        traceback = error.__traceback__
    assert inspect.getframeinfo(traceback) == real(traceback)
    assert asked == [traceback]
