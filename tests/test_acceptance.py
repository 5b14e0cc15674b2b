"""What an artifact may do to the record: add what is missing. Every edit of what is there is refused in one line."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asv.environment import get_env_name

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog import benchmarks
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.history.repository import git
from fa4_asv.integrity import acceptance, additions
from fa4_asv.integrity.acceptance import accept, environment_name, refusals
from fa4_asv.integrity.staging import stage, take
from fa4_asv.integrity.verify import verify
from fa4_asv.record.schema import CaseRecord, toolchain_digest
from fa4_asv.record.store import all_pairs, iter_results, load_result, read_sidecar, sidecar_path
from tests.support import ROOT
from tests.support.backfills import ENVIRONMENT, PACKAGES, as_asv_writes, commits, record, write_lock
from tests.support.results import MEASURED, REFUSED, json_of
from tests.support.toolchains import PYPROJECT

CASE, BROKEN, NEW = "sm_90/fwd_d128_full", "sm_90/fwd_d64_full", "sm_100/bwd_d256_causal"
SPILL = "codegen.Kernels.track_spill_bytes"
Edit = Callable[[dict[str, Any], dict[str, Any]], object]


@pytest.fixture
def known(history) -> Project:
    """The first release recorded: one case refused, one broken, one not run; toolchains of all committed."""
    states = {
        CASE: MEASURED,
        "sm_90/bwd_d256_full": REFUSED,
        BROKEN: CaseRecord("broken", "killed"),
        NEW: CaseRecord("not run"),
    }
    record(
        history,
        commits(history)[0],
        "4.0.0b3",
        MEASURED,
        **{k.replace("/", "__"): v for k, v in states.items()},
    )
    as_asv_writes(history)
    for version in ("4.0.0b3", "4.0.0b4", "4.0.0b10"):
        write_lock(history, version, PACKAGES)
    assert verify(history) == []
    return history


@pytest.fixture
def staged(known, tmp_path) -> Project:
    """An artifact that says what is recorded, and one more release."""
    arrived = stage(known, tmp_path / "staged")
    shutil.copytree(known.results / "nogpu", arrived.results / "nogpu")
    record(arrived, commits(known)[1], "4.0.0b4", MEASURED)
    as_asv_writes(arrived)
    return arrived


def pair_of(project: Project, number: int) -> tuple[Path, Path]:
    path = project.results / "nogpu" / f"{commits(project)[number][:8]}-{ENVIRONMENT}.json"
    return path, sidecar_path(path)


def edit(project: Project, number: int, change: Edit) -> None:
    paths = pair_of(project, number)
    data = [json_of(path) for path in paths]
    change(*data)
    for path, each in zip(paths, data, strict=True):
        path.write_text(json.dumps(each))


def bytes_of(project: Project) -> dict[Path, tuple[bytes, int]]:
    files = (path for path in project.root.rglob("*") if path.is_file() and ".asv" not in path.parts)
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def place(data: dict[str, Any], name: str, case: str) -> tuple[list[Any], int]:
    """Where asv's result file holds a figure of a case."""
    values, (first, second) = data["results"][name][:2]
    arch, kernel = case.split("/")
    return values, first.index(repr(arch)) * len(second) + second.index(repr(kernel))


def put(case: str, value: float | None, state: dict[str, Any]) -> Edit:
    """All figures of a case in the result file, and its record in the sidecar."""

    def change(result: dict[str, Any], sidecar: dict[str, Any]) -> None:
        for metric in GROUPS["codegen"].metrics:
            values, index = place(result, f"codegen.Kernels.track_{metric}", case)
            values[index] = state["figures"][metric] if "figures" in state else value
        sidecar["groups"]["codegen"][case] = state

    return change


def version(text: str, *names: str) -> Edit:
    """Another version of some benchmarks (all), with another figure in both files."""

    def change(result: dict[str, Any], sidecar: dict[str, Any]) -> None:
        for name, row in result["results"].items():
            if not names or name in names:
                row[2] = text
        registers(200)(result, sidecar)

    return change


