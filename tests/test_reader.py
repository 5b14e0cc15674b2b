"""The one reader: kinds of file, sizes, depths and texts that it refuses, each in one line; and whatever else comes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import DEEPEST, only_one, parse_json, read_bytes, read_json, read_text, tail
from fa4_asv.history.commits import load_commits
from fa4_asv.history.manifest import Manifest
from fa4_asv.record import store
from fa4_asv.record.descriptions import read_benchmarks, read_machine
from fa4_asv.record.store import (
    all_pairs,
    entries,
    load_result,
    sidecar_path,
    sound_pairs,
    write_sidecar,
)
from tests.support import ROOT
from tests.support.fuzzing import READERS as ALL
from tests.support.fuzzing import TEXTS, example, examples, holds, machine, prepare, ways
from tests.support.refusals import refuse_listing
from tests.support.results import BENCHMARKS_TEXT, make, result

Reader = Callable[[Path], object]
READERS = {name: read for name, read in ALL.items() if name != "pyproject"}


def refused(read: Reader, path: Path) -> str:
    """The one line that says what is wrong with `path`."""
    with pytest.raises(Fa4AsvError) as told:
        read(path)
    message = str(told.value)
    assert "\n" not in message and str(path) in message and len(message) < 1000
    return message


def deep(brackets: int) -> bytes:
    return b"[" * brackets + b"]" * brackets


# Kind, size, depth and text of a file.


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_folder(path: Path) -> None:
    path.mkdir()


def a_large_file(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate((16 << 20) + 1)


def no_text(path: Path) -> None:
    path.write_bytes(b'{"a": "\xff"}')


@pytest.mark.fault(
    kind="a file of the record or the history that is not a text file of usual size",
    inputs="a pipe, `/dev/zero`, a folder, 16 MiB and a byte, no UTF-8; of every reader",
    happens="one line that names the file, at once",
)
@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (a_pipe, "a pipe or device, expected a file"),
        (a_device, "a pipe or device, expected a file"),
        (a_folder, "a folder, expected a file"),
        (a_large_file, "it has more than"),
        (no_text, "UTF-8"),
    ],
)
@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_what_is_no_text_file_of_a_usual_size(tmp_path, name, make_it, message):
    path = tmp_path / "x"
    make_it(path)
    assert message in refused(READERS[name], path)


@pytest.mark.fault(
    kind="JSON that is nested or none",
    inputs="200,000 deep, half of a surrogate pair, empty, an open text; of every reader",
    happens="one line that names the file",
)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (deep(200_000), f"it is nested more than {DEEPEST} deep"),
        (b'{"a":' * 200_000, f"it is nested more than {DEEPEST} deep"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b"", "is not JSON"),
        (b"nonsense", "is not JSON"),
        (b'"' + b'\\"' * 1_000_000, "is not JSON"),
    ],
)
@pytest.mark.parametrize("name", [name for name in READERS if name not in TEXTS])
def test_every_reader_of_json_refuses_what_is_nested_or_no_json(tmp_path, name, content, message):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert message in refused(READERS[name], path)


def no_place(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere" / "x")


@pytest.mark.fault(
    kind="what stands in the place of a lock file",
    inputs="a pipe, a folder, a link that leads nowhere",
    happens="locked like a file, or one line; nothing is waited for",
)
@pytest.mark.parametrize(
    ("make_it", "message"), [(a_pipe, ""), (a_folder, "Is a directory"), (no_place, "No such file")]
)
def test_what_stands_in_the_place_of_a_lock_is_not_waited_for(tmp_path, make_it, message):
    path = tmp_path / "x.lock"
    make_it(path)
    if message:
        with pytest.raises(Fa4AsvError, match=f"cannot lock .*: {message}"), only_one(path):
            pass
        return
    with only_one(path), pytest.raises(Fa4AsvError, match="busy"), only_one(path, "busy"):
        pass


def test_a_log_is_read_from_its_end(tmp_path):
    path = tmp_path / "x.log"
    assert tail(path, 4) == tail(tmp_path, 4) == ""
    path.write_bytes(b"\xff" + b"x" * 10 + b"abcd")
    assert tail(path, 4) == "abcd" and tail(path, 100).endswith("xabcd")
    path.unlink()
    os.mkfifo(path)
    assert tail(path, 4) == ""


@pytest.mark.parametrize("read", [read_bytes, read_text, read_json])
@pytest.mark.parametrize("path", [Path("/nonexistent/x"), Path("a\0b")])
def test_what_is_not_there_is_named(read, path):
    assert "cannot be read" in refused(read, path)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'"' + b"[" * 100 + b'"', "[" * 100),  # brackets of a text are none
        (b'"\\\\' + b'", [', None),
        (b'["\\"[", "[[' + b"[" * 100 + b'"]', ['"[', "[[" + "[" * 100]),
        (b'"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
        (b'"\\\\ud83d"', "\\ud83d"),
        (deep(DEEPEST), json.loads(deep(DEEPEST))),
        (deep(DEEPEST + 1), None),
    ],
)
def test_depth_counts_brackets_outside_of_texts(content, value):
    if value is None:
        with pytest.raises(ValueError):
            parse_json(content)
    else:
        assert parse_json(content) == value


def test_a_closing_bracket_in_a_text_hides_no_depth():
    with pytest.raises(ValueError, match="nested more than"):
        parse_json(b'["' + b"]" * 100 + b'",' + deep(DEEPEST + 5) + b"]")


# The shape of each.


def with_rows(rows: dict[str, object]) -> str:
    return json.dumps(result(results=rows))


@pytest.mark.fault(
    kind="a result file of another shape",
    inputs="200^6 parameters, 100,001 figures, markup and control characters in a machine's fields",
    happens="one line that names the file, at once",
)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (with_rows({"x": [None, [["'a'"] * 200] * 6, "1"]}), "more than 100,000"),
        (with_rows({str(n): [None, [["'a'"] * 1000] * 1, "1"] for n in range(101)}), "more than 100,000"),
        (with_rows({"x": [[1], ["ab"], "1"]}), "expected lists of texts"),
        (with_rows({"x": [[1], [[["a"]]], "1"]}), "expected text"),
        (json.dumps(result(durations={"x": "long"})), "durations['x'] is 'long', expected seconds"),
        (json.dumps(result(params={"machine": "<img src=x>"})), "with markup or control characters"),
        (json.dumps(result(params={"machine": "x", "a\u202eb": "c"})), "with markup or control characters"),
        (json.dumps(result(env_vars={"A": "\x1b[2J"})), "with markup or control characters"),
    ],
)
def test_a_result_file_of_another_shape_is_refused(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert message in refused(load_result, path)


@pytest.mark.fault(
    kind="a machine's fields that asv would put into a page",
    inputs="markup, escape sequences, right-to-left marks, another folder's name",
    happens="one line that names the file",
)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (machine(machine="other"), "it describes machine 'other', its folder is 'box'"),
        (machine(version=2), "it has version 2, asv reads 1"),
        (machine(cpu="<script>alert(1)</script>"), "cpu is '<script>alert(1)</script>', with markup"),
        (machine(cpu='x" onload="y'), "with markup or control characters"),
        (machine(os="\x1b]0;x\x07"), "with markup or control characters"),
        (machine(os="a\u202eb"), "with markup or control characters"),
        (machine(ram=5), "ram is 5, expected a word"),
        ("[]", "is not an asv machine file"),
    ],
)
def test_a_machine_s_file_that_asv_cannot_show_is_refused(tmp_path, text, message):
    path = tmp_path / "box" / "machine.json"
    path.parent.mkdir()
    path.write_text(text)
    assert message in refused(read_machine, path)
    path.write_text(machine())
    assert read_machine(path)["cpu"] == "EPYC"


NAME = "codegen.Kernels.track_registers"


def benchmarks(**changes: object) -> str:
    data = json.loads(BENCHMARKS_TEXT)
    return json.dumps(data | {NAME: data[NAME] | changes})


@pytest.mark.fault(
    kind="a `benchmarks.json` of another shape",
    inputs="truncated, `params: 5`, markup in a unit, 1,000,000 parameters",
    happens="one line that names the file",
)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BENCHMARKS_TEXT[:100], "is not JSON"),
        (benchmarks(params=5), "are 5, expected a list for each name"),
        (benchmarks(params=[["'a'"]]), "expected a list for each name"),
        (benchmarks(params=[["'a'"], 7]), "are 7, expected text"),
        (benchmarks(params=[["'a'"], [1]]), "are [1], expected text"),
        (benchmarks(params=[["'a'"] * 1000, ["'a'"] * 1000]), "more than 100,000"),
        (benchmarks(unit=["s"]), "unit of codegen.Kernels.track_registers is ['s'], expected text"),
        (benchmarks(unit="<b>"), "markup or control characters"),
        (benchmarks(pretty_name="<b>"), "markup or control characters"),
        (benchmarks(code="def f(a: int) -> int:\n    return a < 1 and '<img src=x>'"), "code of"),
        (benchmarks(code="\x1b[2J"), "markup, or control characters"),
        (benchmarks(name="other"), "has another name in it"),
        ('{"version": 2}', "it lists no benchmark"),
        ('{"version": 1}', "version is 1, this suite reads 2"),
        ('{"version": 2, "x": 3}', "x is 3, expected a benchmark"),
        ("{}", "it lacks 'version'"),
        ("[]", "is not asv's list of benchmarks"),
    ],
)
def test_a_list_of_benchmarks_of_another_shape_is_refused(tmp_path, text, message):
    path = tmp_path / "benchmarks.json"
    path.write_text(text)
    assert message in refused(read_benchmarks, path)
    path.write_text(BENCHMARKS_TEXT)
    assert NAME in read_benchmarks(path)


@pytest.mark.parametrize("field", ["version", "uploaded", "commit"])
@pytest.mark.parametrize("value", [1, None, ["x"], "yesterday", "0000-00-00T00:00:00Z"])
def test_a_release_of_another_shape_is_refused(tmp_path, field, value):
    if isinstance(value, str) and field != "uploaded":
        pytest.skip("any text will do there")
    path = tmp_path / "releases.json"
    data = json.loads((ROOT / "history" / "releases.json").read_text())
    data["releases"][0][field] = value
    path.write_text(json.dumps(data))
    assert "is damaged" in refused(Manifest.load, path)


@pytest.mark.parametrize("change", [{"position": "1"}, {"date": "soon"}, {"subject": 1}, {"extra": 1}])
def test_an_upstream_commit_of_another_shape_is_refused(tmp_path, change):
    path = tmp_path / "upstream.json"
    data = json.loads((ROOT / "history" / "upstream.json").read_text())
    data["commits"][0] |= change
    path.write_text(json.dumps(data))
    assert "is damaged" in refused(load_commits, path)


# Many files.


@pytest.fixture
def root(tmp_path) -> Path:
    """A record of one machine: a sound pair, a damaged result, a damaged sidecar, a half of each kind."""
    folder = tmp_path / "results" / "nogpu"
    folder.mkdir(parents=True)
    for name in ("sound", "result", "sidecar", "alone"):
        (folder / f"{name}.json").write_text(json.dumps(result()))
        write_sidecar(folder / f"{name}.sidecar", make())
    (folder / "result.json").write_text("[]")
    (folder / "sidecar.sidecar").write_text("[]")
    (folder / "alone.json").unlink()
    return folder.parent


def test_every_entry_is_a_pair_or_says_what_is_wrong(root):
    result = {entry.path.stem: entry for entry in entries(root)}
    assert [name for name, entry in result.items() if entry.pair] == ["sound"]
    assert [path.name for entry in result.values() for path, _ in entry.damaged] == [
        "result.json",
        "sidecar.sidecar",
    ]
    assert not result["alone"].damaged
    assert [pair.path.stem for pair in sound_pairs(root)] == ["sound"]
    assert [pair.path.stem for pair in sound_pairs(root, "nogpu", lambda path: path.stem == "x")] == []
    with pytest.raises(Fa4AsvError, match=r"result\.json: is not an asv result file"):
        list(all_pairs(root))
    assert list(entries(root, "nosuch")) == list(entries(root.parent / "nosuch")) == []


def test_a_result_without_its_sidecar_is_no_pair_to_compare(root):
    path = root / "nogpu" / "sound.json"
    sidecar_path(path).unlink()
    with pytest.raises(Fa4AsvError, match=r"sound\.sidecar is missing; restore it from git"):
        list(all_pairs(root, wanted=lambda each: each == path))


@pytest.mark.fault(
    kind="a folder of the record that cannot be listed",
    inputs="mode 000",
    happens="named by `verify`; never left out in silence",
)
def test_a_folder_that_cannot_be_listed_is_an_entry(root, monkeypatch):
    """Root may list every folder, so the refusal is planted."""
    (root / "h100").mkdir()
    refuse_listing(monkeypatch, "h100")
    (told,) = [entry for entry in entries(root) if entry.path.name == "h100"]
    ((path, message),) = told.damaged
    assert path == root / "h100" and message.startswith("cannot be read: Permission denied; make it readable")
    assert [pair.path.stem for pair in sound_pairs(root)] == ["sound"]
    with pytest.raises(Fa4AsvError, match="h100: cannot be read: Permission denied"):
        list(all_pairs(root))


# Whatever comes: a value, or one line that names the file. tests/proofs/fuzz_readers.py does the same for an hour.

FUZZ = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.fault(
    kind="other values, bytes and words in a file that is read",
    inputs="values exchanged or gone, parts exchanged for random bytes, words that mean something to a reader; result file, "
    "sidecar, cause, `benchmarks.json`, machine, `releases.json`, `upstream.json`, lock, pyproject.toml (hypothesis)",
    happens="read, and the same once it is written again; or one line that can be shown",
)
@pytest.mark.parametrize(("name", "way"), [(name, way) for name in ALL for way in ways(name)])
@FUZZ
@given(data=st.data())
def test_an_altered_file_is_read_or_refused_in_one_line(tmp_path, name, way, data):
    holds(name, prepare(name, tmp_path), way(data, example(name)))


@pytest.mark.parametrize("name", ALL)
def test_what_is_altered_is_sound(tmp_path, name):
    for content in examples(name):
        assert holds(name, prepare(name, tmp_path), content)


def test_the_limits_leave_room_for_the_record():
    """Ten times what is there: whoever adds to the record meets no limit by surprise."""
    largest = max(path.stat().st_size for path in (ROOT / "results").rglob("*.*"))
    assert largest * 10 < 16 << 20
    assert (
        max(len(pair.result.figures) for pair in sound_pairs(ROOT / "results", "nogpu")) * 10
        < store.MOST_KEYS
    )
