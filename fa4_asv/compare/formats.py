"""A comparison as text for a terminal, Markdown for a pull request, JSON for a script.

Refs, subjects and what FA4 said are foreign text: escaped in all three. Nothing is measured here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from fa4_asv.base.escape import code, one_line
from fa4_asv.base.machine import NOGPU
from fa4_asv.catalog.flavours import label
from fa4_asv.compare import policy
from fa4_asv.compare.prediction import Prediction, Predictions
from fa4_asv.compare.rows import Row
from fa4_asv.compare.sides import Comparison, Side
from fa4_asv.compare.wording import (
    Line,
    by_metric,
    headline,
    line_of,
    origin,
    others,
    packages,
    predicted_headline,
    predicted_line,
    toolchain,
    without_effect,
)
from fa4_asv.record.formatting import compiler_first, counted, moved
from fa4_asv.record.schema import SUITE
from fa4_asv.record.tables import markdown_head, markdown_row, print_table

FORMAT = 1  # of the JSON form
# GitHub takes 65,536 characters a comment; the rest is for what a workflow puts around it.
MOST_BYTES = 60_000
_COLUMNS = ("case", "figure", "base", "head", "change", "verdict", "reason")
_PREDICTED = ("call", "predicted time", "error of the model", "measured on that machine")
_WORDS = 160  # of a reason in a table


def exit_code(comparisons: Sequence[Comparison]) -> int:
    """The policy's, over all flavours."""
    return policy.exit_code(row.effect for each in comparisons for row in each.rows)


# Text


def text(comparisons: Sequence[Comparison], console: Console, limit: int | None, every: bool = False) -> None:
    """The summary, then what is worse; with `every` what is better and otherwise worth saying. `limit` rows each."""
    for each in comparisons:
        base, head = (one_line(side.commit.ref, 80) for side in (each.base, each.head))
        console.print(
            Text(
                f"{base} -> {head}: {label(each.flavour, each.machine != NOGPU)}, machine {each.machine}",
                style="bold",
            )
        )
        console.print(Text(headline(each), style="bold red" if each.worse else "bold green"))
        for name, side in (("base", each.base), ("head", each.head)):
            subject = f" {one_line(side.commit.subject, 80)}" if side.commit.subject else ""
            console.print(Text(f"  {name} {origin(side)}{subject}; {toolchain(side, whole=every)}"))
        differs = packages(each) if every else compiler_first(moved(each.packages)) or packages(each)
        console.print(Text(f"  toolchains: {each.rule}; differs: {differs}"))
        (worse, *rest) = _parts(each)
        for heading, rows in (worse, *(rest if every else ())):
            table(heading, rows, console, limit)
        if each.predicted and every:
            _predicted_table(each.predicted, console, limit)
        elif not every:
            _tell_rest(each, rest, console)


def _tell_rest(comparison: Comparison, rest: Sequence[tuple[str, Sequence[Row]]], console: Console) -> None:
    """What `--all` would show, by number; nothing where that is nothing."""
    told = [f"{heading.partition(';')[0].lower()} ({len(rows)})" for heading, rows in rest if rows]
    if comparison.predicted:
        told.append(f"predicted times on Hopper ({len(comparison.predicted.calls)})")
    if told:
        console.print(Text(f"--all shows: {'; '.join(told)}"))


def _predicted_table(predicted: Predictions, console: Console, limit: int | None) -> None:
    console.print(Text(predicted_headline(predicted)))
    rows = [tuple(map(one_line, predicted_line(call))) for call in predicted.calls]
    print_table(
        console,
        _PREDICTED,
        rows,
        limit,
        whole=0,
        more="more (--all)",
        show_edge=False,
    )


def _parts(comparison: Comparison) -> list[tuple[str, list[Row]]]:
    return [
        ("Worse", comparison.worse),
        ("Better", comparison.better),
        ("Neither worse nor better; docs/verdicts.md says what to do", others(comparison)),
        ("Changes too small, or not judged", without_effect(comparison)),
    ]


def table(heading: str, rows: Sequence[Row], console: Console, limit: int | None) -> None:
    """Print up to `limit` rows under a heading; nothing where there are none."""
    if rows and limit != 0:
        console.print(Text(heading, style="italic"))
    print_table(
        console,
        _COLUMNS,
        [_line_cells(line_of(row), one_line) for row in rows],
        limit,
        numbers=range(2, 5),
        whole=0,
        more="more (--all)",
        show_edge=False,
    )


def _line_cells(line: Line, inert: Callable[..., str]) -> tuple[str, ...]:
    """A row's cells; `inert` makes foreign text harmless in the format."""
    why = f"{line.reason}: {inert(line.message, _WORDS)}" if line.message else line.reason
    return inert(line.case), line.what, line.base, line.head, line.change, line.verdict, why


# Markdown


def markdown(comparisons: Sequence[Comparison], most: int = MOST_BYTES) -> str:
    """Summary, then what is worse, the rest folded away: at most `most` bytes of UTF-8.

    What does not fit is left out from the end of each table, and counted there.
    """
    share = most // len(comparisons)
    return "\n".join(_markdown(each, share) for each in comparisons)


def _markdown(comparison: Comparison, most: int) -> str:
    head = _summary(comparison)
    parts = [(heading, rows) for heading, rows in _parts(comparison) if rows]
    left = most - _size(head) - 1
    written: list[str] = []
    for number, (heading, rows) in enumerate(parts):
        # Later tables keep room for their heading and the count of what is left out.
        room = left - 400 * (len(parts) - number - 1)
        block = _block(heading, rows, room, folded=heading != "Worse")
        written += block
        left -= _size(block)
    return "\n".join([*head, *written]) + "\n"


