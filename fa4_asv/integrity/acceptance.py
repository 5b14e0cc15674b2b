"""What comes from outside, such as an artifact of a workflow: it may add to the record, and is compared with our own tables.

Versions are those of `catalog.benchmarks`, toolchains those of the committed locks, commits and dates those of the
history. What is recorded already stays, whatever arrives says of it (`additions`). `verify` is asked beside all this.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.machine import ANY_PYTHON, NOGPU, NOGPU_RECORD
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import BY_TORCH, GROUPS, group_of, key_of
from fa4_asv.catalog.flavours import AS_CU12
from fa4_asv.catalog.kernels import BEYOND
from fa4_asv.catalog.metrics import LOOP_DIGITS
from fa4_asv.history.commits import load_commits
from fa4_asv.history.demands import demands_of
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.repository import CUTE, commit_date, read_file
from fa4_asv.history.toolchain import can_name_locks, read_lock
from fa4_asv.integrity.additions import changes, is_kept
from fa4_asv.integrity.staging import take
from fa4_asv.record.descriptions import MACHINE_FILE
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import (
    Pair,
    Result,
    entries,
    is_number,
    load_result,
    read_sidecar,
    result_data,
    sidecar_path,
)

# What asv writes into a result file of exact figures, and nothing else. `profile` would be executed by `asv profile`.
_KEYS = {
    *("commit_hash", "env_name", "date", "params", "python", "requirements", "env_vars"),
    *("result_columns", "results", "durations", "version"),
}
_COLUMNS = ("result", "params", "version", "started_at", "duration")
_CLOCK = slice(3, 5)  # of these: when it ran, and how long
_FURTHER = dict.fromkeys(BY_TORCH, {"checks"})  # figures that no benchmark shows
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOOP_DIGEST = re.compile(f"[0-9a-f]{{{LOOP_DIGITS}}}")


def accept(staged: Project, project: Project) -> list[Path]:
    """Move what `staged` adds to the record of machine `nogpu` into it; the files that were moved.

    Pairs that add nothing are left where they are. Raises Fa4AsvError, with nothing moved, on the first thing that is
    not ours to take.
    """
    machine_file = project.results / NOGPU / MACHINE_FILE
    if not machine_file.is_file():
        raise Fa4AsvError(f"results/{NOGPU} has no {MACHINE_FILE}; commit the record so far first")
    shutil.copyfile(machine_file, staged.results / NOGPU / MACHINE_FILE)  # ours, so that `verify` finds one
    for pair in list(_pairs(staged)):
        old = _recorded(pair, project)
        for wrong in refusals(pair, old, project):
            raise Fa4AsvError(f"{pair.path.name}: {one_line(wrong, 1000)}; nothing is taken")
        if old and not _gaining(pair, old):
            for path in (pair.path, sidecar_path(pair.path)):
                path.unlink()
    return take(staged, project, foreign=True)


def _pairs(staged: Project) -> Iterator[Pair]:
    """Raises Fa4AsvError on what is damaged or lacks its half."""
    for entry in entries(staged.results):
        for path, what in entry.damaged:
            raise Fa4AsvError(f"{path.name}: {what}")
        if not entry.pair:
            raise Fa4AsvError(f"{entry.path.stem} has only one of its two files, a result file and a sidecar")
        yield entry.pair


def _recorded(pair: Pair, project: Project) -> Pair | None:
    """What is recorded under the name of `pair`. Raises Fa4AsvError where that is damaged."""
    path = project.results / NOGPU / pair.path.name
    if not path.exists() and not sidecar_path(path).exists():
        return None
    return Pair(path, load_result(path), read_sidecar(sidecar_path(path)))


def _gaining(pair: Pair, old: Pair) -> set[str]:
    """The groups that have a case or a metric which is not recorded, or are measured anew."""
    known = {key: record.figures for key, record in _cases(old)}
    return {
        key[0]
        for key, record in _cases(pair)
        if key not in known
        or record.figures.keys() - known[key].keys()
        or not is_kept(key[0], old.result, pair.result)
    }


def _cases(pair: Pair) -> Iterator[tuple[tuple[str, str], CaseRecord]]:
    for group, cases in pair.sidecar.groups.items():
        yield from (((group, case), record) for case, record in cases.items() if record.state != "not run")


def refusals(pair: Pair, old: Pair | None, project: Project) -> Iterator[str]:
    """Why a pair from outside is not taken, beside what `verify` says of it; `old` is recorded under its name."""
    yield from _names(pair)
    yield from _commit(pair.result, project)
    yield from _benchmarks(pair, old)
    yield from _records(pair, old)
    yield from _toolchain(pair, project)
    yield from _rows(pair, old)
    if old:
        yield from changes(old, pair)


def _names(pair: Pair) -> Iterator[str]:
    """Machine, environment and series: one name for each, or the same release would stand there twice."""
    result, chain, data = pair.result, pair.sidecar.toolchain, result_data(pair.path)
    if not can_name_locks(chain.flavour, chain.policy):
        yield f"is of flavour {chain.flavour!r} and policy {chain.policy!r}, which name no toolchain"
        return
    series = {"flavour": chain.flavour, "toolchain": chain.policy}
    expected = {
        "machine": (result.machine, NOGPU),
        "environment": (result.environment, environment_name(chain.flavour, chain.policy)),
        "python": (result.python, ANY_PYTHON),
        "requirements": (result.requirements, series),
        "params": (data["params"], {**NOGPU_RECORD, "python": ANY_PYTHON, **series}),
        "env_vars": (data.get("env_vars", {}), {}),
    }
    for name, (value, ours) in expected.items():
        if value != ours:
            yield f"has {name} {value!r:.200}, expected {ours!r}"


def environment_name(flavour: str, policy: str) -> str:
    """What asv calls the environment of exact figures."""
    return f"fa4-py{ANY_PYTHON}-flavour{flavour}-toolchain{policy}"


def _commit(result: Result, project: Project) -> Iterator[str]:
    """A commit of the history, with the date that it has there."""
    release = Manifest.load(project.manifest).by_commit(result.commit)
    listed = load_commits(project.upstream).get(result.commit)
    known = release or listed
    try:
        date: datetime = known.time if known else commit_date(project, result.commit)
    except Fa4AsvError:
        yield f"is of commit {result.commit!r:.60}, which is not in the history"
        return
    if result.date != int(date.timestamp()) * 1000:
        yield f"has date {result.date}, the history says {int(date.timestamp()) * 1000}"


def _benchmarks(pair: Pair, old: Pair | None) -> Iterator[str]:
    """Names and versions of our own table; another version only where it is recorded so, and then nothing changes."""
    measured = {name for (name, _), value in pair.result.figures.items() if value is None or is_number(value)}
    for name in dict.fromkeys(name for name, _ in pair.result.figures):
        group_and_metric = group_of(name)
        if group_and_metric is None:
            yield f"has benchmark {name!r:.100}, which this suite does not know"
            continue
        version, ours = pair.result.versions.get(name), group_and_metric[0].version
        if version != ours and not (old and version == old.result.versions.get(name)):
            yield f"has version {version!r:.60} of {name}, this suite's is {ours!r}"
        if name in measured and not group_and_metric[0].exact:
            yield f"has figures of {name}, which a clock measures"


def _records(pair: Pair, old: Pair | None) -> Iterator[str]:
    """Groups and cases of our own table, and beside each figure what it is made of, so that `verify` can hold it against."""
    recorded = {key for key, _ in _cases(old)} if old else set()
    for group, cases in pair.sidecar.groups.items():
        table = GROUPS.get(group)
        if table is None or not table.exact:
            yield f"has records of {group!r:.60}, which is no group of exact figures"
            continue
        ours = set(map(key_of, table.cases))
        for case, record in cases.items():
            if case not in ours and (group, case) not in recorded:
                yield f"has {group} of {case!r:.100}, which this suite does not know"
            for name in record.figures.keys() - table.metrics.keys() - _FURTHER.get(group, set()):
                yield f"has figure {name!r:.60} of {group} {case!r:.100}, which this suite does not know"
            if record.state == "measured" and not _is_whole(group, record):
                yield f"{group} {case}: lacks what its figures are made of (digest, opcodes, parts)"


def _is_whole(group: str, record: CaseRecord) -> bool:
    if record.samples:
        return False
    if group == "codegen":
        made_of = record.opcodes or record.why == AS_CU12  # cu12's record has those of the same digest
        return bool(_DIGEST.fullmatch(record.sha256) and made_of and record.kernel)
    if group == "loops":
        return bool(_LOOP_DIGEST.fullmatch(record.sha256) and (record.parts or record.notes))
    if group in BEYOND:
        return bool(_DIGEST.fullmatch(record.sha256) and record.kernel)
    return bool(record.parts) or group != "growth"


def _toolchain(pair: Pair, project: Project) -> Iterator[str]:
    """The packages against the committed lock; without packages the flavour must be one that the commit does not have."""
    chain = pair.sidecar.toolchain
    if not can_name_locks(chain.flavour, chain.policy):
        return  # said by _names; no path is made of them
    path = _lock(pair, project)
    if not chain.packages:
        yield from without_packages(pair, project)
    elif not path.is_file():
        yield f"has no committed lock {path.relative_to(project.root)} to hold its toolchain against"
    elif read_lock(path, chain.flavour, chain.policy).packages != chain.packages:
        yield f"has other packages than {path.relative_to(project.root)}"


def _lock(pair: Pair, project: Project) -> Path:
    side = pair.sidecar
    release = Manifest.load(project.manifest).by_commit(side.commit)
    key = release.version if release else side.commit
    return project.lock(side.toolchain.policy, side.toolchain.flavour, key)


def without_packages(pair: Pair, project: Project) -> Iterator[str]:
    """What is wrong with a pair that names no packages: only a flavour that the commit does not have has none."""
    chain, path = pair.sidecar.toolchain, _lock(pair, project)
    if path.is_file():
        yield f"names no packages, though {path.relative_to(project.root)} does"
        return
    try:
        demands = demands_of(read_file(project, pair.sidecar.commit, f"{CUTE}/pyproject.toml"), path.stem)
    except Fa4AsvError as error:
        yield f"names no packages, and {error}"
        return
    if chain.flavour != "cu13" or demands.cu13 is not None:
        yield f"names no packages, though {path.stem} has the flavour {chain.flavour}"
    elif any(record.state != "unsupported" for _, record in _cases(pair)):
        yield f"names no packages, and has other states than unsupported for flavour {chain.flavour}"


def _rows(pair: Pair, old: Pair | None) -> Iterator[str]:
    """The file as asv lays it out: no key or column that nothing of ours reads, and no recorded benchmark left out."""
    data = result_data(pair.path)
    for name in sorted(data.keys() - _KEYS):
        yield f"has {name!r:.60}, which asv does not write"
    columns = tuple(data["result_columns"])
    if columns[: len(_COLUMNS)] != _COLUMNS or len(set(columns)) < len(columns):
        yield f"has columns {columns!r:.200}, expected {', '.join(_COLUMNS)} first and each once"
        return
    for name, row in data["results"].items():
        if any(cell is not None for cell in row[len(_COLUMNS) :]):
            yield f"has samples, statistics or a profile of {name:.100}, which exact figures do not have"
        for cell in row[_CLOCK]:
            if cell is not None and not is_number(cell):
                yield f"has {cell!r:.60} as a time of {name:.100}, expected a number"
    if old:
        yield from _recorded_rows(data["results"], result_data(old.path)["results"], _gaining(pair, old))


def _recorded_rows(rows: dict[str, Any], recorded: dict[str, Any], gaining: set[str]) -> Iterator[str]:
    """When a benchmark ran, and how long, changes only where its group gains something: it ran again."""
    for name, row in recorded.items():
        pair = group_of(name)
        if name not in rows:
            yield f"lacks {name}, which is recorded"
        elif pair and pair[0].name not in gaining and rows[name][_CLOCK] != row[_CLOCK]:
            yield f"has other times of {name} than are recorded, and nothing new of it"
