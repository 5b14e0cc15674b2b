"""The calls that sweeps timed on one machine, read from its record: what `along` pools, and its verdict on two cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.compare.along import CONTROLLED, Call, Pool, across, between, common_yardstick, pool_of, within
from fa4_asv.compare.round_effects import LINKS
from fa4_asv.compare.verdicts import NOT_COMPARABLE, Verdict
from fa4_asv.record.schema import SUITE, CaseRecord, Sidecar
from fa4_asv.record.store import all_pairs
from fa4_asv.record.turns import Origin, Turn, is_of_a_sweep, is_swept, origin_of, turns_of


@dataclass(frozen=True)
class CallKey:
    """One call of one sweep on one card; `case` as in a sidecar: "fa4/b4_s8192_h16_d128_causal"."""

    group: str
    case: str
    origin: Origin


Pools = Mapping[CallKey, Pool]


def sidecars_of(results: Path, machine: str) -> list[Sidecar]:
    """Every sidecar of a machine that this suite wrote. Raises Fa4AsvError naming a file that cannot be read."""
    return [pair.sidecar for pair in all_pairs(results, machine) if pair.sidecar.suite == SUITE]


def name_of(sidecar: Sidecar) -> str:
    """A release as the calls name it: both flavours of one commit are two."""
    return f"{sidecar.commit}/{sidecar.environment}"


def calls_of(sidecars: Iterable[Sidecar]) -> dict[CallKey, Call]:
    """The turns of every call by release, from all groups that sweeps fill."""
    result: dict[CallKey, dict[str, list[Turn]]] = {}
    for sidecar in sidecars:
        for group, cases in sidecar.groups.items():
            for case, record in cases.items() if is_swept(group) else ():
                turns = turns_of(record) if is_of_a_sweep(record) else []
                if turns:
                    key = CallKey(group, case, origin_of(record))
                    result.setdefault(key, {})[name_of(sidecar)] = turns
    return dict(result)


def pools_of(sidecars: Iterable[Sidecar], controlled: bool = CONTROLLED) -> dict[CallKey, Pool]:
    return {key: pool_of(call, controlled) for key, call in calls_of(sidecars).items()}


def judged(pools: Pools, group: str, case: str, old: CaseRecord, new: CaseRecord) -> Verdict:
    """Whether a sweep's case differs between two releases; of two sweeps or cards by the yardstick of each round."""
    origins = [origin_of(record) for record in (old, new)]
    base, head = (turns_of(record) for record in (old, new))
    found_pools = [pools.get(CallKey(group, case, origin)) for origin in origins]
    if found_pools[0] is None or found_pools[1] is None or not base or not head:
        side = "base" if found_pools[0] is None or not base else "head"
        message = (
            f"the samples of {side} do not say which round and process they are of; see `fa4-asv verify`"
        )
        return Verdict(NOT_COMPARABLE, f"{side}-rounds-unknown", message)
    together = origins[0] == origins[1] and all(_is_pooled(found_pools[0], turns) for turns in (base, head))
    if together:
        return between(found_pools[0], base, head)
    what = next(
        (name for name in ("card", "sweep") if len({getattr(origin, name) for origin in origins}) > 1),
        "rounds",
    )
    two = f"with rounds that fewer than {LINKS} releases share" if what == "rounds" else f"in two {what}s"
    yardstick = common_yardstick(base, head)
    if not yardstick:
        message = f"measured {two}, and no yardstick was timed beside both"
        return Verdict(NOT_COMPARABLE, f"other-{what}", message)
    torches = [record.notes.get("torch", "") for record in (old, new)]
    if torches[0] != torches[1]:
        message = f"measured {two}, with {yardstick} of torch {' and of torch '.join(torches)}"
        return Verdict(NOT_COMPARABLE, "other-yardstick", message)
    return across((found_pools[0], found_pools[1]), base, head, yardstick)


def _is_pooled(pool: Pool, turns: Sequence[Turn]) -> bool:
    """Whether the effects of rounds are known for some of the turns of every process."""
    kept_turns = within(pool.effects, turns)
    return {turn.process for turn in kept_turns} == {turn.process for turn in turns}
