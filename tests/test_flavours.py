"""The three flavours: whose each is, which torch and CUDA stands behind `plain`, and what may be said of its kernels."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fa4_asv.backfill.tasks import BackfillRequest, _lacking
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog.flavours import (
    AS_CU12,
    FLAVOURS,
    GROUPS_OF_PLAIN,
    INSTALLED,
    OF_TORCH,
    PLAIN,
    label,
    torch_cuda,
    without_torch,
)
from fa4_asv.cli import run
from fa4_asv.explain.packages import differing, mixed
from fa4_asv.explain.shared import explained, shared
from fa4_asv.history import toolchain
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.toolchain import Lock, Policy, lock_for, read_lock
from fa4_asv.integrity.consistency import AsCu12
from fa4_asv.measure.compile_stubs import CompileStub
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.kernels import asked, collect
from fa4_asv.measure.kernels.asked_worker import Noting, plain
from fa4_asv.measure.pool import Outcome
from fa4_asv.record.explanation import Explanation, Side, read_explanation
from fa4_asv.record.schema import CaseRecord, Sidecar, Toolchain, toolchain_digest
from fa4_asv.record.store import read_sidecar
from tests.support import ROOT
from tests.support.toolchains import DAY, LOCK, PYPROJECT

LOCKS = ROOT / "history" / "toolchains" / "day"
RELEASES = [release.version for release in Manifest.load(Project(ROOT).manifest).releases]
RELEASES = RELEASES[: RELEASES.index("4.0.0b36") + 1]  # later ones may not be recorded yet
TORCH = {"torch": "2.12.1", "nvidia-cuda-runtime": "13.0.96"}
PACKAGES = {"nvidia-cutlass-dsl": "4.6.0.dev0", **TORCH}


def test_one_table_says_whose_each_series_is():
    """The same table stands in docs/measuring.md."""
    text = (ROOT / "docs" / "measuring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\S.*?) \| (\S.*?) \| `?(.*?)`? \|$", text, re.M)
    told = {name: (libraries, cuda) for name, libraries, cuda, _ in rows if name in FLAVOURS}
    assert told == {
        flavour.name: (flavour.libraries, flavour.cuda or "of the day's torch")
        for flavour in FLAVOURS.values()
    }
    assert set(FLAVOURS) == {*INSTALLED, PLAIN}


def test_labels_say_torchs_cuda():
    assert (label("cu12"), label("cu12", on_card=True)) == (
        "cu12 (torch on CUDA 12)",
        "cu12 (torch's own CUDA)",
    )
    assert label("other") == "other"


@pytest.mark.parametrize("version", RELEASES)
def test_the_torch_of_each_releases_day_is_committed(version):
    """cu12's packages, one torch and its CUDA runtime: nothing else."""
    result, cu12 = (read_lock(LOCKS / name / f"{version}.txt", name, "day") for name in (PLAIN, "cu12"))
    assert without_torch(result.packages) == cu12.packages == result.installed.packages
    assert result.installed.digest == cu12.digest, "so the installed folder is cu12's"
    assert len(result.packages) == len(cu12.packages) + 2 and "torch" in result.packages
    torch = tuple(map(int, result.packages["torch"].split(".")[:2]))
    # torch's default build moved to CUDA 13 with 2.11.
    assert torch_cuda(result.packages) == ("13.0" if torch >= (2, 11) else "12.8")


def test_a_worker_is_told_the_flavours_cuda_or_that_of_the_day():
    told = [
        dict(target_environment("sm_100", name, "13.0"))["FA4_ASV_CUDA"] for name in ("cu12", "cu13", PLAIN)
    ]
    assert told == ["12.8", "13.0", "13.0"]
    assert (
        torch_cuda({"nvidia-cuda-runtime-cu12": "12.8.90"}) == "12.8" and torch_cuda({"torch": "2.9"}) == ""
    )


@pytest.fixture
def cu12_lock(project):
    path = project.locks / "day" / "cu12" / "4.0.0b20.txt"
    path.parent.mkdir(parents=True)
    path.write_text(LOCK)
    return project


def resolved(monkeypatch, *lines: str) -> None:
    monkeypatch.setattr(toolchain, "_resolve", lambda *_: LOCK + "".join(f"{line}\n" for line in lines))


