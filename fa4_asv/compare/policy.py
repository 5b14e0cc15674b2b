"""What is worse: which figures are judged, from which size of a change on, and what a change of state means.

`compare` and its exit code, `changes`, the report and the workflows ask this module; none of them has a rule of its own.
Pure, standard library only. The tables here are those of docs/verdicts.md ("What counts"), and a test holds both together.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

WORSE, BETTER, NEITHER = "worse", "better", ""
MIXED, UNCHANGED = "mixed", "no relevant change"
NOTHING_WORSE, SOMETHING_WORSE = 0, 1  # exit codes of `compare`


@dataclass(frozen=True)
class Rule:
    """A metric counts from a relative change of `smallest` on, the smaller side being 1; None: it is not judged."""

    smallest: float | None
    why: str


@dataclass(frozen=True)
class StateChange:
    """What a case's change of state is called, and its effect."""

    name: str
    effect: str


_CODE = 0.01
_LOOP = 0.02
SMALLEST_TIME = 0.005
_ERROR = Rule(0.1, "another order of rounding moves an error that far")

# metric: rule. Every metric of the catalog has one.
RULES = {
    "spill_bytes": Rule(_CODE, "a spill costs memory traffic"),
    "local_loads": Rule(_CODE, "what is spilled is read again"),
    "local_stores": Rule(_CODE, "what is spilled is written"),
    "instructions": Rule(_CODE, "a toolchain moves kernels by less without any effect on a clock"),
    "text_bytes": Rule(None, "follows the instructions"),
    "registers": Rule(None, "kernels redistribute them while they run"),
    "turn_instructions": Rule(_LOOP, "what a kernel repeats; a card shows no effect of less"),
    "masked_instructions": Rule(_LOOP, "the same, where the mask is applied"),
    "spills_inside": Rule(0.0, "an access in each turn"),
    "spills_outside": Rule(None, "once per tile"),
    "slots_per_100_products": Rule(None, "follows the instructions of the turn"),
    "peak_bytes": Rule(_CODE, "decides which sizes fit on a card"),
    "extra_bytes": Rule(None, "the peak without inputs and outputs, and so judged with the peak"),
    "growth_bytes": Rule(_CODE, "memory that grows with the sequence"),
    "untraced_bytes": Rule(None, "says how well the trace fits the card, not what FA4 does"),
    "broken": Rule(0.0, "one check is a call that no longer works"),
    "refused": Rule(0.0, "one check is a call that is not taken any more"),
    "compiles": Rule(0.0, "a kernel that is compiled anew stops a step for seconds"),
    "host_reads": Rule(0.0, "the host waits until the card has done all before"),
    "allocations": Rule(None, "says where time and memory may go; the peak is judged"),
    "seconds": Rule(SMALLEST_TIME, "and only where the interval excludes 0"),
    "out": _ERROR,
    "dq": _ERROR,
    "dk": _ERROR,
    "dv": _ERROR,
}

# (before, after): what a change of state means. Of "not run" nothing is known, so it is no change.
STATES = {
    ("measured", "unsupported"): StateChange("newly unsupported", WORSE),
    ("measured", "broken"): StateChange("newly broken", WORSE),
    ("unsupported", "broken"): StateChange("newly broken", WORSE),
    ("unsupported", "measured"): StateChange("newly supported", BETTER),
    ("broken", "measured"): StateChange("newly working", BETTER),
    # FA4 refuses the call and says why, instead of failing.
    ("broken", "unsupported"): StateChange("newly unsupported", BETTER),
}


# What is judged of a kernel's loops, and in the place of which figures of the whole kernel.
MAIN_TURN, MASKED_TURN = "turn_instructions", "masked_instructions"
_SPILLS = ("spill_bytes", "local_loads", "local_stores")


@dataclass(frozen=True)
class Kernel:
    """What the rule asks of a kernel beside the two figures.

    `main`: not one that prepares or completes a backward. `windowed`: its mask cuts every block, so that the turn without
    a mask never runs. `known`: metrics of loops that both sides have; `same_work`: a turn has the same products and exp2 on both.
    """

    main: bool = True
    windowed: bool = False
    known: frozenset[str] = frozenset()
    same_work: bool = True

    @property
    def turn(self) -> str:
        """The metric of the turn that stands for the kernel."""
        return MASKED_TURN if self.windowed and MASKED_TURN in self.known else MAIN_TURN


def why_unjudged(metric: str, kernel: Kernel) -> str:
    """The reason code why a change of this metric has no effect in this kernel, whatever its size; "" where it has.

    Loops first: what a kernel does once per tile says little of its time. The whole kernel is judged where a loop is not
    understood or not recorded.
    """
    if metric in (MAIN_TURN, MASKED_TURN):
        return "other-turn" if metric != kernel.turn else "" if kernel.same_work else "other-tile"
    if metric in _SPILLS:
        return "loops-judged" if "spills_inside" in kernel.known else ""
    if metric == "instructions":
        return "loops-judged" if kernel.turn in kernel.known else "" if kernel.main else "no-loop"
    return ""


def is_judged(metric: str) -> bool:
    return RULES[metric].smallest is not None


def is_large(metric: str, before: float, after: float) -> bool:
    """Whether a change of a judged metric counts; the same in both directions. From or to 0 every change does."""
    smallest = RULES[metric].smallest
    low, high = sorted((before, after))
    if smallest is None or low == high:
        return False
    return not low or (high - low) / low >= smallest


def effect_of_figures(metric: str, before: float, after: float) -> str:
    """WORSE, BETTER or NEITHER of one figure; lower is better. Of times `effect_of_verdict` decides."""
    if not is_large(metric, before, after):
        return NEITHER
    return WORSE if after > before else BETTER


def reason_without_effect(metric: str) -> str:
    """The reason code of a change that is neither worse nor better."""
    return "below-threshold" if is_judged(metric) else "not-judged"


def effect_of_verdict(name: str) -> str:
    """Of a verdict on times, which has weighed the size of the change already (`verdicts.decided`)."""
    return {"slower": WORSE, "faster": BETTER}.get(name, NEITHER)


def effect_of_ratio(logarithm: float, least: float = SMALLEST_TIME) -> str:
    """Of a time over another's, as a natural logarithm, where no verdict weighs it: of yardsticks and of means.

    `least` is the smallest relative change that is seen; NaN where that is not known: NEITHER.
    """
    if math.isnan(least) or abs(logarithm) <= math.log1p(max(least, SMALLEST_TIME)):
        return NEITHER
    return WORSE if logarithm > 0 else BETTER


def effect_of_states(before: str, after: str) -> str:
    """Of a case whose state changed; NEITHER where it did not, or where one side did not run."""
    change = STATES.get((before, after))
    return change.effect if change else NEITHER


@dataclass(frozen=True)
class Count:
    """How many figures have an effect, and of how many cases; a change of state counts as one figure."""

    figures: int
    cases: int


def count_of(effects: Iterable[tuple[Hashable, str]], effect: str) -> Count:
    """Of pairs (case, effect): those with `effect`."""
    cases = [case for case, each_effect in effects if each_effect == effect]
    return Count(len(cases), len(set(cases)))


def overall(effects: Iterable[str]) -> str:
    """All effects in one word: WORSE, BETTER, MIXED or UNCHANGED."""
    different = set(effects) - {NEITHER}
    return MIXED if len(different) > 1 else different.pop() if different else UNCHANGED


def exit_code(effects: Iterable[str]) -> int:
    """SOMETHING_WORSE where one figure or state is worse, however many are better."""
    return SOMETHING_WORSE if WORSE in effects else NOTHING_WORSE
