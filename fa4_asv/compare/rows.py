"""Two sides of the record compared with each other: one row per figure, with its verdict and reason code.

Exact figures are compared exactly, times by `verdicts`, one value a process. Pure: records go in, rows
come out. docs/verdicts.md is the rule as a decision tree; every reason code stands there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import median

from fa4_asv.catalog.benchmarks import CHILDREN, GROUPS, REFUSED, SAMPLES, Group
from fa4_asv.catalog.kernels import CASES
from fa4_asv.compare import policy
from fa4_asv.compare.policy import NEITHER
from fa4_asv.compare.sweeps import Pools, judged
from fa4_asv.compare.verdicts import NOT_COMPARABLE, Round, Verdict, verdict
from fa4_asv.record.loops import work_of
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.turns import is_of_a_sweep

Groups = Mapping[str, Mapping[str, CaseRecord]]
LOOPS = GROUPS["loops"]
_OF_KIND = {exact: [group for group in GROUPS.values() if group.exact == exact] for exact in (True, False)}
CHANGED = ("more", "less")  # verdicts on exact figures that differ
# Of what is often nothing, a ratio says little below this: 0 to 8 bytes is less than 8 to 480.
_LITTLE = {
    "spill_bytes": 64.0,
    "local_loads": 16.0,
    "local_stores": 16.0,
    "spills_inside": 16.0,
    "spills_outside": 16.0,
}


def weight(before: float | None, after: float | None, metric: str = "") -> float:
    """How far apart two figures are, the same for either direction; a state, which has none, is above all."""
    if before is None or after is None:
        return float("inf")
    low, high = (value + _LITTLE.get(metric, 0.0) for value in sorted((before, after)))
    return high / low if low else 1e6 + high


def is_comparable(before: Mapping[str, str], after: Mapping[str, str], benchmark: str) -> bool:
    """Whether both sides measured with the same version of a benchmark; an unknown version is no difference."""
    old, new = before.get(benchmark), after.get(benchmark)
    return not old or not new or old == new


@dataclass(frozen=True)
class Row:
    """One figure, or (`metric` "") one case whose state says all there is.

    `states` are those of a case whose state changed, `whys` the reason of either. `ratio` is head over base, infinite from 0, None where a side has no figure; for sampled figures it is
    the verdict's (the control divided out), between `low` and `high`, while `base` and `head` are seconds.
    """

    group: str
    case: str
    metric: str
    verdict: str
    reason: str
    effect: str = NEITHER
    base: float | None = None
    head: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    message: str = ""
    states: tuple[str, str] | None = None
    whys: tuple[str, str] = ("", "")

    @property
    def key(self) -> tuple[str, str]:
        """What the row is of: a kernel or a call of an architecture."""
        return self.group, self.case

    @property
    def has_changed(self) -> bool:
        """Whether a state or an exact figure differs."""
        return self.states is not None or self.verdict in CHANGED

    @property
    def weight(self) -> float:
        """How far apart the sides are, the same for either direction; states stand above all."""
        return weight(self.base, self.head, self.metric)

    @property
    def unit(self) -> str:
        return GROUPS[self.group].metrics[self.metric][0] if self.metric else ""


@dataclass(frozen=True)
class Measured:
    """What stands on one side: the records by group and case, and the version of each benchmark.

    `pools` are what sweeps of its machine say about the noise of each call.
    """

    groups: Groups
    versions: Mapping[str, str] = field(default_factory=dict)
    pools: Pools = field(default_factory=dict)


def compare(base: Measured, head: Measured, exact: bool, bench: Sequence[str] = ()) -> list[Row]:
    """A row for every figure of either side in the exact groups, or in the sampled ones.

    `bench` are regular expressions as asv's --bench. In the order of the groups, cases and metrics; what was
    asked of neither side has no row.
    """
    rows: list[Row] = []
    for group, old, new in _both(base, head, exact):
        for case in _in_order(group, old.keys() | new.keys()):
            metrics = group.selected_metrics(tuple(case.split("/")), bench)
            if metrics:
                rows += _case(group, case, metrics, (old.get(case), new.get(case)), (base, head))
    return rows


def changed(base: Measured, head: Measured) -> list[Row]:
    """Those rows of the exact groups whose state or figure differs. Most cases are as they were, and no rule is asked of them."""
    rows: list[Row] = []
    for group, old, new in _both(base, head, exact=True):
        differ = [case for case, record in old.items() if case in new and not _is_alike(record, new[case])]
        for case in _in_order(group, differ):
            found = _case(group, case, list(group.metrics), (old[case], new[case]), (base, head))
            rows += [row for row in found if row.has_changed]
    return rows


def _is_alike(old: CaseRecord, new: CaseRecord) -> bool:
    return old.state == new.state and old.figures == new.figures


def _both(
    base: Measured, head: Measured, exact: bool
) -> Iterator[tuple[Group, Mapping[str, CaseRecord], Mapping[str, CaseRecord]]]:
    """The groups of which something was asked, in their order, with both sides' cases."""
    asked = base.groups.keys() | head.groups.keys()
    for group in _OF_KIND[exact]:
        if group.name not in asked:
            continue
        old, new = base.groups.get(group.name, {}), head.groups.get(group.name, {})
        one_sided = (group.read_from or group.on_request) and not (old and new)
        # Of one side nothing was read, which was recorded before such figures, or nothing was requested.
        if (old or new) and not one_sided:
            yield group, old, new