def plain_lock(project, policy: str = "day") -> Lock:
    return lock_for(project, "4.0.0b20", PYPROJECT, DAY, PLAIN, Policy(policy))


def test_a_lock_of_plain_is_cu12s_with_torch(cu12_lock, monkeypatch):
    resolved(monkeypatch, "torch==2.12.1", "nvidia-cuda-runtime==13.0.96", "sympy==1.14.0", "einops==9.9")
    result = plain_lock(cu12_lock)
    assert set(result.packages) == {"nvidia-cutlass-dsl", "apache-tvm-ffi", "torch", "nvidia-cuda-runtime"}
    assert result.installed.flavour == "cu12" and not set(result.installed.packages) & set(OF_TORCH)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("torch==2.12.1",), "no torch with a CUDA runtime resolves for 4.0.0b20"),
        (
            ("nvidia-cutlass-dsl==4.9",),
            "with torch 4.0.0b20 gets nvidia-cutlass-dsl 4.9, without it 4.6.0.dev0",
        ),
    ],
)
def test_a_torch_that_is_not_told_apart_is_refused(cu12_lock, monkeypatch, lines, message):
    resolved(monkeypatch, *lines)
    with pytest.raises(Fa4AsvError, match=message):
        plain_lock(cu12_lock)
    assert not (cu12_lock.locks / "day" / PLAIN).exists()


def test_plain_has_the_toolchain_of_the_day_only(cu12_lock):
    with pytest.raises(Fa4AsvError, match="flavour plain is the torch of the day: it has no toolchain x"):
        plain_lock(cu12_lock, "x")


# Which calls torch's CUDA reaches.


def context(**more: object) -> SimpleNamespace:
    packages = {**PACKAGES, **more}
    return SimpleNamespace(packages=packages, torch_cuda=torch_cuda(packages))


def answering(monkeypatch, answers: dict[str, dict[str, str] | None]) -> None:
    def run_jobs(jobs, processes):
        return [Outcome(job.key, answers[job.key], "" if answers[job.key] else "killed") for job in jobs]

    monkeypatch.setattr(asked, "run_jobs", run_jobs)


def test_a_call_is_reached_where_the_compiler_is_given_something_else(monkeypatch):
    answering(monkeypatch, {"sm_100/12.8": {"a": "1", "b": "1"}, "sm_100/13.0": {"a": "1", "b": "2"}})
    calls = [("sm_100", "a"), ("sm_100", "b")]
    assert asked.reached(context(), calls, 1) == {("sm_100", "b")}


def test_a_lost_process_leaves_its_calls_to_be_compiled(monkeypatch):
    answering(monkeypatch, {"sm_100/12.8": {"a": "1"}, "sm_100/13.0": None})
    assert asked.reached(context(), [("sm_100", "a")], 1) == {("sm_100", "a")}


def test_under_the_same_cuda_nothing_is_asked(monkeypatch):
    answering(monkeypatch, {})
    same = SimpleNamespace(torch_cuda=FLAVOURS["cu12"].cuda)
    assert asked.reached(same, [("sm_100", "a")], 1) == set()


class Kernel:
    def __init__(self, two: bool) -> None:
        self.use_2cta, self.tile, self.stage = two, (128, {"n": 64}), object()


def test_what_is_noted_holds_settings_and_no_addresses():
    noting = Noting()
    compile_function = CompileStub(None, noting)
    compile_function(Kernel(True), [1.5, None], stream=int)
    compile_function(Kernel(True), [1.5, None], stream=int)
    compile_function(Kernel(False), [1.5, None], stream=int)
    first, again, changed = map(json.dumps, noting.noted)
    assert first == again != changed and " at 0x" not in first
    assert (
        plain(lambda: None).endswith("<lambda>")
        and plain(test_labels_say_torchs_cuda) == "test_labels_say_torchs_cuda"
    )


# What is recorded of them.


