"""asv's result files and their sidecars, read here and nowhere else. Sidecars, written.

asv owns the result files. A sidecar stands beside each (`….sidecar`, which asv ignores) and holds what
asv cannot. Who reads many files takes `sound_pairs` (what cannot be read is passed over), `all_pairs` (it raises),
or `entries` (everything, with what is wrong). Of the other files in `results/`, `descriptions` reads asv's lists and
`explanation` the causes; a test lists the readers. Nothing here imports asv or torch.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line, steers_pages
from fa4_asv.base.files import RESTORE, names_in, read_json, write_atomic
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.record.schema import Records, Sidecar

_NOT_RESULTS = ("machine.json", "benchmarks.json")
_ASV_VERSION = 2  # asv.results.Results.api_version of asv 0.6
# asv stops at any other column, and with it the publishing of every file.
_COLUMNS = ("result", "params", "version", "started_at", "duration", "samples", "profile")
_SCALARS = (str, int, float, type(None))
# Parameters of all benchmarks of a file together; the record's largest file has 1,100. A few axes of a few hundred
# texts multiply to more than any memory holds.
MOST_KEYS = 100_000
Value = float | int | None
Key = tuple[str, tuple[str, ...]]  # benchmark, parameters


@dataclass(frozen=True)
class Result:
    """One result file; `date` is that of the commit, in ms since 1970.

    `figures` maps (benchmark, parameters) to a number, NaN (n/a) or None (failed); parameters are
    plain text, without the quotes of asv's reprs. `samples` holds only what was kept, `statistics` what asv
    made of them (ci_99_a, q_25, repeat, ...). `versions` are those of the benchmarks: figures of different ones
    are not comparable. `durations` are seconds by what asv timed as a whole ("<setup_cache codegen:16>") and by
    benchmark, where it says.
    """

    path: Path
    machine: str
    commit: str
    environment: str
    python: str
    date: int
    requirements: dict[str, str]
    figures: dict[Key, Value]
    samples: dict[Key, list[float]]
    versions: dict[str, str] = field(default_factory=dict)
    statistics: dict[Key, dict[str, float]] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)


def sidecar_path(result: Path) -> Path:
    """The sidecar of a result file."""
    return result.with_name(result.name.removesuffix(".json") + ".sidecar")


@dataclass(frozen=True)
class Pair:
    """A result file and its sidecar, both of the right shape; whether they agree is `fa4-asv verify`'s question."""

    path: Path
    result: Result
    sidecar: Sidecar


@dataclass(frozen=True)
class Entry:
    """What stands under one name in a machine's folder: the halves that can be read, None for the others.

    `damaged` are the files that are there and cannot be read, and what is wrong with each, in one line.
    """

    path: Path
    result: Result | None
    sidecar: Sidecar | None
    damaged: tuple[tuple[Path, str], ...] = ()

    @property
    def pair(self) -> Pair | None:
        """Both halves, None where one is missing or damaged."""
        return Pair(self.path, self.result, self.sidecar) if self.result and self.sidecar else None


@dataclass(frozen=True)
class Place:
    """Where an entry stands, not read yet: the path of its result file and which halves are there; a folder that
    cannot be listed, and why."""

    path: Path
    has_result: bool = False
    has_sidecar: bool = False
    unlisted: str = ""


Wanted = Callable[[Path], bool]


def entries(root: Path, machine: str | None = None, wanted: Wanted | None = None) -> Iterator[Entry]:
    """Everything below `root`, as `places`; each file is read once."""
    return map(read_entry, places(root, machine, wanted))


def places(root: Path, machine: str | None = None, wanted: Wanted | None = None) -> Iterator[Place]:
    """Where something stands below `root` (one machine of it, if named), by folder and name.

    `wanted` is asked with the path of the result file. A folder that cannot be listed is a place, too.
    """
    for folder in _folders(root, machine):
        try:
            names = names_in(folder)
        except Fa4AsvError as error:
            yield Place(folder, unlisted=without_path(folder, error))
            continue
        results = {name.removesuffix(".json") for name in names if _is_result(name)}
        sidecars = {name.removesuffix(".sidecar") for name in names if name.endswith(".sidecar")}
        for stem in sorted(results | sidecars):
            path = folder / f"{stem}.json"
            if wanted is None or wanted(path):
                yield Place(path, stem in results, stem in sidecars)


