"""Explanations for people: a terminal's text, or Markdown. Subjects and foreign text are escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from fa4_asv.base.escape import code, one_line, plain
from fa4_asv.catalog.metrics import METRICS
from fa4_asv.compare.rows import weight
from fa4_asv.record.explanation import Culprit, Explanation, Side, Verdict
from fa4_asv.record.formatting import counted, moved, shortened
from fa4_asv.record.tables import markdown_head, markdown_row, print_table

_HEADS = ("arch", "kernel", "figure", "before", "new source alone", "new toolchain alone", "after", "cause")
_FILES, _KERNELS = 12, 8  # named; the rest are counted
_OPCODES = ("arch", "kernel", "instructions by role")


def title(explanation: Explanation) -> str:
    return f"{_name(explanation.base)} -> {_name(explanation.head)}, {explanation.flavour}"


def _name(side: Side) -> str:
    return side.release or side.commit[:10]


def summary(explanation: Explanation) -> str:
    """How many figures changed, in how many kernels, and by what: one line."""
    verdicts = [v.cause for metrics in explanation.cases.values() for v in metrics.values()]
    verdicts += [v.cause for v in explanation.states.values()]
    if not verdicts:
        return "no kernel changed"
    notes = {"source": "by the source", "toolchain": "by the toolchain", "unknown": "by an unknown cause"}
    notes |= {"both together": "only by both together", "either alone": "by either alone"}
    kernels = len(explanation.cases) + len(explanation.states)
    parts = ", ".join(f"{count} {notes[cause]}" for cause, count in Counter(verdicts).most_common())
    return f"{counted(len(verdicts), 'figure')} changed in {counted(kernels, 'kernel')}: {parts}"


def lines(explanation: Explanation) -> Iterator[tuple[str, str, str]]:
    """What differs, who did it, what could not be named: a label, foreign text in one line, and kernels."""
    shown = [one_line(name.removeprefix("flash_attn/cute/")) for name in explanation.files]
    yield "source:", shortened(shown, _FILES) or "the same", ""
    # The parts of a package (-libs-...) move with it.
    packages = {
        name: pair
        for name, pair in explanation.packages.items()
        if not any(name.startswith(f"{o}-") and pair == other for o, other in explanation.packages.items())
    }
    yield "toolchain:", ", ".join(moved(packages)) or "the same", ""
    for culprit in explanation.culprits:
        yield "moved by", _culprit(culprit), shortened(culprit.cases, _KERNELS, "kernels")
    for message, cases in reasons(explanation).items():
        yield "said:", one_line(message, 600), shortened(cases, _KERNELS, "kernels")
    for note in explanation.notes:
        yield "note:", one_line(note, 600), ""
    for thread in explanation.threads:
        yield "see", one_line(thread), ""


def _culprit(culprit: Culprit) -> str:
    if culprit.kind == "package":
        return moved({culprit.name: (culprit.before, culprit.after)})[0]
    return f"commit {culprit.commit[:10]} ({one_line(culprit.subject)})"


def rows(explanation: Explanation) -> list[tuple[str, ...]]:
    """One row per figure that changed, states first, then the largest change first."""
    ordered: list[tuple[float, str, str, Verdict[int] | Verdict[str]]] = [
        (float("inf"), case, "state", verdict) for case, verdict in explanation.states.items()
    ]
    for case, metrics in explanation.cases.items():
        ordered += [(weight(v.base, v.head, m), case, METRICS[m][1], v) for m, v in metrics.items()]
    ordered.sort(key=lambda row: (-row[0], row[1], row[2]))
    return [
        (*case.split("/", 1), figure, *map(_cell, (v.base, v.source, v.toolchain, v.head)), v.cause)
        for _, case, figure, v in ordered
    ]


def _cell(value: int | str | None) -> str:
    if value is None:
        return "?"
    return value if isinstance(value, str) else f"{value:,}"


def reasons(explanation: Explanation) -> dict[str, list[str]]:
    """Words of others behind unknown causes and changed states -> the kernels of which they were said."""
    messages: dict[str, list[str]] = {}
    for case, metrics in explanation.cases.items():
        for message in dict.fromkeys(v.why for v in metrics.values() if v.why):
            messages.setdefault(message, []).append(case)
    for case, verdict in explanation.states.items():
        if verdict.why:
            messages.setdefault(verdict.why, []).append(case)
    return messages


def opcode_rows(explanation: Explanation) -> list[tuple[str, str, str]]:
    """A row per kernel whose instructions changed: the roles that differ, the most first, as
    "local loads 0 -> 2 (+2)"."""
    result = []
    for case, roles in explanation.opcodes.items():
        ordered = sorted(roles.items(), key=lambda item: -abs(item[1][1] - item[1][0]))
        moved = [f"{role} {old:,} -> {new:,} ({new - old:+,})" for role, (old, new) in ordered if old != new]
        arch, _, kernel = case.partition("/")
        if moved:
            result.append((arch, kernel, ", ".join(moved)))
    return result


def render(explanation: Explanation, console: Console, limit: int) -> None:
    """One explanation for a terminal; `limit` rows a table."""
    console.print(Text(title(explanation), style="bold"), Text(summary(explanation)), sep=": ")
    for label, text, kernels in lines(explanation):
        console.print(Text(f"  {label} {text}" + (f": {kernels}" if kernels else "")))
    print_table(console, _HEADS, rows(explanation), limit, numbers=range(3, 7), whole=1)
    print_table(console, _OPCODES, opcode_rows(explanation), limit, whole=1)


def markdown(explanation: Explanation, limit: int) -> str:
    """One explanation as Markdown; the tables' rows beyond `limit` are counted."""
    parts = [f"## FA4: {code(title(explanation))}", "", f"**{plain(summary(explanation))}**", ""]
    for label, text, kernels in lines(explanation):
        parts.append(f"- {label} {code(text, 2000)}" + (f": {code(kernels, 2000)}" if kernels else ""))
    parts += ["", *_markdown_table(_HEADS, rows(explanation), limit, range(3, 7))]
    parts += ["", *_markdown_table(_OPCODES, opcode_rows(explanation), limit)]
    return "\n".join(parts).rstrip() + "\n"


def _markdown_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], limit: int, numbers: range = range(0)
) -> list[str]:
    if not rows or not limit:
        return []
    lines = markdown_head(heads, numbers)
    lines += [markdown_row([plain(row[0]), code(row[1]), *map(plain, row[2:])]) for row in rows[:limit]]
    return lines + ([f"\nand {len(rows) - limit} more rows (--limit)"] if len(rows) > limit else [])
