"""The rule of a sweep: small cases computed by hand, mutants of the rule, and what swapping the sides does."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa4_asv.compare import along
from fa4_asv.compare.along import across, between, pool_of, visible
from fa4_asv.compare.false_alarms import rate_interval, same_release
from fa4_asv.compare.round_effects import linked_rounds, round_effects
from fa4_asv.record.turns import Turn
from tests.proofs import sweep_power
from tests.support.sweep_fake import noisy, turns

S = 1e-4
# Processes of a: +S, -S; of b the other way round; of c no difference. Sum of squares 4 S^2, 3 pairs, 1 for the effects.
THREE = {
    "a": turns((S, S), (-S, -S)),
    "b": turns((0.05 - S, 0.05 - S), (0.05 + S, 0.05 + S)),
    "c": turns((0, 0), (0, 0)),
}
T2 = 14.08905  # Student's 99.5 % quantile at 2 degrees of freedom


def test_the_spread_is_pooled_over_releases():
    pool = pool_of(THREE)
    assert set(pool.effects.values()) == {0.0}
    assert (pool.pairs, pool.freedom) == (3, 2)
    assert pool.variance == pytest.approx(2 * S**2)
    assert pool.spread == pytest.approx(math.sqrt(2) * S)


def test_the_interval_is_that_of_the_pooled_spread():
    result = between(pool_of(THREE), THREE["a"], THREE["b"])
    reach = T2 * math.sqrt(2 * S**2 * (1 / 2 + 1 / 2))
    assert (result.name, result.code) == ("slower", "interval-excludes-0")
    assert result.change == pytest.approx(math.expm1(0.05))
    assert result.low == pytest.approx(math.expm1(0.05 - reach), abs=1e-6)
    assert result.high == pytest.approx(math.expm1(0.05 + reach), abs=1e-6)
    assert result.why.endswith("processes differ by 0.01% (2 degrees of freedom)")


def test_what_cannot_be_told_says_what_could():
    wide = {
        name: [replace(turn, seconds=turn.seconds ** (30 if name != "b" else 1)) for turn in taken]
        for name, taken in THREE.items()
    }
    pool = pool_of(wide)
    result = between(pool, wide["a"], wide["c"])
    assert (result.name, result.code) == ("unclear", "wide-interval")
    assert f"{visible(pool):.1%} would be seen in 90% of cases" in result.why


def test_a_change_below_the_relevant_is_the_same():
    call = {name: turns((0, 0), (0, 0)) for name in "abc"} | {"d": turns((0.004, 0.004), (0.004, 0.004))}
    result = between(pool_of(call), call["a"], call["d"])
    assert (result.name, result.code) == ("same", "change-ruled-out")


DRIFT = (0.0, 0.01, 0.02, 0.05, 0.06, 0.07)


def test_effects_of_rounds_go_whatever_a_release_lacks_or_changes():
    call = {name: turns((0, 0, 0), (0, 0, 0), rounds=DRIFT) for name in "abcd"}
    call["e"] = turns((0.3,) * 3, (0.3,) * 3, rounds=DRIFT)  # a release that changed
    call["f"] = [turn for turn in call["a"] if turn.round not in (0, 4)]
    call["g"] = call["a"][3:]  # its first process died
    pool = pool_of(call)
    assert [effect - pool.effects[0] for effect in pool.effects.values()] == pytest.approx(DRIFT, abs=1e-8)
    assert pool.variance == pytest.approx(0, abs=1e-15)
    result = between(pool, call["a"], call["f"])
    assert result.name == "same" and result.change == pytest.approx(0, abs=1e-8)


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=60),
    st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=8),
)
def test_effects_without_noise_are_found_for_any_number_of_releases(levels, rounds):
    logs = {
        str(number): [(at, level + effect) for at, effect in enumerate(rounds)]
        for number, level in enumerate(levels)
    }
    result = round_effects(logs)
    assert [result[at] - result[0] for at in result] == pytest.approx(
        [effect - rounds[0] for effect in rounds]
    )


@pytest.mark.parametrize(
    ("rounds", "linked"),
    [
        ([(0, 1, 2, 3)] * 8, {0, 1, 2, 3}),
        ([(0, 1)] * 6 + [(4, 5)], {0, 1}),  # one release later, alone
        (
            [(0, 1, 4, 5)] * 5 + [(2, 3, 4, 5)] * 5,
            {0, 1, 2, 3, 4, 5},
        ),  # begun in two parts, linked by later rounds
        ([(0, 1, 4, 5)] * 5 + [(2, 3, 4, 5)] * 4, {0, 1, 4, 5}),
        ([(0, 1)] * 2 + [(2, 3)], {0, 1}),
        ([(7,)], {7}),
        ([], set()),
    ],
)
def test_rounds_are_comparable_where_enough_releases_link_them(rounds, linked):
    assert linked_rounds(rounds) == linked


def test_a_release_timed_later_alone_changes_no_pool():
    later = turns((0.02, 0.02), (0.02, 0.02), begin=10)
    pool, other = pool_of(many()), pool_of(many(later=later))
    assert (other.variance, set(other.levels)) == (pool.variance, set(pool.levels))
    assert between(other, many()["0"], later).code == "few-processes"


def test_one_process_a_side_is_not_enough():
    call = {**THREE, "d": turns((0, 0, 0, 0))}
    result = between(pool_of(call), call["a"], call["d"])
    assert (result.name, result.code) == ("unclear", "few-processes")
    assert result.why == "head has 1 process, 2 are needed"
    alone = {"a": THREE["a"]}
    result = between(pool_of(alone), alone["a"], alone["a"])
    assert (result.name, result.code) == ("unclear", "few-processes") and "no other release" in result.why


def test_two_modes_in_most_rounds_are_unclear():
    doubted = [replace(turn, two_modes=turn.round != 0) for turn in THREE["b"]]
    result = between(pool_of(THREE), THREE["a"], doubted)
    assert (result.name, result.code, result.why) == (
        "unclear",
        "two-modes",
        "head: two modes, in 3 of 4 rounds",
    )


def many(**others: list[Turn]) -> dict[str, list[Turn]]:
    """Twelve releases whose processes differ by 2 S in turn either way, two whose do not, and `others`."""
    result = {str(n): turns((S * (-1) ** n,) * 2, (-S * (-1) ** n,) * 2) for n in range(12)}
    return result | {"12": turns((0, 0), (0, 0)), "13": turns((0, 0), (0, 0))} | others


@pytest.mark.parametrize(("level", "code"), [(0.0, "processes-apart"), (0.06, "interval-excludes-0")])
def test_a_release_with_processes_apart_has_no_verdict_unless_all_of_them_agree(level, code):
    call = many(apart=turns((level,) * 2, (level + 0.03,) * 2))
    pool = pool_of(call)
    result = between(pool, call["12"], call["apart"])
    assert result.code == code == between(pool, call["apart"], call["12"]).code
    assert ("the processes of head differ more" in result.why) == (level == 0)
    assert between(pool, call["0"], call["1"]).code != "processes-apart"


def test_the_control_is_divided_out_where_asked_and_known():
    def hot(level: float, states: tuple[float, ...]) -> list[Turn]:
        return [
            replace(turn, seconds=turn.seconds * math.exp(state), control=math.exp(state))
            for turn, state in zip(turns((level,) * 2, (level,) * 2), states, strict=True)
        ]

    call = {"a": hot(0, (0, 0.01, 0.02, 0)), "b": hot(0, (0.02, 0, 0.01, 0)), "c": hot(0, (0, 0.03, 0, 0.01))}
    assert pool_of(call, controlled=True).spread == pytest.approx(0, abs=1e-9)
    assert pool_of(call).spread > 1e-3
    call["c"][0] = replace(call["c"][0], control=None)
    assert not pool_of(call, controlled=True).controlled


# Two cards


def beside(taken: list[Turn], seconds: float, card: float = 1.0) -> list[Turn]:
    """On a card that is slower by a factor, with a yardstick."""
    return [replace(turn, seconds=turn.seconds * card, yardsticks={"fa2": seconds * card}) for turn in taken]


def test_two_cards_are_compared_as_ratios_to_the_yardstick():
    levels = many()
    other = {name: beside(taken, 2.0, 1.02) for name, taken in levels.items()}
    pools = (pool_of(levels), pool_of(other))
    base, head = beside(levels["0"], 2.0), other["1"]
    result = across(pools, base, head, "fa2")
    assert result.name == "same" and result.change == pytest.approx(0, abs=1e-9)
    assert "ratios to fa2" in result.why
    slower = [replace(turn, seconds=turn.seconds * 1.03) for turn in head]
    assert across(pools, base, slower, "fa2").name == "slower"
    assert across((pools[1], pools[0]), slower, base, "fa2").name == "faster"


def test_the_yardsticks_noise_is_in_the_interval():
    levels = many()
    pools = (pool_of(levels),) * 2
    result = across(pools, beside(levels["0"], 2.0), beside(levels["1"], 2.0), "fa2")
    # Each side: its two processes, and the one of the yardstick: v / 2 + v, with 14 - 1 degrees of freedom.
    variance = pools[0].variance
    reach = along.welch(1.5 * variance, 13, 1.5 * variance, 13)
    assert math.log1p(result.high) - math.log1p(result.change) == pytest.approx(reach)
    shaky = [
        replace(turn, yardsticks={"fa2": 2.0 * (1 + 0.01 * (turn.round % 2))})
        for turn in beside(levels["0"], 2.0)
    ]
    assert across(pools, shaky, beside(levels["1"], 2.0), "fa2").high > result.high + 0.005


# False alarms


def test_the_two_processes_of_a_release_are_compared_as_two_releases():
    call = many(apart=turns((0.0, 0.0), (0.03, 0.03)))
    result = same_release(pool_of(call))
    assert {name for name, each in result.items() if each.name in ("faster", "slower")} == {"apart"}
    # By the spread of the others, not its own: 24 S^2 of 14 pairs, one for the effects.
    reach = along.critical(13, along.CONFIDENCE) * math.sqrt(2 * 24 * S**2 / 13)
    assert math.log1p(result["apart"].change) == pytest.approx(0.03)
    assert math.log1p(result["apart"].high) == pytest.approx(0.03 + reach)


@pytest.mark.parametrize(
    ("alarms", "count", "low", "high"),
    [(0, 10, 0.0, 0.30850), (1, 10, 0.00253, 0.44502), (5, 100, 0.01643, 0.11284), (10, 10, 0.69150, 1.0)],
)
def test_the_interval_of_a_rate_is_that_of_the_tables(alarms, count, low, high):
    assert rate_interval(alarms, count) == pytest.approx((low, high), abs=1e-5)


def test_the_smallest_visible_change():
    """Two processes per side: the noise of the difference is the spread itself. 1.28155 is the normal's 90 %."""
    pool = pool_of(THREE)
    steady = replace(pool, freedom=1000)
    assert visible(steady) == pytest.approx(math.expm1(math.log1p(0.005) + 1.28155 * pool.spread), abs=1e-7)
    many = 2.81328 * (1 - 1 / 4000) + 1.28155 * math.sqrt(1 + 2.81328**2 / 2000)  # t at 99.5 %, 1000 degrees
    assert visible(replace(steady, variance=0.01**2)) == pytest.approx(math.expm1(many * 0.01), abs=1e-6)
    assert visible(replace(steady, variance=0.01**2), 8, 8) == pytest.approx(
        math.expm1(many * 0.005), abs=1e-6
    )
    few = 14.08905 * (1 - 1 / 8) + 1.28155 * math.sqrt(1 + 14.08905**2 / 4)
    assert visible(replace(pool, variance=0.01**2)) == pytest.approx(math.expm1(few * 0.01), abs=1e-6)
    assert math.isnan(visible(replace(pool, freedom=0)))


