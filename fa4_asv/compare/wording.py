"""How a comparison is worded, the same in every format: sides, figures, changes, the summary."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.compare.policy import BETTER, NEITHER, WORSE, count_of
from fa4_asv.compare.prediction import LARGE, Prediction, Predictions
from fa4_asv.compare.rows import CHANGED, Row
from fa4_asv.compare.sides import Comparison, Side
from fa4_asv.compare.verdicts import NOT_COMPARABLE
from fa4_asv.record.formatting import counted, in_seconds, moved

NEWS = ("newly broken", "newly unsupported", "newly working", "newly supported", "new", "gone")


@dataclass(frozen=True)
class Line:
    """One row of a table as text."""

    case: str
    what: str
    base: str
    head: str
    change: str
    verdict: str
    reason: str
    message: str


def line_of(row: Row) -> Line:
    sides = figure(row, row.base), figure(row, row.head)
    return Line(row.case, title(row), *sides, change(row), row.verdict, row.reason, row.message)


def title(row: Row) -> str:
    """What the figure is: "spill (stack frame)", "forward seconds"; of a state the group."""
    if not row.metric:
        return row.group
    group = GROUPS[row.group]
    text = group.metrics[row.metric][1]
    return f"{group.name} {text}" if row.unit == "seconds" else text


def figure(row: Row, value: float | None) -> str:
    """A count with thousands separated, or a time."""
    if value is None:
        return ""
    if row.unit != "seconds":
        return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"
    return in_seconds(value) or f"{value * 1e9:.4g} ns"


def change(row: Row) -> str:
    """Percent, or words where a percentage says nothing."""
    if row.ratio is None:
        return ""
    if row.low is not None and row.high is not None:
        return f"{row.ratio - 1:+.2%} ({row.low - 1:+.2%} to {row.high - 1:+.2%})"
    if row.base == 0 and row.head:
        return "from 0"
    if row.head == 0 and row.base:
        return "to 0"
    apart = row.ratio - 1
    return f"{apart:+.1%}" if abs(apart) >= 0.001 else f"{apart:+.3%}"


def headline(comparison: Comparison) -> str:
    """The summary in a sentence."""
    worse = count_of(((row.key, row.effect) for row in comparison.rows), WORSE)
    if not worse.figures:
        start = "Nothing is worse"
    else:
        start = f"{counted(worse.figures, 'figure')} of {counted(worse.cases, 'case')} worse"
    rest = [f"{len(comparison.better)} better"]
    if small := without_effect(comparison):
        rest.append(f"{counted(len(small), 'change')} too small or not judged")
    counts = comparison.counts
    rest += [
        f"{counts[name]} {name}" for name in ("equal", "same", "unclear", NOT_COMPARABLE) if counts[name]
    ]
    states = [f"{counts[name]} {name}" for name in NEWS if counts[name]]
    return ", ".join([start, *rest]) + (f"; of cases: {', '.join(states)}" if states else "")


def by_metric(comparison: Comparison) -> list[tuple[str, int, int, int]]:
    """(figure, worse, better, neither) for each metric, in the order of the table of groups."""
    tallies: dict[str, Counter[str]] = {}
    for row in comparison.rows:
        tallies.setdefault(title(row) if row.metric else "state of a case", Counter())[row.effect] += 1
    return [(name, tally[WORSE], tally[BETTER], tally[NEITHER]) for name, tally in tallies.items()]


def origin(side: Side) -> str:
    """The commit behind a side, ours to print: its hash and release, or the digest of an uncommitted tree."""
    if side.commit.tree:
        return f"uncommitted tree {side.commit.tree}"
    return side.commit.hash[:10] + (f", release {side.commit.release}" if side.commit.release else "")


def toolchain(side: Side, whole: bool = True) -> str:
    """The toolchain behind a side: compiler; as a whole policy and digest, too."""
    used = side.sidecar.toolchain
    if not used.digest:
        return "none: it has no such flavour"
    compiler = used.packages.get("nvidia-cutlass-dsl", "unknown")
    more = f" (policy {used.policy}, digest {used.digest})" if whole else ""
    return f"nvidia-cutlass-dsl {compiler}{more}"


def packages(comparison: Comparison) -> str:
    """What differs between the two toolchains."""
    return ", ".join(moved(comparison.packages)) or "nothing: every version is the same"


def others(comparison: Comparison) -> list[Row]:
    """The rows that are neither worse nor better but say more than "equal": news, unclear, not comparable."""
    dull = ("equal", "same", *CHANGED)
    return [row for row in comparison.rows if not row.effect and row.verdict not in dull]


def without_effect(comparison: Comparison) -> list[Row]:
    """The changes that are neither worse nor better, the furthest apart first."""
    rows = [row for row in comparison.rows if not row.effect and row.verdict in CHANGED]
    return sorted(rows, key=lambda row: -row.weight)


def predicted_headline(predicted: Predictions) -> str:
    """Whose model it is, and of how many calls it says nothing."""
    silent = sum(call.change is None for call in predicted.calls)
    rest = [f"{counted(predicted.same, 'call')} with the same main kernel", f"silent on {silent}"]
    return (
        f"Predicted on Hopper from machine code, no clock (model of {counted(predicted.releases, 'release')} on "
        f"{predicted.machine}, docs/model.md); {', '.join(rest)}"
    )


def predicted_line(prediction: Prediction) -> tuple[str, str, str, str]:
    """Call, what is predicted, the error of the model, and what the card measured."""
    group, case = prediction.call
    call = f"{group.partition('-')[0]} {case.partition('/')[2]}"
    clock = (
        f"{change(prediction.measured)} {prediction.measured.verdict}".strip() if prediction.measured else ""
    )
    if prediction.change is None or prediction.error is None:
        return call, f"silent: {prediction.why or 'its error is not known'}", "", clock
    error = f"{prediction.error.mean:.1%}, at most {prediction.error.largest:.1%} in {counted(prediction.error.steps, 'step')}"
    return call, _predicted(prediction.change, prediction.error.mean), error, clock


def _predicted(change: float, error: float) -> str:
    """ "4 to 6 % faster" of a change with its error on both sides."""
    if abs(change) < LARGE:
        return f"no change of {LARGE:.0%} or more ({change:+.1%})"
    low, high = sorted((100 * (change - error), 100 * (change + error)), key=abs)
    names = ["faster" if edge < 0 else "slower" for edge in (low, high)]
    if names[0] != names[1]:
        return f"{abs(high):.1f} % {names[1]} to {abs(low):.1f} % {names[0]}"
    return f"{abs(low):.1f} to {abs(high):.1f} % {names[1]}"
