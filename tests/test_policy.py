"""What is worse: one policy, asked by `compare`, `changes` and the report, which therefore count the same."""

from __future__ import annotations

import ast
import json
import math
import sys
from dataclasses import dataclass, replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.cli import run
from fa4_asv.compare import policy
from fa4_asv.compare.changes import Record, counts, exact_changes, recorded
from fa4_asv.compare.commits import Commit, Plan
from fa4_asv.compare.formats import exit_code
from fa4_asv.compare.policy import BETTER, NEITHER, WORSE, Rule, StateChange
from fa4_asv.compare.rows import Measured, compare
from fa4_asv.compare.sides import Comparison, held_against
from fa4_asv.history.manifest import Manifest, Release
from fa4_asv.record.schema import STATES, CaseRecord
from fa4_asv.record.store import iter_results
from fa4_asv.report.events import Timeline, timeline
from fa4_asv.report.model import Model, load
from fa4_asv.report.multiples import short
from fa4_asv.report.overview import headline
from fa4_asv.report.totals import history
from tests.support import ROOT
from tests.support.fake_record import write_pair, write_releases

PLAN = Plan(("day",), "each with the toolchain of its release day")
# (worse figures, their cases, better figures, their cases)
Counts = tuple[int, int, int, int]

# The tables


def test_every_figure_of_the_catalog_has_a_rule():
    assert policy.RULES.keys() == {metric for group in GROUPS.values() for metric in group.metrics}


def test_every_change_between_states_that_say_something_has_a_meaning():
    told = [state for state in STATES if state != "not run"]
    assert policy.STATES.keys() == {pair for pair in product(told, repeat=2) if pair[0] != pair[1]}


@pytest.mark.parametrize(("before", "after"), list(product(STATES, repeat=2)))
def test_swapped_states_invert(before, after):
    inverse = {WORSE: BETTER, BETTER: WORSE, NEITHER: NEITHER}
    assert policy.effect_of_states(after, before) == inverse[policy.effect_of_states(before, after)]


@pytest.mark.parametrize(
    ("ratio", "least", "effect"),
    [
        (1.004, 0.0, NEITHER),
        (1.006, 0.0, WORSE),
        (1.006, 0.01, NEITHER),
        (1.02, 0.01, WORSE),
        (2.0, math.nan, NEITHER),
        (1.0, 0.0, NEITHER),
    ],
)
def test_a_ratio_of_times_has_to_be_seen_and_large(ratio, least, effect):
    inverse = {WORSE: BETTER, NEITHER: NEITHER}
    assert policy.effect_of_ratio(math.log(ratio), least) == effect
    assert policy.effect_of_ratio(-math.log(ratio), least) == inverse[effect]


def test_the_report_has_no_threshold_of_its_own():
    """A number that a figure is held against stands in `policy`."""
    for path in (ROOT / "fa4_asv" / "report").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            numbers = [side.value for side in sides if isinstance(side, ast.Constant)]
            assert not any(isinstance(number, float) for number in numbers), (path.name, ast.unparse(node))


figures = st.integers(0, 10**12) | st.floats(0, 1e12)


@given(st.sampled_from(sorted(policy.RULES)), figures, figures)
def test_swapped_figures_invert(metric, before, after):
    inverse = {WORSE: BETTER, BETTER: WORSE, NEITHER: NEITHER}
    effect = policy.effect_of_figures(metric, before, after)
    assert policy.effect_of_figures(metric, after, before) == inverse[effect]
    assert not (effect and after == before)