# Mutants of the rule: each breaks one of the tests above, or one of these


def check_direction() -> None:
    assert along.between(along.pool_of(THREE), THREE["a"], THREE["b"]).name == "slower"


def check_luck() -> None:
    """Two processes of 3 rounds, apart by 1 %: a change of 1.2 % is within their luck, six samples would show it."""
    call = {
        str(n): turns((0.005,) * 3, (-0.005,) * 3) if n % 2 else turns((-0.005,) * 3, (0.005,) * 3)
        for n in range(9)
    }
    call["head"] = turns((0.017,) * 3, (0.007,) * 3)
    assert along.between(along.pool_of(call), call["0"], call["head"]).name == "unclear"


def check_drift() -> None:
    """The second processes ran while the card was 6 % slower: that is no spread, and a quarter per cent is no change."""
    late = (0, 0, 0, 0.06, 0.06, 0.06)
    call = {name: turns((0, 0, 0), (0, 0, 0), rounds=late) for name in "abcdef"}
    pool = along.pool_of(call)
    assert pool.spread < 1e-6
    assert along.between(pool, call["a"], call["b"]).name == "same"


def check_calls() -> None:
    """A noisy call beside a quiet one leaves the quiet one's interval alone."""
    quiet = many(head=turns((0.01,) * 2, (0.01,) * 2))
    noisy_call = {
        name: turns((0.02 * (-1) ** int(name),) * 2, (-0.02 * (-1) ** int(name),) * 2)
        for name in map(str, range(12))
    }
    pools = {name: along.pool_of(call) for name, call in (("quiet", quiet), ("noisy", noisy_call))}
    assert along.between(pools["quiet"], quiet["0"], quiet["head"]).name == "slower"


