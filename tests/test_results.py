"""Sidecars and result files: round trips, merges, and every damaged file refused by name."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.record.schema import NOT_SELECTED, CaseRecord
from fa4_asv.record.store import (
    is_number,
    iter_results,
    load_result,
    merge,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from tests.support.results import MEASURED, REFUSED, in_full, make, result


def test_a_sidecar_survives_a_round_trip_in_the_same_bytes(tmp_path):
    path = tmp_path / "x.sidecar"
    write_sidecar(path, make())
    first = path.read_bytes()
    assert read_sidecar(path) == make()
    write_sidecar(path, read_sidecar(path))
    assert path.read_bytes() == first
    json.loads(first, parse_constant=pytest.fail)
    assert len(first.splitlines()) == 15  # a line per case


ALL_STATES = {
    "sm_100/bwd_d256_full": REFUSED,
    "sm_90/a": MEASURED,
    "sm_90/b": CaseRecord("not run", NOT_SELECTED),
    "sm_90/c": CaseRecord("not run", "for another reason"),
    "sm_90/d": CaseRecord("broken", "crashed"),
}


def test_a_case_is_written_in_few_bytes(tmp_path):
    path = tmp_path / "x.sidecar"
    write_sidecar(path, make(cases=ALL_STATES))
    lines = path.read_text().splitlines()
    assert '  "sm_90/b": "not run",' in lines, "what was not selected is two words"
    assert '  "sm_90/c": {"state":"not run","why":"for another reason"},' in lines
    (measured,) = (json.loads(line.partition(": ")[2][:-1]) for line in lines if '"sm_90/a"' in line)
    assert measured["opcodes"] == "HGMMA.64x128x16 8 IMAD 889 LDL 2 NOP 12 STL 1"
    assert "state" not in measured
    assert read_sidecar(path) == make(cases=ALL_STATES)


def test_what_an_older_suite_wrote_is_read_and_is_no_other_record(tmp_path):
    path = tmp_path / "x.sidecar"
    older = in_full(make(cases=ALL_STATES))
    assert older["format"] == 1 and older["groups"]["codegen"]["sm_90/a"]["opcodes"]["LDL"] == 2
    path.write_text(json.dumps(older))
    assert read_sidecar(path) == make(cases=ALL_STATES)


@pytest.mark.fault(
    kind="a histogram of opcodes that is no list of names and counts",
    inputs="odd words, doubled names and blanks, signs, points, other digits, 19 digits; as text and by name",
    happens="one line with the text",
)
@pytest.mark.parametrize(
    "opcodes",
    [
        *("BAR", "BAR 40 BRA", "BAR 1 BAR 2", "BAR -1", "BAR +1", "BAR 1.5", "BAR 0x4", "BAR 1_0", "40 BAR"),
        *(" BAR 4", "BAR 4 ", "BAR  4", "BAR\t4", "BAR 4\n", "BAR \u0664", "BAR " + "9" * 19, "B\u00c4R 4"),
        *("A 1 " * 100_000, "A" * 100_000, "1 " * 100_000, {"B AR": 4}, {"": 4}, {"BAR": 10**18}, ["BAR", 4]),
    ],
)
def test_other_opcodes_are_refused(tmp_path, opcodes):
    path = tmp_path / "x.sidecar"
    data = in_full(make())
    data["groups"]["codegen"]["sm_90/fwd_d128_full"]["opcodes"] = opcodes
    path.write_text(json.dumps(data))
    with pytest.raises(Fa4AsvError, match=r"opcodes is ") as error:
        read_sidecar(path)
    assert len(str(error.value)) < 1000 and str(error.value).isprintable()


def test_no_opcodes_are_none():
    assert CaseRecord.from_json({"figures": {"a": 1}, "opcodes": ""}).opcodes == {}


def test_merge_keeps_what_the_new_record_did_not_run():
    not_run = CaseRecord("not run")
    new = make(
        cases={"sm_90/fwd_d128_full": not_run, "sm_90/other": not_run, "sm_100/bwd_d256_full": MEASURED}
    )
    cases = merge(make(), new).groups["codegen"]
    assert cases == {
        "sm_90/fwd_d128_full": MEASURED,
        "sm_90/other": not_run,
        "sm_100/bwd_d256_full": MEASURED,
    }


def test_merge_never_mixes_toolchains_or_commits():
    with pytest.raises(Fa4AsvError, match="toolchains d1 and d2 of fa4-pyany"):
        merge(make(digest="d1"), make(digest="d2"))
    with pytest.raises(Fa4AsvError, match="records of commit"):
        merge(make(), make(commit="e" * 40))
    with pytest.raises(Fa4AsvError, match="records of suite"):
        merge(make(), replace(make(), suite="0"))


def test_a_result_file_is_read_with_its_gaps(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(result()))
    figures = load_result(path).figures
    assert figures["codegen.Kernels.track_spill_bytes", ("sm_90", "a")] == 16
    assert math.isnan(figures["codegen.Kernels.track_spill_bytes", ("sm_90", "b")])
    assert figures["codegen.Kernels.track_spill_bytes", ("sm_100", "a")] is None
    assert [is_number(value) for value in figures.values()] == [True, False, False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not an asv result file (TypeError"),
        ("{}", "is not an asv result file (KeyError: 'result_columns')"),
        ('{"commit_hash": "c', "is not JSON"),
        ("", "is not JSON"),
        (json.dumps(result(results=[1])), "is not an asv result file"),
        (json.dumps(result(results={"x": [[1, 2], [["'a'"]], "1"]})), "x has 2 values for 1 parameters"),
        (json.dumps(result(date="yesterday")), "is not an asv result file (ValueError"),
        (json.dumps(result(params=None)), "params is None, expected texts by name"),
        (json.dumps(result(version=1)), "version is 1, this suite reads 2"),
        (json.dumps(result(requirements=[])), "is not an asv result file (AttributeError"),
        (json.dumps(result(results={"x": [["9"], [["'a'"]], "1"]})), "x('a',) is '9', expected a number"),
        (json.dumps(result(results={"x": [[True], [], "1"]})), "x() is True, expected a number"),
        (json.dumps(result(results={"x": [{"a": 1}, [], "1"]})), "x has {'a': 1} values for 1 parameters"),
        (json.dumps(result(results={"x": [[1], [], "1", 4]})), "x has a row of other length"),
        (json.dumps(result(results={"x": [[1], 3, "1"]})), "is not an asv result file (TypeError"),
    ],
)
def test_a_damaged_result_file_is_named(tmp_path, text, message):
    path = tmp_path / "damaged.json"
    path.write_text(text)
    with pytest.raises(Fa4AsvError) as error:
        load_result(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format is 99, this suite reads 1 and 2"),
        ({"format": 0}, "format is 0, this suite reads 1 and 2"),
        ({"format": True}, "format is True"),
        ({"suite": 1}, "suite is 1, expected str"),
        ({"toolchain": []}, "toolchain is [], expected dict"),
        ({"toolchain": {"packages": {"x": 1}}}, "packages['x'] is 1"),
        ({"groups": {"codegen": []}}, "codegen is [], expected dict"),
        ({"groups": {"codegen": {"a": {"state": "fine"}}}}, "state is 'fine', expected one of measured"),
        ({"groups": {"codegen": {"a": {"state": "measured"}}}}, "state is 'measured' with figures {}"),
        (
            {"groups": {"codegen": {"a": {"state": "measured", "figures": {"registers": 1.5}}}}},
            "figures['registers'] is 1.5, expected a count",
        ),
        ({"groups": {"codegen": {"a": {}}}}, "state is 'measured' with figures {}"),
        ({"groups": {"codegen": {"a": {"state": None}}}}, "state is None, expected str"),
        ({"groups": {"codegen": {"a": 3}}}, "a case is 3, expected its record, or 'not run'"),
        ({"groups": {"codegen": {"a": "broken"}}}, "a case is 'broken', expected its record, or 'not run'"),
    ],
)
def test_a_damaged_sidecar_is_named(tmp_path, change, message):
    path = tmp_path / "damaged.sidecar"
    write_sidecar(path, make())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Fa4AsvError) as error:
        read_sidecar(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("place", "name", "message"),
    [
        (os, "fsync", "cannot write .*x.sidecar: No space left on device"),
        (Path, "replace", "nothing was changed"),
    ],
    ids=["full disk", "failed rename"],
)
def test_a_write_that_fails_leaves_the_old_sidecar(tmp_path, monkeypatch, place, name, message):
    path = tmp_path / "x.sidecar"
    write_sidecar(path, make())
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place, name, full)
    with pytest.raises(Fa4AsvError, match=message):
        write_sidecar(path, make(digest="d2"))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.sidecar"]


def test_files_that_hold_no_results_are_passed_over(tmp_path):
    for name in ("nogpu/b.json", "nogpu/a.json", "nogpu/a.sidecar", "nogpu/machine.json", "benchmarks.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "c.json").touch()
    assert [path.name for path in iter_results(tmp_path)] == ["a.json", "b.json", "c.json"]
    assert [path.name for path in iter_results(tmp_path, "other")] == ["c.json"]


def test_asv_does_not_take_a_sidecar_for_results(tmp_path):
    assert not sidecar_path(tmp_path / "abc-env.json").name.endswith(".json")
