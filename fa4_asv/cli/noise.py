"""`fa4-asv noise`: how noisy a machine's sweeps are, from the record alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import click
from rich.text import Text

from fa4_asv.base.escape import one_line
from fa4_asv.base.output import new_console, say_json
from fa4_asv.base.project import Project
from fa4_asv.compare.along import CONTROLLED, SEEN
from fa4_asv.compare.false_alarms import rate_interval
from fa4_asv.compare.noise import (
    AGREED,
    Agreement,
    CallNoise,
    ClassNoise,
    agreement_of,
    as_json,
    classes_of,
    noise_of,
    totals,
)
from fa4_asv.compare.verdicts import NOTICED
from fa4_asv.record.formatting import counted
from fa4_asv.record.tables import print_table

_FA4 = "fa4/"  # sweeps time nothing else as a case
_COLUMNS = ("call", "seconds", "releases", "spread", "smallest", "alarms", "furthest apart")


@click.command()
@click.argument("machine")
@click.option(
    "--against",
    default="",
    metavar="NAME",
    help="A second machine: do both give the same ratios between releases?",
)
@click.option(
    "--control/--no-control",
    "controlled",
    default=CONTROLLED,
    show_default=True,
    help="Divide each round by its control.",
)
@click.option("--json", "as_data", is_flag=True, help="Everything, machine-readable.")
def noise(machine: str, against: str, controlled: bool, as_data: bool) -> None:
    """How noisy the sweeps of MACHINE are: false alarms, spread, the smallest change that can be seen.

    The two processes of one release are compared as if they were two releases: "faster" or "slower" is then
    a false alarm. The spread is the standard deviation between the processes of a release, pooled over all
    releases of a sweep. With --against, each release's time is divided by that of the newest release that both
    machines timed; the output shows how far the two machines differ.

    \b
    Examples:
      fa4-asv noise h200-sxm
      fa4-asv noise h200-sxm --against h200-sxm-2 --json
      fa4-asv noise h200-sxm --control
    """
    project = Project.find()
    calls = noise_of(project, machine, controlled)
    agreement = agreement_of(project, machine, against) if against else []
    if as_data:
        say_json(as_json(machine, calls, agreement))
        return
    console = new_console()
    console.print(Text(_alarms(calls)))
    for each in classes_of(calls):
        console.print(Text(_class(each)))
    print_table(
        console,
        _COLUMNS,
        list(map(_cells, calls)),
        numbers=range(1, 6),
        whole=0,
        show_edge=False,
        caption=f"smallest: the change seen in {SEEN:.0%} of cases, two processes per side; furthest apart: of one release",
    )
    for agreed in agreement:
        console.print(Text(_agreement(agreed, against)))


def _alarms(calls: Sequence[CallNoise]) -> str:
    alarms, pairs = totals(calls)
    if not pairs:
        return "false alarms: unknown, too few releases have two processes"
    low, high = rate_interval(alarms, pairs)
    return f"false alarms: {alarms} of {pairs:,} pairs, {alarms / pairs:.2%} (95 % interval {low:.2%} to {high:.2%})"


def _class(each: ClassNoise) -> str:
    return (
        f"{each.title}: {counted(each.calls, 'call')}, spread {each.median:.2%} in the median, {each.p90:.2%} at "
        f"90 %, {counted(each.alarms, 'false alarm')} of {each.pairs:,} pairs; a change of {NOTICED:.0%} is seen in {each.noticed} calls"
    )


def _cells(call: CallNoise) -> list[str]:
    return [
        one_line(f"{call.key.group} {call.key.case.removeprefix(_FA4)}"),
        f"{call.seconds * 1e3:.4g} ms",
        str(call.releases),
        _percent(call.spread),
        _percent(call.visible),
        f"{call.alarms} of {call.pairs}",
        one_line(f"{call.apart:.2%} {call.widest}"),
    ]


def _percent(share: float) -> str:
    return "unknown" if math.isnan(share) else f"{share:.2%}"


def _agreement(agreed: Agreement, against: str) -> str:
    message = (
        f"against {one_line(against)}, {agreed.title}: {counted(agreed.ratios, 'ratio')} to the newest release differ "
        f"by {agreed.median:.2%} in the median, by at most {agreed.bound:.2%} in {AGREED:.0%}"
    )
    return message + (
        f"; beyond {NOTICED:.0%}: {one_line(', '.join(agreed.beyond), 2000)}" if agreed.beyond else ""
    )
