"""Where asv 0.6.6 has no plug-in point: six of its functions are wrapped, each in a few lines.

- util.write_json gets every dictionary that asv writes: result files with their sidecars, the list of benchmarks,
  the site's index. They are edited here and written atomically: asv truncates in place.
- Machine.load: exact figures go to the shared machine `nogpu` unless `--machine` says otherwise.
- Benchmarks.discover: without `--bench`, benchmarks that are measured on request are not selected.
- Results.load: a result file of the wrong shape is one clear line, as one that is not JSON already is.
- Results.rm: the sidecar goes with its result file.
- Publish.run: asv deletes html/ first; the new site is made beside it and replaces it when it is whole.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from asv import util
from asv.benchmarks import Benchmarks
from asv.commands.publish import Publish
from asv.console import log
from asv.machine import Machine
from asv.results import Results

from fa4_asv.asv_plugin import selection
from fa4_asv.asv_plugin.reconcile import keep_measured, keep_removed, nothing_ran
from fa4_asv.base import scratch
from fa4_asv.base.ending import exit_on_signal
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import visible
from fa4_asv.base.files import parse_json, refuse_odd_json, write_atomic
from fa4_asv.base.machine import MACHINE_VARIABLE, NOGPU, NOGPU_RECORD
from fa4_asv.base.project import Project
from fa4_asv.base.site import beside_the_site, swap
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.integrity.staging import results_lock
from fa4_asv.record.store import sidecar_path
from fa4_asv.report import REPORT_BESIDE

_MARK = "_fa4_asv"
_SETUP_CACHE = "<setup_cache "
# asv's key of a setup_cache holds its line -> the class of its benchmarks. Known once asv wrote the list of benchmarks.
_classes: dict[str, str] = {}

# They import the function by its name, perhaps before us.
_HOLD_LOAD_JSON = {"asv.commands.compare", "asv.commands.show"}


def setup() -> None:
    """Called by asv's plug-in manager; wrapping twice is harmless. Raises asv's UserError."""
    selection.refuse_existing()
    if getattr(Machine, _MARK, False):
        return
    setattr(Machine, _MARK, True)
    if selection.command() not in (
        "",
        "Preview",
    ):  # this process is asv's; `preview` ends by Ctrl-C as it should
        exit_on_signal()
        scratch.use_for_everything()
    Machine.load = classmethod(_load_machine(Machine.load.__func__))
    Benchmarks.discover = classmethod(_discover(Benchmarks.discover.__func__))
    Results.load = classmethod(_load_results(Results.load.__func__))
    Results.rm = _remove_results(Results.rm)
    Publish.run = classmethod(_publish_beside(Publish.run.__func__))
    util.write_json = write_json
    util.load_json = _load_json(util.load_json)
    for name in _HOLD_LOAD_JSON & sys.modules.keys():
        sys.modules[name].load_json = util.load_json  # type: ignore[attr-defined]
    # asv's console logs to the root logger: what FA4 or a compiler said stands in the errors of a benchmark.
    logging.getLogger().addFilter(show_what_is_logged)


def _load_json(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_limited(path: str, *args: Any, **kwargs: Any) -> Any:
        try:
            if os.path.lexists(path):  # asv has words of its own for what is not there
                refuse_odd_json(Path(path))
        except Fa4AsvError as error:
            raise util.UserError(str(error)) from None
        return load(path, *args, **kwargs)

    return load_limited


def show_what_is_logged(record: logging.LogRecord) -> bool:
    """Escapes in place of what would steer the terminal, in every line that asv logs."""
    record.msg, record.args = visible(record.getMessage()), None
    return True


def _load_machine(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_machine(cls: Any, *args: Any, **kwargs: Any) -> Any:
        # `run` and `find` ask interactively for the machine to record under; `asv machine` does not.
        if not kwargs.get("interactive"):
            return load(cls, *args, **kwargs)
        name = kwargs.get("machine_name") or NOGPU
        given = NOGPU_RECORD if name == NOGPU else parse_json(os.environ.get(MACHINE_VARIABLE, "{}").encode())
        if given.get("machine") == name:
            machine = cls()
            machine.__dict__.update(given)
        else:
            machine = load(cls, *args, **kwargs)
        selection.set_machine(machine.machine)
        return machine

    return load_machine


def _discover(discover: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(discover)
    def discover_default(
        cls: Any, conf: Any, repo: Any, environments: Any, commit_hash: Any, regex: Any = None, **kwargs: Any
    ) -> Any:
        # Skipping them one by one costs a process each.
        chosen = regex or [without(group.stem for group in GROUPS.values() if group.on_request)]
        return discover(cls, conf, repo, environments, commit_hash, regex=chosen, **kwargs)

    return discover_default


def without(stems: Iterable[str]) -> str:
    """A regular expression for the names of benchmarks that begin with none of `stems`."""
    return f"^(?!{'|'.join(sorted(map(re.escape, stems)))})"


def _load_results(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_checked(cls: Any, path: str, machine_name: str | None = None) -> Any:
        try:
            return load(cls, path, machine_name)
        except (TypeError, AttributeError, ValueError) as error:
            raise util.UserError(
                f"{path} is not an asv result file ({error}); restore it from git or delete it"
            ) from None

    return load_checked


def _remove_results(remove: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(remove)
    def remove_both(self: Any, result_dir: str) -> None:
        remove(self, result_dir)
        sidecar_path(Path(result_dir) / self._filename).unlink(missing_ok=True)

    return remove_both


def _publish_beside(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def publish_beside(cls: Any, conf: Any, *args: Any, **kwargs: Any) -> Any:
        # `fa4-asv publish` has a folder for the site already.
        if os.environ.get(REPORT_BESIDE):
            return run(cls, conf, *args, **kwargs)
        html, target = conf.html_dir, Path(conf.html_dir).resolve()
        try:
            with beside_the_site(Project.find(), target) as aside:
                conf.html_dir = str(aside / "html")
                code = run(cls, conf, *args, **kwargs)
                swap(aside / "html", target)
                return code
        except Fa4AsvError as error:
            raise util.UserError(str(error)) from None
        finally:
            conf.html_dir = html

    return publish_beside


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
    write_atomic(target, json.dumps(data) if compact else json.dumps(data, indent=4, sort_keys=True))


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
    """The list of benchmarks without lines of source; the site's index with the branches that have figures."""
    if target.name == "benchmarks.json":
        return {name: _without_line(name, benchmark) for name, benchmark in data.items()}
    if target.name == "index.json" and "graph_param_list" in data:
        shown = {params.get("branch") for params in data["graph_param_list"]}
        branches = [name for name in data["params"]["branch"] if name in shown]
        return {**data, "params": {**data["params"], "branch": branches or data["params"]["branch"][:1]}}
    return data


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