def read_entry(place: Place) -> Entry:
    """What stands at `place`; an unlisted folder is damaged itself."""
    path, result, sidecar = place.path, None, None
    damaged = [(path, place.unlisted)] if place.unlisted else []
    if place.has_result:
        try:
            result = load_result(path)
        except Fa4AsvError as error:
            damaged.append((path, without_path(path, error)))
    if place.has_sidecar:
        side = sidecar_path(path)
        try:
            sidecar = read_sidecar(side)
        except Fa4AsvError as error:
            damaged.append((side, without_path(side, error)))
    return Entry(path, result, sidecar, tuple(damaged))


def without_path(path: Path, error: Fa4AsvError) -> str:
    """What an error says of `path`, for a table that names the path itself."""
    return str(error).removeprefix(str(path)).lstrip(": ")


def sound_pairs(root: Path, machine: str | None = None, wanted: Wanted | None = None) -> Iterator[Pair]:
    """The pairs that can be read; what is damaged or lacks its half is passed over: `fa4-asv verify` names it."""
    for entry in entries(root, machine, wanted):
        if entry.pair:
            yield entry.pair


def all_pairs(root: Path, machine: str | None = None, wanted: Wanted | None = None) -> Iterator[Pair]:
    """As sound_pairs, where nothing may be missing: raises Fa4AsvError naming the first file that is damaged, or
    that has no sidecar.

    A sidecar alone is passed over: a write that was killed leaves one, and the next run completes it.
    """
    for entry in entries(root, machine, wanted):
        for path, what in entry.damaged:
            raise Fa4AsvError(f"{path}: {what}")
        if entry.result and not entry.sidecar:
            raise Fa4AsvError(f"{sidecar_path(entry.path)} is missing; restore it from git or measure again")
        if entry.pair:
            yield entry.pair


def series_pairs(folder: Path, commit: str, flavour: str, policy: str) -> Iterator[Pair]:
    """The sound pairs in a machine's folder of one commit, flavour and policy."""
    for pair in sound_pairs(folder.parent, folder.name, lambda path: path.name.startswith(f"{commit[:8]}-")):
        if series_of(pair.sidecar) == (commit, flavour, policy):
            yield pair


def current_groups(pair: Pair) -> dict[str, Records]:
    """Groups of a pair without those that another version of their benchmarks recorded."""
    groups = pair.sidecar.groups.items()
    return {name: cases for name, cases in groups if not _is_stale(name, pair.result)}


def _is_stale(name: str, result: Result) -> bool:
    """Whether a group was recorded by another version of its benchmarks; where asv says nothing, it was not."""
    group = GROUPS.get(name)
    benchmarks = map(group.benchmark, group.metrics) if group else ()
    return any(result.versions.get(name, group.version) != group.version for name in benchmarks if group)


def series_sidecars(folder: Path, commit: str, flavour: str, policy: str) -> Iterator[Sidecar]:
    """The sidecars in a machine's folder of one commit, flavour and policy; damaged ones are passed over."""
    for entry in entries(folder.parent, folder.name, lambda path: path.name.startswith(f"{commit[:8]}-")):
        if entry.sidecar and series_of(entry.sidecar) == (commit, flavour, policy):
            yield entry.sidecar


def series_of(sidecar: Sidecar) -> tuple[str, str, str]:
    """Commit, flavour and policy."""
    return sidecar.commit, sidecar.toolchain.flavour, sidecar.toolchain.policy


def iter_results(root: Path, machine: str | None = None) -> Iterator[Path]:
    """The result files below `root`, sorted; those of one machine if named. Folders that cannot be listed are
    passed over, `entries` names them."""
    for folder in _folders(root, machine):
        try:
            names = names_in(folder)
        except Fa4AsvError:
            continue
        yield from (folder / name for name in names if _is_result(name))


def _folders(root: Path, machine: str | None) -> list[Path]:
    """Absent folders are no folders. Raises Fa4AsvError where `root` is there and cannot be listed."""
    if not root.is_dir():
        return []
    names = names_in(root) if machine is None else [machine]
    return [root / name for name in names if (root / name).is_dir()]


def _is_result(name: str) -> bool:
    return name.endswith(".json") and name not in _NOT_RESULTS