def registers(value: int, case: str = CASE) -> Edit:
    """A figure that nothing else in the record is made of, in both files."""

    def change(result: dict[str, Any], sidecar: dict[str, Any]) -> None:
        values, index = place(result, "codegen.Kernels.track_registers", case)
        values[index] = sidecar["groups"]["codegen"][case]["figures"]["registers"] = value

    return change


def of_record(change: Callable[[dict[str, Any]], object], case: str = CASE) -> Edit:
    return lambda _, sidecar: change(sidecar["groups"]["codegen"][case])


def of_result(**changes: Any) -> Edit:
    return lambda result, _: result.update(changes)


def packages(**changes: str) -> Edit:
    def change(_: dict[str, Any], sidecar: dict[str, Any]) -> None:
        chain = sidecar["toolchain"]
        chain["packages"] = {**PACKAGES, **{name.replace("_", "-"): held for name, held in changes.items()}}
        chain["digest"] = toolchain_digest(chain["flavour"], chain["packages"])

    return change


def no_packages(result: dict[str, Any], sidecar: dict[str, Any]) -> None:
    """Everything unsupported, as of a flavour that the commit does not have."""
    sidecar["toolchain"] |= {"packages": {}, "digest": ""}
    for case in sidecar["groups"]["codegen"]:
        put(case, math.nan, {"state": "unsupported", "why": "no such flavour"})(result, sidecar)


def series(name: str, value: str) -> Edit:
    """The same release once more, under another name of its series."""

    def change(result: dict[str, Any], sidecar: dict[str, Any]) -> None:
        sidecar["toolchain"][{"toolchain": "policy"}.get(name, name)] = value
        result["requirements"][name] = result["params"][name] = value
        requirements = {**result["requirements"]}
        result["env_name"] = sidecar["environment"] = environment_name(
            requirements["flavour"], requirements["toolchain"]
        )

    return change


def row(change: Callable[[list[Any]], object], name: str = SPILL) -> Edit:
    return lambda result, _: change(result["results"][name])


def unknown_benchmark(result: dict[str, Any], _: dict[str, Any]) -> None:
    result["results"]["evil.Benchmark.track_x"] = [[1, 2], [["'a'", "'b'"]], "1"]


def unknown_case(result: dict[str, Any], sidecar: dict[str, Any]) -> None:
    for name in list(result["results"]):
        values, params = result["results"][name][:2]
        params[1].append("'fwd_d1_evil'")
        half = len(values) // 2
        result["results"][name][0] = [*values[:half], values[0], *values[half:], values[0]]
    records = sidecar["groups"]["codegen"]
    records["sm_90/fwd_d1_evil"] = records["sm_100/fwd_d1_evil"] = copy.deepcopy(records[CASE])


def timed(result: dict[str, Any], sidecar: dict[str, Any]) -> None:
    result["results"]["compile.Import.track_seconds"] = [[1.5], [], "1"]
    sidecar["groups"]["import"] = {"flash_attn.cute": {"state": "measured", "samples": {"seconds": [1.5]}}}


def without(*names: str) -> Callable[[dict[str, Any]], object]:
    return lambda record: [record.pop(name) for name in names]


def other_opcodes(record: dict[str, Any]) -> None:
    record["opcodes"] = {**record["opcodes"], "IMAD": record["opcodes"]["IMAD"] - 1, "FFMA": 1}


