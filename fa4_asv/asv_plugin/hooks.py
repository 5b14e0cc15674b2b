"""Where asv 0.6.6 has no plug-in point: five of its parts are wrapped, each in a few lines.

- Machine.load: exact figures go to the shared machine `nogpu` unless `--machine` says otherwise.
- util.write_json: asv truncates in place; a full disk or a kill would leave half a result file.
- Results.save: the sidecar is written beside the result file.
- Results.load: a result file of the wrong shape is one clear line, as one that is not JSON already is.
- Config.branches: a branch of asv.conf.json that is not here is left out: `asv run` and `asv publish` would fail.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

from asv import util
from asv.config import Config
from asv.console import log
from asv.machine import Machine
from asv.results import Results

from fa4_asv.asv_plugin import selection
from fa4_asv.asv_plugin.reconcile import save_both
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import write_atomic
from fa4_asv.base.machine import MACHINE_VARIABLE, NOGPU, NOGPU_RECORD
from fa4_asv.base.project import Project
from fa4_asv.history.repository import branches, has_history

_MARK = "_fa4_asv"


def setup() -> None:
    """Called by asv's plug-in manager; wrapping twice is harmless."""
    if getattr(Machine, _MARK, False):
        return
    setattr(Machine, _MARK, True)
    load, save, load_results = Machine.load.__func__, Results.save, Results.load.__func__

    @functools.wraps(load)
    def load_machine(cls: Any, *args: Any, **kwargs: Any) -> Any:
        # `run` and `find` ask interactively for the machine to record under; `asv machine` does not.
        if not kwargs.get("interactive"):
            return load(cls, *args, **kwargs)
        name = kwargs.get("machine_name") or NOGPU
        given = NOGPU_RECORD if name == NOGPU else json.loads(os.environ.get(MACHINE_VARIABLE, "{}"))
        if given.get("machine") == name:
            machine = cls()
            machine.__dict__.update(given)
        else:
            machine = load(cls, *args, **kwargs)
        selection.set_machine(machine.machine)
        return machine

    @functools.wraps(save)
    def save_results(self: Any, result_dir: str) -> None:
        if _nothing_ran(self):
            log.warning(f"{self.env_name}: nothing ran, so nothing is recorded; what was there is kept")
            return
        try:
            save_both(self, result_dir, save)
        except Fa4AsvError as error:
            raise util.UserError(str(error)) from None

    @functools.wraps(load_results)
    def load_checked(cls: Any, path: str, machine_name: str | None = None) -> Any:
        try:
            return load_results(cls, path, machine_name)
        except (TypeError, AttributeError, ValueError) as error:
            raise util.UserError(
                f"{path} is no asv result file ({error}); restore it from git or delete it"
            ) from None

    Machine.load = classmethod(load_machine)
    Results.save = save_results
    Results.load = classmethod(load_checked)
    Config.branches = property(_branches_here, lambda conf, names: conf.__dict__.update(branches=names))
    util.write_json = write_json


def _branches_here(conf: Any) -> list[str]:
    """The configured branches that the local history has; all of them where there is no history to ask."""
    names: list[str] = conf.__dict__["branches"]
    project = Project.find(Path.cwd())
    if not has_history(project):
        return names
    here = ["releases", *branches(project)]
    return [name for name in names if name in here] or ["releases"]


def write_json(path: str, data: Any, api_version: int | None = None, compact: bool = False) -> None:
    """asv's `util.write_json`, atomic: the same bytes, through a synced file beside the target."""
    if api_version is not None:
        data = {**data, "version": api_version}
    text = json.dumps(data) if compact else json.dumps(data, indent=4, sort_keys=True)
    try:
        write_atomic(Path(os.path.abspath(path)), text)  # noqa: PTH100 - resolve() would follow links
    except Fa4AsvError as error:
        raise util.UserError(str(error)) from None


def _nothing_ran(results: Any) -> bool:
    """Whether the build or the collecting failed: asv would write "failed" over good figures then."""
    if not results.env_name.startswith("fa4-"):
        return False
    context = selection.context_of(results.commit_hash, results.env_name)
    if context is None:
        return True
    return context.machine == NOGPU and not any(Path(context.spool).glob("*.json"))
