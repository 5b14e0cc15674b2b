"""Explanations for people: a terminal's text, or Markdown. Subjects and words of others stay inert."""

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


def title(found: Explanation) -> str:
    return f"{_name(found.base)} -> {_name(found.head)}, {found.flavour}"


def _name(side: Side) -> str:
    return side.release or side.commit[:10]


def summary(found: Explanation) -> str:
    """How many figures changed, in how many kernels, and by what: one line."""
    verdicts = [v.cause for metrics in found.cases.values() for v in metrics.values()]
    verdicts += [v.cause for v in found.states.values()]
    if not verdicts:
        return "no kernel changed"
    words = {"source": "by the source", "toolchain": "by the toolchain", "unknown": "by an unknown cause"}
    words |= {"both together": "only by both together", "either alone": "by either alone"}
    kernels = len(found.cases) + len(found.states)
    parts = ", ".join(f"{count} {words[cause]}" for cause, count in Counter(verdicts).most_common())
    return f"{counted(len(verdicts), 'figure')} changed in {counted(kernels, 'kernel')}: {parts}"


def lines(found: Explanation) -> Iterator[tuple[str, str, str]]:
    """What differs, who did it, what could not be named: a label, words of others in one line, and kernels."""
    shown = [one_line(name.removeprefix("flash_attn/cute/")) for name in found.files]
    yield "source:", shortened(shown, _FILES) or "the same", ""
    # The parts of a package (-libs-...) move with it.
    packages = {
        name: pair
        for name, pair in found.packages.items()
        if not any(name.startswith(f"{o}-") and pair == other for o, other in found.packages.items())
    }
    yield "toolchain:", ", ".join(moved(packages)) or "the same", ""
    for culprit in found.culprits:
        yield "moved by", _culprit(culprit), shortened(culprit.cases, _KERNELS, "kernels")
    for words, cases in reasons(found).items():
        yield "said:", one_line(words, 600), shortened(cases, _KERNELS, "kernels")
    for note in found.notes:
        yield "note:", one_line(note, 600), ""
    for thread in found.threads:
        yield "see", one_line(thread), ""


def _culprit(culprit: Culprit) -> str:
    if culprit.kind == "package":
        return moved({culprit.name: (culprit.before, culprit.after)})[0]
    return f"commit {culprit.commit[:10]} ({one_line(culprit.subject)})"


def rows(found: Explanation) -> list[tuple[str, ...]]:
    """A row a figure that changed, states first, then the largest change first."""
    ordered: list[tuple[float, str, str, Verdict[int] | Verdict[str]]] = [
        (float("inf"), case, "state", state) for case, state in found.states.items()
    ]
    for case, metrics in found.cases.items():
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


def reasons(found: Explanation) -> dict[str, list[str]]:
    """Words of others behind unknown causes and changed states -> the kernels of which they were said."""
    said: dict[str, list[str]] = {}
    for case, metrics in found.cases.items():
        for words in dict.fromkeys(v.why for v in metrics.values() if v.why):
            said.setdefault(words, []).append(case)
    for case, state in found.states.items():
        if state.why:
            said.setdefault(state.why, []).append(case)
    return said


def opcode_rows(found: Explanation) -> list[tuple[str, str, str]]:
    """A row a kernel whose instructions changed: the roles that differ, the most first, as
    "local loads 0 -> 2 (+2)"."""
    result = []
    for case, roles in found.opcodes.items():
        ordered = sorted(roles.items(), key=lambda item: -abs(item[1][1] - item[1][0]))
        moved = [f"{role} {old:,} -> {new:,} ({new - old:+,})" for role, (old, new) in ordered if old != new]
        arch, _, kernel = case.partition("/")
        if moved:
            result.append((arch, kernel, ", ".join(moved)))
    return result


def render(found: Explanation, console: Console, limit: int) -> None:
    """One explanation for a terminal; `limit` rows a table."""
    console.print(Text(title(found), style="bold"), Text(summary(found)), sep=": ")
    for label, words, kernels in lines(found):
        console.print(Text(f"  {label} {words}" + (f": {kernels}" if kernels else "")))
    print_table(console, _HEADS, rows(found), limit, numbers=range(3, 7), whole=1)
    print_table(console, _OPCODES, opcode_rows(found), limit, whole=1)


def markdown(found: Explanation, limit: int) -> str:
    """One explanation as Markdown; the tables' rows beyond `limit` are counted."""
    parts = [f"## FA4: {code(title(found))}", "", f"**{plain(summary(found))}**", ""]
    for label, words, kernels in lines(found):
        parts.append(f"- {label} {code(words, 2000)}" + (f": {code(kernels, 2000)}" if kernels else ""))
    parts += ["", *_markdown_table(_HEADS, rows(found), limit, range(3, 7))]
    parts += ["", *_markdown_table(_OPCODES, opcode_rows(found), limit)]
    return "\n".join(parts).rstrip() + "\n"


def _markdown_table(
    heads: Sequence[str], found: Sequence[Sequence[str]], limit: int, numbers: range = range(0)
) -> list[str]:
    if not found or not limit:
        return []
    text = markdown_head(heads, numbers)
    text += [markdown_row([plain(row[0]), code(row[1]), *map(plain, row[2:])]) for row in found[:limit]]
    return text + ([f"\nand {len(found) - limit} more rows (--limit)"] if len(found) > limit else [])