def test_only_what_is_reached_is_compiled_the_rest_is_cu12s_and_says_so(tmp_path, monkeypatch):
    from fa4_asv.measure.context import Context

    compiled = []

    def compile_calls(context, group, calls, processes):
        compiled.append((context.flavour, context.digest, context.torch_cuda, list(calls)))
        return {
            f"{arch}/{name}": CaseRecord("measured", figures={"instructions": 1}, sha256=context.flavour)
            for arch, call in calls
            for name in collect._cases_of(call, group)
        }

    monkeypatch.setattr(collect, "_compile", compile_calls)
    monkeypatch.setattr(collect, "reached", lambda *_: {("sm_100", "fwd_d128_full")})
    names = [
        field for field in Context.__dataclass_fields__ if field not in ("packages", "select", "torches")
    ]
    here = Context(**{**dict.fromkeys(names, ""), "root": str(tmp_path)}, packages=PACKAGES)
    here = replace(here, flavour=PLAIN, digest=toolchain_digest(PLAIN, PACKAGES))
    records = collect.measure(here, [("sm_100", "fwd_d128_full"), ("sm_90", "fwd_d128_full")], 1)
    cu12 = toolchain_digest("cu12", {"nvidia-cutlass-dsl": "4.6.0.dev0"})
    assert compiled == [
        ("cu12", cu12, "", [("sm_90", "fwd_d128_full")]),
        (PLAIN, here.digest, "13.0", [("sm_100", "fwd_d128_full")]),
    ]
    own, shared = records["sm_100/fwd_d128_full"], records["sm_90/fwd_d128_full"]
    assert (own.why, own.sha256, shared.why, shared.sha256) == ("", PLAIN, AS_CU12, "cu12")


def sidecar(flavour: str, record: CaseRecord) -> Sidecar:
    chain = Toolchain("day", flavour, "", {})
    return Sidecar(1, "1", "nogpu", "c" * 40, "", "", chain, {"codegen": {"sm_90/x": record}})


@pytest.mark.parametrize(("digest", "wrong"), [("1", 0), ("2", 1)])
def test_what_says_it_is_cu12s_must_be(digest, wrong):
    shared = AsCu12()
    measured = CaseRecord("measured", why=AS_CU12, figures={"instructions": 1}, sha256=digest)
    shared.add(Path("plain"), sidecar(PLAIN, measured))
    shared.add(Path("cu12"), sidecar("cu12", replace(measured, sha256="1")))
    assert [path.name for path, _ in shared.wrong()] == ["plain"] * wrong


def recorded() -> dict[tuple[str, str], dict[str, CaseRecord]]:
    result = {}
    for name in (PLAIN, "cu12"):
        for path in (ROOT / "results" / "nogpu").glob(f"*-flavour{name}-toolchainday.sidecar"):
            sidecar = read_sidecar(path)
            result[name, sidecar.release] = sidecar.groups["codegen"]
    return result


def test_the_record_of_plain_is_whole_and_only_two_cta_choices_differ():
    """Blackwell's forwards from b10 on, and the backwards of b10 to b12: where FA4 reads torch's CUDA."""
    known = recorded()
    for version in RELEASES:
        own, cu12 = known[PLAIN, version], known["cu12", version]
        assert own.keys() == cu12.keys()
        marked = {case for case, record in own.items() if record.why == AS_CU12}
        differ = {
            case
            for case in own
            if own[case].sha256 != cu12[case].sha256 or own[case].state != cu12[case].state
        }
        assert not marked & differ
        assert all(case.startswith("sm_100/") for case in differ)
        if RELEASES.index(version) < RELEASES.index("4.0.0b10"):
            assert not differ
        elif RELEASES.index(version) > RELEASES.index("4.0.0b12"):
            assert all("/fwd_" in case for case in differ)


def test_hashes_of_the_asking_worker_do_not_depend_on_order():
    digest = hashlib.sha256(json.dumps([plain({"b": 1, "a": 2})], sort_keys=True).encode()).hexdigest()
    assert (
        digest == hashlib.sha256(json.dumps([plain({"a": 2, "b": 1})], sort_keys=True).encode()).hexdigest()
    )


def test_backfill_asks_plain_for_kernels_only():
    request = BackfillRequest(torches=("2.13.0",))
    assert set(GROUPS_OF_PLAIN) == set(_lacking(None, request, PLAIN))
    assert set(_lacking(None, request, "cu12")) > {"codegen", "memory", "route"}


