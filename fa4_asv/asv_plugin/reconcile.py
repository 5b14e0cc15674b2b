"""What a save keeps: asv's results and the sidecar of one file, brought together with what stood there."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asv import util
from asv.results import Results
from asv_runner.statistics import compute_stats

from fa4_asv.asv_plugin import selection
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import group_of, key_of
from fa4_asv.integrity.provenance import note
from fa4_asv.integrity.staging import results_lock
from fa4_asv.measure.context import Context
from fa4_asv.record.schema import FORMAT, SUITE, CaseRecord, Sidecar, Toolchain, combine
from fa4_asv.record.store import merge, read_sidecar, sidecar_path, write_sidecar

# What asv holds of each benchmark of a result file.
_COLUMNS = (
    "_results",
    "_samples",
    "_stats",
    "_benchmark_params",
    "_profiles",
    "_started_at",
    "_duration",
    "_benchmark_version",
)


def save_both(results: Any, result_dir: str, save: Callable[[Any, str], None]) -> None:
    """The sidecar first: a kill in between leaves reasons without figures, which the next run completes, never
    figures without their toolchain."""
    context = selection.context_of(results.commit_hash, results.env_name)
    # A backfill may move in what it measured meanwhile, or have done so since asv read the file.
    with results_lock(Project(Path(context.root))) if context else nullcontext():
        before = keep_added(results, Path(result_dir) / results._filename)
        if context:
            _save_sidecar(results, result_dir, context, before)
        save(results, result_dir)


def keep_added(results: Any, path: Path) -> dict[str, str]:
    """Take over the benchmarks that others recorded in the file at `path` since asv read it; all versions in that file."""
    if not path.is_file():
        return {}
    others = Results.load(str(path))
    for name in set(others.get_all_result_keys()) - set(results.get_all_result_keys()):
        for column in _COLUMNS:
            if name in getattr(others, column):
                getattr(results, column)[name] = getattr(others, column)[name]
    return dict(others._benchmark_version)


def _save_sidecar(results: Any, result_dir: str, context: Context, before: dict[str, str]) -> None:
    path = sidecar_path(Path(result_dir) / results._filename)
    old = read_sidecar(path) if path.is_file() else None
    if old:
        old = of_same_versions(old, before, results._benchmark_version)
    merged = merge(old, continue_rounds(results, old, _sidecar(context)))
    keep_known(results, merged)
    forget_wrong(results, merged)
    write_sidecar(path, merged)
    project = Project(Path(context.root))
    if not project.upstream.parent.is_symlink():  # in a staged checkout, whoever takes the record notes it
        note(project, [merged])
    shutil.rmtree(context.spool, ignore_errors=True)


def of_same_versions(old: Sidecar, before: dict[str, str], now: dict[str, str]) -> Sidecar:
    """`old` without the groups of which asv has run another version: what stands there means something else."""
    stale = {name for name, version in now.items() if before.get(name, version) != version}
    gone = {found[0].name for name in stale if (found := group_of(name))}
    return replace(old, groups={name: cases for name, cases in old.groups.items() if name not in gone})


def continue_rounds(results: Any, old: Sidecar | None, new: Sidecar) -> Sidecar:
    """`new`, with the earlier rounds of each case whose samples asv appended instead of replacing them.

    With --interleave-rounds asv saves after every round. Counts tell: asv's samples are as many as both.
    """
    groups = {group: dict(cases) for group, cases in new.groups.items()}
    for cell in _cells(results, new):
        pooled = results._samples.get(cell.name)
        before = old.groups.get(cell.group, {}).get(cell.key) if old else None
        if before is None or not isinstance(pooled, list) or pooled[cell.index] is None:
            continue
        both = [record.samples.get(cell.metric, []) for record in (before, cell.record)]
        if all(both) and len(pooled[cell.index]) == sum(map(len, both)):
            groups[cell.group][cell.key] = combine(before, cell.record)
    return replace(new, groups=groups)


def keep_known(results: Any, sidecar: Sidecar) -> None:
    """What did not run keeps its figure: asv writes n/a over it when a case is skipped or left out."""
    for cell in _cells(results, sidecar):
        values = results._results[cell.name]
        if cell.record.state != "measured" or not util.is_na(values[cell.index]):
            continue
        samples = cell.record.samples.get(cell.metric)
        if not samples:
            values[cell.index] = cell.record.figures.get(cell.metric, values[cell.index])
            continue
        values[cell.index], stats = compute_stats(samples, 1)
        for column, value in ((results._stats, stats), (results._samples, samples)):
            if isinstance(column.get(cell.name), list):
                column[cell.name][cell.index] = value


def forget_wrong(results: Any, sidecar: Sidecar) -> None:
    """A case that failed in one round has no time, though asv keeps what another round gave."""
    for cell in _cells(results, sidecar):
        if cell.record.state == "broken" and cell.metric not in cell.record.figures:
            for column in (results._results, results._stats, results._samples):
                if isinstance(column.get(cell.name), list):
                    column[cell.name][cell.index] = None


@dataclass(frozen=True)
class _Cell:
    """One figure in asv's results (benchmark `name`, position `index`) and the record behind it."""

    name: str
    index: int
    group: str
    metric: str
    key: str
    record: CaseRecord


def _cells(results: Any, sidecar: Sidecar) -> Iterator[_Cell]:
    """Each figure of ours in asv's results that has a record."""
    for name, values in results._results.items():
        found = group_of(name)
        if found is None or not isinstance(values, list):
            continue
        group, metric = found
        records = sidecar.groups.get(group.name, {})
        # asv holds parameters as reprs; a case's words need no more than their quotes removed.
        for index, case in enumerate(itertools.product(*results._benchmark_params[name])):
            key = key_of(tuple(word.strip("'") for word in case)) or group.only_case
            if key in records:
                yield _Cell(name, index, group.name, metric, key, records[key])


def _sidecar(context: Context) -> Sidecar:
    """Everything that the benchmark processes of `context` spooled, and the versions behind it."""
    groups: dict[str, dict[str, CaseRecord]] = {}
    for path in sorted(Path(context.spool).glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        known = groups.setdefault(data["group"], {})
        for key, value in data["cases"].items():
            known[key] = combine(known.get(key), CaseRecord.from_json(value))
    toolchain = Toolchain(context.policy, context.flavour, context.digest, context.packages)
    return Sidecar(
        FORMAT,
        SUITE,
        context.machine,
        context.commit,
        context.environment,
        context.release,
        toolchain,
        groups,
    )
