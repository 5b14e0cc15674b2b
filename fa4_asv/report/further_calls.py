"""A page for each group of calls beyond the core: figures of its newest release, what changed at which release, what is refused.

And what a card was asked of these calls by sweep, with bytes per second where memory binds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fa4_asv.catalog.benchmarks import BY_TORCH, GROUPS, REFUSED, TRACED_GROUPS
from fa4_asv.catalog.kernels import BEYOND, KERNEL_GROUPS
from fa4_asv.record.schema import CaseRecord
from fa4_asv.report import on_request, wording
from fa4_asv.report.model import Model, Point, Series
from fa4_asv.report.multiples import short
from fa4_asv.report.parts import Cell, Row, Table

INDEX = "calls.html"
_TITLES = {
    "serving": "Serving: decode, chunks, pages",
    "flex": "Sinks, soft caps, score and mask functions",
    "mla": "Multi-head latent attention",
    "dims": "Head dims, fp16, FP8, deterministic",
    "consumer": "The core's calls on sm_120",
    "ultra": "The core's calls on sm_103",
}
_BEYOND_SDPA = "beyond-sdpa"
# What a row of the newest release shows of a kernel.
_METRICS = ("turn_instructions", "spills_inside", "instructions", "spill_bytes", "registers")
_MIB = 1 << 20


@dataclass(frozen=True)
class CallsPage:
    """`parts` are headings with their tables, as the template of tables takes them."""

    name: str
    title: str
    lead: str
    parts: Sequence[tuple[str, Sequence[Table]]]


def page_of(group: str) -> str:
    """The page of a group of calls beyond the core, or of what is traced of them; "" for other groups."""
    name = group.removesuffix("-memory")
    if group in BY_TORCH[1:]:
        return f"calls-{_BEYOND_SDPA}.html"
    return f"calls-{name}.html" if name in BEYOND else ""


def pages(model: Model) -> list[CallsPage]:
    """The index and a page per group of which something is recorded; none where nothing is."""
    series = model.exact()
    found = [page for name in BEYOND if (page := _page(series, name)).parts]
    ways = _ways(series)
    found += [ways] if ways.parts else []
    found += on_request_pages(model)
    if not found:
        return []
    rows: list[Row] = [[Cell(page.title, page.name), page.lead.partition(":")[0]] for page in found]
    index = CallsPage(
        INDEX,
        "Other calls",
        _INDEX_LEAD,
        [("", [Table("Groups of calls", ["group", "calls"], rows, "wide")])],
    )
    return [index, *found]


_INDEX_LEAD = (
    "Calls beyond dense self-attention, measured on request. Between releases that were both asked, a change of theirs counts "
    "as any other; they have no part in the totals over kernels."
)
_LEAD = "{calls} calls on {arches}: every kernel with its loops, found without a GPU. "


def on_request_pages(model: Model) -> list[CallsPage]:
    """A page per machine that was asked for the sets `serving` and `shapes`."""
    found = []
    for machine in model.machines:
        parts = on_request.parts_of(model, machine)
        if parts:
            name, title = f"calls/{machine}.html", f"Serving and shapes on {machine}"
            found.append(CallsPage(name, title, on_request.LEAD, parts))
    return found


def _page(series: Sequence[Series], name: str) -> CallsPage:
    group = KERNEL_GROUPS[name]
    parts = []
    for arch in group.arches:
        tables = [table for each in series for table in _of_arch(each, name, arch) if table.rows]
        parts += [(arch, tables)] if tables else []
    calls = {case.call.name for case in group.cases.values()}
    lead = _LEAD.format(calls=len(calls), arches=" and ".join(group.arches))
    return CallsPage(page_of(name), _TITLES[name], lead + _CODE, parts)


_CODE = (
    "Instructions per turn are those of the loop that a kernel repeats; a dash where a kernel has none that is understood. Of a span of "
    "releases the number in brackets counts those that were asked."
)


def _of_arch(series: Series, name: str, arch: str) -> Iterator[Table]:
    """Newest figures, memory, changes, and what is not measured, of one series."""
    where = f"{arch}, {series.key.title}"
    recorded = [point for point in series.measured if _cases(point, name, arch)]
    if not recorded:
        return
    newest = recorded[-1]
    metrics = GROUPS[name].metrics
    head = ["call", *(wording.head(metrics[metric][0], metrics[metric][1]) for metric in _METRICS)]
    yield Table(f"Kernels of {newest.label} on {where}", head, list(_figures(newest, name, arch)))
    yield _changes(recorded, name, arch, where)
    if name in TRACED_GROUPS:
        yield from _memory(recorded, f"{name}-memory", arch, where)
    yield _not_measured(recorded, name, arch, where)


def _cases(point: Point, group: str, arch: str) -> dict[str, CaseRecord]:
    """The records of an architecture by call, in the order of the table; none of what did not run."""
    order = {f"{case[0]}/{case[1]}": at for at, case in enumerate(GROUPS[group].cases)}
    found = {
        key: record
        for key, record in point.cases(group).items()
        if key in order and key.startswith(f"{arch}/") and record.state != "not run"
    }
    return {key.partition("/")[2]: found[key] for key in sorted(found, key=order.__getitem__)}


def _figures(point: Point, group: str, arch: str) -> Iterator[Row]:
    for call, record in _cases(point, group, arch).items():
        if record.state == "measured":
            values = [record.figures.get(metric) for metric in _METRICS]
            yield [call, *("–" if value is None else f"{value:,}" for value in values)]


def _changes(points: Sequence[Point], group: str, arch: str, where: str) -> Table:
    """Figures with more than one value, each with the releases that have it."""
    rows: list[Row] = []
    for call in dict.fromkeys(call for point in points for call in _cases(point, group, arch)):
        key = f"{arch}/{call}"
        records = [
            (short(point.label), record) for point in points if (record := point.cases(group).get(key))
        ]
        for metric in _METRICS:
            runs = _runs(records, metric)
            if len({value for _, value in runs}) > 1:
                title = GROUPS[group].metrics[metric][1]
                told = "; ".join(f"{releases}: {value:,}" for releases, value in runs)
                rows.append([call, title, told])
    return Table(f"What changed on {where}", ["call", "figure", "releases and values"], rows, "wide")


def _runs(records: Sequence[tuple[str, CaseRecord]], metric: str) -> list[tuple[str, int]]:
    """Neighbouring recorded releases with the same value."""
    values = [(label, record.figures.get(metric)) for label, record in records]
    return list(wording.runs((label, value) for label, value in values if value is not None))


def _memory(points: Sequence[Point], group: str, arch: str, where: str) -> Iterator[Table]:
    newest = next((point for point in reversed(points) if _cases(point, group, arch)), None)
    if newest is None:
        return
    rows: list[Row] = []
    for call, record in _cases(newest, group, arch).items():
        if record.state == "measured":
            peak, extra = record.figures["peak_bytes"], record.figures["extra_bytes"]
            rows.append([call, f"{peak / _MIB:,.1f}", f"{extra / _MIB:,.1f}"])
    head = ["call", "peak memory, MiB", "memory beyond inputs and outputs, MiB"]
    yield Table(f"Traced memory of {newest.label} on {where}", head, rows)


def _not_measured(points: Sequence[Point], group: str, arch: str, where: str) -> Table:
    """What is unsupported or broken, why, and in which releases."""
    said: dict[tuple[str, str, str], list[str]] = {}
    for point in points:
        for call, record in _cases(point, group, arch).items():
            if record.state != "measured":
                said.setdefault((call, record.state, record.why), []).append(short(point.label))
    rows: list[Row] = [
        [call, Cell(state, css="worse" if state == "broken" else ""), wording.span(labels), why]
        for (call, state, why), labels in said.items()
    ]
    return Table(f"Not measured on {where}", ["call", "state", "releases", "reason"], rows, "wide")


# PyTorch's ways beyond SDPA.


def _ways(series: Sequence[Series]) -> CallsPage:
    names = {"route-varlen": "Packed sequences", "route-flex": "FlexAttention"}
    parts = [
        (title, tables)
        for group, title in names.items()
        if (tables := [table for each in series for table in _of_way(each, group, title) if table.rows])
    ]
    lead = "Checks of PyTorch's ways to FA4 beyond SDPA, found without a GPU: how many are broken, how many torch or FA4 refuses."
    return CallsPage(f"calls-{_BEYOND_SDPA}.html", "PyTorch beyond SDPA", lead, parts)


def _of_way(series: Series, group: str, title: str) -> Iterator[Table]:
    rows: list[Row] = []
    for case in GROUPS[group].cases:
        key = "/".join(case)
        said = [(short(point.label), _said(point.cases(group).get(key))) for point in series.measured]
        for releases, words in wording.runs((label, words) for label, words in said if words):
            rows.append([f"torch {case[0]}", case[1], releases, *words])
    head = ["torch", "architecture", "releases", "broken", "refused", "which, and why"]
    yield Table(f"{title}, {series.key.title}", head, rows, "wide")


def _said(record: CaseRecord | None) -> tuple[str, str, str] | None:
    """Counts, and each check with its words but those that only need another; None of what did not run."""
    if record is None or record.state == "not run":
        return None
    if record.state != "measured":
        return record.state, "–", record.why
    own = {
        name: words
        for name, words in record.notes.items()
        if not words.removeprefix(REFUSED).startswith("needs ")
    }
    by_words: dict[str, list[str]] = {}
    for name, words in sorted(own.items(), key=lambda pair: pair[1].startswith(REFUSED)):
        by_words.setdefault(words, []).append(name)
    told = "; ".join(f"{', '.join(names)}: {words}" for words, names in by_words.items())
    return str(record.figures["broken"]), str(record.figures["refused"]), told
