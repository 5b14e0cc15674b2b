"""Releases and steps: what stands on the page of each, and the lists of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.flavours import AS_CU12
from fa4_asv.compare.changes import told
from fa4_asv.history.manifest import Release
from fa4_asv.record.formatting import counted
from fa4_asv.report import wording
from fa4_asv.report.events import Event, Step, Timeline
from fa4_asv.report.model import UPSTREAM, Model, Point, Series
from fa4_asv.report.multiples import kernel_page, short
from fa4_asv.report.overview import steps_table
from fa4_asv.report.parts import Cell, Row, Table

_SHOWN = ("codegen", "memory", "growth", "route", "launch")


@dataclass(frozen=True)
class ReleasePage:
    """One release: where it comes from, with what it was compiled, what changed, all its figures.

    `same` are links to older releases with the same figures of a whole group, which do not stand here again.
    """

    release: Release
    package: str
    upstream: str
    before: str
    after: str
    toolchain: Table | None
    steps: Table | None
    figures: Sequence[Table]
    same: Sequence[Cell]


def release_pages(model: Model, timeline: Timeline) -> list[ReleasePage]:
    """One for each release, recorded or not, oldest first."""
    versions = [release.version for release in model.releases]
    pages = []
    for at, release in enumerate(model.releases):
        pairs = model.of_release(release.version)
        steps = timeline.of(release.version)
        pages.append(
            ReleasePage(
                release,
                wording.package_page(release),
                wording.upstream_of(release),
                versions[at - 1] if at else "",
                versions[at + 1] if at + 1 < len(versions) else "",
                _toolchain(pairs) if pairs else None,
                steps_table(steps, "What changed from the release recorded before") if steps else None,
                _all_figures(pairs),
                _same_figures(pairs),
            )
        )
    return pages


def _title(series: Series) -> str:
    return (
        series.key.title if series.key.machine == "nogpu" else f"{series.key.title} on {series.key.machine}"
    )


def _toolchain(pairs: Sequence[tuple[Series, Point]]) -> Table:
    same: dict[str, list[str]] = {}
    by_digest = {}
    for series, point in pairs:
        chain = point.record.sidecar.toolchain
        by_digest[chain.digest] = chain
        same.setdefault(chain.digest, []).append(_title(series))
    chains = {", ".join(titles): by_digest[digest] for digest, titles in same.items()}
    names = sorted({name for chain in chains.values() for name in chain.packages})
    rows: list[Row] = [
        [name, *(chain.packages.get(name, "–") for chain in chains.values())] for name in names
    ]
    rows.append(["digest of all", *(chain.digest for chain in chains.values())])
    return Table("Toolchain: the packages it was compiled with", ["package", *chains], rows)


def _all_figures(pairs: Sequence[tuple[Series, Point]]) -> list[Table]:
    """The tables of all series; those of one group that hold the same stand once, under all their names."""
    found: dict[tuple[str, tuple[tuple[str, ...], ...]], list[str]] = {}
    tables: dict[tuple[str, tuple[tuple[str, ...], ...]], Table] = {}
    for series, point in pairs:
        for name, table, others in _figures(series, point):
            key = (name + others, tuple(tuple(map(str, row)) for row in table.rows))
            found.setdefault(key, []).append(_title(series))
            tables.setdefault(key, table)
    return [
        replace(table, caption=f"{key[0].partition(';')[0]}, {' and '.join(found[key])}{_rest(key[0])}")
        for key, table in tables.items()
    ]


def _same_figures(pairs: Sequence[tuple[Series, Point]]) -> list[Cell]:
    """The groups whose figures are those of an older release, by that release."""
    found: dict[tuple[str, str], list[str]] = {}
    for series, point in pairs:
        for name in _SHOWN:
            since = series.since(point, name)
            if since is not point:
                found.setdefault((name, since.label), []).append(_title(series))
    return [
        Cell(f"{name}, {' and '.join(titles)}: as in {short(label)}", f"releases/{label}.html")
        for (name, label), titles in found.items()
    ]


def _rest(name: str) -> str:
    return name[name.index(";") :] if ";" in name else ""


def _figures(series: Series, point: Point) -> list[tuple[str, Table, str]]:
    """A table a group: every case with every figure, or its state and reason. Kernels that are cu12's stand there only.

    With the group's name, and how many kernels stand elsewhere.
    """
    tables = []
    for name in _SHOWN:
        metrics, cases = GROUPS[name].metrics, point.cases(name)
        if series.since(point, name) is not point:
            continue
        own = {case: record for case, record in cases.items() if record.why != AS_CU12}
        rows: list[Row] = []
        for case, record in sorted(own.items()):
            shown = [
                wording.figure(record.figures.get(metric), unit) for metric, (unit, _) in metrics.items()
            ]
            reason = record.why if record.state != "measured" else ""
            rows.append([case, *shown, record.state + (f": {reason}" if reason else "")])
        if rows:
            head = ["case", *(wording.head(unit, title) for unit, title in metrics.values()), "state"]
            others = f"; {counted(len(cases) - len(own), 'other')} as cu12" if len(own) < len(cases) else ""
            tables.append((name, Table("", head, rows, "wide"), others))
    return tables


def step_table(step: Step) -> Table:
    """Every change of a step: those with an effect first, the largest first; states above figures."""
    events = sorted(
        step.events, key=lambda e: (not e.effect, -e.change.weight, e.change.case, e.change.metric)
    )
    return Table(
        "Every figure that changed",
        ["case", "metric", "before", "after", "change", "cause"],
        [_event_row(event) for event in events],
        "wide",
    )


def step_toolchain(step: Step) -> Table:
    """Every package of both sides; those that moved are marked."""
    old, new = (point.record.sidecar.toolchain for point in (step.before, step.after))
    rows: list[Row] = [
        [name, old.packages.get(name, "–"), Cell(version, css="same" if same else "mixed")]
        for name in sorted(old.packages.keys() | new.packages.keys())
        for version, same in [(new.packages.get(name, "–"), old.packages.get(name) == new.packages.get(name))]
    ]
    rows.append(["digest of all", old.digest, new.digest])
    return Table("Toolchain of both sides", ["package", step.before.label, step.after.label], rows)


def _event_row(event: Event) -> Row:
    change = event.change
    unit = wording.unit_of(change.group, change.metric)
    if change.states:
        (was, now), why = change.states, change.whys[1]
        cells: list[Cell | str] = [was, now + (f": {why}" if why else ""), "–"]
    else:
        cells = [wording.figure(change.base, unit), wording.figure(change.head, unit), told(change)]
    kernel = Cell(event.kernel)
    if change.group == "codegen":
        page = kernel_page(event.arch, event.kernel)
        kernel = Cell(event.kernel, page, spoken=wording.case_title(event.kernel))
    return [
        kernel,
        wording.metric_title(change.group, change.metric),
        *cells[:2],
        Cell(str(cells[2]), css=event.effect),
        event.cause,
    ]


def releases_table(model: Model, timeline: Timeline) -> Table:
    """All releases, newest first; a row's anchor is its commit, to which asv's own pages link."""
    rows: list[Row] = []
    for release in reversed(model.releases):
        pairs = model.of_release(release.version)
        steps = timeline.of(release.version)
        days = (
            point.record.sidecar.toolchain.packages for series, point in pairs if series.key.policy == "day"
        )
        compilers = dict.fromkeys(
            packages[wording.COMPILER] for packages in days if wording.COMPILER in packages
        )
        rows.append(
            [
                Cell(release.version, f"releases/{release.version}.html", anchor=release.commit),
                release.uploaded[:10],
                ", ".join(compilers) or "not recorded",
                str(len({event.change.key for step in steps for event in step.events})) if pairs else "–",
                Cell("package", wording.package_page(release), spoken=f"of {release.version}"),
                Cell("source", wording.upstream_of(release), spoken=f"of {release.version}"),
                Cell(release.commit[:8]),
                release.yanked and f"yanked: {release.yanked}",
            ]
        )
    head = [
        "release",
        "date",
        wording.COMPILER,
        "kernels and calls changed",
        "package",
        "upstream",
        "commit here",
        "",
    ]
    return Table("Every release, newest first", head, rows, "wide")


def commits_table(model: Model) -> Table | None:
    """Upstream commits with a record, newest first; None where there are none."""
    points: dict[str, tuple[Point, list[str]]] = {}
    for each_series in model.series:
        if each_series.key.history == UPSTREAM:
            for point in each_series.points:
                points.setdefault(point.commit, (point, []))[1].append(_title(each_series))
    if not points:
        return None
    ordered = sorted(points.values(), key=lambda pair: pair[0].turn, reverse=True)
    rows: list[Row] = [
        [
            Cell(point.commit[:12], wording.upstream_commit(point.commit), anchor=point.commit),
            wording.day(point.date),
            Cell(point.subject, css="message"),
            point.record.sidecar.toolchain.packages.get(wording.COMPILER, "–"),
            ", ".join(series),
        ]
        for point, series in ordered
    ]
    return Table(
        "Upstream commits with a record", ["commit", "date", "message", wording.COMPILER, "series"], rows
    )


def step_title(step: Step) -> str:
    return f"{short(step.after.label)} on {step.arch}, {step.key.title}"
