"""docs/findings.md holds no number that the record does not hold."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest

from fa4_asv.base.project import Project
from fa4_asv.compare.changes import Record, changes_between, recorded
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.explanation import Explanation, read_explanation
from tests.proofs import rank_steps
from tests.support import ROOT

ROW = re.compile(
    r"^\| (4\.0\.0b\d+) \| (4\.0\.0b\d+) \| (cu1[23]|plain) \| (\S.*) \| (\w+) \| (\w+) \| (\w+) \| ([\w –]+) \|$",
    re.M,
)
# The page speaks of the record up to a release; what came later is not in its counts.
TEXT = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, str], Record]:
    project = Project(ROOT)
    manifest = Manifest.load(project.manifest)
    return {
        (flavour, record.release): record
        for flavour in ("cu12", "cu13", "plain")
        for record in recorded(project.results, manifest, flavour)
    }


def group_of(kernel: str) -> str:
    return "route" if kernel[0].isdigit() else "codegen"


def figure(known, flavour: str, pair: tuple[str, str], release: str, kernel: str, metric: str) -> str:
    cases = known[flavour, release].sidecar.groups[group_of(kernel)]
    if metric == "state":
        return cases[kernel].state
    if "/" in kernel:
        return str(cases[kernel].figures[metric])
    arch = kernel.partition(",")[0]
    sides = [known[flavour, each].sidecar.groups["codegen"] for each in pair]
    shared = [
        name
        for name in cases
        if name.startswith(f"{arch}/") and all(name in s and s[name].state == "measured" for s in sides)
    ]
    return str(sum(cases[name].figures[metric] for name in shared))


def order() -> list[str]:
    """The releases that the page speaks of."""
    last = re.search(r"From the record, 4\.0\.0b3 to (4\.0\.0b\d+)", TEXT)
    versions = [release.version for release in Manifest.load(Project(ROOT).manifest).releases]
    return versions[: versions.index(last[1]) + 1]


@cache
def explained(flavour: str, old: str, new: str) -> Explanation:
    """What the record's `.cause` file of two releases says."""
    names = (ROOT / "results" / "nogpu").glob(f"*-{flavour}.cause")
    result = {(each.base.release, each.head.release): each for each in map(read_explanation, names)}
    return result[old, new]


def cause(known, flavour: str, pair: tuple[str, str], kernel: str, metric: str) -> str:
    """As the four corners prove it; a sum over kernels has none, and `explain` does not know plain."""
    if "/" not in kernel or flavour == "plain":
        return "–"
    if known[flavour, pair[0]].sidecar.toolchain == known[flavour, pair[1]].sidecar.toolchain:
        return "source"
    explanation = explained(flavour, *pair)
    return (explanation.states[kernel] if metric == "state" else explanation.cases[kernel][metric]).cause


@pytest.mark.slow
def test_every_row_is_in_the_record(known):
    rows = ROW.findall(TEXT)
    assert len(rows) == len(re.findall(r"^\| 4\.0", TEXT, re.M)) >= 50
    for old, new, flavour, kernel, metric, before, after, why in rows:
        result = [figure(known, flavour, (old, new), release, kernel, metric) for release in (old, new)]
        assert result == [before, after], (old, new, flavour, kernel, metric)
        if old != "4.0.0b30" or new != "4.0.0b32":
            assert cause(known, flavour, (old, new), kernel, metric) == why, (
                old,
                new,
                flavour,
                kernel,
                metric,
            )


@pytest.mark.slow
def test_the_largest_are_those_that_the_script_ranks_first():
    result = [pair for pair in rank_steps.ranked(rank_steps.scores(Project(ROOT))) if pair[0] in order()]
    titles = " ".join(re.findall(r"^## \d\. (.*)$", TEXT, re.M))
    assert {release for release, _ in result[:6]} <= set(re.findall(r"4\.0\.0b\d+", titles))
    messages = [
        (f"4.0.0{name}", int(score))
        for name, score in re.findall(r"(b\d+)(?: leads with| \()\s*(\d+)", TEXT)[:6]
    ]
    assert messages == [(release, round(score)) for release, score in result[:6]]


def test_shares_of_causes_are_those_of_the_record():
    """Of neighbours only: one file explains b15 to b20. Most of plain's changes are cu12's and would count twice."""
    count: Counter[str] = Counter()
    known = order()
    for path in (ROOT / "results" / "nogpu").glob("*.cause"):
        explanation = read_explanation(path)
        sides = [
            known.index(side.release)
            for side in (explanation.base, explanation.head)
            if side.release in known
        ]
        if len(sides) < 2 or sides[1] - sides[0] > 1 or explanation.flavour == "plain":
            continue
        count.update(verdict.cause for metrics in explanation.cases.values() for verdict in metrics.values())
        count.update(verdict.cause for verdict in explanation.states.values())
    shares = [
        f"{count[name] / count.total():.0%}".replace("%", " %")
        for name in ("toolchain", "source", "both together", "unknown")
    ]
    claim = re.search(
        r"Of the ([\d,]+) figures .*?\n.*?, (\d+ %) .*?, (\d+ %) .*?, (\d+ %) .*?, (\d+ %)", TEXT
    )
    assert claim and list(claim.groups()[1:]) == shares and claim[1] == f"{round(count.total(), -2):,}"


def test_what_is_called_proven_is(known):
    """b13: the same toolchain on both sides, in both flavours; under CUDA 13 nothing moved by 1 %."""
    for flavour in ("cu12", "cu13"):
        old, new = known[flavour, "4.0.0b12"], known[flavour, "4.0.0b13"]
        assert old.sidecar.toolchain == new.sidecar.toolchain
    small = changes_between(old, new)
    assert len({change.case for change in small}) == 2
    assert all(change.weight < 1.01 for change in small if change.metric == "instructions")
    grown = changes_between(known["cu12", "4.0.0b12"], known["cu12", "4.0.0b13"])
    ratios = [
        c.head / c.base
        for c in grown
        if re.search(r"/bwd_d128_(full|causal)(_varlen)?$", c.case) and c.metric == "instructions"
    ]
    assert sorted(round(ratio, 2) for ratio in ratios) == [1.19, 1.29, 1.29, 1.34]


@pytest.mark.parametrize(
    ("flavour", "pair", "arch", "causes"),
    [
        ("cu13", ("4.0.0b19", "4.0.0b20"), "", {"toolchain": 220, "both together": 4}),
        ("cu13", ("4.0.0b31", "4.0.0b32"), "", {"toolchain": 184}),
        ("cu12", ("4.0.0b31", "4.0.0b32"), "", {"toolchain": 186}),
        ("cu13", ("4.0.0b11", "4.0.0b12"), "sm_90", {"toolchain": 100}),
        ("cu12", ("4.0.0b9", "4.0.0b10"), "", {"source": 78}),
        ("cu12", ("4.0.0b33", "4.0.0b34"), "", {"source": 21}),
    ],
)
def test_figures_by_cause(flavour, pair, arch, causes):
    cases = explained(flavour, *pair).cases
    result = Counter(
        v.cause for case, metrics in cases.items() if case.startswith(arch) for v in metrics.values()
    )
    assert result == causes
