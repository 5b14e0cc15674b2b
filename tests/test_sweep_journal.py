"""Journals of a sweep: lines that a kill tore, lines of others, a full disk; and the record that they add up to."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.measure.runtime import journal
from fa4_asv.measure.runtime.journal import Plan
from fa4_asv.record.schema import CaseRecord
from tests.support import journals
from tests.support.journals import BACKWARD, FORWARD, WORDS, first, one_round, session


def whole(call: str = FORWARD) -> list[dict[str, Any]]:
    """Everything that two processes of two rounds write."""
    rounds = [one_round(slot, 2 * slot + number, call) for slot in range(2) for number in range(2)]
    profiled = journals.kernels(call, {"kernel main": [9e-4]})
    return [session(), first(call), *rounds, *([profiled] if call == BACKWARD else [])]


# Lines.


@pytest.fixture
def path(tmp_path):
    return tmp_path / "card" / "c-fa4.jsonl"


def test_what_is_appended_is_read(path):
    assert journal.read(path) == []
    for entry in whole():
        journal.append(path, entry)
    assert journal.read(path) == whole()


@pytest.mark.fault(
    kind="a kill while a sweep writes its journal",
    inputs="at any byte (hypothesis)",
    happens="costs the line that it tore",
)
@given(cut=st.integers(0, 10_000), after=st.booleans())
def test_a_kill_at_any_byte_costs_the_line_that_it_tore(tmp_path_factory, cut, after):
    path = tmp_path_factory.mktemp("torn") / "j.jsonl"
    for entry in whole():
        journal.append(path, entry)
    content = path.read_bytes()[: cut % (path.stat().st_size + 1)]
    path.write_bytes(content)
    # A last line that lost nothing but its end is whole.
    whole_lines = [entry for entry in whole() if (json.dumps(entry, sort_keys=True)).encode() in content]
    assert journal.read(path) == whole_lines
    if after:
        journal.append(path, first(BACKWARD))
        assert journal.read(path) == [*whole_lines, first(BACKWARD)]


FOREIGN = [
    b"",
    b"no JSON",
    b"[]",
    b"null",
    b'"text"',
    b"{}",
    b'{"kind": 3}',
    b'{"kind": "first"}',
    b'{"kind": "first", "call": "a", "record": []}',
    b'{"kind": "first", "call": "a", "record": {"state": "fine"}}',
    b'{"kind": "round", "call": "a"}',
    b'{"kind": "session", "words": {}}',
    b'{"kind": "session", "processes": "2", "rounds": 3, "words": {}}',
    b'{"kind": "failed", "call": ["a"], "why": ""}',
    b'{"kind": "kernels", "call": "a", "samples": {"kernel main": "x"}}',
    b"\xff\xfe\x00",
    b"[" * 60_000,
    b'{"kind":' * 7_000,
    b"1" * 50_000,
    json.dumps(first() | {"more": "x" * 70_000}).encode(),
    json.dumps(one_round(0, 0, seconds=[1e-3, float("nan")])).encode(),
    json.dumps(one_round(0, 0, seconds=[10**400])).encode(),
    json.dumps(one_round(0, 0, control="fast")).encode(),
    json.dumps(one_round(0, 0, process=True)).encode(),
    json.dumps(one_round(0, 0, round=10**400)).encode(),
    json.dumps(one_round(0, -1)).encode(),
]


@pytest.mark.parametrize("line", FOREIGN, ids=range(len(FOREIGN)))
def test_a_line_that_no_sweep_wrote_is_left_out(path, line):
    for entry in whole():
        journal.append(path, entry)
    content = path.read_bytes()
    for spoilt in (content + line, line + b"\n" + content):
        path.write_bytes(spoilt)
        assert journal.read(path) == whole()


@pytest.mark.fault(
    kind="a journal of a sweep with other content",
    inputs="random bytes (hypothesis)",
    happens="lines that no sweep wrote are left out",
)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_content_ends_in_a_traceback(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "j.jsonl"
    path.write_bytes(content)
    entries = journal.read(path)
    assert journal.record_of(entries, FORWARD) is None


values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["state", "seconds", "x"]), inner)
    ),
    max_leaves=8,
)


@given(st.sampled_from(whole(BACKWARD)), st.data())
def test_a_field_of_another_kind_spoils_no_reader(tmp_path_factory, entry, data):
    path = tmp_path_factory.mktemp("field") / "j.jsonl"
    name = data.draw(st.sampled_from(sorted(entry)))
    lines = [*whole(BACKWARD), entry | {name: data.draw(values)}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    entries = journal.read(path)
    for call in (FORWARD, BACKWARD):
        record = journal.record_of(entries, call)
        assert record is None or CaseRecord.from_json(record.to_json()) == record
        assert journal.newest_record([(entries, entries)], call) == journal.record_of(entries, call, entries)


@pytest.mark.fault(
    kind="a journal of a sweep that is not a file of usual size",
    inputs="a pipe, a folder, a huge file",
    happens="one line, at once",
)
def test_a_pipe_a_folder_and_a_huge_file_are_refused_at_once(tmp_path):
    pipe, folder, huge = tmp_path / "pipe", tmp_path / "folder", tmp_path / "huge"
    os.mkfifo(pipe)
    folder.mkdir()
    with huge.open("wb") as stream:
        stream.truncate((1 << 26) + 1)
    for place, message in (
        (pipe, "is a pipe or device"),
        (folder, "is a folder"),
        (huge, "more than 67,108,864 bytes"),
    ):
        with pytest.raises(Fa4AsvError, match=message):
            journal.read(place)
    for place in (pipe, folder):
        with pytest.raises(Fa4AsvError, match=r"cannot write .*; what was measured before is kept"):
            journal.append(place, session())


def test_a_line_that_nobody_would_read_is_not_written(path):
    journal.append(path, session())
    with pytest.raises(Fa4AsvError, match="expected at most 65536"):
        journal.append(path, first() | {"more": "x" * 70_000})
    assert journal.read(path) == [session()]


@pytest.mark.fault(
    kind="a full disk under a sweep's journal",
    inputs="before and in the middle of a line",
    happens="one line; what stood there is kept",
)
@pytest.mark.parametrize("fits", [0, 20])
def test_a_full_disk_is_one_line_and_what_stood_there_is_kept(path, monkeypatch, fits):
    """Nothing of the line fits, or its first bytes."""
    journal.append(path, session())
    write = os.write

    def full(handle: int, line: bytes) -> int:
        if not fits:
            raise OSError(28, "No space left on device")
        return write(handle, line[:fits])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Fa4AsvError, match=r"o space left.*; what was measured before is kept"):
        journal.append(path, first())
    monkeypatch.undo()
    assert journal.read(path) == [session()]
    journal.append(path, first())
    assert journal.read(path) == [session(), first()]


# What is left to do, and the record.


@pytest.mark.parametrize("call", [FORWARD, BACKWARD])
def test_a_call_is_complete_with_its_last_line_and_not_before(call):
    lines = whole(call)
    for count in range(len(lines)):
        assert not journal.is_complete(lines[:count], call, Plan(2, 2))
        assert journal.record_of(lines[:count], call) is None
    assert journal.is_complete(lines, call, Plan(2, 2))
    assert not journal.is_complete(lines, call, Plan(2, 3)) and not journal.is_complete(
        lines, call, Plan(3, 2)
    )
    assert journal.record_of([*lines, session(rounds=3)], call) is None, "the newest session's plan counts"


def test_what_a_slot_lacks_is_counted_by_slot():
    lines = [session(), first(), one_round(0, 0), one_round(0, 1), one_round(1, 2)]
    assert [journal.lacking(lines, FORWARD, Plan(2, 2), slot) for slot in range(2)] == [0, 1]
    assert [journal.lacking(lines, FORWARD, Plan(2, 5), slot) for slot in range(2)] == [3, 4]
    assert [journal.lacking(lines, BACKWARD, Plan(2, 2), slot) for slot in range(2)] == [2, 2]
    assert [journal.lacking([*lines, one_round(1, 3), one_round(1, 4)], FORWARD, Plan(2, 2), 1)] == [0]


def test_the_record_of_a_complete_call():
    record = journal.record_of(whole(BACKWARD), BACKWARD)
    rounds = [line for line in whole(BACKWARD) if line["kind"] == "round"]
    assert record is not None and record.state == "measured"
    expected = {
        "seconds": [value for line in rounds for value in line["seconds"]],
        "centre": [line["seconds"][1] for line in rounds],
        "kept": [3, 3, 3, 3],
        "two modes": [0, 0, 0, 0],
        "process": [0, 0, 1, 1],
        "round": [0, 1, 2, 3],
        "order": [3, 3, 3, 3],
        "control": [1e-4] * 4,
        "first_seconds": [0.5],
        "peak_bytes": [1024],
        "kernel main": [9e-4],
    }
    assert record.samples == expected
    assert record.notes == {**WORDS, "error out": "0.1"}


UNSUPPORTED = CaseRecord("unsupported", why="unsupported: head_dim 256")
WRONG = CaseRecord("broken", why="guard: dq is 1.0")


@pytest.mark.parametrize("verdict", [UNSUPPORTED, WRONG])
def test_what_never_passed_the_guard_has_no_round_and_says_where_that_was_found(verdict):
    lines = [session(), first(FORWARD, verdict)]
    assert journal.is_complete(lines, FORWARD, Plan())
    assert [journal.lacking(lines, FORWARD, Plan(), slot) for slot in range(2)] == [0, 0]
    assert journal.record_of(lines, FORWARD) == replace(verdict, notes=WORDS)
    assert journal.is_broken(lines, FORWARD) == (verdict is WRONG)


def failed(why: str, call: str = FORWARD) -> dict[str, Any]:
    return journals.failed(call, why)


def test_a_call_that_fails_after_some_rounds_is_broken_by_the_first_reason():
    lines = [session(), first(), one_round(0, 0), failed("the context died"), failed("later")]
    assert journal.record_of(lines, FORWARD) == CaseRecord("broken", why="the context died", notes=WORDS)
    assert journal.is_broken(lines, FORWARD) and not journal.lacking(lines, FORWARD, Plan(), 1)
    assert not journal.is_broken(lines, BACKWARD), "another call is not touched"


def test_a_call_that_is_asked_again_begins_anew():
    """A round from before the failure stood beside a process that was about to die."""
    before = [session(), first(), one_round(0, 0), failed("the context died"), first(at=3.0)]
    assert not journal.is_broken(before, FORWARD)
    assert [journal.lacking(before, FORWARD, Plan(2, 2), slot) for slot in range(2)] == [2, 2]
    after = [*before, *(one_round(slot, 5 + 2 * slot + n) for slot in range(2) for n in range(2))]
    record = journal.record_of([*after, session()], FORWARD)
    assert record is not None and record.samples["round"] == [5, 6, 7, 8]


def test_a_noisy_round_is_left_out_and_nothing_but_noise_is_broken():
    noisy = {"seconds": [], "control": None, "why": "17 of 20 samples were rejected"}
    some = [session(), first(), one_round(0, 0, **noisy), *(one_round(n > 1, n) for n in (1, 2, 3))]
    record = journal.record_of(some, FORWARD)
    assert record is not None and record.samples["round"] == [1, 2, 3]
    assert not journal.is_broken(some, FORWARD)
    every = [session(), first(), *(one_round(n > 1, n, **noisy) for n in range(4))]
    record = journal.record_of(every, FORWARD)
    assert record is not None and (record.state, record.why) == ("broken", "17 of 20 samples were rejected")
    assert journal.is_broken(every, FORWARD)


def test_rounds_of_a_replaced_process_and_too_many_of_them_are_all_kept():
    lines = [session(), first(), one_round(0, 0), one_round(0, 1, process=1), *whole()[4:]]
    lines.append(one_round(1, 7, process=2))
    record = journal.record_of(lines, FORWARD)
    assert record is not None
    assert record.samples["process"] == [0, 1, 1, 1, 2] and record.samples["round"] == [0, 1, 2, 3, 7]
    assert len(record.samples["seconds"]) == sum(record.samples["kept"]) == 15


def test_a_control_that_is_missing_in_one_round_is_left_out():
    lines = [session(), first(), *(one_round(n > 1, n, control=None if n == 2 else 1e-4) for n in range(4))]
    record = journal.record_of(lines, FORWARD)
    assert record is not None and "control" not in record.samples


def test_notes_of_rounds_are_told_once_and_not_without_end():
    lines = [session(), first(), *(one_round(n > 1, n, words={"notes": f"n{n % 2}"}) for n in range(4))]
    record = journal.record_of(lines, FORWARD)
    assert record is not None and record.notes["notes"] == "n0; n1"
    many = [*lines, *(one_round(1, 9 + n, words={"notes": f"m{n}"}) for n in range(9))]
    record = journal.record_of(many, FORWARD)
    assert record is not None and record.notes["notes"] == "n0; n1; m0"


def test_a_record_says_the_session_in_which_it_was_taken():
    """A later session, for another call, with another torch in the base, changes nothing of it."""
    lines = [*whole(), session(torch="2.13.0"), first(BACKWARD)]
    assert journal.record_of(lines, FORWARD) == journal.record_of(whole(), FORWARD)


def yardstick(backend: str, number: int, seconds: float) -> dict[str, Any]:
    call = f"forward-history/{backend}/b1_s256"
    return one_round(0, number, call, seconds=[seconds] * 3 if seconds else [])


def test_yardsticks_stand_beside_by_round_where_they_have_all():
    both = [yardstick(name, n, (1 + n) * 1e-3) for name in ("cudnn", "fa2") for n in (3, 1, 0, 2)]
    record = journal.record_of(whole(), FORWARD, both)
    assert record is not None
    assert record.samples["cudnn"] == record.samples["fa2"] == [1e-3, 2e-3, 3e-3, 4e-3]
    noisy = [*both[:4], *(yardstick("fa2", n, 1e-3 * (n != 2)) for n in range(4))]
    record = journal.record_of(whole(), FORWARD, noisy)
    assert record is not None and "cudnn" in record.samples and "fa2" not in record.samples
    other = journal.record_of(whole(BACKWARD), BACKWARD, both)
    assert other is not None and not {"cudnn", "fa2"} & set(other.samples), "those of a forward"


def test_of_two_cards_the_one_that_took_a_call_last_counts(tmp_path):
    """Whatever was written to the file after it, of another call."""
    folders = [tmp_path / "b", tmp_path / "a"]
    for folder, at in zip(folders, (5.0, 4.0), strict=True):
        for entry in whole():
            journal.append(folder / "c.jsonl", entry | ({"at": at} if "at" in entry else {}))
    journal.append(folders[1] / "c.jsonl", first(BACKWARD, at=9.0))
    journal.append(folders[0] / journal.YARDSTICK_FILE, session())
    result = journal.of_cards(tmp_path, "c.jsonl")
    assert len(result) == 2 and [bool(beside) for _, beside in result] == [False, True]
    later = [line | {"process": 7} if line["kind"] == "round" else line for line in result[1][0]]
    record = journal.newest_record([result[0], (later, [])], FORWARD)
    assert record is not None and set(record.samples["process"]) == {7}
    assert journal.newest_record(result, BACKWARD) is None, "begun only"
    assert journal.newest_record([], FORWARD) is None


def test_what_another_version_of_the_benchmark_took_is_missing(monkeypatch):
    lines = whole()
    assert journal.record_of(lines, FORWARD) is not None
    name = FORWARD.partition("/")[0]
    newer = {**journal.GROUPS, name: replace(journal.GROUPS[name], version="newer")}
    monkeypatch.setattr(journal, "GROUPS", newer)
    assert journal.record_of(lines, FORWARD) is None and journal.lacking(lines, FORWARD, Plan(2, 2), 0) == 2
    again = [{**line, "version": "newer"} for line in lines]
    assert journal.record_of([*lines, *again], FORWARD) == journal.record_of(again, FORWARD) is not None