# An edit of what is recorded, each consistent in both files; part of the line that refuses it.
CHANGES = {
    "a figure": (registers(200), "registers'] is recorded as 168, what arrives says 200"),
    "a figure of another version": (version("2"), "has version '2' of codegen.Kernels"),
    "a figure of an older version": (version("0"), "has version '0' of codegen.Kernels"),
    "a figure of no version": (version(None), "has version None of codegen.Kernels"),  # type: ignore[arg-type]
    "one metric of another version": (version("2", SPILL), f"has version '2' of {SPILL}"),
    "a digest": (of_record(lambda r: r.update(sha256="cd" * 32)), 'sha256 is recorded as "'),
    "no digest": (of_record(without("sha256")), "lacks what its figures are made of"),
    "opcodes": (of_record(other_opcodes), "opcodes['FFMA'] is recorded as nothing"),
    "no opcodes": (of_record(without("opcodes")), "lacks what its figures are made of"),
    "the kernel's name": (of_record(lambda r: r.update(kernel="Other")), "kernel is recorded as"),
    "a note": (of_record(lambda r: r.update(why="so it is")), 'why is recorded as "", what arrives says "so it is"'),
    "words": (of_record(lambda r: r.update(words={"a": "b"})), "notes['a'] is recorded as nothing"),
    "a further figure": (of_record(lambda r: r["figures"].update(x=1)), "has figure 'x' of codegen"),
    "measured to unsupported": (put(CASE, math.nan, {"state": "unsupported"}), "state is recorded as"),
    "measured to broken": (put(CASE, None, {"state": "broken", "why": "x"}), "state is recorded as"),
    "measured to not run": (put(CASE, math.nan, {"state": "not run"}), "state is recorded as"),
    "a case left out": (
        lambda result, sidecar: (put(CASE, math.nan, {"state": "not run"})(result, sidecar), sidecar["groups"]["codegen"].pop(CASE)),
        f"{CASE}: is recorded as measured, and is missing",
    ),
    "broken to measured": (put(BROKEN, 0, MEASURED.to_json()), 'state is recorded as "broken"'),
    "unsupported to measured": (put("sm_90/bwd_d256_full", 0, MEASURED.to_json()), 'state is recorded as "unsupp'),
    "the reason of broken": (of_record(lambda r: r.update(why="other"), BROKEN), 'why is recorded as "killed"'),
    "a benchmark left out": (lambda result, _: result["results"].pop(SPILL), "lacks " + SPILL),
    "another time of a benchmark": (row(lambda r: r.__setitem__(3, 5)), "has other times of"),
    "date 0": (of_result(date=0), "has date 0, the history says 1772733373000"),
    "another date": (of_result(date=1772733373001), "has date 1772733373001, the history says"),
    "another toolchain": (packages(nvidia_cutlass_dsl="4.8.0"), "has other packages than history/toolchains"),
    "the release": (lambda _, s: s.update(release="4.0.0b4"), "release is recorded as"),
}  # fmt: skip
# What a pair that is not recorded yet may not bring.
ADDITIONS = {
    "a benchmark of another version": (version("2"), "has version '2' of codegen.Kernels"),
    "a benchmark that nobody knows": (unknown_benchmark, "has benchmark 'evil.Benchmark.track_x'"),
    "a case that nobody knows": (unknown_case, "has codegen of 'sm_90/fwd_d1_evil'"),
    "figures of a clock": (timed, "has figures of compile.Import.track_seconds"),
    "a group that nobody knows": (
        lambda _, s: s["groups"].update(evil={"x": {"state": "broken"}}),
        "has records of 'evil', which is no group of exact",
    ),
    "date 0": (of_result(date=0), "has date 0, the history says"),
    "a commit that is not in the history": (
        lambda result, sidecar: (result.update(commit_hash="f" * 40), sidecar.update(commit="f" * 40)),
        "is of commit 'ffff",
    ),
    "packages that are not the lock's": (packages(nvidia_cutlass_dsl="4.8.0"), "has other packages than history/toolch"),
    "packages beside the lock's": (packages(evil="1"), "has other packages than history/toolchains/day/cu13/4.0.0b4.txt"),
    "no packages": (no_packages, "names no packages, though history/toolchains/day/cu13/4.0.0b4.txt does"),
    "a policy without a lock": (series("toolchain", "night"), "has no committed lock history/toolchains/night"),
    "a policy that leads out": (series("toolchain", "../../evil"), "which name no toolchain"),
    "a flavour that leads out": (series("flavour", ".."), "which name no toolchain"),
    "a flavour that nobody knows": (series("flavour", "cu14"), "has no committed lock history/toolchains/day/cu14"),
    "the series under another name": (
        lambda result, sidecar: (result.update(env_name="fa4-x"), sidecar.update(environment="fa4-x")),
        "has environment 'fa4-x', expected",
    ),
    "another python": (of_result(python="3.12"), "has python '3.12'"),
    "other parameters of the machine": (lambda r, _: r["params"].update(cpu="x"), "has params"),
    "variables": (of_result(env_vars={"A": "b"}), "has env_vars"),
    "requirements": (of_result(requirements={}), "has requirements {}, expected"),
    "another machine": (
        lambda result, sidecar: (result["params"].update(machine="h100"), sidecar.update(machine="h100")),
        "has machine 'h100', expected 'nogpu'",
    ),
    "a profile": (row(lambda r: r.extend([None, ["eJwr"] * 94])), "has samples, statistics or a profile"),
    "a key of no meaning": (of_result(evil=1), "has 'evil', which asv does not write"),
    "columns twice": (of_result(result_columns=["result", "params", "version", "started_at", "duration", "result"]), "has columns"),
    "a time that is none": (row(lambda r: r.__setitem__(3, "x")), "has 'x' as a time"),
    "kernels without digests": (of_record(without("sha256")), "lacks what its figures are made of"),
    "kernels without opcodes": (of_record(without("opcodes")), "lacks what its figures are made of"),
    "samples": (of_record(lambda r: r.update(samples={"registers": [168.0]})), "lacks what its figures are"),
}  # fmt: skip


