"""Between benchmark classes and instruments: what is selected, what may run here, what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asv_runner.benchmarks.mark import SkipNotImplemented

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.catalog.benchmarks import GROUPS, Case, key_of
from fa4_asv.catalog.metrics import NO_KERNEL
from fa4_asv.measure.context import Context, current
from fa4_asv.record.schema import NOT_SELECTED, CaseRecord, Records, records_to_json
from fa4_asv.record.spool import spool

Measure = Callable[[Context, Sequence[Case]], Records]


class OfGroup:
    """A benchmark of the group of `catalog.benchmarks` that its class names; its version is the group's.

    A class of exact figures has a `setup_cache` of its own, with a timeout: asv tells two of them apart by module and line.
    """

    group = ""
    version = ""
    params: Sequence[Sequence[str]] = ()

    def __init_subclass__(cls) -> None:
        if cls.group:
            cls.version = GROUPS[cls.group].version

    @classmethod
    def axes(cls) -> list[list[str]]:
        """Each place of the group's cases, as asv's `params`."""
        cases = GROUPS[cls.group].cases if cls.group else ()
        return [list(dict.fromkeys(values)) for values in zip(*cases, strict=True)]


def collect(name: str, measure: Measure) -> dict[str, Any]:
    """Measure what was selected of an exact group; records as JSON values by key, none in another lane.

    A case for which `measure` has no record is "not run", and keeps whatever was known of it.
    """
    context, group = current(), GROUPS[name]
    if context.machine != NOGPU:
        return {}  # not None: asv would then call the benchmarks without this argument
    # asv tells a setup_cache nothing of its selection; measuring the rest would cost minutes.
    wanted = group.selected(context.select) if group.is_of(context.flavour) else []
    if not wanted:
        return {}
    records = {key: CaseRecord("not run", why=NOT_SELECTED) for key in map(key_of, group.cases)}
    if context.unsupported:
        why = NO_KERNEL if group.read_from else context.unsupported
        records |= {key_of(case): CaseRecord("unsupported", why=why) for case in wanted}
    else:
        records |= measure(context, wanted)
    # The asv process keeps them in the sidecar when it saves the results.
    spool(Path(context.spool), name, records)
    return records_to_json(records)


def figure(records: dict[str, Any], group: str, metric: str, *case: str) -> int:
    """One exact figure. Raises SkipNotImplemented (asv: n/a) where unsupported, Fa4AsvError where broken."""
    context = current()
    if context.machine != NOGPU:
        raise SkipNotImplemented(f"{group} figures belong to machine {NOGPU}: run without --machine")
    if not GROUPS[group].is_of(context.flavour):
        flavours = " and ".join(GROUPS[group].flavours)
        raise SkipNotImplemented(
            f"{group} figures are recorded under {flavours}, not under {context.flavour}"
        )
    record = records.get(key_of(case), {"state": "not run", "why": "not selected by --bench"})
    if record["state"] == "measured":
        if metric in record["figures"]:
            return int(record["figures"][metric])
        raise SkipNotImplemented(CaseRecord.from_json(record).why_not(metric))
    if record["state"] == "broken":
        raise Fa4AsvError(f"{' '.join(case)} is broken: {record['why']}")
    raise SkipNotImplemented(record["why"])


def sampled(
    group: str, case: Case, measure: Callable[[Context, Case], CaseRecord], metric: str = "seconds"
) -> dict[str, Any]:
    """Samples of a case's metric that belongs to the machine that measures it, as asv reads them.

    Raises SkipNotImplemented on machine `nogpu`, where unsupported and where it could not be taken,
    Fa4AsvError where broken.
    """
    context = current()
    if context.machine == NOGPU:
        raise SkipNotImplemented(f"{group} is measured by a clock: run with --machine NAME")
    record = (
        CaseRecord("unsupported", why=context.unsupported) if context.unsupported else measure(context, case)
    )
    # A case is asked once per metric: the samples of the others come when their turn does, and only then.
    others = GROUPS[group].metrics.keys() - {metric}
    own = {name: values for name, values in record.samples.items() if name not in others}
    spool(Path(context.spool), group, {key_of(case): replace(record, samples=own)})
    if record.state in ("unsupported", "not run"):
        raise SkipNotImplemented(record.why)
    if record.state != "measured":
        raise Fa4AsvError(f"{' '.join(case)} is {record.state}: {record.why}")
    return {"samples": record.samples[metric], "number": 1}
