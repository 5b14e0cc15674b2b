"""What is done before and after a command of asv: each function gets the command's own `run_from_conf_args`.

`run`, `continuous` and `find` are told the machine, and, without `--bench`, to leave out what is measured on request;
`publish` and `gh-pages` a folder to make the site in. After `rm` the sidecars of removed files are removed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from asv import util
from asv.machine import Machine

from fa4_asv.asv_plugin import selection
from fa4_asv.base import scratch
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import parse_json, write_atomic
from fa4_asv.base.machine import MACHINE_VARIABLE, NOGPU, NOGPU_RECORD
from fa4_asv.base.project import Project
from fa4_asv.base.site import beside_the_site, swap
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.record.store import iter_results, sidecar_path
from fa4_asv.report import REPORT_BESIDE

Run = Callable[..., Any]


def wrap(command: type[Any]) -> None:
    """Let a command class of asv run by way of its function below; most commands need none."""
    around, run = _AROUND.get(command.__name__), command.run_from_conf_args
    if around is not None:
        command.run_from_conf_args = lambda conf, args: _in_one_line(around, run, conf, args)


def _in_one_line(around: Run, run: Run, conf: Any, args: Any) -> Any:
    try:
        return around(run, conf, args)
    except Fa4AsvError as error:
        raise util.UserError(str(error)) from None


def on_machine(run: Run, conf: Any, args: Any) -> Any:
    """Record under `nogpu` unless `--machine` says otherwise.

    A machine that the suite describes is in a list of this process; asv would ask for it, and keep it in ~.
    """
    # Skipping what is measured on request case by case would cost a process each.
    args.bench = args.bench or [without(group.stem for group in GROUPS.values() if group.on_request)]
    args.machine = args.machine or NOGPU
    selection.set_machine(args.machine)
    record = described(args.machine)
    if record is None:
        return run(conf, args)
    known = scratch.own() / "machines.json"
    write_atomic(known, json.dumps({args.machine: record, "version": Machine.api_version}))
    return run(conf, args, _machine_file=str(known))


def without(stems: Iterable[str]) -> str:
    """A regular expression for the names of benchmarks that begin with none of `stems`."""
    return f"^(?!{'|'.join(sorted(map(re.escape, stems)))})"


def described(machine: str) -> dict[str, str] | None:
    """The record of a machine that the suite or a cluster's driver describes; None where ~/.asv-machine.json does."""
    record: dict[str, str] = parse_json(os.environ.get(MACHINE_VARIABLE, "{}").encode())
    if machine == NOGPU:
        return NOGPU_RECORD
    return record if record.get("machine") == machine else None


def beside_html(run: Run, conf: Any, args: Any) -> Any:
    """Make the site in a folder of its own and exchange it with html/ when it is whole: asv deletes html/ first."""
    if os.environ.get(REPORT_BESIDE):  # `fa4-asv publish` has a folder for the site already
        return run(conf, args)
    target = Path(getattr(args, "html_dir", None) or conf.html_dir).resolve()
    with beside_the_site(Project.find(), target) as aside:
        args.html_dir = conf.html_dir = str(aside / "html")
        code = run(conf, args)
        swap(aside / "html", target)
    return code


def with_sidecars(run: Run, conf: Any, args: Any) -> Any:
    """A sidecar goes with its result file. One that stood alone before stays: its run was killed."""
    before = list(iter_results(Project.find().results))
    try:
        return run(conf, args)
    finally:
        for path in before:
            if not path.exists():
                sidecar_path(path).unlink(missing_ok=True)


OF_SITES = ("Publish", "GithubPages")
_AROUND: dict[str, Run] = {
    "Run": on_machine,
    "Continuous": on_machine,
    "Find": on_machine,
    **dict.fromkeys(OF_SITES, beside_html),
    "Rm": with_sidecars,
}
