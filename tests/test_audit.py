"""A figure that was edited in all places at once is found by making it anew: what is drawn, what is told, which file."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fa4_asv.backfill import anew as making
from fa4_asv.backfill import audit as auditing
from fa4_asv.backfill.anew import Anew
from fa4_asv.backfill.audit import Audit, Limit
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import BY_TORCH, TRACED_GROUPS
from fa4_asv.catalog.kernels import BEYOND, KERNEL_GROUPS
from fa4_asv.cli import audit as command
from fa4_asv.cli import run
from fa4_asv.integrity.audit import EXACT, PER_DRAW, Draws, chance, compared, record_differs
from fa4_asv.integrity.verify import verify
from fa4_asv.measure.anew import MEASURES
from fa4_asv.measure.cached_jobs import cache_path
from fa4_asv.measure.context import Context
from fa4_asv.record.explanation import Verdict, decide, read_explanation
from fa4_asv.record.schema import CaseRecord, Sidecar
from fa4_asv.record.store import read_sidecar, sidecar_path, sound_pairs
from tests.support import ROOT
from tests.support.results import json_of

B36 = "d14f663b-fa4-pyany-flavourcu13-toolchainday.json"
CAUSE = "d14f663b-6cb2228a-cu13.cause"  # b36 is its head
TRUTH = read_sidecar(sidecar_path(ROOT / "results" / "nogpu" / B36))
EVERY = str(len(TRUTH.groups["codegen"]))  # as many as b36 has kernels
KERNEL = "sm_90/fwd_d128_full"
MOVED = "sm_100/bwd_post_dkv_d128_gqa4"  # the cause is about its registers
CALL = "sm_90/fwd_b1_s2048_h32kv8_d128_causal"
TORCH = "2.13.0"
Edit = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], object]


@pytest.fixture
def checkout(project, monkeypatch) -> Project:
    """b36 under cu13 and one cause about it, as committed; its commit is said to be here."""
    (project.root / "history").symlink_to(ROOT / "history")
    folder = project.results / "nogpu"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "results" / "benchmarks.json", project.results)
    record = ROOT / "results" / "nogpu"
    for path in (record / "machine.json", record / B36, sidecar_path(record / B36), record / CAUSE):
        shutil.copy(path, folder)
    monkeypatch.setattr(auditing, "has_history", lambda _: True)
    monkeypatch.setattr(auditing, "tree_of", lambda *_: "0" * 40)
    return project


class Truth:
    """Makes what is committed in this checkout, or what `made` says of a case."""

    torch, terminal = TORCH, ""

    def __init__(self, made: dict[tuple[str, str], CaseRecord] | None = None) -> None:
        self.made, self.asked = made or {}, []

    def __call__(self, *_: object) -> Truth:
        return self

    def records(self, side: Sidecar, cases: Any) -> dict[str, dict[str, CaseRecord]]:
        self.asked.append(side.commit)
        return {
            group: {case: self.made.get((group, case), TRUTH.groups[group][case]) for case in keys}
            for group, keys in cases.items()
        }


@pytest.fixture
def audit(checkout, monkeypatch, capsys):
    """The command, with what the process would make; its exit code and output."""

    def call(*arguments: str, maker: Any = None) -> tuple[int, str]:
        monkeypatch.setattr(command, "base_here", lambda *_: Path(sys.executable))
        monkeypatch.setattr(command, "torch_of", lambda _: TORCH)
        monkeypatch.setattr(command, "Anew", maker or Truth())
        with pytest.raises(SystemExit) as ended:
            run(["audit", *arguments])
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out + output.err

    return call


def edit(project: Project, change: Edit) -> None:
    folder = project.results / "nogpu"
    paths = [folder / B36, sidecar_path(folder / B36), folder / CAUSE]
    data = [json_of(path) for path in paths]
    change(*data)
    for path, each in zip(paths, data, strict=True):
        path.write_text(json.dumps(each))


def in_result(result: dict[str, Any], name: str, case: str, value: object) -> None:
    values, params = result["results"][name][:2]
    first, second = (axis.index(repr(word)) for axis, word in zip(params, case.split("/"), strict=True))
    values[first * len(params[1]) + second] = value


def registers_everywhere(result: dict[str, Any], sidecar: dict[str, Any], cause: dict[str, Any]) -> None:
    in_result(result, "codegen.Kernels.track_registers", MOVED, 90)
    sidecar["groups"]["codegen"][MOVED]["figures"]["registers"] = 90
    verdict = cause["cases"][MOVED]["registers"]
    verdict["head"] = 90
    verdict["cause"] = decide(verdict["base"], 90, verdict["source"], verdict["toolchain"])


def kernel(change: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda _, sidecar, __: change(sidecar["groups"]["codegen"][KERNEL])


def spill(result: dict[str, Any], sidecar: dict[str, Any], _: object) -> None:
    """A spill that was never there; nothing else in the record is made of it."""
    in_result(result, "codegen.Kernels.track_spill_bytes", KERNEL, 64)
    sidecar["groups"]["codegen"][KERNEL]["figures"]["spill_bytes"] = 64


def swapped(record: dict[str, Any]) -> None:
    """As many opcodes as before, other ones."""
    record["opcodes"]["IMAD"] -= 1
    record["opcodes"]["MOV"] += 1


def peak(result: dict[str, Any], sidecar: dict[str, Any], _: object) -> None:
    """A workspace that was never there, in the peak, in its parts and beyond inputs and outputs."""
    record = sidecar["groups"]["memory"][CALL]
    record.setdefault("parts", {})["workspace fp32 (1024,)"] = 4096
    for name in ("peak_bytes", "extra_bytes"):
        record["figures"][name] += 4096
        in_result(result, f"memory.Traced.track_{name}", CALL, record["figures"][name])


def growth(result: dict[str, Any], sidecar: dict[str, Any], _: object) -> None:
    record = sidecar["groups"]["growth"]["sm_90/fwd_d128"]
    record["figures"]["growth_bytes"] += 16
    in_result(result, "memory.Growth.track_growth_bytes", "sm_90/fwd_d128", record["figures"]["growth_bytes"])


def route(result: dict[str, Any], sidecar: dict[str, Any], _: object) -> None:
    """A check that is said to hold."""
    record = sidecar["groups"]["route"][f"{TORCH}/sm_90"]
    record["words"].pop("lse")
    record["figures"]["broken"] -= 1
    in_result(result, "route.Sdpa.track_broken", f"{TORCH}/sm_90", record["figures"]["broken"])


def hidden(result: dict[str, Any], sidecar: dict[str, Any], _: object) -> None:
    """A kernel that compiles, said to be refused."""
    for name in result["results"]:
        if name.startswith("codegen."):
            in_result(result, name, KERNEL, math.nan)
    sidecar["groups"]["codegen"][KERNEL] = {"state": "unsupported", "why": "AssertionError: no"}


RESULT, SIDECAR = f"results/nogpu/{B36}", f"results/nogpu/{B36[:-5]}.sidecar"
# What was edited; whether `verify` sees it; the lines that the audit prints.
MUTANTS: dict[str, tuple[Edit, bool, list[str]]] = {
    "a figure in the result file, the sidecar and the cause": (
        registers_everywhere,
        False,
        [
            f"{SIDECAR}: codegen {MOVED}: registers: recorded 90, anew 87",
            f"{RESULT}: codegen {MOVED}: registers: recorded 90, anew 87",
            f"results/nogpu/{CAUSE}: codegen {MOVED}: registers at head: recorded 90, anew 87",
        ],
    ),
    "a figure in both files": (
        spill,
        False,
        [
            f"{SIDECAR}: codegen {KERNEL}: spill_bytes: recorded 64, anew 0",
            f"{RESULT}: codegen {KERNEL}: spill_bytes: recorded 64, anew 0",
        ],
    ),
    "the digest of a cubin": (
        kernel(lambda r: r.update(sha256="0" * 64)),
        True,  # by the digest beside its loops
        [f"{SIDECAR}: codegen {KERNEL}: sha256: recorded {'0' * 64}, anew "],
    ),
    "opcodes": (
        kernel(swapped),
        False,
        [f"{SIDECAR}: codegen {KERNEL}: opcodes IMAD: recorded ", f"{SIDECAR}: codegen {KERNEL}: opcodes MOV: "],
    ),
    "a kernel's name": (
        kernel(lambda r: r.update(kernel="x")),
        False,
        [f"{SIDECAR}: codegen {KERNEL}: kernel: recorded x, anew FlashAttentionForwardSm90"],
    ),
    "a measured kernel hidden": (
        hidden,
        True,  # by its loops
        [f"{SIDECAR}: codegen {KERNEL}: state: recorded unsupported, anew measured"]
        + [f"{RESULT}: codegen {KERNEL}: {metric}: recorded n/a, anew " for metric in ("registers", "spill_bytes")],
    ),
    "a peak and its parts": (
        peak,
        False,
        [
            f"{SIDECAR}: memory {CALL}: peak_bytes: recorded ",
            f"{SIDECAR}: memory {CALL}: extra_bytes: recorded ",
            f"{SIDECAR}: memory {CALL}: parts workspace fp32 (1024,): recorded 4096, anew nothing",
            f"{RESULT}: memory {CALL}: peak_bytes: recorded ",
        ],
    ),
    "a growth": (growth, True, [f"{name}: growth sm_90/fwd_d128: growth_bytes: recorded 16, anew 0" for name in (RESULT, SIDECAR)]),
    "a route": (
        route,
        False,
        [
            f"{SIDECAR}: route {TORCH}/sm_90: notes lse: recorded nothing, anew ",
            f"{RESULT}: route {TORCH}/sm_90: broken: recorded 12, anew 13",
        ],
    ),
    "the result file alone": (
        lambda result, *_: in_result(result, "codegen.Kernels.track_registers", KERNEL, 1),
        True,
        [f"{RESULT}: codegen {KERNEL}: registers: recorded 1, anew 168"],
    ),
    "the cause alone": (
        lambda _, __, cause: cause["opcodes"][MOVED].update(control=[9999, 9999]),
        True,
        [f"results/nogpu/{CAUSE}: codegen {MOVED}: opcodes at head: recorded "],
    ),
}  # fmt: skip


@pytest.mark.fault(
    kind="a figure edited in all places at once",
    inputs="edits of result file, sidecar and cause (with real compilers: `test_real_audit.py`)",
    happens="`audit` names each file that differs; exit code 1",
)
@pytest.mark.parametrize(("change", "seen", "lines"), MUTANTS.values(), ids=MUTANTS.keys())
def test_an_edit_is_found_and_the_wrong_files_are_named(checkout, audit, change, seen, lines):
    edit(checkout, change)
    assert bool(verify(checkout)) == seen, verify(checkout)
    code, text = audit("--sample", EVERY, "--seed", "1")
    assert code == 1
    told = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    for line in lines:
        assert any(each.startswith(line) for each in told), (line, told)
    named = {line.partition(": ")[0] for line in lines}
    assert {each.partition(": ")[0] for each in told} == named, "no other file is called wrong"
    assert text.splitlines()[-1] == f"wrong: {', '.join(sorted(named))}"


def test_a_sound_record_is_equal(audit):
    code, text = audit("--sample", EVERY, "--seed", "5")
    assert code == 0, text
    lines = text.splitlines()
    assert lines[0] == "seed 5"
    assert lines[1].startswith(
        "4.0.0b36 cu13 day: 10 kernels, 8 main kernels, 144 calls, 16 families, 2 routes"
    )
    assert ", 140 steps (" in lines[1]
    assert (
        f"codegen: {EVERY} of {EVERY} kernels made anew; 1 % of wrong ones would be found with a chance of 100 %"
        in text
    )
    assert "1 of 1 file drawn; 1 % of wrong files would be found with a chance of 100 %" in text
    assert lines[-1] == "nothing differs"


def test_a_compiler_that_gives_something_else_is_told(audit):
    record = replace(TRUTH.groups["codegen"][KERNEL], sha256="ab" * 32)
    code, text = audit("--sample", EVERY, maker=Truth({("codegen", KERNEL): record}))
    assert code == 1 and f"anew {'ab' * 32}" in text
    broken = CaseRecord("broken", "killed \x1b[31m by \u202e x")
    code, text = audit("--sample", EVERY, maker=Truth({("codegen", KERNEL): broken}))
    assert code == 1 and "state: recorded measured, anew broken (killed \\x1b[31m by" in text


def test_where_nothing_compiles_the_machine_is_blamed_and_no_file(audit):
    broken = CaseRecord("broken", "cannot run nvdisasm")
    kernels = [(group, case) for group in KERNEL_GROUPS for case in TRUTH.groups.get(group, {})]
    code, text = audit("--sample", "12", maker=Truth(dict.fromkeys(kernels, broken)))
    assert code == 2
    assert "4.0.0b36 cu13 day: not checked: cannot run nvdisasm" in text
    assert text.splitlines()[-1] == "nothing was checked"


def test_what_cannot_be_made_is_told_and_the_rest_goes_on(checkout, audit):
    class Refuses(Truth):
        def records(self, side: Sidecar, cases: Any) -> Any:
            raise Fa4AsvError("the registry cannot be reached")

    code, text = audit("--minutes", "1", "--json", maker=Refuses())
    assert code == 2
    data = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert data["not_checked"] == [f"{B36}: the registry cannot be reached"] * len(data["not_checked"])


def test_json_says_the_same(checkout, audit):
    edit(checkout, spill)
    code, text = audit("--sample", EVERY, "--seed", "9", "--json")
    data = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert code == 1 and data["seed"] == 9
    assert data["cases"]["codegen"] == {
        "checked": int(EVERY),
        "of": int(EVERY),
        "chance_of_finding_1_percent": 1.0,
    }
    assert {each["file"] for each in data["differences"]} == {RESULT, SIDECAR}
    assert all(
        each["case"] == KERNEL and "recorded 64, anew 0" in each["what"] for each in data["differences"]
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--sample", "3", "--minutes", "3"], "--sample and --minutes are both given"),
        (["-m", "h200-sxm"], "figures of machine 'h200-sxm' are a clock's or a card's"),
        (["--minutes", "0"], "Invalid value for '--minutes'"),
        (["--sample", "0"], "Invalid value for '--sample'"),
        (["--seed", "x"], "Invalid value for '--seed'"),
    ],
)
def test_bad_use_is_one_line_and_2(audit, arguments, line):
    code, text = audit(*arguments)
    assert code == 2 and line in text and "Traceback" not in text


def test_without_a_history_there_is_nothing_to_compile(audit, monkeypatch):
    monkeypatch.setattr(auditing, "has_history", lambda _: False)
    assert audit() == (2, "fa4-asv: no FA4 history here yet; run `fa4-asv history sync` first\n")
    monkeypatch.setattr(auditing, "has_history", lambda _: True)

    def absent(*_: object) -> str:
        raise Fa4AsvError("unknown")

    monkeypatch.setattr(auditing, "tree_of", absent)
    code, text = audit()
    assert code == 2 and "no recorded file is of a commit that is here" in text


def test_a_damaged_record_is_not_audited(checkout, audit):
    (checkout.results / "nogpu" / B36).write_text("{")
    code, text = audit()
    assert code == 2 and "is not JSON" in text


def test_ctrl_c_sums_up_and_ends_with_130(audit):
    class Stops(Truth):
        def records(self, side: Sidecar, cases: Any) -> Any:
            if self.asked:
                raise KeyboardInterrupt
            return super().records(side, cases)

    code, text = audit("--sample", "50", maker=Stops())
    assert code == 130
    assert "interrupted" in text and f"codegen: 10 of {EVERY} kernels made anew" in text


def test_a_flavour_that_a_release_has_cannot_be_recorded_as_absent(checkout, audit, monkeypatch):
    pair = next(sound_pairs(checkout.results, "nogpu"))
    absent = replace(
        pair, sidecar=replace(pair.sidecar, toolchain=replace(pair.sidecar.toolchain, packages={}))
    )
    monkeypatch.setattr(auditing, "all_pairs", lambda *_: iter([pair, absent]))
    code, text = audit("--sample", "1")
    assert code == 1
    assert "all cu13: names no packages, though history/toolchains/day/cu13/4.0.0b36.txt does" in text


# What is drawn.


@pytest.fixture(scope="module")
def pairs():
    return [pair for pair in sound_pairs(ROOT / "results", "nogpu") if pair.sidecar.toolchain.packages]


def test_the_seed_fixes_the_draws_and_no_case_comes_twice(pairs):
    def drawn(seed: int) -> list[tuple[str, str, str]]:
        draws, result = Draws(pairs[:6], seed, (TORCH,)), []
        while draw := draws.next():
            result += [(draw.pair.path.name, g, case) for g, cases in draw.cases.items() for case in cases]
        assert Counter(group for _, group, _ in result) == Counter(
            {g: n for g, n in draws.population.items() if n}
        )
        return result

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(3))) == len(drawn(3))


def test_the_first_draw_covers_every_benchmark_and_the_others_are_of_all_files(pairs):
    first, later = Counter[bool](), Counter[str]()
    for seed in range(60):
        draws = Draws(pairs, seed, (TORCH,))
        draw = draws.next()
        recorded = {group for group, count in draws.population.items() if count} - {"loops"}
        assert draw is not None and draw.cases.keys() == recorded | (draw.cases.keys() & {"loops"})
        assert recorded >= {"codegen", "memory", "growth", "route"}
        assert len(draw.cases["codegen"]) == PER_DRAW
        first[bool(draw.pair.sidecar.release)] += 1
        second = draws.next()
        assert second is not None
        later[second.pair.sidecar.toolchain.policy + " " + second.pair.sidecar.release] += 1
    assert first == {True: 60}, "upstream's commits hold a few kernels only"
    assert any(name == "day " for name in later), "but they are drawn, too"
    assert any(name.startswith("nvidia") for name in later)


def test_files_are_drawn_in_proportion_to_their_kernels(pairs):
    two = [
        next(p for p in pairs if not p.sidecar.release),
        next(p for p in pairs if p.sidecar.release == "4.0.0b36"),
    ]
    kernels = [len(Draws([pair], 0).left[pair.path]["codegen"]) for pair in two]
    count = Counter[Path]()
    for seed in range(2000):
        draws = Draws(two, seed)
        draws.covered = set(EXACT)
        draw = draws.next()
        assert draw is not None
        count[draw.pair.path] += 1
    expected = 2000 * kernels[0] / sum(kernels)
    assert abs(count[two[0].path] - expected) < 5 * math.sqrt(expected)


def test_the_chance_is_that_of_drawing_without_putting_back():
    for population, count in ((100, 1), (100, 20), (250, 30), (6862, 300)):
        bad = math.ceil(0.01 * population)
        missed = math.comb(population - bad, count) / math.comb(population, count)
        assert math.isclose(chance(count, population), 1 - missed, rel_tol=1e-9)
    assert (chance(0, 50), chance(0, 0), chance(50, 50), chance(50, 50, 0.5)) == (0, 0, 1, 1)


def test_minutes_end_in_time(checkout, monkeypatch):
    """A file takes 20 s and 2 s per kernel: so within 3 minutes three of 20 kernels."""
    now = [0.0]
    monkeypatch.setattr(auditing.time, "monotonic", lambda: now[0])

    class Slow(Truth):
        def records(self, side: Sidecar, cases: Any) -> Any:
            now[0] += 20 + 2 * len(cases["codegen"])
            return super().records(side, cases)

    result = Audit.of(checkout, 1, TORCH)
    sizes = [checked.counts["codegen"] for checked in result.run(Slow(), Limit(minutes=3))]
    assert sizes == [20, 20, 20] and now[0] == 180
    now[0] = 0.0
    sizes = [each.counts["codegen"] for each in Audit.of(checkout, 1, TORCH).run(Slow(), Limit(minutes=2.6))]
    assert sizes[:2] == [20, 20] and 5 <= sizes[2] < 20 and now[0] < 2.6 * 60 + 1
    now[0] = 0.0
    sizes = [each.counts["codegen"] for each in Audit.of(checkout, 1, TORCH).run(Slow(), Limit(minutes=0.1))]
    assert sizes == [20], "at least one file"
    by_number = Audit.of(checkout, 1, TORCH).run(Slow(), Limit(kernels=25))
    assert [each.counts["codegen"] for each in by_number] == [10, 10, 5]


def test_the_route_is_asked_of_the_first_file_and_of_every_fourth(pairs):
    asked = Counter[int]()
    releases = [pair for pair in pairs if pair.sidecar.groups.get("route")][:12]
    for seed in range(40):
        draws = Draws(releases, seed, (TORCH,))
        for number in range(2):
            draw = draws.next()
            asked[number] += bool(draw and "route" in draw.cases)
    assert asked[0] == 40 and 2 <= asked[1] <= 20


# How it is made.


def test_no_cache_of_figures_is_at_hand(checkout, monkeypatch, tmp_path):
    seen: list[Context] = []

    def ask(python: Path, project: Project, context: Context, cases: Any) -> Any:
        seen.append(context)
        assert not list(Path(context.root).iterdir())
        return {}

    source = type(
        "Source", (), {"commit": TRUTH.commit, "tree": "t", "release": "4.0.0b36", "folder": tmp_path}
    )
    monkeypatch.setattr(making, "lay_source", lambda *_: source)
    monkeypatch.setattr(making, "install", lambda *_: Path(sys.executable))
    monkeypatch.setattr(making, "refuse_shadow", lambda *_: None)
    monkeypatch.setattr(making, "_ask", ask)
    Anew(checkout, Path(sys.executable), TORCH).records(TRUTH, {"codegen": (KERNEL,)})
    (context,) = seen
    path = cache_path(context, "codegen", "sm_90", "fwd_d128_full")
    assert not path.is_relative_to(checkout.root.resolve()) and not Path(context.root).exists()
    assert context.packages == TRUTH.toolchain.packages, "those of the committed lock"


def test_a_toolchain_comes_from_the_lock_not_from_the_record(checkout):
    other = replace(TRUTH, toolchain=replace(TRUTH.toolchain, packages={"nvidia-cutlass-dsl": "1"}))
    assert making.lock_of(checkout, other).packages == TRUTH.toolchain.packages
    with pytest.raises(Fa4AsvError, match="cannot be read"):
        making.lock_of(checkout, replace(TRUTH, release="4.0.0b99"))


def test_a_process_without_an_answer_is_one_line(checkout, tmp_path):
    context = Context(*[""] * 8, "", {}, str(tmp_path), "", "", "")
    context = replace(context, root=str(tmp_path), machine="nogpu")
    with pytest.raises(Fa4AsvError, match=r"no answer for evil: KeyError: 'evil'"):
        making._ask(Path(sys.executable), Project(ROOT), context, {"evil": ("a/b",)})


def test_broken_words_may_differ_and_refusals_may_not():
    for state, count in (("broken", 0), ("unsupported", 1)):
        assert len(list(record_differs(CaseRecord(state, "at 5 s"), CaseRecord(state, "at 6 s")))) == count


def test_what_a_cause_says_of_a_state_is_compared(checkout):
    """b36 is its head; of its base the audit of b36 says nothing."""
    pair = next(sound_pairs(checkout.results, "nogpu"))
    path = checkout.results / "nogpu" / CAUSE
    cause = read_explanation(path)
    for base, head, lines in (
        ("unsupported", "measured", []),
        ("measured", "unsupported", ["state at head: recorded unsupported, anew measured"]),
    ):
        states = {KERNEL: Verdict(base, head, None, None, "unknown")}
        causes = {path: replace(cause, states=states)}
        result = compared(pair, causes, "codegen", KERNEL, TRUTH.groups["codegen"][KERNEL])
        assert [each.what for each in result] == lines


def test_of_many_differences_the_first_are_told_and_the_rest_counted():
    many = CaseRecord("measured", figures={"registers": 1}, opcodes=dict.fromkeys("abcde", 1))
    lines = list(record_differs(many, replace(many, opcodes={})))
    assert lines == [*(f"opcodes {name}: recorded 1, anew nothing" for name in "abc"), "opcodes: 2 more"]


def test_every_exact_benchmark_can_be_made_anew():
    """A new group is drawn whole from each file: where its cases take time, integrity.audit must sample them."""
    beyond = {*BEYOND, *(f"{group}-memory" for group in TRACED_GROUPS)}
    own = {"codegen", "loops", "memory", "growth", "launch", *BY_TORCH}
    assert MEASURES.keys() == set(EXACT) == own | beyond
