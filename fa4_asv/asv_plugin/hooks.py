"""Where asv 0.6.6 has no plug-in point: two of its functions are wrapped.

- util.write_json gets every dictionary that asv writes: result files with their sidecars, the list of benchmarks,
  the site's index. They are edited here and written atomically: asv truncates in place.
- run_from_conf_args of the command that runs: what is done before and after it stands in `commands`.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from asv import util
from asv.console import log
from asv.machine import MachineCollection

from fa4_asv.asv_plugin import commands, selection
from fa4_asv.asv_plugin.reconcile import keep_measured, keep_removed, nothing_ran
from fa4_asv.base import scratch
from fa4_asv.base.ending import exit_on_signal
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import visible
from fa4_asv.base.files import refuse_odd_json, write_atomic
from fa4_asv.base.project import Project
from fa4_asv.history.repository import TAG
from fa4_asv.integrity.staging import results_lock
from fa4_asv.record.store import iter_results, load_result
from fa4_asv.report import REPORT_BESIDE

_SETUP_CACHE = "<setup_cache "
_PRERELEASE = re.compile(r"([0-9.]+)((?:a|b|rc)[0-9]+)")
# asv's key of a setup_cache holds its line -> the class of its benchmarks. Known once asv wrote the list of benchmarks.
_classes: dict[str, str] = {}


def setup() -> None:
    """Called by asv's plug-in manager before the command runs; twice is harmless. Raises asv's UserError."""
    selection.refuse_existing()
    try:
        if not os.environ.get(REPORT_BESIDE):  # `fa4-asv publish` hands on files that it has verified
            refuse_odd_files(Project.find())
    except Fa4AsvError as error:
        raise util.UserError(str(error)) from None
    if util.write_json is write_json:
        return
    util.write_json = write_json
    command = selection.command_class()
    if command is not None:
        commands.wrap(command)
    if selection.command() not in (
        "",
        "Preview",
    ):  # the process is asv's; `preview` ends by Ctrl-C as it should
        exit_on_signal()
        scratch.use_for_everything()
    # asv's console logs to the root logger: what FA4 or a compiler said stands in the errors of a benchmark.
    logging.getLogger().addFilter(show_what_is_logged)


def refuse_odd_files(project: Project) -> None:
    """Raises Fa4AsvError naming a file that asv would hang or fail on: asv reads without limits, and takes any shape.

    0.2 s for the whole record.
    """
    machines = Path(MachineCollection.get_machine_file_path())
    for path in (machines, *sorted(project.results.rglob("*.json"))):
        if os.path.lexists(path):
            refuse_odd_json(path)
    for path in iter_results(project.results):
        load_result(path)


def show_what_is_logged(record: logging.LogRecord) -> bool:
    """Escapes in place of what would steer the terminal, in every line that asv logs."""
    record.msg, record.args = visible(record.getMessage()), None
    return True


def write_json(path: str, data: Any, api_version: int | None = None, compact: bool = False) -> None:
    """asv's `util.write_json`, atomic: the same form, of what the dictionary holds after our edits."""
    target = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
    try:
        if "result_columns" in data:
            _write_results(target, data, api_version, compact)
        elif not (selection.is_measuring() and _belongs_to_results(target) and selection.saves_nothing()):
            _write(target, _edited(target, data), api_version, compact)
    except Fa4AsvError as error:
        raise util.UserError(str(error)) from None


def _belongs_to_results(target: Path) -> bool:
    return target.is_relative_to(Project.find(Path.cwd()).results)


def _write(target: Path, data: Any, api_version: int | None, compact: bool) -> None:
    if api_version is not None:
        data = {**data, "version": api_version}
    text = json.dumps(data) if compact else json.dumps(data, indent=4, sort_keys=True)
    # A site can be made again: it does not wait for the disk three hundred times.
    write_atomic(target, text, synced=selection.command() not in commands.OF_SITES)


def _write_results(target: Path, data: dict[str, Any], api_version: int | None, compact: bool) -> None:
    """One result file and its sidecar: after measuring what is new, after `asv rm` what is left."""
    data = {**data, "durations": _durations(data["durations"])}
    if selection.is_measuring():
        if selection.saves_nothing():
            return
        if nothing_ran(data):
            log.warning(f"{data['env_name']}: nothing ran, so nothing is recorded; what was there is kept")
            return
    project = Project.find(Path.cwd())
    project.work.mkdir(exist_ok=True)
    with results_lock(project):
        left = keep_measured(target, data) if selection.is_measuring() else keep_removed(target, data)
        if left is not None:
            _write(target, left, api_version, compact)


def _edited(target: Path, data: Any) -> Any:
    """The list of benchmarks without lines of source; the site's index with the branches that have figures, and short tags."""
    if target.name == "benchmarks.json":
        return {name: _without_line(name, benchmark) for name, benchmark in data.items()}
    if target.name == "index.json" and "graph_param_list" in data:
        shown = {params.get("branch") for params in data["graph_param_list"]}
        branches = [name for name in data["params"]["branch"] if name in shown]
        params = {**data["params"], "branch": branches or data["params"]["branch"][:1]}
        return {**data, "params": params, "tags": short_tags(data["tags"])}
    return data


def short_tags(tags: dict[str, Any]) -> dict[str, Any]:
    """Tags as asv's plots name them: "b36" for fa4-v4.0.0b36, where most are prereleases of 4.0.0; else "4.0.1b2"."""
    versions = {tag: tag.removeprefix(TAG) for tag in tags}
    bases = Counter(match[1] for version in versions.values() if (match := _PRERELEASE.fullmatch(version)))
    usual = bases.most_common(1)[0][0] if bases else ""
    names = {}
    for tag, version in versions.items():
        match = _PRERELEASE.fullmatch(version)
        names[match[2] if match and match[1] == usual else version] = tags[tag]
    return names


def _without_line(name: str, benchmark: Any) -> Any:
    """asv's key of a setup_cache is file and line ("codegen:17"): any edit above it would change a tracked file."""
    key = benchmark.get("setup_cache_key") if isinstance(benchmark, dict) else None
    if not key:
        return benchmark
    _classes[key] = name.rpartition(".")[0]
    return {**benchmark, "setup_cache_key": _classes[key]}


def _durations(durations: dict[str, float]) -> dict[str, float]:
    """Seconds of each setup_cache under the name that the list of benchmarks has; those of an older line as they are."""
    figures: dict[str, float] = {}
    for key, seconds in durations.items():
        place = key.removeprefix(_SETUP_CACHE).removesuffix(">")
        figures[f"{_SETUP_CACHE}{_classes[place]}>" if place in _classes else key] = seconds
    return figures
