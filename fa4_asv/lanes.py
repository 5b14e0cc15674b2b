"""Between benchmark classes and instruments: what is selected, what may run here, what is recorded."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

from asv_runner.benchmarks.mark import SkipNotImplemented

from fa4_asv.cases import ARCHES, CASES
from fa4_asv.codegen import Records, measure
from fa4_asv.context import Context, current
from fa4_asv.errors import Fa4AsvError
from fa4_asv.files import write_atomic
from fa4_asv.machine import NOGPU
from fa4_asv.records import METRICS, CaseRecord


def selected(context: Context, name: str) -> list[tuple[str, str]]:
    """The (arch, case) pairs that `--bench` selected of `name`, which holds {metric}.

    asv tells a setup_cache nothing of its selection; matching as asv does avoids compiling the rest.
    """
    pairs = [(arch, case) for arch in ARCHES for case in CASES]
    if not context.select:
        return pairs
    chosen = []
    for arch, case in pairs:
        full = [f"{name.format(metric=metric)}({arch!r}, {case!r})" for metric in METRICS]
        if any(re.search(pattern, text) for pattern in context.select for text in full):
            chosen.append((arch, case))
    return chosen


def codegen_records(name: str) -> dict[str, Any]:
    """Compile what was selected; records as JSON values by "arch/case", none in another lane."""
    context = current()
    if context.machine != NOGPU:
        return {}  # not None: asv would then call the benchmarks without this argument
    wanted = selected(context, name)
    records = measure(context, wanted)
    others = {f"{arch}/{case}" for arch in ARCHES for case in CASES} - records.keys()
    not_run = CaseRecord("not run", why="not selected by --bench")
    spool(context, "codegen", {**dict.fromkeys(sorted(others), not_run), **records})
    return {key: record.to_json() for key, record in records.items()}


def spool(context: Context, group: str, records: Records) -> None:
    """Hand records to the asv process, which keeps them in the sidecar when it saves the results."""
    text = json.dumps({"group": group, "cases": {key: record.to_json() for key, record in records.items()}})
    write_atomic(Path(context.spool) / f"{group}-{uuid.uuid4().hex}.json", text)


def figure(records: dict[str, Any], arch: str, case: str, metric: str) -> int:
    """One figure. Raises SkipNotImplemented (asv: n/a) where unsupported, Fa4AsvError where broken."""
    if current().machine != NOGPU:
        raise SkipNotImplemented(f"codegen figures belong to machine {NOGPU}: run without --machine")
    record = records.get(f"{arch}/{case}")
    if record is None:
        raise SkipNotImplemented(f"{arch} {case} was not selected")
    if record["state"] == "measured":
        return int(record["figures"][metric])
    if record["state"] == "unsupported":
        raise SkipNotImplemented(record["why"])
    raise Fa4AsvError(f"{arch} {case} is broken: {record['why']}")