def case_changes(group: Group, case: str, old: CaseRecord, new: CaseRecord) -> list[Row]:
    """Every metric of one exact case that differs, or its state; nothing where one did not run."""
    rows = _case(group, case, list(group.metrics), (old, new), (Measured({}), Measured({})))
    return [row for row in rows if row.has_changed]


def of_effect(rows: Iterable[Row], effect: str) -> list[Row]:
    """The rows of one effect, the furthest apart first."""
    return sorted((row for row in rows if row.effect == effect), key=lambda row: -row.weight)


@cache
def _places(cases: tuple[tuple[str, ...], ...]) -> dict[str, int]:
    return {"/".join(case): index for index, case in enumerate(cases)}


def _in_order(group: Group, cases: Iterable[str]) -> list[str]:
    known = _places(group.cases)
    return sorted(cases, key=lambda case: (known.get(case, len(known)), case))


def _case(
    group: Group,
    case: str,
    metrics: Sequence[str],
    records: tuple[CaseRecord | None, CaseRecord | None],
    sides: tuple[Measured, Measured],
) -> Iterator[Row]:
    """The rows of one case: of its state where that differs or holds no figure, else of each metric."""
    old, new = (
        _absence(group, side) if record is None else record
        for record, side in zip(records, sides, strict=True)
    )
    states = tuple(record.state if record else "absent" for record in (old, new))
    if set(states) <= {"absent", "not run"}:
        return
    if old and new and states == ("measured", "measured"):
        for metric in metrics:
            if not (old.says_why_not(metric) and new.says_why_not(metric)):
                yield _figure(group, case, metric, (old, new), sides)
    elif group.read_from:
        yield from _unread(group, case, old, new)
    else:
        yield from _of_states(group, case, old, new)


def _of_states(group: Group, case: str, old: CaseRecord | None, new: CaseRecord | None) -> Iterator[Row]:
    """The row of a case that has no figure on one side or both."""
    states = [record.state if record else "absent" for record in (old, new)]
    if "not run" in states:
        side, record = ("base", old) if states[0] == "not run" else ("head", new)
        yield Row(
            group.name, case, "", NOT_COMPARABLE, f"{side}-not-run", message=record.why if record else ""
        )
    elif old is None and new:
        yield Row(group.name, case, "", "new", "base-lacks-it", message=_state_words(new))
    elif new is None and old:
        yield Row(group.name, case, "", "gone", "head-lacks-it", message=_state_words(old))
    elif old and new and old.state != new.state:
        change = policy.STATES[old.state, new.state]
        why = new.why or (f"was: {old.why}" if old.why else "")
        yield Row(
            group.name,
            case,
            "",
            change.name,
            f"{old.state}-to-{new.state}",
            change.effect,
            message=why,
            states=(old.state, new.state),
            whys=(old.why, new.why),
        )
    elif new:
        yield Row(group.name, case, "", NOT_COMPARABLE, f"both-{new.state}", message=new.why)


def _unread(group: Group, case: str, old: CaseRecord | None, new: CaseRecord | None) -> Iterator[Row]:
    """Figures that are read from a kernel of another group: its row tells of states, here only what cannot be compared."""
    for side, record, other in (("base", old, new), ("head", new, old)):
        if other and other.state == "measured":
            why = record.why if record else "this suite did not read them"
            yield Row(group.name, case, "", NOT_COMPARABLE, f"{side}-not-read", message=why)