def read_sidecar(path: Path) -> Sidecar:
    """Raises Fa4AsvError naming the file and what is wrong."""
    data = read_json(path)
    try:
        return Sidecar.from_json(data)
    except Fa4AsvError as error:
        raise Fa4AsvError(f"{path}: {one_line(str(error))}; {RESTORE}") from None


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Atomic; the same record gives the same bytes; one line per case, so that a diff can be read."""
    data = asdict(sidecar)
    data["groups"] = {
        group: {case: record.in_file() for case, record in sorted(cases.items())}
        for group, cases in sorted(sidecar.groups.items())
    }
    write_atomic(path, _lines(data))


def _lines(data: dict[str, Any]) -> str:
    def item(value: Any) -> str:
        # Without spaces: in 430 files they take 1.7 MiB.
        return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))

    groups = []
    for group, cases in data["groups"].items():
        rows = ",\n".join(f"  {item(case)}: {item(record)}" for case, record in cases.items())
        groups.append(f" {item(group)}: {{\n{rows}\n }}")
    head = [f"{item(key)}: {item(value)}" for key, value in data.items() if key != "groups"]
    return "{\n" + ",\n".join([*head, '"groups": {\n' + ",\n".join(groups) + "\n}"]) + "\n}\n"


def merge(old: Sidecar | None, new: Sidecar) -> Sidecar:
    """`new` over `old`, case by case; "not run" replaces nothing.

    Raises Fa4AsvError when they are of different commits or toolchains: those must never be mixed.
    """
    if old is None:
        return new
    identity = ("machine", "commit", "environment", "suite")
    for name in identity:
        if getattr(old, name) != getattr(new, name):
            raise Fa4AsvError(
                f"records of {name} {getattr(old, name)!r} and {getattr(new, name)!r} would be mixed"
            )
    if old.toolchain.digest != new.toolchain.digest:
        raise Fa4AsvError(
            f"toolchains {old.toolchain.digest} and {new.toolchain.digest} of {new.environment} would be mixed; "
            "restore the lock file or delete the old results of this commit"
        )
    groups: dict[str, Records] = {group: dict(cases) for group, cases in old.groups.items()}
    for group, cases in new.groups.items():
        records = groups.setdefault(group, {})
        records.update(
            {
                case: record
                for case, record in cases.items()
                if record.state != "not run" or case not in records
            }
        )
    return replace(new, groups=groups)


def result_data(path: Path) -> dict[str, Any]:
    """asv's own dictionary of a result file of the right shape. Raises Fa4AsvError as `load_result` does."""
    data: dict[str, Any] = read_json(path)
    _result(path, data)
    return data


def load_result(path: Path) -> Result:
    """Raises Fa4AsvError naming the file and what is wrong with its shape."""
    return _result(path, read_json(path))


def _result(path: Path, data: Any) -> Result:
    try:
        columns = list(data["result_columns"])
        if data["version"] != _ASV_VERSION:
            raise ValueError(f"version is {data['version']!r}, this suite reads {_ASV_VERSION}")
        unknown = [name for name in columns if name not in _COLUMNS and not str(name).startswith("stats_")]
        if unknown or type(data["date"]) is not int:
            raise ValueError(f"column {unknown[0]!r} is unknown" if unknown else f"date is {data['date']!r}")
        for name in ("params", "env_vars"):
            _check_texts(name, data.get(name, {}))
        result = Result(
            path,
            str(data["params"]["machine"]),
            str(data["commit_hash"]),
            str(data["env_name"]),
            str(data["python"]),
            int(data["date"]),
            {str(key): str(value) for key, value in data["requirements"].items()},
            figures={},
            samples={},
            durations=_seconds(data.get("durations", {})),
        )
        rows = {name: _row(name, columns, row) for name, row in data["results"].items()}
        _refuse_many(rows)
        known: tuple[Any, list[tuple[str, ...]]] = ([], [()])
        for name, entry in rows.items():
            # The metrics of a group have the same parameters.
            if entry["params"] != known[0]:
                known = entry["params"], _combinations(entry["params"])
            _read_row(name, entry, known[1], result)
        return result
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise Fa4AsvError(f"{path} is not an asv result file ({reason}); {RESTORE}") from None