def _summary(comparison: Comparison) -> list[str]:
    base, head = (code(side.commit.ref, 100) for side in (comparison.base, comparison.head))
    lines = [
        f"## FA4: {base} → {head}, {label(comparison.flavour, comparison.machine != NOGPU)}",
        "",
        f"**{headline(comparison)}** (machine {code(comparison.machine)})",
        "",
    ]
    lines += markdown_head(("figure", "worse", "better", "neither"), (1, 2, 3))
    lines += [markdown_row(map(str, cells)) for cells in by_metric(comparison)]
    lines += ["", f"- base {_origin(comparison.base)}", f"- head {_origin(comparison.head)}"]
    lines += [f"- toolchains: {comparison.rule}; differs: {code(packages(comparison), 2000)}", ""]
    return [*lines, *(_predicted_markdown(comparison.predicted) if comparison.predicted else [])]


def _predicted_markdown(predicted: Predictions) -> list[str]:
    """Folded; of few rows: a set has 26 calls."""
    rows = [markdown_row(_inert(predicted_line(call), call.change is None)) for call in predicted.calls]
    head = ["<details>", f"<summary>{predicted_headline(predicted)}</summary>", ""]
    return [*head, *markdown_head(_PREDICTED), *rows, "", "</details>", ""]


def _inert(cells: Sequence[str], silent: bool) -> list[str]:
    """The call is a name; why the model is silent may be in other people's words."""
    call, told, *rest = cells
    return [code(call), code(told, _WORDS) if silent else told, *rest]


def _origin(side: Side) -> str:
    subject = f" {code(side.commit.subject, 120)}" if side.commit.subject else ""
    return f"{code(origin(side))}{subject}: {code(toolchain(side))}"


def _block(heading: str, rows: Sequence[Row], room: int, folded: bool) -> list[str]:
    """One table within `room` bytes, behind a fold or not."""
    tall = f"{heading}: {counted(len(rows), 'row')}"
    begin = ["<details>", f"<summary>{tall}</summary>", ""] if folded else [f"### {tall}", ""]
    begin += markdown_head(_COLUMNS, (2, 3, 4))
    end = ["", "</details>", ""] if folded else [""]
    spare = room - _size([*begin, *end]) - 100
    shown: list[str] = []
    for row in rows:
        line = markdown_row(_line_cells(line_of(row), code))
        spare -= _size([line])
        if spare < 0:
            break
        shown.append(line)
    hidden = len(rows) - len(shown)
    tail = ["", f"{counted(hidden, 'more row')} left out for length."] if hidden else []
    return [*begin, *shown, *tail, *end]


def _size(lines: Iterable[str]) -> int:
    """Bytes of `lines`, each with its newline."""
    return sum(len(line.encode()) + 1 for line in lines)


# JSON


def as_json(comparisons: Sequence[Comparison]) -> str:
    """Every row; the schema is told in docs/verdicts.md and only grows within a FORMAT."""
    data = {
        "format": FORMAT,
        "suite": SUITE,
        "exit_code": exit_code(comparisons),
        "comparisons": [_comparison(each) for each in comparisons],
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "flavour": comparison.flavour,
        "machine": comparison.machine,
        "toolchains": comparison.rule,
        "base": _side(comparison.base),
        "head": _side(comparison.head),
        "packages": {name: list(versions) for name, versions in comparison.packages.items()},
        "counts": dict(sorted(comparison.counts.items())),
        "worse": len(comparison.worse),
        "better": len(comparison.better),
        "rows": [row_json(row) for row in comparison.rows],
        **({"predicted": _predicted_json(comparison.predicted)} if comparison.predicted else {}),
    }


def _predicted_json(predicted: Predictions) -> dict[str, Any]:
    calls = [_prediction_json(call) for call in predicted.calls]
    known = {"machine": predicted.machine, "releases": predicted.releases, "same_kernel": predicted.same}
    return {**known, "calls": calls}


def _prediction_json(prediction: Prediction) -> dict[str, Any]:
    """`change`, `low`, `high` are ratios less 1; a call that the model is silent on has `silent` instead."""
    group, case = prediction.call
    entry: dict[str, Any] = {"group": group, "case": case, "kernel": prediction.kernel}
    if prediction.change is None or prediction.error is None or prediction.interval is None:
        entry["silent"] = prediction.why or "its error is not known"
    else:
        low, high = prediction.interval
        entry |= {"change": prediction.change, "low": low, "high": high, "error": prediction.error.mean}
        entry |= {"largest_error": prediction.error.largest, "steps": prediction.error.steps}
    return entry | ({"measured": row_json(prediction.measured)} if prediction.measured else {})


def _side(side: Side) -> dict[str, Any]:
    used = side.sidecar.toolchain
    tree = {"tree": side.commit.tree} if side.commit.tree else {}
    return tree | {
        "ref": side.commit.ref,
        "commit": side.commit.hash,
        "release": side.commit.release,
        "subject": side.commit.subject,
        "environment": side.sidecar.environment,
        "toolchain": {"policy": used.policy, "digest": used.digest, "packages": used.packages},
    }


def row_json(row: Row) -> dict[str, Any]:
    """Only what is set, beside what every row has. From 0 there is no ratio in JSON."""
    always = {
        "group": row.group,
        "case": row.case,
        "metric": row.metric,
        "verdict": row.verdict,
        "reason": row.reason,
        "effect": row.effect,
    }
    sometimes = {
        "unit": row.unit,
        "base": row.base,
        "head": row.head,
        "ratio": row.ratio if row.ratio is None or math.isfinite(row.ratio) else None,
        "low": row.low,
        "high": row.high,
        "words": row.message,
    }
    return always | {name: value for name, value in sometimes.items() if value not in (None, "")}