def _absence(group: Group, side: Measured) -> CaseRecord | None:
    """What the lack of a record means: of an exact group every case is recorded, if only as not run.

    So None, a case that side's suite did not have, only where the side has records of such a group.
    """
    if group.exact and side.groups.get(group.name):
        return None
    return CaseRecord("not run", why="not measured")


def _state_words(record: CaseRecord) -> str:
    return record.state + (f": {record.why}" if record.why else "")


def _figure(
    group: Group,
    case: str,
    metric: str,
    records: tuple[CaseRecord, CaseRecord],
    sides: tuple[Measured, Measured],
) -> Row:
    """Two measured cases: one metric of them."""
    name = group.benchmark(metric)
    if not is_comparable(sides[0].versions, sides[1].versions, name):
        versions = " and ".join(side.versions[name] for side in sides)
        message = f"versions {versions} of {name}: measure both again"
        return Row(group.name, case, metric, NOT_COMPARABLE, "benchmark-version", message=message)
    if not group.exact:
        return _sampled(group, case, metric, *records, {**sides[0].pools, **sides[1].pools})
    base, head = (record.figures.get(metric) for record in records)
    if base is None or head is None:
        return _lacking(group, case, metric, base, head)
    text = "equal" if base == head else "more" if head > base else "less"
    same = records[0].sha256 and records[0].sha256 == records[1].sha256
    pair = text, "same-cubin" if same else "exact"
    asked = text in CHANGED and _is_of_a_kernel(group)
    unjudged = policy.why_unjudged(metric, _kernel(case, sides)) if asked else ""
    return _exact(group, case, metric, pair, base, head, records, unjudged)


def _is_of_a_kernel(group: Group) -> bool:
    return LOOPS.read_from in (group.name, group.read_from)


def _kernel(case: str, sides: tuple[Measured, Measured]) -> policy.Kernel:
    """What both sides' loops of a kernel let the policy judge."""
    named = CASES.get(case.partition("/")[2])
    old, new = (side.groups.get(LOOPS.name, {}).get(case) for side in sides)
    known = old.figures.keys() & new.figures.keys() if old and new else set()
    before, after = (side.versions for side in sides)
    return policy.Kernel(
        main=named is None or named.role == "main",
        windowed=named is not None and named.call.shape.window is not None,
        known=frozenset(name for name in known if is_comparable(before, after, LOOPS.benchmark(name))),
        same_work=old is None or new is None or work_of(old) == work_of(new),
    )


def _exact(
    group: Group,
    case: str,
    metric: str,
    pair: tuple[str, str],
    base: float,
    head: float,
    records: tuple[CaseRecord, CaseRecord],
    unjudged: str = "",
) -> Row:
    """The row of two figures that no clock measured, with a verdict and its reason; the policy says what it means.

    `unjudged`: why it has no effect here, whatever its size.
    """
    message, reason = pair
    judged = message in CHANGED and not unjudged
    effect = policy.effect_of_figures(metric, base, head) if judged else NEITHER
    if message in CHANGED and not effect:
        reason = unjudged or policy.reason_without_effect(metric)
    text = _checks(group, *records)
    return Row(group.name, case, metric, message, reason, effect, base, head, ratio(base, head), message=text)


def _checks(group: Group, old: CaseRecord, new: CaseRecord) -> str:
    """Which checks of a route broke, are refused or were mended, by name; "" of other groups."""
    if "broken" not in group.metrics:
        return ""
    ended, before = (
        {(name, reason.startswith(REFUSED)) for name, reason in record.notes.items()} for record in (new, old)
    )
    parts = [
        ("broken", {name for name, refused in ended - before if not refused}),
        ("refused", {name for name, refused in ended - before if refused}),
        ("mended", old.notes.keys() - new.notes.keys()),
    ]
    return "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in parts if names)


def _lacking(group: Group, case: str, metric: str, base: float | None, head: float | None) -> Row:
    """A metric that a measured case has on one side at most."""
    message, reason = ("new", "base-lacks-it") if base is None else ("gone", "head-lacks-it")
    if base is None and head is None:
        message, reason = NOT_COMPARABLE, "both-lack-it"
    return Row(group.name, case, metric, message, reason, base=base, head=head)


