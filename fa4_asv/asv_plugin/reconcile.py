"""What a save keeps: asv's results and the sidecar of one file, brought together with what stood there."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asv import util
from asv_runner.statistics import compute_stats

from fa4_asv.asv_plugin import selection
from fa4_asv.asv_plugin.result_rows import ResultRows
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS, group_of, key_of
from fa4_asv.integrity.provenance import note
from fa4_asv.measure.context import Context
from fa4_asv.record.schema import FORMAT, SUITE, CaseRecord, Sidecar, Toolchain, combine
from fa4_asv.record.spool import has_spooled, spooled
from fa4_asv.record.store import merge, read_sidecar, sidecar_path, write_sidecar


def nothing_ran(data: dict[str, Any]) -> bool:
    """Whether the build or the collecting failed: asv would write "failed" over good figures then."""
    if not data["env_name"].startswith("fa4-"):
        return False
    context = selection.context_of(data["commit_hash"], data["env_name"])
    if context is None:
        return True
    return context.machine == NOGPU and not has_spooled(Path(context.spool))


def keep_measured(path: Path, data: dict[str, Any]) -> dict[str, Any] | None:
    """What to write to `path` of what asv measured; None where that changes no figure. The sidecar is written here.

    The sidecar first: a kill in between leaves reasons without figures, which the next run completes, never
    figures without their toolchain. Called with the lock of results/: a backfill may move in what it measured.
    """
    results, there = ResultRows(data), ResultRows.read(path)
    if there:
        keep_added(results, there)
    context = selection.context_of(data["commit_hash"], data["env_name"])
    same = context is not None and _save_sidecar(results, path, context, there.versions() if there else {})
    return None if same and there and results.same_figures(there) else results.to_json()


def keep_removed(path: Path, data: dict[str, Any]) -> dict[str, Any]:
    """What to write after `asv rm benchmark=...`; what the sidecar holds of benchmarks that are gone goes as well.

    Else the next run would take the removed figures from there.
    """
    sidecar = sidecar_path(path)
    if sidecar.is_file():
        write_sidecar(sidecar, without_removed(read_sidecar(sidecar), set(data["results"])))
    return data


def without_removed(old: Sidecar, names: set[str]) -> Sidecar:
    """`old` without the figures of benchmarks that are not among `names`; a case without any goes."""
    groups = {}
    for name, cases in old.groups.items():
        group = GROUPS.get(name)
        gone = (
            {metric for metric in group.metrics if group.benchmark(metric) not in names} if group else set()
        )
        if group and gone == group.metrics.keys():
            continue
        left = {key: _without_metrics(record, gone) for key, record in cases.items()}
        groups[name] = {key: record for key, record in left.items() if record}
    return replace(old, groups=groups)


def _without_metrics(record: CaseRecord, gone: set[str]) -> CaseRecord | None:
    figures = {metric: value for metric, value in record.figures.items() if metric not in gone}
    samples = {metric: value for metric, value in record.samples.items() if metric not in gone}
    if record.state == "measured" and not figures and not samples:
        return None
    return replace(record, figures=figures, samples=samples)


def keep_added(results: ResultRows, there: ResultRows) -> None:
    """Take over the benchmarks that others recorded in the file since asv read it."""
    for name in there.rows.keys() - results.rows.keys():
        results.rows[name] = {column: there.rows[name].get(column) for column in results.columns}


def _save_sidecar(results: ResultRows, path: Path, context: Context, before: dict[str, str]) -> bool:
    """Bring the sidecar and `results` together; whether the sidecar says what it said before."""
    path = sidecar_path(path)
    there = read_sidecar(path) if path.is_file() else None
    old = of_same_versions(there, before, results.versions()) if there else None
    merged = merge(old, continue_rounds(results, old, _sidecar(context)))
    share_parameters(results)
    keep_known(results, merged)
    forget_wrong(results, merged)
    leave_unmeasured(results, merged, context.select)
    if merged != there:
        write_sidecar(path, merged)
    project = Project(Path(context.root))
    if not project.upstream.parent.is_symlink():  # in a staged checkout, whoever takes the record notes it
        note(project, [merged])
    shutil.rmtree(context.spool, ignore_errors=True)
    return merged == there


def of_same_versions(old: Sidecar, before: dict[str, str], now: dict[str, str]) -> Sidecar:
    """`old` without the groups of which asv has run another version: what stands there means something else."""
    stale = {name for name, version in now.items() if before.get(name, version) != version}
    gone = {group_and_metric[0].name for name in stale if (group_and_metric := group_of(name))}
    return replace(old, groups={name: cases for name, cases in old.groups.items() if name not in gone})


def continue_rounds(results: ResultRows, old: Sidecar | None, new: Sidecar) -> Sidecar:
    """`new`, with the earlier rounds of each case whose samples asv appended instead of replacing them.

    With --interleave-rounds asv saves after every round. Counts tell: asv's samples are as many as both.
    """
    groups = {group: dict(cases) for group, cases in new.groups.items()}
    for cell in _cells(results, new):
        pooled = results.rows[cell.name]["samples"]
        before = old.groups.get(cell.group, {}).get(cell.key) if old else None
        if before is None or not isinstance(pooled, list) or pooled[cell.index] is None:
            continue
        both = [record.samples.get(cell.metric, []) for record in (before, cell.record)]
        if all(both) and len(pooled[cell.index]) == sum(map(len, both)):
            groups[cell.group][cell.key] = combine(before, cell.record)
    return replace(new, groups=groups)


def share_parameters(results: ResultRows) -> None:
    """All benchmarks of a group have the group's cases: one compile gives every metric of a case, also where `--bench` selects
    one metric of a case that is new in the list."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, version in results.versions().items():
        if pair := group_of(name):
            groups.setdefault((pair[0].name, version), []).append(name)
    for names in groups.values():
        widest = max(names, key=lambda name: len(list(results.cases(name))))
        for name in names:
            results.widen(name, results.rows[widest]["params"])


