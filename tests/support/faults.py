"""The table of faults in docs/testing.md: what a test of a fault says of it, and the table that a run of them writes.

    @pytest.mark.fault(kind="a damaged lock", inputs="no text, a pipe", happens="one line, exit code 2")

Each such test is a row, with the number of its cases. `python tools/fault_table.py` runs them and writes the table.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from fa4_asv.base.files import write_atomic

FIELDS = {"kind", "inputs", "happens"}
BEGIN, END = "<!-- faults: written by tools/fault_table.py -->", "<!-- end of faults -->"
HEAD = "| kind of fault | inputs | what happens | tests |\n|---|---|---|---|\n"
NAME = "fault"  # of the marker, and of the property that a report carries to where the table is written


class Fault(NamedTuple):
    """A row without the number of cases; a test is "file:function"."""

    kind: str
    inputs: str
    happens: str
    test: str


def fault_of(item: pytest.Item) -> Fault | None:
    """What the marker of a test says. Raises UsageError where it says anything but FIELDS, each as text."""
    marker = item.get_closest_marker(NAME)
    if marker is None:
        return None
    fields = marker.kwargs
    if (
        marker.args
        or set(fields) != FIELDS
        or not all(isinstance(each, str) and each for each in fields.values())
    ):
        raise pytest.UsageError(f"{item.nodeid}: a fault has {', '.join(sorted(FIELDS))}, each a text")
    file, _, function = item.nodeid.split("[")[0].partition("::")
    return Fault(fields["kind"], fields["inputs"], fields["happens"], f"{Path(file).name}:{function}")


def table(result: Counter[Fault]) -> str:
    """The Markdown table: rows by kind, as many cases as were counted."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for fault, count in sorted(result.items()):
        file, _, function = fault.test.partition(":")
        rows.setdefault(fault[:3], []).append(f"`{file}` {function.removeprefix('test_')}: {count}")
    lines = [
        f"| {' | '.join(map(_cell, fields))} | {_cell('; '.join(tests))} |\n"
        for fields, tests in rows.items()
    ]
    return HEAD + "".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def filled(page: str, rows: str) -> str:
    """The page with the table exchanged. Raises ValueError where it does not say where that stands."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no {BEGIN} ... {END} in the page")
    return f"{before}{BEGIN}\n\n{rows}\n{END}{after}"


class FaultTable:
    """Counts the faults of a run, also where pytest-xdist runs the tests in other processes, and writes their table."""

    def __init__(self, page: Path) -> None:
        self._page = page
        self._found: Counter[Fault] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.config.option.collectonly:
            self._found.update(filter(None, map(fault_of, session.items)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "setup":
            self._found.update(Fault(*fields) for name, fields in report.user_properties if name == NAME)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Only where every test passed: a table made by a run that failed would claim too much."""
        if exitstatus == 0 and not hasattr(session.config, "workerinput"):
            write_atomic(self._page, filled(self._page.read_text(encoding="utf-8"), table(self._found)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", metavar="PAGE", help="write the table of faults into this page")


def pytest_configure(config: pytest.Config) -> None:
    if page := config.getoption("--fault-table"):
        config.pluginmanager.register(FaultTable(Path(page)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if fault := fault_of(item):
            item.user_properties.append((NAME, tuple(fault)))
