"""Packages and commits by name: walks and bisections over figures that are made up; git is real."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.explain import packages as suspects
from fa4_asv.explain.attribution import investigate
from fa4_asv.explain.bisection import Hunt
from fa4_asv.explain.packages import Move, Walk, differing, mixed
from fa4_asv.history import upstream as upstream_history
from fa4_asv.history.registry import versions_between
from fa4_asv.record.explanation import Culprit
from tests.support.explain_fake import CASE, NEW, OLD, FakeShop, at, upstream, write_lock
from tests.support.explain_fake import synced as synced
from tests.support.explain_fake import told as told
from tests.support.explain_fake import two as two

KEY = "sm_100/fwd_d128_full"
OTHER = ("sm_100", "fwd_d64_full")
MOVES = [Move(CASE, "spill_bytes", 0, 16), Move(OTHER, "spill_bytes", 0, 16)]
DSL = "nvidia-cutlass-dsl"


@pytest.fixture
def between(two, monkeypatch):
    """The registry knows 4.7.0 and 4.7.1 of the DSL; their parts are resolved already."""
    project, *_ = two
    for version in ("4.7.0", "4.7.1"):
        path = project.work / "toolchain-locks" / "day" / "cu12" / f"{DSL}-{version}.txt"
        write_lock(path, {DSL: version, f"{DSL}-libs": version, "apache-tvm-ffi": "9"})
    monkeypatch.setattr(
        suspects, "versions_between", lambda name, *_: ["4.7.0", "4.7.1"] if name == DSL else []
    )
    return two


def test_a_packages_parts_go_with_it():
    assert differing(OLD, NEW) == [DSL, "apache-tvm-ffi"]
    assert mixed(OLD, DSL, NEW) == {**OLD, DSL: "4.8.0", f"{DSL}-libs": "4.8.0"}
    new = {**NEW, f"{DSL}-libs-cu13": "4.8.0"}
    assert mixed(new, DSL, OLD) == {**NEW, DSL: "4.6.2", f"{DSL}-libs": "4.6.2"}
    assert differing(OLD, OLD) == []
    assert differing({"a": "1"}, {"b": "1"}) == ["a", "b"]


def test_the_package_and_the_version_are_named(between, told):
    project, base, head = between
    steps = {"fwd_d128_full": "4.7.1", "fwd_d64_full": "4.8.0"}

    def spills(source, packages, case):
        return 16 if packages[DSL] >= steps[case.partition("/")[2]] else 0

    shop = FakeShop(project, spills)
    answer = Walk(shop, base, head, told.append).run(MOVES)
    assert answer.culprits == [
        Culprit("package", (KEY,), DSL, "4.7.0", "4.7.1"),
        Culprit("package", ("sm_100/fwd_d64_full",), DSL, "4.7.1", "4.8.0"),
    ]
    assert answer.notes == []
    assert {release for release, _, _ in shop.asked} == {"4.0.0b3"}, "all with the old source"
    assert [dsl for _, dsl, _ in shop.asked] == ["4.8.0", "4.7.0", "4.7.1"]
    assert told[0] == "the old toolchain with nvidia-cutlass-dsl new: 2 kernels"


def test_a_package_that_cannot_stand_alone_is_taken_out_of_the_new_toolchain(between, told):
    project, base, head = between

    def spills(source, packages, case):
        if packages["apache-tvm-ffi"] == "0.1" and packages[DSL] > "4.7":
            return "broken: ImportError: tvm_ffi is too old"
        return 16 if packages[DSL] >= "4.7.0" else 0

    answer = Walk(FakeShop(project, spills), base, head, told.append).run(MOVES[:1])
    assert answer.culprits == [Culprit("package", (KEY,), DSL, "4.6.2", "4.7.0")]


def test_a_version_that_cannot_be_measured_widens_the_step(between, told):
    project, base, head = between
    (project.work / "toolchain-locks" / "day" / "cu12" / f"{DSL}-4.7.1.txt").write_text("damage")

    def spills(source, packages, case):
        return "broken: ICE" if packages[DSL] == "4.7.0" else 16 * (packages[DSL] == "4.8.0")

    answer = Walk(FakeShop(project, spills), base, head, told.append).run(MOVES[:1])
    assert answer.culprits == [Culprit("package", (KEY,), DSL, "4.6.2", "4.8.0")]
    reason, note = answer.notes
    assert reason == "nvidia-cutlass-dsl 4.7.0: ICE"
    assert note.startswith("nvidia-cutlass-dsl 4.7.1 cannot be measured: ")
    assert "is damaged at 'damage'" in note


@pytest.mark.parametrize("other", ["apache-tvm-ffi", "einops"])
def test_halves_are_a_pair_among_the_likely_ones_and_words_beyond(between, told, other):
    project, base, head = between
    base.lock.packages["einops"], head.lock.packages["einops"] = "0.1", "0.2"

    def spills(source, packages, case):
        return 8 * (packages[other] == "0.2") + 8 * (packages[DSL] == "4.8.0")

    answer = Walk(FakeShop(project, spills), base, head, told.append).run(MOVES[:1])
    if other == "einops":
        assert answer.culprits == []
        assert answer.notes == [f"the toolchain moves {KEY}, but no single package does"]
    else:
        assert [culprit.name for culprit in answer.culprits] == [f"{DSL} with {other}"]


QUACKS = ({**OLD, "quack-kernels": "0.5.0"}, {**NEW, "quack-kernels": "0.5.3"})


def bound(source, packages, case):
    """The compiler moves it; quack 0.5.0 and 0.5.3 work with the old and the new one only."""
    works = {"0.5.0": ["4.6.2"], "0.5.1": ["4.6.2", "4.8.0"], "0.5.3": ["4.8.0"]}
    if packages[DSL] not in works[packages["quack-kernels"]]:
        return "broken: the process ended with exit code 1: ImportError"
    return 16 if packages[DSL] == "4.8.0" else 0


@pytest.mark.parametrize(
    ("quacks", "culprit"),
    [
        ([], Culprit("package", (KEY,), f"{DSL} with quack-kernels", "4.6.2 with 0.5.0", "4.8.0 with 0.5.3")),
        (["0.5.1"], Culprit("package", (KEY,), DSL, "4.6.2", "4.8.0")),
    ],
)
def test_two_packages_that_need_each_other(two, told, monkeypatch, quacks, culprit):
    """Named as a pair, unless a version of the one works with both of the other."""
    project, base, head = two
    for side, packages in zip((base, head), QUACKS, strict=True):
        side.lock.packages.clear()
        side.lock.packages.update(packages)
    monkeypatch.setattr(suspects, "versions_between", lambda name, *_: quacks if "quack" in name else [])
    answer = Walk(FakeShop(project, bound), base, head, told.append).run(MOVES[:1])
    assert answer.culprits == [culprit]
    assert (
        f"the old toolchain with {DSL} new: the process ended with exit code 1: ImportError" in answer.notes
    )
    assert "the old toolchain with apache-tvm-ffi new: 1 kernel" in told


def test_without_a_registry_the_package_is_still_named(between, told, monkeypatch):
    project, base, head = between

    def offline(*_):
        raise Fa4AsvError("no network while listing nvidia-cutlass-dsl (ConnectionError)")

    monkeypatch.setattr(suspects, "versions_between", offline)
    shop = FakeShop(project, lambda source, packages, case: 16 * (packages[DSL] == "4.8.0"))
    answer = Walk(shop, base, head, told.append).run(MOVES[:1])
    assert answer.culprits == [Culprit("package", (KEY,), DSL, "4.6.2", "4.8.0")]
    assert "between 4.6.2 and 4.8.0 were not walked: no network" in answer.notes[0]


def test_versions_between_two_in_either_direction(registry):
    registry.add("4.0.0b5", "2026-03-20T00:00:00Z")
    registry.yanked["4.0.0b5"] = "broken"
    day = datetime(2026, 12, 1, tzinfo=timezone.utc)
    assert versions_between("flash-attn-4", "4.0.0b3", "4.0.0b11", day) == ["4.0.0b4", "4.0.0b10"]
    assert versions_between("flash-attn-4", "4.0.0b11", "4.0.0b3", day) == ["4.0.0b10", "4.0.0b4"]
    early = datetime(2026, 3, 6, tzinfo=timezone.utc)
    assert versions_between("flash-attn-4", "4.0.0b3", "4.0.0b11", early) == ["4.0.0b4"]
    with pytest.raises(Fa4AsvError, match="the registry knows no no-such-thing"):
        versions_between("no-such-thing", "1", "2", day)


def source_moves(source, packages, case):
    """The commit "two" introduces the spill, and the release has it, whatever the toolchain."""
    text = (source.folder / "flash_attn" / "cute" / "interface.py").read_text()
    return 16 if text in ("VERSION = 2\n", "VERSION = 3\n", "VERSION = '4.0.0b10'\n") else 0


def test_the_commit_is_named_among_upstreams(two, told):
    project, base, head = two
    commits = upstream(project, ["one", "two <b>|`x`", "three"])
    shop = FakeShop(project, source_moves)
    explanation = investigate(shop, base, head, [CASE], told.append)
    assert explanation.cases[KEY]["spill_bytes"].cause == "source"
    assert explanation.culprits == (Culprit("commit", (KEY,), commit=commits[2], subject="two <b>|`x`"),)
    assert (
        f"4 upstream commits touching FA4 lie between 4.0.0b3 ({commits[0][:10]}) and 4.0.0b10 ({commits[4][:10]})"
        in told
    )
    bisected = [ask for ask in shop.asked if ask[0] in {commit[:7] for commit in commits}]
    assert {dsl for _, dsl, _ in bisected} == {"4.8.0"}, "all under the new toolchain"
    assert len(bisected) == 2


def test_commits_that_do_not_compile_leave_several_suspects(two, told):
    project, base, head = two
    commits = upstream(project, ["one", "two", "three"])

    def spills(source, packages, case):
        return (
            "broken: SyntaxError" if source.commit in commits[2:4] else source_moves(source, packages, case)
        )

    answer = Hunt(FakeShop(project, spills), base, head, told.append).run(MOVES[:1])
    assert answer.culprits == []
    (note,) = answer.notes
    assert note.startswith(
        f"{KEY} was moved by one of 3 commits, the first of which do not compile: {commits[2][:10]}"
    )


def test_without_upstreams_commits_no_commit_is_named(two, told):
    project, base, head = two
    answer = Hunt(FakeShop(project, source_moves), base, head, told.append).run(MOVES[:1])
    assert answer.notes == [
        "no commit is named: upstream's commits are not in the history; "
        "`fa4-asv history sync --source PATH` brings them"
    ]
    upstream(project, ["one"])
    other = at(project, "fa4-v4.0.0b4")
    with pytest.raises(
        Fa4AsvError, match=r"no commit of upstream's main holds the Python files of 4\.0\.0b4"
    ):
        upstream_history.commit_of(project, other.source)


def test_commits_off_the_line_cannot_be_bisected(two):
    project, base, _ = two
    commits = upstream(project, ["one", "two"])
    assert upstream_history.commits_between(project, commits[0], commits[2]) == commits[1:3]
    assert upstream_history.subject(project, commits[1]) == "one"
    with pytest.raises(Fa4AsvError, match="so there is no line of commits to bisect"):
        upstream_history.commits_between(project, base.source.commit, commits[2])
    with pytest.raises(Fa4AsvError, match="no commit between"):
        upstream_history.commits_between(project, commits[2], commits[2])