@pytest.mark.fault(
    kind="the night's artifact changes what is recorded",
    inputs="edits that are consistent in both files: another version of the benchmark, digest, opcodes, words, state, date, packages",
    happens="one line that names the place and both values; every byte of the record stays",
)
@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_what_is_recorded_never_changes(known, staged, change, message):
    refused(known, staged, 0, change, message)


@pytest.mark.fault(
    kind="the night's artifact adds what is not ours",
    inputs="unknown benchmarks, cases, groups, policies and flavours, other packages than the lock's, a commit or a date that is not of the history, the series under another name, a profile",
    happens="one line; every byte of the record stays",
)
@pytest.mark.parametrize(("change", "message"), ADDITIONS.values(), ids=ADDITIONS.keys())
def test_what_is_new_is_held_against_our_own_tables(known, staged, change, message):
    refused(known, staged, 1, change, message)


def refused(project: Project, staged: Project, number: int, change: Edit, reasons: str) -> None:
    """In one line, and every byte of the checkout is as it was."""
    edit(staged, number, change)
    before = bytes_of(project)
    with pytest.raises(Fa4AsvError) as error:
        accept(staged, project)
    assert any(each in str(error.value) for each in reasons.split("|")), str(error.value)
    assert str(error.value).isprintable()
    assert bytes_of(project) == before


def test_the_hostile_edits_are_refused_by_this_rule_alone(known, staged):
    """`verify` finds nothing in most of them: without the rule they would be taken."""
    seen = []
    for name, (change, _) in CHANGES.items():
        keep = [path.read_text() for path in pair_of(staged, 0)]
        edit(staged, 0, change)
        seen += [name] if verify(staged, arriving=True) else []
        for path, text in zip(pair_of(staged, 0), keep, strict=True):
            path.write_text(text)
    assert len(seen) < len(CHANGES) / 2
    assert not {"a figure of another version", "a figure", "a digest", "a note"} & set(seen)


def test_what_is_missing_is_added_and_the_rest_keeps_every_byte(known, staged):
    before = bytes_of(known)
    assert accept(staged, known) == list(reversed(pair_of(known, 1)))
    after = bytes_of(known)
    assert {path: each for path, each in after.items() if path in before} == before
    assert verify(known) == []


def test_a_case_that_was_not_run_is_added_to_a_recorded_release(known, staged):
    edit(staged, 0, put(NEW, 0, MEASURED.to_json()))
    edit(staged, 0, lambda result, _: [r.__setitem__(3, 9) for r in result["results"].values()])
    assert set(accept(staged, known)) == {*pair_of(known, 0), *pair_of(known, 1)}
    assert read_sidecar(pair_of(known, 0)[1]).groups["codegen"][NEW].figures == MEASURED.figures
    assert verify(known) == []


