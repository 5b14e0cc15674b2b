"""What a sweep times on which card: the history of a call is of one card. And what is refused before it begins."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa4_asv.backfill.sweep import plan as planning
from fa4_asv.backfill.sweep.engine import Call
from fa4_asv.backfill.sweep.plan import known_calls, stations
from fa4_asv.backfill.sweep.record import unrecorded
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS, SWEEP_SETS
from fa4_asv.catalog.shapes import history
from fa4_asv.history.registry import Registry
from fa4_asv.history.sync import sync
from fa4_asv.measure.runtime import journal
from fa4_asv.measure.runtime.card import Card
from fa4_asv.measure.runtime.journal import Plan
from fa4_asv.record.schema import CaseRecord
from tests.support import journals
from tests.support.journals import first, one_round, session
from tests.support.sweep_targets import CALLS, FILES, MACHINE, recorded, target

ONE, OTHER = Card(0, "NVIDIA H100", "GPU-1", 81559), Card(1, "NVIDIA H100", "GPU-2", 81559)
ABSENT = Card(0, "NVIDIA H100", "GPU-3", 81559)


# Calls.


def test_a_shapes_forward_and_backward_follow_each_other():
    groups = {call.case[1]: [] for call in CALLS}
    for call in CALLS:
        groups[call.case[1]].append(call.group)
    assert list(groups) == [shape.name for shape in history()]
    assert list(groups.values()) == [list(SWEEP_SETS["history"])] * len(groups)
    assert [call.case[1] for call in CALLS] == [shape for shape in groups for _ in range(2)]


def test_calls_are_selected_as_asv_selects():
    (call,) = planning.calls_of_sets(["cpu"], [r"forward\.HistoryCpu.*b2_s256_h4_d64_full"])
    assert call == Call("forward-history-cpu", ("fa4", "b2_s256_h4_d64_full"))
    assert call.key == "forward-history-cpu/fa4/b2_s256_h4_d64_full"
    with pytest.raises(Fa4AsvError, match=r"no call of cpu, history matches 'x\[0-9\]' or 'nothing'"):
        planning.calls_of_sets(["cpu", "history"], ["x[0-9]", "nothing"])


# Which card has what.


def at(known: dict[Card, str]) -> planning.Known:
    """What cards hold of the first call: of the subjects "x", "y" or both."""
    return {CALLS[0].key: {card.digest: {FILES[each] for each in names} for card, names in known.items()}}


def wanted(cards: list[Card], known: dict[Card, str], names: str = "xy") -> dict[Card, str]:
    """Of which subjects each card is to time the first call."""
    result = stations(Project(Path()), MACHINE, cards, CALLS[:1], [FILES[each] for each in names], at(known))
    back = {file: name for name, file in FILES.items()}
    return {
        each.card: "".join(sorted(back[file] for file in files))
        for each in result
        for files in each.wanted.values()
    }


@pytest.mark.parametrize(
    ("cards", "known", "expected"),
    [
        ([ONE], {}, {ONE: "xy"}),
        ([ONE], {ONE: "xy"}, {}),
        ([ONE], {ONE: "x"}, {ONE: "y"}),
        # Complete elsewhere: nothing. Begun elsewhere: all of it here.
        ([ONE], {ABSENT: "xy"}, {}),
        ([ONE], {ABSENT: "x"}, {ONE: "xy"}),
        ([ONE], {ABSENT: "x", OTHER: "y"}, {ONE: "xy"}),
        ([ONE], {ABSENT: "x", ONE: "y"}, {ONE: "x"}),
        ([ONE], {ABSENT: "xy", ONE: "y"}, {}),
        # Of two cards here the one that has begun goes on.
        ([ONE, OTHER], {OTHER: "x"}, {OTHER: "y"}),
        ([ONE, OTHER], {OTHER: "xy"}, {}),
    ],
)
def test_the_history_of_a_call_is_of_one_card(cards, known, expected):
    assert wanted(cards, known) == expected


def test_of_fewer_commits_a_call_may_be_complete():
    assert wanted([ONE], {ABSENT: "x"}, names="x") == {}


@given(
    here=st.integers(1, 3),
    known=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7), st.sampled_from("xy")), max_size=30),
)
def test_every_call_ends_complete_on_exactly_one_card(here, known):
    """Whatever was known: what is asked for makes each call complete somewhere, and a second plan asks for nothing."""
    cards = [Card(number, "NVIDIA H100", f"GPU-{number}") for number in range(4)]
    have: planning.Known = {}
    for card, call, name in known:
        have.setdefault(CALLS[call].key, {}).setdefault(cards[card].digest, set()).add(FILES[name])
    files = list(FILES.values())
    asked = stations(Project(Path()), MACHINE, cards[:here], CALLS[:8], files, have)
    for call in CALLS[:8]:
        mine = [each for each in asked if call in each.wanted]
        complete = [card for card, its in have.get(call.key, {}).items() if its >= set(files)]
        assert len(mine) == (not complete)
        for each in mine:
            its = have.setdefault(call.key, {}).setdefault(each.card.digest, set())
            assert not its & each.wanted[call], "nothing twice"
            its |= each.wanted[call]
            assert its == set(files)
    again = stations(Project(Path()), MACHINE, cards[:here], CALLS[:8], files, have)
    assert not any(each.wanted for each in again)


def test_several_cards_share_the_work_evenly():
    result = stations(Project(Path()), MACHINE, [ONE, OTHER], CALLS, list(FILES.values()), {})
    works = [planning._work(each.wanted) for each in result]
    assert sum(len(each.wanted) for each in result) == len(CALLS)
    assert max(works) < 1.5 * min(works)


def test_yardsticks_are_beside_every_call_of_a_station():
    (entry,) = stations(Project(Path()), MACHINE, [ONE], CALLS[:2], list(FILES.values()), {})
    ready = planning.with_yardsticks(entry, {"sweep": "s"}, wanted=True)
    beside = [call for call in ready.wanted if call.case[0] != "fa4"]
    assert [(call.group, *call.case) for call in beside] == [
        (call.group, backend, call.case[1]) for call in CALLS[:2] for backend in ("cudnn", "fa2")
    ]
    assert all(ready.wanted[call] == {journal.YARDSTICK_FILE} for call in beside)
    assert planning.with_yardsticks(entry, {}, wanted=False).wanted == entry.wanted


# From the record and from journals.


@pytest.fixture
def checkout(tmp_path) -> Project:
    (tmp_path / "results" / MACHINE).mkdir(parents=True)
    return Project(tmp_path)


SWEPT = CaseRecord("measured", samples={"seconds": [1e-3]}, notes={"card": ONE.digest, "card name": ONE.name})


def written(project: Project, card: Card, file: str, lines: list[dict]) -> None:
    for line in lines:
        journal.append(journal.sweeps_folder(project.work, MACHINE) / card.digest / file, line)


def rounds(call: Call, count: int = 4) -> list[dict]:
    profiled = journals.kernels(call.key, {})
    return [first(call.key), *(one_round(n // 2, n, call.key) for n in range(count)), profiled]


def test_what_is_known_comes_from_the_record_and_from_journals(checkout):
    recorded(checkout, "x", {CALLS[0].key: SWEPT, CALLS[1].key: CaseRecord("broken", why="w")})
    written(checkout, OTHER, FILES["y"], [session(), *rounds(CALLS[0]), *rounds(CALLS[1], 3)])
    result = known_calls(checkout, MACHINE, Plan(2, 2))
    assert result == {CALLS[0].key: {ONE.digest: {FILES["x"]}, OTHER.digest: {FILES["y"]}}}
    assert known_calls(checkout, MACHINE, Plan(2, 3)) == {CALLS[0].key: {ONE.digest: {FILES["x"]}}}
    assert known_calls(checkout, "other", Plan(2, 2)) == {}


def test_what_another_version_of_the_benchmark_recorded_counts_as_missing(checkout):
    recorded(checkout, "x", {CALLS[0].key: SWEPT}, version="0")
    assert known_calls(checkout, MACHINE, Plan()) == {}


def test_a_damaged_sidecar_counts_as_missing(checkout):
    recorded(checkout, "x", {CALLS[0].key: SWEPT})
    (path,) = (checkout.results / MACHINE).glob("*.sidecar")
    path.write_text("{")
    assert known_calls(checkout, MACHINE, Plan()) == {}


def test_broken_and_unsupported_calls_are_known_of_their_card_too(checkout):
    """Else another card would take the whole history of a call again, because one release refuses it."""
    for call, state in zip(CALLS[:2], ("broken", "unsupported"), strict=True):
        lines = [session(card=ONE.digest), first(call.key, CaseRecord(state, why="w"))]
        record = journal.record_of(lines, call.key)
        assert record is not None and record.state == state
        recorded(checkout, "x", {call.key: record})
        assert known_calls(checkout, MACHINE, Plan()) == {call.key: {ONE.digest: {FILES["x"]}}}
    broken = CaseRecord("broken", why="w", notes={"card": ONE.digest})
    recorded(checkout, "x", {CALLS[0].key: broken})
    assert known_calls(checkout, MACHINE, Plan(), retry_broken=True) == {}


def test_what_is_broken_in_a_journal_is_asked_again_only_on_request(checkout):
    failed = journals.failed(CALLS[0].key, "w")
    noisy = [one_round(n // 2, n, CALLS[1].key, seconds=[], why="noise") for n in range(4)]
    profiled = journals.kernels(CALLS[1].key, {})
    lines = [session(), first(CALLS[0].key), failed, first(CALLS[1].key), *noisy, profiled]
    written(checkout, ONE, FILES["x"], lines)
    assert set(known_calls(checkout, MACHINE, Plan(2, 2))) == {call.key for call in CALLS[:2]}
    assert known_calls(checkout, MACHINE, Plan(2, 2), retry_broken=True) == {}


def test_what_journals_hold_and_the_record_lacks_is_to_be_recorded(checkout):
    """Of every card, also one that is not here now; and nothing that `results/` holds as it is."""
    written(checkout, ABSENT, FILES["x"], [session(), *rounds(CALLS[0]), *rounds(CALLS[1], 3)])
    targets = [target("x"), target("y")]
    assert unrecorded(checkout, MACHINE, targets, CALLS) == {targets[0]: [CALLS[0]]}
    assert unrecorded(checkout, MACHINE, targets[1:], CALLS) == {}
    folder = journal.sweeps_folder(checkout.work, MACHINE)
    record = journal.newest_record(journal.of_cards(folder, FILES["x"]), CALLS[0].key)
    assert record is not None
    recorded(checkout, "x", {CALLS[0].key: record})
    assert unrecorded(checkout, MACHINE, targets, CALLS) == {}


def test_a_call_that_two_cards_have_is_recorded_once_from_the_later(checkout):
    for card, when in ((ONE, 1.0), (OTHER, 2.0)):
        lines = [line | {"at": when} for line in [session(card=card.digest), *rounds(CALLS[0])]]
        written(checkout, card, FILES["x"], lines)
    # The journal of the earlier card is written to once more, for another call.
    written(checkout, ONE, FILES["x"], [first(CALLS[2].key, at=9.0)])
    folder = journal.sweeps_folder(checkout.work, MACHINE)
    record = journal.newest_record(journal.of_cards(folder, FILES["x"]), CALLS[0].key)
    assert record is not None and record.notes["card"] == OTHER.digest
    recorded(checkout, "x", {CALLS[0].key: record})
    assert unrecorded(checkout, MACHINE, [target("x")], CALLS) == {}


# The sweep's own name, and its seed.


def test_a_sweep_that_was_begun_keeps_its_name_and_its_seed(tmp_path):
    notes, seed = planning.sweep_words(tmp_path, ONE, 7, "2.11.0+cu130")
    assert seed == 7 and notes["card"] == ONE.digest and notes["torch"] == "2.11.0+cu130"
    assert ONE.uuid not in str(notes)
    again, same = planning.sweep_words(tmp_path, ONE, None, "2.11.0+cu130")
    assert (again, same) == (notes, 7)
    assert planning.sweep_words(tmp_path, ONE, 9, "t")[1] == 9


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 60_000, '{"sweep": "a"}', '{"sweep": "a", "seed": "x"}']
)
def test_a_damaged_sweep_file_is_named(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(
        Fa4AsvError, match=r"sweep.json (cannot be read|is not JSON) .*; delete it to begin another sweep"
    ):
        planning.sweep_words(tmp_path, ONE, None, "t")


# Whether this card may write under this name.


@pytest.mark.parametrize(
    ("machine", "name", "refused"),
    [
        ("h100-sxm", "NVIDIA H100 80GB HBM3", False),
        ("h100-sxm", "NVIDIA H200", True),
        ("h200", "NVIDIA H200", False),
        ("gb200-nvl", "NVIDIA B200", True),
        ("gb200-nvl", "NVIDIA GB200", False),
        ("b200", "NVIDIA GB200", False),
        ("rtx-pro", "NVIDIA H200", True),
        ("my-box", "NVIDIA H200", False),
        ("bach2000", "NVIDIA H100", False),
    ],
)
def test_the_name_of_a_machine_and_its_card_must_agree(checkout, machine, name, refused):
    card = replace(ONE, name=name)
    if not refused:
        planning.refuse_other_kind(checkout, machine, card)
        return
    with pytest.raises(Fa4AsvError, match=rf"the name {machine} says \w+, and this card is {name}; name"):
        planning.refuse_other_kind(checkout, machine, card)


def test_a_record_of_another_kind_of_card_is_not_continued(checkout):
    recorded(checkout, "x", {CALLS[0].key: SWEPT, CALLS[1].key: CaseRecord("broken", why="w")})
    planning.refuse_other_kind(checkout, MACHINE, OTHER)
    with pytest.raises(Fa4AsvError, match="box holds figures of NVIDIA H100, and this card is NVIDIA H200"):
        planning.refuse_other_kind(checkout, MACHINE, replace(ONE, name="NVIDIA H200"))


def test_a_release_that_was_named_must_have_the_flavour_that_was_named(project, registry):
    sync(project, Registry())
    lacking = ["4.0.0b3 cu13", "4.0.0b4 cu13"]
    with pytest.raises(Fa4AsvError, match="4.0.0b4 has no flavour cu13; leave out --flavour cu13"):
        planning.refuse_lacking(project, ["4.0.0b4"], ["cu13"], lacking)
    with pytest.raises(Fa4AsvError, match="4.0.0b3 has no flavour cu13"):
        planning.refuse_lacking(project, ["fa4-v4.0.0b3"], ["cu13"], lacking)
    for ranges, flavours in (
        (["4.0.0b4"], []),
        (["4.0.0b10"], ["cu13"]),
        (["4.0.0b3..4.0.0b10"], ["cu13"]),
    ):
        planning.refuse_lacking(project, ranges, flavours, lacking)


def test_a_groups_cases_have_names_that_a_key_can_hold():
    """A key is cut at its slashes: the yardsticks of a call are found by them."""
    for name in (name for names in SWEEP_SETS.values() for name in names):
        assert all(len(case) == 2 and "/" not in "".join(case) for case in GROUPS[name].cases)


def test_a_pipe_in_the_place_of_the_sweeps_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "sweep.json")
    with pytest.raises(Fa4AsvError, match="sweep.json cannot be read"):
        planning.sweep_words(tmp_path, ONE, None, "t")
