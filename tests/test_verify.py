"""Every way in which a record was seen to go wrong, planted in a sound one."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.integrity.figures import disagreement, is_repeated
from fa4_asv.integrity.verify import verify
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import Value, sidecar_path
from tests.support.results import MEASURED, REFUSED
from tests.support.sound_record import BROKEN, COMMIT, edit, result_file, told


def test_a_sound_record_has_no_problems(sound):
    assert verify(sound) == []


def set_value(metric: str, index: int, value: object) -> Callable[[dict], object]:
    return lambda data: data["results"][f"codegen.Kernels.track_{metric}"][0].__setitem__(index, value)


def with_stats(value: object) -> Callable[[dict], object]:
    """Samples and a quartile that the sidecar knows nothing of."""

    def change(data: dict) -> None:
        data["result_columns"].append("stats_q_25")
        row = data["results"]["codegen.Kernels.track_registers"]
        row += [[[168.0, 168.0], None, None, None], [value, None, None, None]]

    return change


@pytest.mark.fault(
    kind="a result file that does not fit its commit, machine or sidecar",
    inputs="other figures, NaN, infinity, samples, columns, dates, hashes, machines, flavours",
    happens="`verify` names it, exit code 1",
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_value("registers", 0, 100), "sm_90/x registers: the result file has 100, the sidecar 168"),
        (set_value("registers", 0, math.nan), "registers: n/a in the result file, the sidecar says measured"),
        (set_value("registers", 0, None), "registers: failed in the result file, the sidecar says measured"),
        (set_value("registers", 1, 7), "sm_90/y registers: the result file has 7, the sidecar says not run"),
        (set_value("registers", 1, None), "registers: failed in the result file, the sidecar says not run"),
        (set_value("registers", 2, 7), "sm_100/x registers: the result file has 7, the sidecar says unsupp"),
        (set_value("registers", 3, math.nan), "sm_100/y registers: n/a in the result file, the sidecar says"),
        (set_value("registers", 0, math.inf), "track_registers(sm_90, x) is inf, expected a finite number"),
        (set_value("registers", 0, "168"), "is '168', expected a number"),
        (set_value("registers", 0, {}), "is {}, expected a number"),
        (set_value("registers", 0, 10**400), "expected a number"),
        (lambda data: data["result_columns"].__setitem__(3, "colour"), "column 'colour' is unknown"),
        (lambda data: data.update(date="1"), "date is '1'"),
        (
            lambda data: data["results"].update({"codegen.Kernels.track_colour": [[1.0], [["'a'"]]]}),
            "has no record of codegen.Kernels.track_colour, which this suite does not know",
        ),
        (with_stats("x"), "track_registers('sm_90', 'x') has stats_q_25 'x', expected a number"),
        (with_stats(1.5), "registers: the result file has other samples than the sidecar"),
        (
            lambda data: data["results"].update({"\x1b[31mx\n": [[1.0], [["'a'"]]]}),
            r"no record of \x1b[31mx , which",
        ),
        (lambda data: data["results"].clear(), "has codegen records, the result file no codegen benchmark"),
        (lambda data: data.update(commit_hash="d" * 40), "belong in dddddddd-fa4-pyany"),
        (
            lambda data: data.update(commit_hash="d" * 40),
            f"commit {'d' * 40} is not a release of the history",
        ),
        (lambda data: data.update(commit_hash="d" * 40), f"says commit '{COMMIT}', the result file 'dddd"),
        (lambda data: data.update(env_name="fa4-py3.11"), "belong in cccccccc-fa4-py3.11.json"),
        (lambda data: data["params"].update(machine="h100"), "measured on machine 'h100' but stands in"),
        (lambda data: data["requirements"].update(flavour="cu12"), "says flavour 'cu13', the result file"),
        (lambda data: data.update(version=1), "version is 1, this suite reads 2"),
        (lambda data: data.pop("params"), "is not an asv result file (KeyError: 'params')"),
        (
            lambda data: data["results"].update(
                {"forward.Sdpa.time": [[1.0], [["'a'"]], "1", [[3.0, 1.0, 2.0, 3.0, 1.0, 2.0]]]}
            ),
            "forward.Sdpa.time(a) has 6 samples that repeat one block",
        ),
    ],
)
def test_a_wrong_result_file_is_named(sound, change, message):
    edit(result_file(sound), change)
    lines = told(sound)
    assert [line for line in lines if message in line], lines
    assert all(line.startswith("cccccccc-fa4-pyany-flavourcu13-toolchainday.") for line in lines)


@pytest.mark.fault(
    kind="a sidecar that does not fit its result file",
    inputs="another suite, format, release, machine; missing and foreign cases and figures",
    happens="`verify` names it, exit code 1",
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(suite="0"), "was written by suite '0', this is suite '1'"),
        (lambda data: data.update(format=9), "format is 9, this suite reads 1 and 2"),
        (lambda data: data.update(release="4.0.0b9"), "says release '4.0.0b9', but its commit is '4.0.0b36'"),
        (lambda data: data.update(machine="h100"), "says machine 'h100', the result file 'nogpu'"),
        (lambda data: data["groups"]["codegen"].pop("sm_100/y"), "sm_100/y registers: failed in the result"),
        (
            lambda data: data["groups"]["codegen"]["sm_90/x"]["figures"].pop("registers"),
            "sm_90/x registers: the result file has 168, the sidecar None",
        ),
        (
            lambda data: data["groups"]["codegen"].update({"sm_90/z": MEASURED.to_json()}),
            "sm_90/z spill_bytes: in the sidecar, but not among the result file's parameters",
        ),
    ],
)
def test_a_wrong_sidecar_is_named(sound, change, message):
    edit(sidecar_path(result_file(sound)), change)
    lines = told(sound)
    assert [line for line in lines if message in line], lines
    assert all(line.startswith("cccccccc-fa4-pyany-flavourcu13-toolchainday.sidecar") for line in lines)


@pytest.mark.fault(
    kind="a damaged file of the record",
    inputs="empty, half, no JSON, other types, nested 100,000 deep; result file or sidecar",
    happens="`verify` names it once, exit code 1",
)
@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", "3", "null", '{"commit_hash": "cc', "\0", '{"results": {}}', "[" * 100_000]
)
@pytest.mark.parametrize("which", ["json", "sidecar"])
def test_a_damaged_file_is_one_problem(sound, text, which):
    path = result_file(sound).with_suffix(f".{which}")
    path.write_text(text)
    (line,) = told(sound)
    assert line.startswith(path.name)
    assert "restore it from git or delete it" in line


def test_files_that_miss_their_other_half_are_named(sound):
    path = result_file(sound)
    text = path.read_text()
    path.unlink()
    assert [line for line in told(sound) if "toolchainday.sidecar: has no cccccccc" in line]
    path.write_text(text)
    sidecar_path(path).unlink()
    assert [line for line in told(sound) if "toolchainday.json: has no sidecar" in line]


def test_the_folder_of_a_machine_is_checked(sound):
    machine = sound.results / "nogpu" / "machine.json"
    machine.write_text('{"machine": "h100"}')
    assert "it describes machine 'h100', its folder is 'nogpu'" in told(sound)[0]
    machine.write_text('{"machine": "nogpu", "version": 3}')
    assert "it has version 3, asv reads 1" in told(sound)[0]
    machine.write_text("[]")
    assert "machine.json: is not an asv machine file" in told(sound)[0]
    machine.unlink()
    assert "without it asv drops the results of nogpu" in told(sound)[0]


def test_packages_that_were_edited_are_named(sound):
    edit(
        sidecar_path(result_file(sound)),
        lambda data: data["toolchain"]["packages"].update({"quack-kernels": "9"}),
    )
    (line,) = told(sound)
    assert "but its packages are those of" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(env_vars=["x"]), "env_vars is ['x'], expected texts by name"),
        (lambda data: data["params"].update(ram={"x": 1}), "params['ram'] is {'x': 1}, expected a word"),
    ],
)
def test_what_would_stop_asv_s_pages_is_named(sound, change, message):
    edit(result_file(sound), change)
    (line,) = told(sound)
    assert message in line


@pytest.mark.fault(
    kind="a write that was killed",
    inputs="a temporary file",
    happens="`verify` names it",
)
def test_what_a_killed_write_left_is_named(sound):
    (sound.results / "nogpu" / ".x.json.abc.tmp").touch()
    assert told(sound) == [".x.json.abc.tmp: left behind by a write that was killed; delete it"]


@pytest.mark.fault(
    kind="the list of releases is missing",
    inputs="a record without `releases.json`; under `verify`",
    happens="one line, exit code 2",
)
def test_without_the_list_of_releases_nothing_can_be_said(sound):
    """Every release would be taken for an upstream commit, and a report made of them."""
    sound.manifest.unlink()
    with pytest.raises(Fa4AsvError, match="releases.json is missing, .*; restore it from git"):
        verify(sound)


def test_what_cannot_be_checked_is_an_error(sound, project):
    sound.manifest.write_text("[]")
    with pytest.raises(Fa4AsvError, match="releases.json is damaged"):
        verify(sound)


@pytest.mark.parametrize(
    ("value", "record", "message"),
    [
        (168, MEASURED, ""),
        (math.nan, None, ""),
        (math.nan, CaseRecord("not run"), ""),
        (math.nan, REFUSED, ""),
        (None, BROKEN, ""),
        (None, REFUSED, "failed in the result file, the sidecar says unsupported"),
        (1, None, "the result file has 1, the sidecar says not run"),
    ],
)
def test_each_gap_needs_its_reason(value: Value, record: CaseRecord | None, message: str):
    assert disagreement(value, record, "registers") == message


@pytest.mark.parametrize(
    ("samples", "repeated"),
    [
        ([1.0, 2.0, 3.0] * 2, True),
        ([1.0, 2.0, 3.0] * 3, True),
        ([1.0, 2.0, 3.0, 1.0, 2.0, 4.0], False),
        ([1.0, 2.0] * 2, False),
        ([8.0] * 6, False),
    ],
)
def test_a_repeated_block_of_samples_is_seen(samples, repeated):
    assert is_repeated(samples) is repeated


def command(project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`fa4-asv` in a fresh process where neither torch nor asv can be imported (only asv's statistics)."""
    code = (
        "import sys\n"
        "for name in ('torch', 'asv', 'cutlass'):\n"
        "    sys.modules[name] = None\n"
        "from fa4_asv.cli import run\n"
        "from fa4_asv import cli\n"
        "cli.COMMANDS.setdefault('verify', ('fa4_asv.cli.verify', 'verify', ''))\n"
        f"run({list(arguments)!r})\n"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=project.root, capture_output=True, text=True)


def test_the_command_and_its_exit_codes(sound):
    done = command(sound, "verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 result files: sound\n", "")
    edit(result_file(sound), set_value("registers", 0, 100))
    done = command(sound, "verify")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "1 result files: 1 problems"
    assert done.stdout.startswith(
        "results/nogpu/cccccccc-fa4-pyany-flavourcu13-toolchainday.sidecar: sm_90/x"
    )
    done = command(sound, "verify", "--json")
    assert len(json.loads(done.stdout)["problems"]) == 1
    sound.manifest.write_text("[]")
    done = command(sound, "verify")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