def _check_texts(name: str, values: Any) -> None:
    """asv makes pages of these; anything but text and numbers would stop it."""
    if not isinstance(values, dict):
        raise ValueError(f"{name} is {values!r:.60}, expected texts by name")
    for key, value in values.items():
        if not isinstance(value, _SCALARS):
            raise ValueError(f"{name}[{key!r}] is {value!r:.60}, expected a word or a number")
        if steers_pages(key) or steers_pages(str(value)):
            raise ValueError(f"{name}[{key!r}] is {value!r:.60}, with markup or control characters")


def _seconds(durations: Any) -> dict[str, float]:
    for name, value in durations.items():
        if value is not None and not is_number(value):
            raise ValueError(f"durations[{name!r}] is {value!r:.60}, expected seconds")
    return {name: float(value) for name, value in durations.items() if value is not None}


def _row(name: str, columns: list[str], row: Any) -> dict[str, Any]:
    """One benchmark's row by column; asv leaves trailing empty columns out, so a row may be short."""
    if not isinstance(row, list) or not 2 <= len(row) <= len(columns):
        raise ValueError(f"{name} has a row of other length than its {len(columns)} columns")
    entry = dict(zip(columns, row, strict=False))
    params = entry["params"]
    if not isinstance(params, list) or not all(isinstance(axis, list) for axis in params):
        raise TypeError(f"{name} has parameters {params!r:.60}, expected lists of texts")
    for axis in params:
        if not all(isinstance(word, str) for word in axis):
            raise TypeError(f"{name} has parameters {axis!r:.60}, expected text")
    return entry


def _refuse_many(rows: dict[str, dict[str, Any]]) -> None:
    """Raises ValueError where the parameters multiply to more than MOST_KEYS, before they are multiplied."""
    count = 0
    for name, entry in rows.items():
        count += math.prod(map(len, entry["params"]))
        if count > MOST_KEYS:
            raise ValueError(f"{name} brings the parameters to more than {MOST_KEYS:,}")


def _combinations(params: list[list[str]]) -> list[tuple[str, ...]]:
    return list(itertools.product(*([_bare(word) for word in axis] for axis in params)))


def _read_row(name: str, entry: dict[str, Any], combinations: list[tuple[str, ...]], result: Result) -> None:
    """Add one benchmark's row to `result`."""
    if entry.get("version") is not None:
        result.versions[name] = str(entry["version"])
    if is_number(entry.get("duration")):
        result.durations[name] = float(entry["duration"])
    keys = [(name, combination) for combination in combinations]
    figures = _paired(keys, entry["result"])
    for key, value in figures:
        if value is not None and not _is_float(value):
            raise ValueError(f"{name}{key[1]} is {value!r:.60}, expected a number")
    result.figures.update(figures)
    for key, values in _paired(keys, entry.get("samples")) if entry.get("samples") else ():
        if values is None:
            continue
        if not isinstance(values, list) or not all(is_number(value) for value in values):
            raise ValueError(f"{name}{key[1]} has samples {values!r:.60}, expected numbers")
        if values:
            result.samples[key] = values
    for column in (column for column in entry if entry[column] and column.startswith("stats_")):
        _read_statistics(column, _paired(keys, entry[column]), result)


def _read_statistics(column: str, values: list[tuple[Key, Any]], result: Result) -> None:
    for key, value in values:
        if value is not None and not _is_float(value):
            raise ValueError(f"{key[0]}{key[1]} has {column} {value!r:.60}, expected a number")
        if value is not None:
            result.statistics.setdefault(key, {})[column.removeprefix("stats_")] = value


def _bare(word: str) -> str:
    return word.strip("'\"")


def _paired(keys: list[Key], values: Any) -> list[tuple[Key, Any]]:
    """Each key with its value; asv writes a column of nothing but None as a single None."""
    if values is None:
        values = [None] * len(keys)
    if not isinstance(values, list) or len(values) != len(keys):
        count = len(values) if isinstance(values, list) else f"{values!r:.60}"
        name = keys[0][0] if keys else "a benchmark without parameters"
        raise ValueError(f"{name} has {count} values for {len(keys)} parameters")
    return list(zip(keys, values, strict=True))


def is_number(value: Any) -> bool:
    """Whether asv's value is a finite number."""
    return _is_float(value) and math.isfinite(value)


def _is_float(value: Any) -> bool:
    """Whether a value is a number that a float can hold; JSON's integers have no bound."""
    return type(value) is float or (type(value) is int and abs(value) <= sys.float_info.max)