def test_an_addition_covers_no_edit(known, staged):
    def change(result: dict[str, Any], sidecar: dict[str, Any]) -> None:
        put(NEW, 0, MEASURED.to_json())(result, sidecar)
        registers(200)(result, sidecar)

    refused(known, staged, 0, change, "registers'] is recorded as 168")


def test_a_flavour_that_a_commit_does_not_have_is_taken_as_such(known, staged, monkeypatch):
    """Its own pyproject.toml in the history says so, not the artifact."""
    edit(staged, 1, no_packages)
    (known.locks / "day" / "cu13" / "4.0.0b4.txt").unlink()

    def absent(*_: object) -> str:
        raise Fa4AsvError("the commit has no such file")

    monkeypatch.setattr(acceptance, "read_file", absent)
    with pytest.raises(Fa4AsvError, match="names no packages, and the commit has no such file"):
        accept(staged, known)
    texts = [PYPROJECT + "[project.optional-dependencies]\ncu13 = []\n", PYPROJECT]
    monkeypatch.setattr(acceptance, "read_file", lambda *_: texts[0])
    with pytest.raises(Fa4AsvError, match="names no packages, though 4.0.0b4 has the flavour cu13"):
        accept(staged, known)
    del texts[0]
    edit(staged, 1, put(CASE, None, {"state": "broken", "why": "x"}))
    with pytest.raises(Fa4AsvError, match="names no packages, and has other states than unsupported"):
        accept(staged, known)
    edit(staged, 1, no_packages)
    assert set(accept(staged, known)) == set(pair_of(known, 1))


@pytest.fixture
def raised(known, staged, monkeypatch):
    """Our own table has version 2 of the kernels now."""
    groups = {**GROUPS, "codegen": replace(GROUPS["codegen"], version="2")}
    for module in (benchmarks, acceptance, additions):
        monkeypatch.setattr(module, "GROUPS", groups)
    monkeypatch.setattr(benchmarks, "_GROUPS", tuple(groups.values()))


def test_a_version_raised_in_our_own_table_is_measured_anew(known, staged, raised):
    for path in pair_of(staged, 1):
        path.unlink()
    refused(known, staged, 0, version("2", SPILL), "is recorded as|version of")
    shutil.rmtree(staged.results / "nogpu")
    shutil.copytree(known.results / "nogpu", staged.results / "nogpu")
    edit(staged, 0, version("2"))
    assert set(accept(staged, known)) == set(pair_of(known, 0))
    key = ("codegen.Kernels.track_registers", tuple(CASE.split("/")))
    assert load_result(pair_of(known, 0)[0]).figures[key] == 200


def test_the_old_version_stays_where_it_is_not_measured_anew(known, staged, raised):
    """A night that had no time for it brings it as it is recorded."""
    for path in pair_of(staged, 1):
        path.unlink()
    before = [(path, path.read_bytes()) for path in pair_of(staged, 0)]
    assert accept(staged, known) == []
    for path, content in before:
        path.write_bytes(content)
    refused(known, staged, 0, registers(200), "is recorded as 168")


def test_a_recorded_pair_that_lost_its_half_is_not_filled_up(known, staged):
    pair_of(known, 0)[0].unlink()
    with pytest.raises(Fa4AsvError, match="cannot be read: No such file"):
        accept(staged, known)


def test_the_machine_is_described_before_anything_is_taken(known, staged):
    (known.results / "nogpu" / "machine.json").unlink()
    with pytest.raises(
        Fa4AsvError, match=r"results/nogpu has no machine.json; commit the record so far first"
    ):
        accept(staged, known)


