"""asv's result files, read; their sidecars, read and written. The wall between measuring and reporting.

asv owns the result files. A sidecar stands beside each (`….sidecar`, which asv ignores) and holds what
asv cannot. Nothing here imports asv or torch.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import write_atomic
from fa4_asv.record.schema import CaseRecord, Sidecar

_NOT_RESULTS = ("machine.json", "benchmarks.json")
_ASV_VERSION = 2  # asv.results.Results.api_version of asv 0.6
# asv stops at any other column, and with it the publishing of every file.
_COLUMNS = ("result", "params", "version", "started_at", "duration", "samples", "profile")
_SCALARS = (str, int, float, type(None))
Value = float | int | None
Key = tuple[str, tuple[str, ...]]  # benchmark, parameters


@dataclass(frozen=True)
class Result:
    """One result file; `date` is that of the commit, in ms since 1970.

    `figures` maps (benchmark, parameters) to a number, NaN (n/a) or None (failed); parameters are
    plain words, without the quotes of asv's reprs. `samples` holds only what was kept, `statistics` what asv
    made of them (ci_99_a, q_25, repeat, ...). `versions` are those of the benchmarks: figures of different ones
    are not comparable.
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


def sidecar_path(result: Path) -> Path:
    """The sidecar of a result file."""
    return result.with_name(result.name.removesuffix(".json") + ".sidecar")


def series_sidecars(folder: Path, commit: str, flavour: str, policy: str) -> Iterator[Sidecar]:
    """The sidecars in a machine's folder of one commit, flavour and policy; damaged ones are passed over."""
    for path in sorted(folder.glob(f"{commit[:8]}-*.sidecar")):
        try:
            sidecar = read_sidecar(path)
        except Fa4AsvError:
            continue
        if (sidecar.commit, sidecar.toolchain.flavour, sidecar.toolchain.policy) == (commit, flavour, policy):
            yield sidecar


def iter_results(root: Path, machine: str | None = None) -> Iterator[Path]:
    """The result files below `root`, sorted; those of one machine if named."""
    folders = [root / machine] if machine else sorted(path for path in root.glob("*") if path.is_dir())
    for folder in folders:
        yield from sorted(path for path in folder.glob("*.json") if path.name not in _NOT_RESULTS)


def commit_of(path: Path) -> str:
    """The commit of a sound result file."""
    return str(_read(path)["commit_hash"])


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Fa4AsvError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Fa4AsvError(f"{path} is not JSON ({error}); restore it from git or delete it") from None


def read_sidecar(path: Path) -> Sidecar:
    """Raises Fa4AsvError naming the file and what is wrong."""
    data = _read(path)
    try:
        return Sidecar.from_json(data)
    except Fa4AsvError as error:
        raise Fa4AsvError(f"{path}: {error}; restore it from git or delete it") from None


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Atomic; the same record gives the same bytes; a line a case, so that a diff can be read."""
    data = asdict(sidecar)
    data["groups"] = {
        group: {case: record.to_json() for case, record in sorted(cases.items())}
        for group, cases in sorted(sidecar.groups.items())
    }
    write_atomic(path, _lines(data))


def _lines(data: dict[str, Any]) -> str:
    def one(value: Any) -> str:
        return json.dumps(value, sort_keys=True, allow_nan=False)

    groups = []
    for group, cases in data["groups"].items():
        rows = ",\n".join(f"  {one(case)}: {one(record)}" for case, record in cases.items())
        groups.append(f" {one(group)}: {{\n{rows}\n }}")
    head = [f"{one(key)}: {one(value)}" for key, value in data.items() if key != "groups"]
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
    groups: dict[str, dict[str, CaseRecord]] = {group: dict(cases) for group, cases in old.groups.items()}
    for group, cases in new.groups.items():
        kept = groups.setdefault(group, {})
        kept.update(
            {case: record for case, record in cases.items() if record.state != "not run" or case not in kept}
        )
    return replace(new, groups=groups)


def load_result(path: Path) -> Result:
    """Raises Fa4AsvError naming the file and what is wrong with its shape."""
    data = _read(path)
    try:
        columns = list(data["result_columns"])
        if data["version"] != _ASV_VERSION:
            raise ValueError(f"version is {data['version']!r}, this suite reads {_ASV_VERSION}")
        unknown = [name for name in columns if name not in _COLUMNS and not str(name).startswith("stats_")]
        if unknown or type(data["date"]) is not int:
            raise ValueError(f"column {unknown[0]!r} is unknown" if unknown else f"date is {data['date']!r}")
        for name in ("params", "env_vars"):
            _check_words(name, data.get(name, {}))
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
        )
        for name, row in data["results"].items():
            _read_row(name, columns, row, result)
        return result
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        words = f"{type(error).__name__}: {error}"
        raise Fa4AsvError(
            f"{path} is no asv result file ({words}); restore it from git or delete it"
        ) from None


def _check_words(name: str, words: Any) -> None:
    """asv makes pages of these; anything but words and numbers would stop it."""
    if not isinstance(words, dict):
        raise ValueError(f"{name} is {words!r:.60}, expected words by name")
    for key, value in words.items():
        if not isinstance(value, _SCALARS):
            raise ValueError(f"{name}[{key!r}] is {value!r:.60}, expected a word or a number")


def _read_row(name: str, columns: list[str], row: Any, result: Result) -> None:
    """Add one benchmark's row to `result`; asv leaves trailing empty columns out, so a row may be short."""
    if not isinstance(row, list) or not 2 <= len(row) <= len(columns):
        raise ValueError(f"{name} has a row of other length than its {len(columns)} columns")
    entry = dict(zip(columns, row, strict=False))
    if entry.get("version") is not None:
        result.versions[name] = str(entry["version"])
    words = itertools.product(*entry["params"])
    keys = [(name, tuple(_bare(word) for word in combination)) for combination in words]
    for key, value in _paired(keys, entry["result"]):
        if value is not None and not _is_float(value):
            raise ValueError(f"{name}{key[1]} is {value!r:.60}, expected a number")
        result.figures[key] = value
    for key, values in _paired(keys, entry.get("samples")):
        if values is None:
            continue
        if not isinstance(values, list) or not all(is_number(value) for value in values):
            raise ValueError(f"{name}{key[1]} has samples {values!r}, expected numbers")
        if values:
            result.samples[key] = values
    for column in (column for column in entry if column.startswith("stats_")):
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
        count = len(values) if isinstance(values, list) else repr(values)
        raise ValueError(f"{keys[0][0]} has {count} values for {len(keys)} parameters")
    return list(zip(keys, values, strict=True))


def is_number(value: Any) -> bool:
    """Whether asv's value is a finite number."""
    return _is_float(value) and math.isfinite(value)


def _is_float(value: Any) -> bool:
    """Whether a value is a number that a float can hold; JSON's integers have no bound."""
    return type(value) is float or (type(value) is int and abs(value) <= sys.float_info.max)
