"""asv's dictionary of one result file, with its rows as columns by name."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asv import util

from fa4_asv.record.store import result_data

_STATISTICS = "stats_"
# When a figure was taken and how long it took say nothing of the figure.
_CLOCK = ("started_at", "duration")


class ResultRows:
    """The benchmarks of a result file, to be edited before it is written.

    `rows` maps a benchmark to its columns ("result", "params", "version", "samples", ...), each a list with one value per
    combination of parameters, or None where no combination has one.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.columns: list[str] = data["result_columns"]
        self.rows: dict[str, dict[str, Any]] = {
            name: dict(itertools.zip_longest(self.columns, row)) for name, row in data["results"].items()
        }

    @classmethod
    def read(cls, path: Path) -> ResultRows | None:
        """What stands at `path`; None where nothing does. Raises Fa4AsvError where that is no result file."""
        return cls(result_data(path)) if path.is_file() else None

    def versions(self) -> dict[str, str]:
        """Version by benchmark."""
        return {name: row["version"] for name, row in self.rows.items()}

    def cases(self, name: str) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Position and parameters of each figure of a benchmark that has figures."""
        if isinstance(self.rows[name]["result"], list):
            # asv holds parameters as reprs; a case's words need no more than their quotes removed.
            for index, case in enumerate(itertools.product(*self.rows[name]["params"])):
                yield index, tuple(word.strip("'") for word in case)

    def widen(self, name: str, params: list[list[str]]) -> None:
        """Give a benchmark these parameters, where they hold all that it has: what is new is n/a."""
        row = self.rows[name]
        places = {case: index for index, case in self.cases(name)}
        cases = [tuple(word.strip("'") for word in case) for case in itertools.product(*params)]
        if not places or not places.keys() <= set(cases):
            return
        for column, values in row.items():
            if column != "params" and isinstance(values, list):
                empty = math.nan if column == "result" else None
                row[column] = [values[places[case]] if case in places else empty for case in cases]
        row["params"] = params

    def set_samples(self, name: str, index: int, samples: list[float] | None, stats: dict[str, Any]) -> None:
        """Put samples and statistics in one place, where the benchmark has any at others."""
        row = self.rows[name]
        if isinstance(row["samples"], list):
            row["samples"][index] = samples
        columns = [column for column in self.columns if column.startswith(_STATISTICS)]
        if any(isinstance(row[column], list) for column in columns):
            for column in columns:
                values = row[column] or [None] * len(row["result"])
                values[index] = util.truncate_float_list(stats.get(column.removeprefix(_STATISTICS)))
                row[column] = values

    def to_json(self) -> dict[str, Any]:
        """As asv writes it: a column of nothing but None is one None, and none stands at a row's end."""
        return {**self.data, "results": {name: self._packed(row) for name, row in self.rows.items()}}

    def _packed(self, row: dict[str, Any]) -> list[Any]:
        packed = [
            None
            if name != "params" and isinstance(row[name], list) and all(value is None for value in row[name])
            else row[name]
            for name in self.columns
        ]
        while packed and packed[-1] is None:
            packed.pop()
        return packed

    def same_figures(self, other: ResultRows) -> bool:
        """Whether nothing differs but when it was measured and how long that took."""
        return self._without_clock() == other._without_clock()

    def _without_clock(self) -> str:
        rows = {
            name: {column: value for column, value in row.items() if column not in _CLOCK}
            for name, row in self.rows.items()
        }
        head = {name: value for name, value in self.data.items() if name not in ("durations", "results")}
        return json.dumps([{**head, "version": None}, rows], sort_keys=True)  # as text: NaN equals no NaN
