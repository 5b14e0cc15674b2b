"""What calls of each release compile anew and read back: the releases at which that changed, not every figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.catalog.launch import COMPILED, LAUNCH_CALLS, READ, STEPS
from fa4_asv.record.schema import CaseRecord
from fa4_asv.report import wording
from fa4_asv.report.model import Series
from fa4_asv.report.multiples import short
from fa4_asv.report.parts import Cell, Row, Table

# Calls that compile what was not there before: of these only the count is of interest.
_EXPECTED = ("first", "short")

Said = tuple[str, str, str]  # kernels, reads, and where or why
Rows = dict[tuple[str, str, Said], list[str]]  # call, releases and what is said of them: the steps


def tables(series: Sequence[Series]) -> list[Table]:
    """Per architecture what calls compile again or read back, then what first calls compile; none where nothing is recorded."""
    found = [each for each in series if any(point.cases("launch") for point in each.measured)]
    return [table for arch in ARCHES for each in found for table in _of_arch(each, arch) if table.rows]


def _of_arch(series: Series, arch: str) -> tuple[Table, Table]:
    title = f"{arch}, {series.key.title}"
    again = [step for step in STEPS if step not in _EXPECTED]
    head = ["call", "step", "releases", "kernels", "reads", "where, or why not"]
    return (
        Table(f"Compiled again or read back on {title}", head, _table(series, arch, again, True), "wide"),
        Table(f"Compiled by first calls on {title}", head, _table(series, arch, _EXPECTED, False), "wide"),
    )


def _table(series: Series, arch: str, steps: Sequence[str], is_fault: bool) -> list[Row]:
    rows: Rows = {}
    for call in LAUNCH_CALLS:
        for step in steps:
            for releases, said in _spans(series, f"{arch}/{call}/{step}"):
                if not is_fault or said[:2] != ("0", "0"):
                    rows.setdefault((call, releases, said), []).append(step)
    return [_row(key, told, is_fault) for key, told in rows.items()]


def _row(key: tuple[str, str, Said], steps: Sequence[str], is_fault: bool) -> Row:
    call, releases, (kernels, reads, where) = key
    css = "worse" if is_fault and kernels.isdigit() else ""
    return [call, ", ".join(steps), releases, Cell(kernels, css=css), Cell(reads, css=css), where]


def _spans(series: Series, case: str) -> Iterator[tuple[str, Said]]:
    """Neighbouring releases of which the same is said; none of those that did not run."""
    records = [(short(point.label), point.cases("launch").get(case)) for point in series.measured]
    return wording.runs(
        (label, _said(record)) for label, record in records if record and record.state != "not run"
    )


def _said(record: CaseRecord) -> Said:
    if record.state != "measured":
        return record.state, "–", record.why
    shown = [name for name in sorted(record.parts) if name.partition(" ")[0] in (COMPILED, READ)]
    figures = record.figures
    return str(figures["compiles"]), str(figures["host_reads"]), "; ".join(shown)