def ratio(base: float, head: float) -> float:
    """`head` over `base`; of two zeros 1, from zero infinite, so that swapping the sides inverts it."""
    if base == head:
        return 1.0
    return head / base if base else float("inf")


def _sampled(group: Group, case: str, metric: str, old: CaseRecord, new: CaseRecord, pools: Pools) -> Row:
    """A figure with samples: of a clock by the verdict on rounds, of anything else by its values."""
    base, head = (record.samples.get(metric, []) for record in (old, new))
    if not base or not head:
        return _lacking(group, case, metric, *(median(side) if side else None for side in (base, head)))
    if group.metrics[metric][0] == "seconds":
        if is_of_a_sweep(old) or is_of_a_sweep(new):
            centres = [record.samples.get("centre", []) for record in (old, new)]
            return _clocked(group, case, metric, judged(pools, group.name, case, old, new), *centres)
        return _timed(group, case, metric, old, new)
    pair = _counted(base, head, metric if group.what == "errors" else "")
    return _exact(group, case, metric, pair, median(base), median(head), (old, new))


def _counted(base: Sequence[float], head: Sequence[float], error: str) -> tuple[str, str]:
    """Bytes, checks and errors of a card: exact where every process said the same, else by their ranges.

    `error` is the metric of an error, "" of others: rounding in another order moves errors a little either way.
    """
    constant = len(set(base)) == len(set(head)) == 1
    if constant and base[0] == head[0]:
        return "equal", "exact"
    if error and not policy.is_large(error, median(base), median(head)):
        return "same", "errors-alike"
    reason = "exact" if constant else "ranges-apart"
    if min(head) > max(base):
        return "more", reason
    if max(head) < min(base):
        return "less", reason
    return "unclear", "ranges-overlap"


def _timed(group: Group, case: str, metric: str, old: CaseRecord, new: CaseRecord) -> Row:
    base, head = (rounds_of(group, record, metric) for record in (old, new))
    if not base or not head:
        side = "base" if not base else "head"
        message = f"the rounds behind the samples of {side} were not kept; measure it again"
        return Row(group.name, case, metric, NOT_COMPARABLE, f"{side}-rounds-unknown", message=message)
    processors = {record.notes.get("cpu", "") for record in (old, new)}
    if len(processors) > 1:
        message = (
            f"measured on {' and on '.join(sorted(word or 'an unknown processor' for word in processors))}"
        )
        return Row(group.name, case, metric, NOT_COMPARABLE, "other-processor", message=message)
    centres = [[each_round.seconds for each_round in rounds] for rounds in (base, head)]
    return _clocked(group, case, metric, verdict(base, head), *centres)


def _clocked(
    group: Group, case: str, metric: str, found_verdict: Verdict, base: Sequence[float], head: Sequence[float]
) -> Row:
    """The row of a verdict on seconds; the sides show the median of their rounds."""
    if found_verdict.name == NOT_COMPARABLE:
        return Row(
            group.name, case, metric, found_verdict.name, found_verdict.code, message=found_verdict.why
        )
    known = not math.isnan(found_verdict.change)  # else the tree ended before the interval
    change, low, high = (
        1 + edge if known else None for edge in (found_verdict.change, found_verdict.low, found_verdict.high)
    )
    return Row(
        group.name,
        case,
        metric,
        found_verdict.name,
        found_verdict.code,
        policy.effect_of_verdict(found_verdict.name),
        median(base),
        median(head),
        change,
        low,
        high,
        found_verdict.why,
    )


def rounds_of(group: Group, record: CaseRecord, metric: str) -> list[Round]:
    """One value a process. Run-time groups keep it beside the samples; elsewhere a sample is a process, or its children are.

    Empty where it is not known which samples belong to which round.
    """
    if not group.device:
        seconds = record.samples.get(metric, [])
        each = SAMPLES if record.notes.get("processes") == CHILDREN else 1
        if len(seconds) % each:
            return []
        return [Round(median(seconds[at : at + each])) for at in range(0, len(seconds), each)]
    centres = record.samples.get("centre", [])
    modes = record.samples.get("two modes", [])
    controls: list[float] | list[None] = record.samples.get("control", [])
    if len(modes) != len(centres):
        return []
    if len(controls) != len(centres):
        controls = [None] * len(centres)  # a control that was throttled in one round is none in all
    return [
        Round(centre, control, "two modes" if mode else "")
        for centre, control, mode in zip(centres, controls, modes, strict=True)
    ]