def keep_known(results: ResultRows, sidecar: Sidecar) -> None:
    """What did not run keeps its figure: asv writes n/a over it when a case is skipped or left out."""
    for cell in _cells(results, sidecar):
        values = results.rows[cell.name]["result"]
        if cell.record.state != "measured" or not util.is_na(values[cell.index]):
            continue
        samples = cell.record.samples.get(cell.metric)
        if samples:
            values[cell.index], stats = compute_stats(samples, 1)
            results.set_samples(cell.name, cell.index, samples, stats)
        else:
            values[cell.index] = cell.record.figures.get(cell.metric, values[cell.index])


def forget_wrong(results: ResultRows, sidecar: Sidecar) -> None:
    """A case that failed in one round has no time, though asv keeps what another round gave."""
    for cell in _cells(results, sidecar):
        if cell.record.state == "broken" and cell.metric not in cell.record.figures:
            results.rows[cell.name]["result"][cell.index] = None
            results.set_samples(cell.name, cell.index, None, {})


def leave_unmeasured(results: ResultRows, sidecar: Sidecar, select: Sequence[str]) -> None:
    """Where `select` leaves out a case that an older file does not have, asv writes "failed": it is n/a, unless it is broken."""
    for name in results.rows:
        pair = group_of(name)
        if pair is None:
            continue
        group, metric = pair
        records, values = sidecar.groups.get(group.name, {}), results.rows[name]["result"]
        for index, case in results.cases(name):
            record = records.get(key_of(case) or group.only_case)
            failed = values[index] is None and (record is None or record.state != "broken")
            if failed and metric not in group.selected_metrics(case, select):
                values[index] = math.nan


@dataclass(frozen=True)
class _Cell:
    """One figure in asv's results (benchmark `name`, position `index`) and the record behind it."""

    name: str
    index: int
    group: str
    metric: str
    key: str
    record: CaseRecord


def _cells(results: ResultRows, sidecar: Sidecar) -> Iterator[_Cell]:
    """Each figure of ours in asv's results that has a record."""
    for name in results.rows:
        group_and_metric = group_of(name)
        if group_and_metric is None:
            continue
        group, metric = group_and_metric
        records = sidecar.groups.get(group.name, {})
        for index, case in results.cases(name):
            key = key_of(case) or group.only_case
            if key in records:
                yield _Cell(name, index, group.name, metric, key, records[key])


def _sidecar(context: Context) -> Sidecar:
    """Everything that the benchmark processes of `context` spooled, and the versions behind it."""
    toolchain = Toolchain(context.policy, context.flavour, context.digest, context.packages)
    return Sidecar(
        FORMAT,
        SUITE,
        context.machine,
        context.commit,
        context.environment,
        context.release,
        toolchain,
        spooled(Path(context.spool)),
    )
