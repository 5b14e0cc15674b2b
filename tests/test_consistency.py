"""A figure edited everywhere it stands still contradicts what it is made of: each kind of such an edit, planted."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.cli import run
from fa4_asv.integrity.consistency import Cubins, cause_checks, checks
from fa4_asv.integrity.verify import verify
from fa4_asv.record.explanation import read_explanation
from fa4_asv.record.schema import CaseRecord, toolchain_digest
from fa4_asv.record.store import sidecar_path, sound_pairs
from tests.support import ROOT
from tests.support.refusals import refuse_listing
from tests.support.results import json_of
from tests.support.sound_record import DATE, edit, result_file, told

B36 = "d14f663b-fa4-pyany-flavourcu13-toolchainday.json"
CASE, CALL, FAMILY = "sm_90/fwd_d128_full", "sm_100/bwd_b16_s2048_h16_d128_full", "sm_90/bwd_d128"


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Project:
    """b36 under cu13 and the causes about it, as committed, in a checkout with the whole history."""
    root = tmp_path_factory.mktemp("real")
    folder = root / "results" / "nogpu"
    folder.mkdir(parents=True)
    (root / "history").symlink_to(ROOT / "history")
    shutil.copy(ROOT / "results" / "benchmarks.json", root / "results")
    record = ROOT / "results" / "nogpu"
    for path in (
        record / "machine.json",
        record / B36,
        sidecar_path(record / B36),
        *record.glob("d14f663b-*.cause"),
    ):
        shutil.copy(path, folder)
    assert verify(Project(root)) == []
    return Project(root)


@pytest.fixture
def edited(real):
    """Edit both files of b36 as one who knows where a figure stands; both are as committed afterwards."""
    paths = [real.results / "nogpu" / B36, sidecar_path(real.results / "nogpu" / B36)]
    before = {path: path.read_text() for path in paths}

    def apply(change: Callable[[dict, dict], object]) -> list[str]:
        result, sidecar = map(json_of, paths)
        change(result, sidecar)
        for path, data in zip(paths, (result, sidecar), strict=True):
            path.write_text(json.dumps(data))
        return [problem.what for problem in verify(real) if problem.path in paths]

    yield apply
    for path, text in before.items():
        path.write_text(text)


def figure(benchmark: str, group: str, case: str, metric: str, value: int) -> Callable[[dict, dict], None]:
    """The same figure in the result file and in the sidecar."""

    def change(result: dict, sidecar: dict) -> None:
        values, params = result["results"][benchmark + metric][:2]
        (first, second) = (axis.index(repr(word)) for axis, word in zip(params, case.split("/"), strict=True))
        values[first * len(params[1]) + second] = value
        sidecar["groups"][group][case]["figures"][metric] = value

    return change


def record_of(group: str, case: str, change: Callable[[dict], object]) -> Callable[[dict, dict], None]:
    return lambda result, sidecar: change(sidecar["groups"][group][case])  # type: ignore[return-value]


KERNEL, TRACED = "codegen.Kernels.track_", "memory.Traced.track_"


@pytest.mark.fault(
    kind="figures that were edited in every place",
    inputs="instructions, local loads and stores, peaks, growth, broken checks, dates",
    happens="`verify` names it, exit code 1",
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            figure(KERNEL, "codegen", CASE, "instructions", 1),
            f"{CASE}: instructions is 1, the opcodes without NOP give",
        ),
        (figure(KERNEL, "codegen", CASE, "local_loads", 7), f"{CASE}: local_loads is 7, LDL give 0"),
        (figure(KERNEL, "codegen", CASE, "local_stores", 7), f"{CASE}: local_stores is 7, STL give 0"),
        (figure(KERNEL, "codegen", CASE, "text_bytes", 16), f"{CASE}: text_bytes is 16, "),
        (
            figure(TRACED, "memory", CALL, "peak_bytes", 5),
            f"{CALL}: peak_bytes is 5, inputs, outputs and workspaces give",
        ),
        (figure(TRACED, "memory", CALL, "extra_bytes", 5), f"{CALL}: extra_bytes is 5, the workspaces give"),
        (
            figure("memory.Growth.track_", "growth", FAMILY, "growth_bytes", 0),
            "growth_bytes is 0, its peaks give",
        ),
        (
            figure("route.Sdpa.track_", "route", "2.13.0/sm_90", "broken", 3),
            "broken is 3, the checks that have a",
        ),
        (record_of("codegen", CASE, lambda r: r.pop("opcodes")), f"{CASE}: the sidecar has no opcodes"),
        (
            record_of("codegen", CASE, lambda r: r["opcodes"].update(LDL=4)),
            f"{CASE}: local_loads is 0, LDL give 4",
        ),
        (
            record_of("memory", CALL, lambda r: r.pop("parts")),
            f"{CALL}: extra_bytes is 272629760, the workspaces give 0",
        ),
        (record_of("growth", FAMILY, lambda r: r.pop("parts")), f"{FAMILY}: the sidecar has no peaks"),
        (
            record_of("growth", FAMILY, lambda r: r["parts"].update(bwd_b2_s16384_h16_d128_full=1348734977)),
            "the peak of bwd_b2_s16384_h16_d128_full is 1348734977, its own record says 1348734976",
        ),
        (
            record_of("route", "2.13.0/sm_90", lambda r: r["words"].pop("lse")),
            "broken is 13, the checks that have a",
        ),
        (
            record_of("route", "2.13.0/sm_90", lambda r: r["figures"].update(checks=2)),
            "broken is 13 of 2 checks",
        ),
        (
            lambda result, _: result.update(date=result["date"] + 1000),
            "has date 1792570788000, the history says",
        ),
        (lambda result, _: result.update(date=0), "has date 0, the history says 1792570787000"),
    ],
)
def test_an_edit_of_every_place_is_seen(edited, change, message):
    problems = edited(change)
    assert [what for what in problems if message in what], problems


def test_a_toolchain_that_is_not_the_lock_s_is_seen_though_its_digest_fits(edited):
    def change(_: dict, sidecar: dict) -> None:
        chain = sidecar["toolchain"]
        chain["packages"]["quack-kernels"] = "0.6.6"
        chain["digest"] = toolchain_digest(chain["flavour"], chain["packages"])

    assert edited(change) == [
        "says quack-kernels 0.6.6, its lock 0.6.5; restore both files from git or measure again"
    ]


def test_a_cubin_that_has_other_figures_elsewhere_is_seen():
    kernel = CaseRecord("measured", figures={"registers": 168}, sha256="a" * 64, opcodes={"LDL": 2})
    other = replace(kernel, figures={"registers": 1})
    cubins = Cubins()
    for name, record in (("x", kernel), ("y", other), ("z", kernel)):
        cubins.add(Path(name), {CASE: record, "sm_90/unsupported": CaseRecord("unsupported")})
    assert [path.name for path, _ in cubins.wrong()] == ["y"]
    cubins.add(Path("w"), {CASE: other})
    assert sorted(path.name for path, _ in cubins.wrong()) == ["w", "x", "y", "z"], "two against two"


def test_broken_checks_of_a_card_have_their_reasons():
    notes = {"torch": "2.11.0", "checks": "9", "layout": "ValueError", "lse": "x"}
    groups = {"route-card": {"bf16": CaseRecord("measured", samples={"broken": [2.0]}, notes=notes)}}
    assert not any(wrong for _, wrong in checks(groups))
    groups["route-card"]["bf16"].samples["broken"][0] = 1.0
    assert [each for each in checks(groups) if each[1]] == [("bf16", "broken is 1, 2 checks have a reason")]


CAUSE = "191486fa-3e361050-cu12.cause"


@pytest.mark.fault(
    kind="a cause that contradicts itself or the record",
    inputs="opcodes that do not add up, another base, a package or commit that moved nothing",
    happens="`verify` names it, exit code 1",
)
@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (lambda d, case: d["opcodes"][case].update(matrix=[0, 0]), "instructions at base is 2525"),
        (lambda d, case: d["cases"][case]["instructions"].update(base=2524), "cause is|at base is 2524"),
        (
            lambda d, case: d["culprits"].append(
                {"kind": "package", "name": "x", "from": "1", "to": "2", "cases": [case]}
            ),
            "a package is named, but what moved it is the source",
        ),
        (
            lambda d, case: d["culprits"].append(
                {"kind": "commit", "commit": "e" * 40, "subject": "", "cases": ["x"]}
            ),
            "a culprit is named, and no figure or state that changed",
        ),
    ],
)
def test_a_cause_that_contradicts_itself_is_seen(tmp_path, change, messages):
    path = tmp_path / CAUSE
    data = json.loads((ROOT / "results" / "nogpu" / CAUSE).read_text())
    case = next(iter(data["cases"]))
    change(data, case)
    path.write_text(json.dumps(data))
    try:
        problems = [wrong for _, wrong in cause_checks(read_explanation(path)) if wrong]
    except Fa4AsvError as error:
        problems = [str(error)]
    assert [wrong for wrong in problems if any(each in wrong for each in messages.split("|"))], problems


def test_everything_that_the_record_says_twice_agrees():
    """All of it, counted: tens of thousands of checks, and not one fails."""
    count: Counter[str] = Counter()
    cubins = Cubins()
    for pair in sound_pairs(ROOT / "results"):
        for case, wrong in checks(pair.sidecar.groups):
            assert not wrong, (pair.path, case)
            count["figures"] += 1
        cubins.add(pair.path, pair.sidecar.groups.get("codegen", {}))
    assert list(cubins.wrong()) == []
    count["cubins"] = sum(len(places) - 1 for versions in cubins.by_digest.values() for _, places in versions)
    for path in (ROOT / "results" / "nogpu").glob("*.cause"):
        for case, wrong in cause_checks(read_explanation(path)):
            assert not wrong, (path, case)
            count["causes"] += 1
    assert sum(count.values()) > 32_000, count
    print(dict(count))


# Files beside the results that something reads.


def fault(name: str, text: str | None) -> Callable[[Project], None]:
    def plant(project: Project) -> None:
        path = project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True) if text is None else path.write_text(text)

    return plant


@pytest.mark.fault(
    kind="a file beside the results that is damaged or missing",
    inputs="`benchmarks.json`, a machine's file, a lock",
    happens="`verify` names it, exit code 1",
)
@pytest.mark.parametrize(
    ("plant", "line"),
    [
        (fault("results/benchmarks.json", '{"version": 2, "x'), "benchmarks.json: is not JSON"),
        (
            fault("results/benchmarks.json", '{"version": 2, "x": {"params": 5}}'),
            "benchmarks.json: is not asv's list",
        ),
        (fault("results/benchmarks.json", None), "benchmarks.json: cannot be read: No such file"),
        (
            fault("results/nogpu/machine.json", '{"machine": "nogpu", "version": 1, "cpu": "<b>"}'),
            "machine.json: is no",
        ),
        (fault("results/nogpu/machine.json", None), "machine.json: cannot be read: No such file"),
        (
            fault("history/toolchains/day/cu13/4.0.0b36.txt", "x @ http://y\n"),
            "4.0.0b36.txt: is damaged at 'x @",
        ),
        (
            fault("history/toolchains/day/cu13/4.0.0b36.txt", "quack-kernels==1\n"),
            "b36.txt: names no nvidia-cutlass",
        ),
        (
            fault("history/toolchains/day/cu13/4.0.0b36.txt", "nvidia-cutlass-dsl==4.8.0\n"),
            "toolchainday.sidecar: says nvidia-cutlass-dsl 4.8.1, its lock 4.8.0",
        ),
        (
            fault("history/toolchains/day/cu13/4.0.0b35.txt", "nvidia-cutlass-dsl==4.8.0\n"),
            "toolchainday.sidecar: has no lock history/toolchains/day/cu13/4.0.0b36.txt",
        ),
    ],
)
def test_every_committed_file_that_is_read_is_covered(sound, plant, line):
    plant(sound)
    assert [each for each in told(sound) if line in each], told(sound)


@pytest.mark.fault(
    kind="damaged `releases.json` and `upstream.json`",
    inputs="no JSON, other types, nested 100,000 deep; under `verify` and `report`",
    happens="one line; no page is replaced",
)
@pytest.mark.parametrize("name", ["releases", "upstream"])
@pytest.mark.parametrize("text", ["[]", "{", '{"format": 1}', "[" * 100_000, '{"format": 2}'])
def test_damaged_lists_end_every_reader_in_one_line(sound, capsys, name, text):
    (sound.root / "history" / f"{name}.json").write_text(text)
    for command in ("verify", "report"):
        with pytest.raises(SystemExit) as ended:
            run([command])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{name}.json is " in line and "restore it from git" in line


@pytest.mark.fault(
    kind="the list of releases is missing while the report is made",
    inputs="a record without `releases.json`",
    happens="one line; the old report stays",
)
def test_a_report_without_the_list_of_releases_replaces_nothing(sound, capsys):
    sound.manifest.unlink()
    old = sound.html / "report" / "index.html"
    old.parent.mkdir(parents=True)
    old.write_text("old – FlashAttention-4, release by release</title>")
    with pytest.raises(SystemExit) as ended:
        run(["report"])
    assert ended.value.code == 2 and "releases.json is missing" in capsys.readouterr().err
    assert old.read_text().startswith("old")


@pytest.mark.fault(
    kind="a machine's folder that cannot be listed",
    inputs="mode 000",
    happens="named by `verify` and `report`; exit code 1",
)
def test_a_machine_whose_folder_cannot_be_listed_is_named(sound, capsys, monkeypatch):
    """Root may list every folder, so the refusal is planted."""
    (sound.results / "h100").mkdir()
    refuse_listing(monkeypatch, "h100")
    (line,) = told(sound)
    assert line.startswith("h100: cannot be read: Permission denied; make it readable")
    with pytest.raises(SystemExit) as ended:
        run(["report"])
    assert ended.value.code == 1
    assert "refused: results/h100: cannot be read: Permission denied" in capsys.readouterr().err


@pytest.mark.fault(
    kind="a pipe in the record",
    inputs="a FIFO in place of a result file",
    happens="`verify` names it at once",
)
def test_pipes_and_devices_in_the_record_are_named_at_once(sound):
    import os

    path = result_file(sound)
    path.unlink()
    os.mkfifo(path)
    assert [line for line in told(sound) if "it is a pipe or device, expected a file" in line]


def test_a_date_of_the_release_is_what_asv_wrote(sound):
    assert verify(sound) == []
    edit(result_file(sound), lambda data: data.update(date=DATE + 1))
    assert [line for line in told(sound) if f"has date {DATE + 1}, the history says {DATE}" in line]