# Commands that know the flavour, and those that say why they do not.


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["sweep", "-m", "card"], "a card has no series plain"),
        (["pack", "there"], "a card has no series plain"),
        (["check-card"], "a card has no series plain"),
        (["compare", "a", "b", "-m", "card", "--no-run"], "a card has no series plain"),
        (["changes", "-m", "card"], "a card has no series plain"),
        (["backfill", "-m", "card", "--dry-run"], "a card has no series plain"),
        (["route"], "plain has no route of its own"),
    ],
)
def test_a_command_that_has_no_plain_says_why_in_one_line(arguments, why, capsys):
    with pytest.raises(SystemExit) as ended:
        run([*arguments, "--flavour", "plain"])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith(f"fa4-asv: --flavour plain: {why}")


def a_corner(old: str, new: str) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Both sides of a step of releases as explain takes them, with plain's committed locks."""
    known = {each.version: each.commit for each in Manifest.load(ROOT / "history" / "releases.json").releases}
    corners = []
    for version in (old, new):
        path = ROOT / "history" / "toolchains" / "day" / "plain" / f"{version}.txt"
        lock = read_lock(path, "plain", "day")
        side = Side(known[version], version, lock.digest, lock.packages)
        corners.append(SimpleNamespace(source=SimpleNamespace(commit=known[version]), lock=lock, side=side))
    return corners[0], corners[1]


CASES_OF_B16 = [f"sm_100/{name}" for name in ("fwd_d128_causal", "fwd_d128_full", "bwd_d128_full")]


def test_explain_takes_what_plain_shares_from_cu12():
    """b15 to b16: of two kernels that changed, one reads torch's CUDA."""
    result = shared(Project(ROOT), *a_corner("4.0.0b15", "4.0.0b16"), CASES_OF_B16, [])
    assert result is not None and (result.flavour, set(result.cases)) == ("plain", {"sm_100/fwd_d128_causal"})
    cu12 = read_explanation(ROOT / "results" / "nogpu" / result.file_name.replace("plain", "cu12"))
    assert result.cases["sm_100/fwd_d128_causal"] == cu12.cases["sm_100/fwd_d128_causal"]
    assert {case for culprit in result.culprits for case in culprit.cases} <= set(result.cases)
    assert "torch" in result.base.packages


def test_of_two_cuda_versions_or_other_packages_nothing_is_shared():
    old, new = a_corner("4.0.0b15", "4.0.0b16")
    other = SimpleNamespace(**{**vars(old), "lock": a_corner("4.0.0b5", "4.0.0b16")[0].lock})
    assert shared(Project(ROOT), other, new, CASES_OF_B16, []) is None
    packages = {**old.lock.packages, "quack-kernels": "0.0.1"}
    other = SimpleNamespace(**{**vars(old), "lock": replace(old.lock, packages=packages)})
    assert shared(Project(ROOT), other, new, CASES_OF_B16, []) is None


def test_explain_compiles_only_what_is_plains_own(monkeypatch):
    asked = []

    def rest(shop, base, head, cases, tell, culprits):
        asked.extend(cases)
        return Explanation("plain", base.side, head.side, cases={"sm_100/fwd_d128_full": {}})

    monkeypatch.setattr("fa4_asv.explain.shared.investigate", rest)
    shop = SimpleNamespace(project=Project(ROOT), flavour="plain")
    told: list[str] = []
    cases = [tuple(case.split("/")) for case in CASES_OF_B16]
    explanation = explained(shop, *a_corner("4.0.0b15", "4.0.0b16"), cases, told.append, True)
    assert asked == [("sm_100", "fwd_d128_full"), ("sm_100", "bwd_d128_full")]
    assert set(explanation.cases) == {"sm_100/fwd_d128_causal", "sm_100/fwd_d128_full"}
    assert told == ["1 kernel of plain that changed: as under cu12"]


def test_torchs_runtime_is_a_part_of_torch():
    old = {"torch": "2.10.0", "nvidia-cuda-runtime-cu12": "12.8.90", "quack-kernels": "1"}
    new = {"torch": "2.11.0", "nvidia-cuda-runtime": "13.0.96", "quack-kernels": "1"}
    assert differing(old, new) == ["torch"]
    assert mixed(old, "torch", new) == new