CHECKS = (check_direction, check_luck, check_drift, check_calls)
_levels, _pool, _decided = along.process_levels, along.pool_of, along.decided
_seen: list[float] = []


def _over_calls(call, controlled=False):
    pool = _pool(call, controlled)
    _seen.append(pool.variance)
    return replace(pool, variance=max(_seen))


MUTANTS = {
    "sides swapped": ("decided", lambda centre, reach: _decided(-centre, reach)),
    "process ignored": ("process_levels", lambda taken, *rest: _levels([replace(turn, process=at) for at, turn in enumerate(taken)], *rest)),
    "round effect kept": ("round_effects", lambda logs: {at: 0.0 for values in logs.values() for at, _ in values}),
    "pooled over calls": ("pool_of", _over_calls),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_caught(name, monkeypatch):
    for check in CHECKS:
        check()
    _seen[:] = [0.02**2]
    monkeypatch.setattr(along, *MUTANTS[name])
    caught = []
    for check in CHECKS:
        try:
            check()
        except AssertionError:
            caught.append(check.__name__)
    assert caught, f"no check noticed: {name}"


# Swapping the sides

OPPOSITE = {"faster": "slower", "slower": "faster", "same": "same", "unclear": "unclear"}
levels = st.floats(-0.03, 0.03)
processes = st.lists(st.lists(levels, min_size=1, max_size=3), min_size=1, max_size=3)


@given(st.lists(processes, min_size=2, max_size=8), st.booleans())
def test_swapping_the_sides_inverts_the_answer(releases, two_cards):
    call = {str(number): beside(turns(*release), 2.0) for number, release in enumerate(releases)}
    pool = pool_of(call)
    if two_cards:
        there, back = (across((pool, pool), call[a], call[b], "fa2") for a, b in (("0", "1"), ("1", "0")))
    else:
        there, back = (between(pool, call[a], call[b]) for a, b in (("0", "1"), ("1", "0")))
    assert (back.name, back.code) == (OPPOSITE[there.name], there.code)
    assert math.isnan(back.change) == math.isnan(there.change)
    if not math.isnan(there.change):
        for swapped, straight in (
            (back.change, there.change),
            (back.low, there.high),
            (back.high, there.low),
        ):
            assert (1 + swapped) * (1 + straight) == pytest.approx(1)


def test_the_answer_does_not_depend_on_the_order_of_releases():
    call = {str(n): noisy(f"x{n}", 0.0) for n in range(9)}
    turned = dict(reversed(call.items()))
    assert pool_of(call).variance == pytest.approx(pool_of(turned).variance)
    assert fmean(pool_of(call).levels["3"]) == pytest.approx(fmean(pool_of(turned).levels["3"]))


# The simulation


def test_the_simulated_table_is_computed_from_its_seed_and_holds_its_claims():
    quiet, noisy_model = (
        next(model for model in sweep_power.MODELS if model.title == title) for title in ("0.1 %", "1 %")
    )
    result = sweep_power.shares(quiet, 5, 30, 2, 3, False, "7")
    assert result == sweep_power.shares(quiet, 5, 30, 2, 3, False, "7")
    assert result["alarms"] <= 0.01 and result["seen"] >= 0.9 and result["A/A"] <= 0.02
    assert sweep_power.missed(quiet, {**result, "seen": 0.5, "A/A": 0.2}, 145) == ["A/A", "seen"]
    assert sweep_power.shares(noisy_model, 5, 30, 2, 3, False, "7")["seen"] < 0.3