@pytest.mark.parametrize("low", [100, 700, 5_700, 123_400])
def test_a_change_counts_from_exactly_one_percent_on(low):
    assert policy.effect_of_figures("instructions", low, low + low // 100) == WORSE
    assert policy.effect_of_figures("instructions", low + low // 100, low) == BETTER
    assert policy.effect_of_figures("instructions", low, low + low // 100 - 1) == NEITHER


def test_the_documented_tables_are_those_of_the_code():
    text = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
    for metric, rule in policy.RULES.items():
        assert f"| {metric} | {_from(rule)} | {rule.why} |" in text
    for (before, after), change in policy.STATES.items():
        assert f"{before} -> {after} | {change.name} | {change.effect} |" in text


def _from(rule: Rule) -> str:
    if rule.smallest is None:
        return "not judged"
    return f"{rule.smallest * 100:g} %" if rule.smallest else "any change"


# Ways to ask, each with what it reads


def held(project: Project, flavour: str, before: Release, after: Release) -> Comparison:
    """What `fa4-asv compare --no-run` prints."""
    commits = [Commit(each.version, each.commit, each.version) for each in (before, after)]
    return held_against(project.results, (commits[0], commits[1]), flavour, "nogpu", PLAN)


def by_compare(result: Comparison) -> Counts:
    worse, better = ([(row.group, row.case) for row in rows] for rows in (result.worse, result.better))
    return len(worse), len(set(worse)), len(better), len(set(better))


def by_changes(before: Record, after: Record) -> Counts:
    worse, better = counts(exact_changes(before, after))
    return worse.figures, worse.cases, better.figures, better.cases


def by_report(result: Timeline, flavour: str, release: str) -> Counts:
    """Of the events of one release in one flavour."""
    steps = [step for step in result.of(release) if (step.key.flavour, step.key.policy) == (flavour, "day")]
    keys = {
        effect: [event.change.key for step in steps for event in step.events if event.effect == effect]
        for effect in (WORSE, BETTER)
    }
    return len(keys[WORSE]), len(set(keys[WORSE])), len(keys[BETTER]), len(set(keys[BETTER]))


def by_chart(model: Model, result: Timeline, flavour: str) -> dict[str, tuple[str, str]]:
    """Cases that are worse and better, by release, as the table behind the first page's chart has them."""
    panel = next(each for each in history(model, result) if each.anchor == f"moves-{flavour}")
    return {row[0]: (row[2], row[1]) for row in panel.table.rows}


# A table of cases: what was recorded before and after, and the effects. All three ways have to give them.

CODE = dict.fromkeys(GROUPS["codegen"].metrics, 1000)
KERNEL = "sm_100/fwd_d128_full"


def code(**figures: int) -> CaseRecord:
    return CaseRecord("measured", figures={**CODE, **figures})


def memory(peak: int, extra: int = 100) -> CaseRecord:
    return CaseRecord("measured", figures={"peak_bytes": peak, "extra_bytes": extra})


def route(broken: int) -> CaseRecord:
    return CaseRecord(
        "measured", figures={"broken": broken, "checks": 21}, notes={f"check{n}": "no" for n in range(broken)}
    )


def launch(compiles: int, host_reads: int = 0, allocations: int = 8) -> CaseRecord:
    parts = {"compiled K": compiles, "read in f": host_reads, "allocated in f": allocations}
    figures = {"compiles": compiles, "host_reads": host_reads, "allocations": allocations}
    return CaseRecord(
        "measured", figures=figures, parts={name: count for name, count in parts.items() if count}
    )


@dataclass(frozen=True)
class Compiled:
    """A kernel and its loops, of one compile."""

    kernel: CaseRecord
    loops: CaseRecord


def looped(
    turn: int, masked: int = 600, inside: int = 0, products: int = 16, exp2: int = 66, **whole: int
) -> Compiled:
    """A kernel whose loops are understood; `whole` are figures of all of it."""
    figures = {"turn_instructions": turn, "masked_instructions": masked, "spills_inside": inside}
    figures |= {"spills_outside": 0, "slots_per_100_products": 100 * turn // products}
    parts = {"exp2": exp2, "HGMMA.64x128x16": products}
    return Compiled(code(**whole), CaseRecord("measured", figures=figures, parts=parts))


def unread(**whole: int) -> Compiled:
    return Compiled(code(**whole), CaseRecord("unsupported", why="loops: an indirect branch"))


def without_turn(inside: int, **whole: int) -> Compiled:
    """Spills inside loops are known, the turn is not."""
    metrics = ("turn_instructions", "masked_instructions", "slots_per_100_products")
    notes = dict.fromkeys(metrics, "an inner loop")
    figures = {"spills_inside": inside, "spills_outside": 0}
    return Compiled(code(**whole), CaseRecord("measured", figures=figures, notes=notes))


UNSUPPORTED = CaseRecord("unsupported", "no such head_dim")
# Words that look like a change of state: states are never read out of them.
BROKEN = CaseRecord("broken", "measured -> measured: killed")
TRACED = "sm_90/fwd_b8_s4096_h16_d128_full"
TORCH = "2.13.0/sm_90"
LAUNCH = "sm_90/varlen_tensor_d128/again"

WINDOW, PRE = "sm_90/bwd_d128_window", "sm_90/bwd_pre_d128"
LONGER = {"instructions": 2000, "spill_bytes": 2000, "local_loads": 2000, "local_stores": 2000}

CASES: dict[str, tuple[str, str, CaseRecord | Compiled, CaseRecord | Compiled, Counts]] = {
    "nothing changed": ("codegen", KERNEL, code(), code(), (0, 0, 0, 0)),
    "0.9 % more instructions": ("codegen", KERNEL, code(), code(instructions=1009), (0, 0, 0, 0)),
    "1 % more instructions": ("codegen", KERNEL, code(), code(instructions=1010), (1, 1, 0, 0)),
    "1 % less, of the smaller one": ("codegen", KERNEL, code(instructions=1010), code(), (0, 0, 1, 1)),
    "1 % less, of the larger one": ("codegen", KERNEL, code(), code(instructions=991), (0, 0, 0, 0)),
    "half the instructions": ("codegen", KERNEL, code(), code(instructions=500), (0, 0, 1, 1)),
    "spills from nothing": ("codegen", KERNEL, code(spill_bytes=0), code(spill_bytes=8), (1, 1, 0, 0)),
    "spills to nothing": ("codegen", KERNEL, code(spill_bytes=8), code(spill_bytes=0), (0, 0, 1, 1)),
    "loads and stores": ("codegen", KERNEL, code(), code(local_loads=2000, local_stores=500), (1, 1, 1, 1)),
    "twice the code size": ("codegen", KERNEL, code(), code(text_bytes=2000), (0, 0, 0, 0)),
    "twice the registers": ("codegen", KERNEL, code(), code(registers=2000), (0, 0, 0, 0)),
    "three figures": (
        "codegen", KERNEL, code(), code(spill_bytes=2000, instructions=2000, local_loads=1), (2, 1, 1, 1),
    ),
    "2 % more in a turn": ("codegen", KERNEL, looped(500), looped(510), (1, 1, 0, 0)),
    "1.8 % more in a turn": ("codegen", KERNEL, looped(500), looped(509), (0, 0, 0, 0)),
    "a longer kernel, the same turn": ("codegen", KERNEL, looped(500), looped(500, **LONGER), (0, 0, 0, 0)),
    "a longer kernel, a shorter turn": ("codegen", KERNEL, looped(500), looped(450, **LONGER), (0, 0, 1, 1)),
    "a longer kernel, loops not read": ("codegen", KERNEL, unread(), unread(**LONGER), (4, 1, 0, 0)),
    "loops read before only": ("codegen", KERNEL, looped(500), unread(**LONGER), (4, 1, 0, 0)),
    "loops read, and not recorded before": ("codegen", KERNEL, code(), looped(500, **LONGER), (4, 1, 0, 0)),
    "one spill in a turn": ("codegen", KERNEL, looped(500), looped(500, inside=1), (1, 1, 0, 0)),
    "spills known, the turn not": ("codegen", KERNEL, without_turn(5), without_turn(4, **LONGER), (1, 1, 1, 1)),
    "another tile": (
        "codegen", KERNEL, looped(389), looped(420, products=18, instructions=2000), (0, 0, 0, 0),
    ),
    "exp2 by other units": ("codegen", KERNEL, looped(1267, exp2=129), looped(1412, exp2=93), (0, 0, 0, 0)),
    "a masked turn": ("codegen", KERNEL, looped(500), looped(500, masked=900), (0, 0, 0, 0)),
    "a masked turn of a window": ("codegen", WINDOW, looped(500), looped(400, masked=900), (1, 1, 0, 0)),
    "a longer preprocess": ("codegen", PRE, code(), code(instructions=2000), (0, 0, 0, 0)),
    "a preprocess that spills": ("codegen", PRE, code(), code(spill_bytes=2000), (1, 1, 0, 0)),
    "the peak grows": ("memory", TRACED, memory(1000), memory(1010), (1, 1, 0, 0)),
    "the peak grows a little": ("memory", TRACED, memory(1000), memory(1009), (0, 0, 0, 0)),
    "memory beyond the inputs": ("memory", TRACED, memory(1000), memory(1000, 200), (0, 0, 0, 0)),
    "one check more is broken": ("route", TORCH, route(20), route(21), (1, 1, 0, 0)),
    "one check works again": ("route", TORCH, route(1), route(0), (0, 0, 1, 1)),
    "a call compiles again": ("launch", LAUNCH, launch(0), launch(2), (1, 1, 0, 0)),
    "a call compiles once less": ("launch", LAUNCH, launch(5), launch(4), (0, 0, 1, 1)),
    "a call compiles less and reads": ("launch", LAUNCH, launch(2), launch(0, 1), (1, 1, 1, 1)),
    "a call allocates more": ("launch", LAUNCH, launch(0), launch(0, 0, 80), (0, 0, 0, 0)),
    "measured, then unsupported": ("codegen", KERNEL, code(), UNSUPPORTED, (1, 1, 0, 0)),
    "measured, then broken": ("codegen", KERNEL, code(), BROKEN, (1, 1, 0, 0)),
    "unsupported, then broken": ("codegen", KERNEL, UNSUPPORTED, BROKEN, (1, 1, 0, 0)),
    "unsupported, then measured": ("codegen", KERNEL, UNSUPPORTED, code(), (0, 0, 1, 1)),
    "broken, then measured": ("codegen", KERNEL, BROKEN, code(), (0, 0, 1, 1)),
    "broken, then unsupported": ("codegen", KERNEL, BROKEN, UNSUPPORTED, (0, 0, 1, 1)),
    "broken, in other words": (
        "codegen", KERNEL, BROKEN, CaseRecord("broken", "unsupported -> measured"), (0, 0, 0, 0),
    ),
    "not run any more": ("codegen", KERNEL, code(), CaseRecord("not run", "not selected"), (0, 0, 0, 0)),
    "not run before": ("codegen", KERNEL, CaseRecord("not run", "not selected"), BROKEN, (0, 0, 0, 0)),
}  # fmt: skip


def lay(project: Project, group: str, case: str, *records: CaseRecord | Compiled) -> list[Release]:
    """Two releases with one case that may differ, and one that does not."""
    releases = write_releases(project, 2)
    for release, record in zip(releases, records, strict=True):
        write_pair(project, release, {"codegen": {"sm_90/fwd_d64_full": code()}} | _with(group, case, record))
    return releases


def _with(group: str, case: str, record: CaseRecord | Compiled) -> dict[str, dict[str, CaseRecord]]:
    if isinstance(record, Compiled):
        return {**_with(group, case, record.kernel), "loops": {case: record.loops}}
    beside = {"sm_90/fwd_d64_full": code()} if group == "codegen" else {}
    return {group: {**beside, case: record}}


@dataclass(frozen=True)
class Pair:
    """Two releases as each way has read them."""

    comparison: Comparison
    records: list[Record]
    model: Model

    def again(self) -> Comparison:
        """The comparison by the policy as it is now."""
        base, head = self.comparison.base.measured, self.comparison.head.measured
        return replace(self.comparison, rows=tuple(compare(base, head, exact=True)))


def read(project: Project, before: Release, after: Release) -> Pair:
    records = recorded(project.results, Manifest.load(project.manifest), "cu13")
    model = load(project, list(iter_results(project.results)))
    return Pair(held(project, "cu13", before, after), records, model)


def counted_by(pair: Pair) -> dict[str, Counts]:
    return {
        "compare": by_compare(pair.again()),
        "changes": by_changes(*pair.records),
        "report": by_report(timeline(pair.model, []), "cu13", pair.records[1].release),
    }


def asked(pair: Pair) -> dict[str, object]:
    """What each way says of two releases: counts, the word of the first page, the chart's cases, the exit code."""
    result = timeline(pair.model, [])
    return counted_by(pair) | {
        "chart": by_chart(pair.model, result, "cu13")[short(pair.records[1].release)],
        "first page": headline(pair.model, result).verdict,
        "exit code": exit_code([pair.again()]),
    }


def expected(counted: Counts) -> dict[str, object]:
    worse, better = counted[0], counted[2]
    word = "mixed" if worse and better else "worse" if worse else "better" if better else "no relevant change"
    return {
        **dict.fromkeys(("compare", "changes", "report"), counted),
        "chart": (str(counted[1]), str(counted[3])),
        "first page": word,
        "exit code": int(worse > 0),
    }


@dataclass(frozen=True)
class Laid:
    """A case of the table, and what all ways have to say of it."""

    name: str
    pair: Pair
    counted: Counts


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> list[Laid]:
    """Every case in both directions: swapped sides invert."""
    folder, result = tmp_path_factory.mktemp("policy"), []
    for name, (group, case, *records, counted) in CASES.items():
        for turn in (1, -1):
            project = Project(folder / str(len(result)))
            project.manifest.parent.mkdir(parents=True)
            releases = lay(project, group, case, *records[::turn])
            told = counted if turn == 1 else (*counted[2:], *counted[:2])
            result.append(Laid(name if turn == 1 else f"{name}, swapped", read(project, *releases), told))
    return result


def check(table: list[Laid]) -> None:
    for each in table:
        assert asked(each.pair) == expected(each.counted), each.name


def test_compare_changes_and_report_say_what_the_table_says(table):
    check(table)


def _states(**pairs: str) -> dict[tuple[str, str], StateChange]:
    changed = {tuple(name.split("_")): StateChange("x", effect) for name, effect in pairs.items()}
    return {**policy.STATES, **changed}


def _but(code: str) -> object:
    """The policy without one of its reasons."""
    of = policy.why_unjudged
    return lambda metric, kernel: "" if of(metric, kernel) == code else of(metric, kernel)


MUTANTS: dict[str, tuple[str, object]] = {
    "every change counts": ("RULES", {name: replace(rule, smallest=0.0) for name, rule in policy.RULES.items()}),
    "nothing is judged": ("RULES", {name: replace(rule, smallest=None) for name, rule in policy.RULES.items()}),
    "code size is judged": ("RULES", {**policy.RULES, "text_bytes": Rule(0.01, "")}),
    "registers are judged": ("RULES", {**policy.RULES, "registers": Rule(0.01, "")}),
    "spills are not judged": ("RULES", {**policy.RULES, "spill_bytes": Rule(None, "")}),
    "loads are not judged": ("RULES", {**policy.RULES, "local_loads": Rule(None, "")}),
    "stores are not judged": ("RULES", {**policy.RULES, "local_stores": Rule(None, "")}),
    "the peak is not judged": ("RULES", {**policy.RULES, "peak_bytes": Rule(None, "")}),
    "the rest of the peak is judged": ("RULES", {**policy.RULES, "extra_bytes": Rule(0.01, "")}),
    "two checks are one": ("RULES", {**policy.RULES, "broken": Rule(0.1, "")}),
    "from 1.1 % on": ("RULES", {**policy.RULES, "instructions": Rule(0.011, "")}),
    "from 0.9 % on": ("RULES", {**policy.RULES, "instructions": Rule(0.009, "")}),
    "of the larger side": ("is_large", lambda metric, before, after: abs(after - before) >= 0.01 * max(before, after)),
    "of the side before": ("is_large", lambda metric, before, after: abs(after - before) >= 0.01 * max(before, 1)),
    "more is better": ("effect_of_figures", lambda metric, before, after: BETTER if after > before else NEITHER),
    "whole kernels beside loops": ("why_unjudged", _but("loops-judged")),
    "turns of other tiles": ("why_unjudged", _but("other-tile")),
    "every turn is judged": ("why_unjudged", _but("other-turn")),
    "a preprocess is judged by its length": ("why_unjudged", _but("no-loop")),
    "windows by their main turn": (
        "why_unjudged", lambda metric, kernel, of=policy.why_unjudged: of(metric, replace(kernel, windowed=False)),
    ),
    "only loops are judged": (
        "why_unjudged", lambda metric, kernel, of=policy.why_unjudged: of(metric, kernel) or "x" * ("loc" in metric),
    ),
    "a turn from 1.8 % on": ("RULES", {**policy.RULES, "turn_instructions": Rule(0.018, "")}),
    "a turn from 2.1 % on": ("RULES", {**policy.RULES, "turn_instructions": Rule(0.021, "")}),
    "a spill in a turn is nothing": ("RULES", {**policy.RULES, "spills_inside": Rule(None, "")}),
    "a refusal that fails is no change": ("STATES", _states(unsupported_broken=NEITHER)),
    "a failure that is refused is worse": ("STATES", _states(broken_unsupported=WORSE)),
    "a loss of support is better": ("STATES", _states(measured_unsupported=BETTER)),
    "a failure is no change": ("STATES", _states(measured_broken=NEITHER)),
    "support is no change": ("STATES", _states(unsupported_measured=NEITHER)),
    "a repair is no change": ("STATES", _states(broken_measured=NEITHER)),
    "figures for cases": ("count_of", lambda effects, effect: policy.Count(*[sum(e == effect for _, e in effects)] * 2)),
    "worse is exit code 0": ("exit_code", lambda effects: 0),
    "better is exit code 1": ("exit_code", lambda effects: int(any(effects))),
    "one word too many": ("overall", lambda effects: "mixed"),
}  # fmt: skip


# How effects are counted and told. A mutant of what has an effect is believed by all ways alike.
_COUNTS = ("count_of", "exit_code", "overall")


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_of_the_policy_is_caught_and_nobody_has_a_rule_beside_it(name, table, monkeypatch):
    where, what = MUTANTS[name]
    for module in _with_name(where, getattr(policy, where)):
        monkeypatch.setattr(module, where, what)
    if where in _COUNTS:
        with pytest.raises(AssertionError):
            check(table)
        return
    counts_by_reader = {each.name: counted_by(each.pair) for each in table}
    assert any(set(counts_by_reader[each.name].values()) != {each.counted} for each in table)
    assert all(len(set(result.values())) == 1 for result in counts_by_reader.values())


def _with_name(name: str, value: object) -> list[object]:
    """The policy, and every module that has imported that name of it."""
    modules = [module for key, module in sys.modules.items() if key.startswith("fa4_asv.")]
    return [module for module in modules if getattr(module, name, None) is value]


def test_figures_of_two_versions_of_a_benchmark_are_no_change(project):
    """They mean different things: none of the three compares them. A change of state is one all the same."""
    base, head = lay(project, "codegen", KERNEL, code(), code(instructions=2000))
    path = next(path for path in iter_results(project.results) if path.name.startswith(head.commit[:8]))
    data = json.loads(path.read_text())
    for row in data["results"].values():
        row[2] = "2"
    path.write_text(json.dumps(data))
    assert asked(read(project, base, head)) == expected((0, 0, 0, 0))


def test_changes_prints_the_same_counts(project, monkeypatch, capsys):
    lay(project, "codegen", KERNEL, code(), code(instructions=2000, spill_bytes=10, local_loads=1001))
    monkeypatch.chdir(project.root)
    (project.root / "asv.conf.json").write_text((ROOT / "asv.conf.json").read_text())
    _run("changes")
    assert (
        "3 figures changed in 1 of 2 cases; 1 figure of 1 case worse, 1 figure of 1 case better"
        in " ".join(capsys.readouterr().out.split())
    )
    _run("changes", "--json")
    (pair,) = json.loads(capsys.readouterr().out)
    assert (pair["worse"], pair["better"]) == (1, 1)
    effects = {change["metric"]: change["effect"] for change in pair["changes"]}
    assert effects == {"instructions": WORSE, "spill_bytes": BETTER, "local_loads": NEITHER}


def _run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(list(arguments))
    assert not ended.value.code


# The real record


@pytest.fixture(scope="module")
def real() -> Model:
    project = Project(ROOT)
    return load(project, list(iter_results(project.results, "nogpu")))


@pytest.mark.parametrize("flavour", ["cu12", "cu13"])
def test_all_ways_count_the_same_between_all_recorded_neighbours(flavour, real):
    """No number is named, so the record may grow."""
    result = timeline(real, [])
    chart = by_chart(real, result, flavour)
    (series,) = (each for each in real.exact() if each.key.flavour == flavour)
    for before, after in series.pairs():
        sides = [Measured(each.record.sidecar.groups, each.record.versions) for each in (before, after)]
        rows = compare(*sides, exact=True)
        worse, better = ([(r.group, r.case) for r in rows if r.effect == each] for each in (WORSE, BETTER))
        counted = (len(worse), len(set(worse)), len(better), len(set(better)))
        assert by_changes(before.record, after.record) == counted, after.label
        assert by_report(result, flavour, after.label) == counted, after.label
        assert chart[short(after.label)] == (str(counted[1]), str(counted[3])), after.label


@pytest.mark.parametrize(
    ("versions", "flavour"),
    [
        (("4.0.0b30", "4.0.0b31"), "cu12"),
        (("4.0.0b35", "4.0.0b36"), "cu13"),
        pytest.param(("4.0.0b30", "4.0.0b31"), "cu13", marks=pytest.mark.nightly),
        pytest.param(("4.0.0b35", "4.0.0b36"), "cu12", marks=pytest.mark.nightly),
    ],
)
def test_the_commands_and_the_report_count_the_same(flavour, versions, real):
    """Of the two steps of which they once said different things."""
    project = Project(ROOT)
    manifest = Manifest.load(project.manifest)
    before, after = (
        next(release for release in manifest.releases if release.version == name) for name in versions
    )
    comparison = held(project, flavour, before, after)
    records = [
        release for release in recorded(project.results, manifest, flavour) if release.release in versions
    ]
    counted = by_compare(comparison)
    assert by_changes(*records) == by_report(timeline(real, []), flavour, after.version) == counted
    assert exit_code([comparison]) == int(counted[0] > 0)