def test_a_commit_on_a_branch_has_the_date_that_git_says(known, staged):
    """Also where it is in no list yet, as a stranger's `date: 0` would have it."""
    commit = commits(known)[2]
    git(known.repository, "update-ref", "refs/heads/main", commit)
    manifest = json.loads(known.manifest.read_text())
    manifest["releases"] = [each for each in manifest["releases"] if each["commit"] != commit]
    known.manifest.write_text(json.dumps(manifest))
    record(staged, commit, "4.0.0b10", MEASURED)
    path = staged.results / "nogpu" / f"{commit[:8]}-{ENVIRONMENT}.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"date": 0}))
    problems = [problem.what for problem in verify(staged, arriving=True) if problem.path == path]
    assert problems == ["has date 0, the history says 1776847397000; restore it from git"]


def test_verify_makes_no_path_of_a_stranger_s_words(staged):
    """A cluster's node may name any policy; a lock would be kept under it."""
    edit(staged, 1, series("toolchain", "../../evil"))
    (what,) = {each.what for each in verify(staged, arriving=True) if "name no toolchain" in each.what}
    assert what.startswith("says flavour 'cu13' and policy '../../evil'")


@pytest.mark.slow
def test_the_whole_record_as_an_artifact_is_refused_nowhere(known):
    """The rule holds on what real runs wrote: twelve files of each kind, as new and as recorded."""
    project = Project(ROOT)
    names = sorted(path.name for path in iter_results(project.results, "nogpu"))
    chosen = {*names[:: len(names) // 12], *(name for name in names if "==" in name)}
    for pair in all_pairs(project.results, "nogpu", lambda path: path.name in chosen):
        assert list(refusals(pair, pair, project)) == []
        if pair.sidecar.toolchain.packages:
            assert list(refusals(pair, None, project)) == []


def test_the_environment_is_called_as_asv_calls_it():
    for flavour, policy in (("cu12", "day"), ("cu13", "nvidia-cutlass-dsl==4.6.2_protobuf==6.33.6")):
        name = get_env_name("fa4", "any", {"flavour": flavour, "toolchain": policy}, {})
        assert environment_name(flavour, policy) == name


def relabelled(result: dict[str, Any], _: dict[str, Any]) -> None:
    result["results"][SPILL][2] = "2"


def in_result_alone(result: dict[str, Any], _: dict[str, Any]) -> None:
    values, index = place(result, SPILL, CASE)
    values[index] = 17


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (packages(nvidia_cutlass_dsl="4.8.0"), "toolchain['digest'] is recorded as"),
        (in_result_alone, f"{SPILL}(sm_90, fwd_d128_full) is recorded as 16, what arrives says 17"),
        (relabelled, f'version of {SPILL}(sm_90, bwd_d128_causal) is recorded as "1", what arrives says "2"'),
    ],
)
def test_each_half_of_a_pair_is_compared_by_itself(known, staged, change, line):
    """Where `verify` or the locks see it as well, they need not."""
    edit(staged, 0, change)
    name = pair_of(known, 0)[0].name
    old, new = (
        next(all_pairs(project.results, "nogpu", lambda path: path.name == name))
        for project in (known, staged)
    )
    assert any(each.startswith(line) for each in additions.changes(old, new)), list(
        additions.changes(old, new)
    )


# A staged checkout of our own.


@pytest.mark.fault(
    kind="a backfill brings another exact figure than is recorded",
    inputs="one figure",
    happens="one line; a version raised in our own table, and broken cases, are taken",
)
def test_a_backfill_changes_no_exact_figure_either(known, staged):
    edit(staged, 0, registers(200))
    before = bytes_of(known)
    with pytest.raises(Fa4AsvError, match="registers'] is recorded as 168.*raise its version"):
        take(staged, known)
    assert bytes_of(known) == before


def test_a_backfill_may_measure_one_metric_of_a_raised_version(known, staged, raised):
    edit(
        staged, 0, lambda result, _: result["results"]["codegen.Kernels.track_registers"].__setitem__(2, "2")
    )
    edit(staged, 0, registers(200))
    assert set(pair_of(known, 0)) <= set(take(staged, known))


def test_a_backfill_may_retry_what_is_broken(known, staged):
    edit(staged, 0, put(BROKEN, 0, MEASURED.to_json()))
    assert set(pair_of(known, 0)) <= set(take(staged, known))
