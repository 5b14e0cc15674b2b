"""The report: every page from the record alone, the same bytes for the same record."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import visible
from fa4_asv.base.files import read_bytes
from fa4_asv.base.project import Project
from fa4_asv.base.side_by_side import spread
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.flavours import PLAIN
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.compare.policy import is_judged
from fa4_asv.integrity.verify import Problem
from fa4_asv.record.formatting import counted
from fa4_asv.report import chronicle, further_calls, multiples, wording
from fa4_asv.report.call_history import CallPage, call_pages
from fa4_asv.report.cards import Cards, beside_releases, beside_steps, broken_table, cards_of, clocked
from fa4_asv.report.compile_times import compile_seconds
from fa4_asv.report.data_files import chart_files, script
from fa4_asv.report.events import Step, Timeline, timeline
from fa4_asv.report.first_page import first_page
from fa4_asv.report.glossary import WORDS, WORDS_JS, anchor, words_value
from fa4_asv.report.kernel_pages import KernelPage, kernel_pages
from fa4_asv.report.launches import tables as launches
from fa4_asv.report.library import library
from fa4_asv.report.machines import Machine, machines
from fa4_asv.report.model import Model, Point, Series
from fa4_asv.report.open_data import FEED, feed
from fa4_asv.report.overview import largest, steps_table
from fa4_asv.report.parts import Table
from fa4_asv.report.plots import Plot, kernels_of
from fa4_asv.report.run_time import swept_page
from fa4_asv.report.run_time_cells import page_of, place
from fa4_asv.report.search import SEARCH_JS, entries
from fa4_asv.report.sound_record import SoundRecord, explanations, no_cycles, read_record
from fa4_asv.report.support import STATES, maps, route_tables
from fa4_asv.report.swept import Swept, by_machine, first_of, sweeps_of
from fa4_asv.report.table_rows import linked, table_rows
from fa4_asv.report.totals import history

_STYLE = "style.css"
_SCRIPTS = ("core.js", "search.js", "words.js", "chart.js", "compare.js")
# The end of the first page's title, in every report since the first: an old one is known by it from a stranger's folder.
_MARK = " – FlashAttention-4, release by release</title>"
Page = tuple[str, str]
Part = Callable[[], Iterator[Page]]


def write_report(project: Project, folder: Path) -> Sequence[Problem]:
    """Put the whole report into `folder`, absent or an old report; what `verify` refuses is left out and returned.

    Raises Fa4AsvError; the old report stays then.
    """
    record = read_record(project)
    write_pages(record, folder)
    return record.problems


def write_pages(record: SoundRecord, folder: Path) -> None:
    """The report of a record that was read, as `write_report`."""
    with no_cycles():
        _write_pages(record, folder)


def _write_pages(record: SoundRecord, folder: Path) -> None:
    model = record.model()
    if not model.series:
        raise Fa4AsvError("there is no sound result file in results/; no report was made")
    found_timeline = timeline(model, explanations(record.project, record.problems))
    _refuse_what_is_no_report(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            spread(partial(_write, aside, folder), parts(model, found_timeline))
            aside.chmod(0o755)
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise _unwritten(folder, error) from None


def _write(aside: Path, folder: Path, part: Part) -> None:
    """The files of one part below `aside`, which becomes `folder`; this may be a child of the process that asked."""
    try:
        for name, text in part():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(visible(text), encoding="utf-8")
    except OSError as error:
        raise _unwritten(folder, error) from None


def _unwritten(folder: Path, error: OSError) -> Fa4AsvError:
    return Fa4AsvError(f"cannot write the report to {folder}: {error.strerror or error}")


def _refuse_what_is_no_report(folder: Path) -> None:
    """Raises Fa4AsvError unless `folder`, which will be replaced, is absent, empty or an old report."""
    try:
        if not folder.exists():
            return
        strange = any(folder.iterdir()) and not _is_report(folder)
    except OSError as error:
        raise Fa4AsvError(f"cannot read {folder}: {error.strerror}; choose an empty folder") from None
    if strange:
        raise Fa4AsvError(f"{folder} holds files that are not a report; choose an empty folder")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise Fa4AsvError(
            f"{folder} is replaced as a whole, and it is the current folder; run this from another folder"
        )


def _is_report(folder: Path) -> bool:
    page = folder / "index.html"
    try:
        return page.is_file() and _MARK.encode() in read_bytes(page)
    except Fa4AsvError:
        return False


def pages(model: Model, found_timeline: Timeline) -> Iterator[Page]:
    """Every file of the report: its name and its text."""
    for part in parts(model, found_timeline):
        yield from part()


def parts(model: Model, found_timeline: Timeline) -> list[Part]:
    """The same in parts that do not depend on each other, first those that take longest."""
    timed = machines(model)
    series = model.exact()
    swept = sweeps_of(model)
    cards, first = cards_of(model, swept), first_of(swept)
    launch_tables = launches(series)
    run_time = page_of(first.key.machine) if first else ""
    calls_pages = further_calls.pages(model)
    nav = _nav([machine.name for machine in timed], run_time, bool(launch_tables), bool(calls_pages))
    render = _renderer(nav)
    kernel = kernel_pages(
        model, found_timeline, swept, [(a, name) for a in ARCHES for name in kernels_of(model, a)]
    )
    calls = {machine: call_pages(model, each, found_timeline) for machine, each in by_machine(swept).items()}
    groups = _plots(kernel, calls)
    return [
        lambda: first_page(model, found_timeline, swept, cards, timed, groups, render),
        *(partial(_kernels_of, series, arch, render) for arch in ARCHES),
        lambda: _run_time(swept, calls, render),
        lambda: _chronicle(model, found_timeline, cards, render),
        lambda: _kernels(kernel, render),
        lambda: _data(model, found_timeline, groups, nav),
        lambda: _memory(series, render),
        lambda: _steps(model, found_timeline, cards, render),
        lambda: _compile_time(model, render),
        lambda: _maps(model, cards, render),
        lambda: _launches(launch_tables, render),
        lambda: _further_calls(calls_pages, render),
        lambda: _machines(timed, swept, render),
        lambda: _reading(model, render),
        _assets,
    ]


def _data(
    model: Model,
    found_timeline: Timeline,
    groups: Sequence[tuple[str, Sequence[Plot]]],
    nav: Sequence[tuple[str, str]],
) -> Iterator[Page]:
    """What is no page: the data of charts and search, the feed."""
    yield from chart_files(model, groups)
    yield SEARCH_JS, script(SEARCH_JS, entries(model, found_timeline, groups, nav))
    yield FEED, feed(found_timeline)
    yield WORDS_JS, script(WORDS_JS, words_value())


def _steps(model: Model, found_timeline: Timeline, cards: Cards, render: Any) -> Iterator[Page]:
    """The whole history, and its events."""
    yield render(
        "history.html",
        "history.html",
        title="The whole history",
        history=history(model, found_timeline),
        largest=beside_steps(largest(found_timeline), found_timeline.steps, cards),
        steps=len(found_timeline.steps),
        flavours=_titles(model.exact()),
    )
    newest_first = list(reversed(found_timeline.steps))
    yield render(
        "events.html",
        "tables.html",
        title="Events",
        lead="Every step in which a figure changed, newest first: what gained most and what lost most, and why.",
        parts=[("", [beside_steps(steps_table(newest_first, "Steps, newest first"), newest_first, cards)])]
        if newest_first
        else [],
        key=[],
    )


def _titles(series: Sequence[Series]) -> list[str]:
    return [each_series.key.title for each_series in series]


def _kernels_of(series: Sequence[Series], arch: str, render: Any) -> Iterator[Page]:
    """The small multiples of one architecture."""
    yield render(
        f"kernels-{arch}.html",
        "sections.html",
        title=f"Kernels on {arch}",
        lead=_KERNELS + _UNTIMED.get(arch, ""),
        sections=multiples.kernels(series, arch),
        flavours=_titles(series),
    )


def _memory(series: Sequence[Series], render: Any) -> Iterator[Page]:
    yield render(
        "memory.html",
        "sections.html",
        title="Peak memory",
        lead="The largest number of bytes allocated at one time in a call, inputs included. Calls with the same figures everywhere share a panel.",
        sections=multiples.memory(series),
        flavours=_titles([each_series for each_series in series if each_series.key.flavour != PLAIN]),
    )


def _compile_time(model: Model, render: Any) -> Iterator[Page]:
    yield render(
        "compile.html",
        "sections.html",
        title="Compile time",
        lead="Seconds of a first call and of the import: medians, by machine. Each sample is a process that had compiled nothing before.",
        sections=compile_seconds(model),
        flavours=_titles(model.exact()),
    )


def _further_calls(found: Sequence[further_calls.CallsPage], render: Any) -> Iterator[Page]:
    for each in found:
        yield render(each.name, "tables.html", title=each.title, lead=each.lead, key=[], parts=each.parts)


def _kernels(found: Sequence[KernelPage], render: Any) -> Iterator[Page]:
    """A page per kernel."""
    for page in found:
        yield render(page.plot.page, "kernel.html", title=page.plot.title, page=page)


def _reading(model: Model, render: Any) -> Iterator[Page]:
    yield render(
        "reading.html",
        "reading.html",
        title="How to read the figures",
        groups=_metrics(),
        words=[(word, anchor(word), meaning) for word, meaning in WORDS.items()],
        threads=model.threads,
    )


def _assets() -> Iterator[Page]:
    """What all pages share: the style sheet, the scripts, the library."""
    own = files("fa4_asv.report")
    yield _STYLE, (own / "templates" / _STYLE).read_text(encoding="utf-8")
    for name in _SCRIPTS:
        yield f"js/{name}", (own / "scripts" / name).read_text(encoding="utf-8")
    yield from library().items()


def _plots(
    kernel: Sequence[KernelPage], calls: Mapping[str, Sequence[CallPage]]
) -> list[tuple[str, list[Plot]]]:
    """What the charts can show, under the headings of the first page's picker."""
    return [
        *((f"Calls on {machine}", [page.plot for page in found]) for machine, found in calls.items()),
        *((f"Kernels on {arch}", [page.plot for page in kernel if page.arch == arch]) for arch in ARCHES),
    ]


def _run_time(swept: Sequence[Swept], calls: Mapping[str, Sequence[CallPage]], render: Any) -> Iterator[Page]:
    """A page per machine that a sweep was run on, and one per call."""
    machines = by_machine(swept)
    links = [(machine, page_of(machine)) for machine in machines]
    for machine, series in machines.items():
        yield render(
            page_of(machine),
            "run_time.html",
            title=f"Run time on {machine}",
            machine=machine,
            pages=[swept_page(each_swept, swept) for each_swept in series],
            siblings=[each for each in links if each[0] != machine],
        )
        for page in calls[machine]:
            title = f"{page.title} on {machine}"
            yield render(page.name, "call.html", title=title, page=page, back=page_of(machine))


def _machines(timed: Sequence[Machine], swept: Sequence[Swept], render: Any) -> Iterator[Page]:
    """The pages of each machine that ran attention; each links to the next older one."""
    for machine in timed:
        run_time = page_of(machine.name) if machine.name in by_machine(swept) else ""
        found = machine.pages
        for (name, measured), (older, _) in zip(found, [*found[1:], ("", [])], strict=True):
            data = {"machine": machine, "run_time": run_time, "measured": measured, "older": older}
            yield render(name, "machine.html", title=machine.name, **data)


def _maps(model: Model, cards: Cards, render: Any) -> Iterator[Page]:
    series = model.exact()
    broken = broken_table(cards)
    key = [*STATES.items(), ("partly", "the flavours differ")]
    key = [("unknown", name) if css == "not run" else (css, name) for css, name in key]
    yield render(
        "support.html",
        "tables.html",
        title="Support map",
        lead="What compiles, by architecture and release, and FA4's message where it does not.",
        key=key,
        parts=[
            *(
                (support.arch, [support.table, *([support.messages] if support.messages else [])])
                for support in maps(series)
            ),
            *([("It compiles, but is broken on a card", [broken])] if broken else []),
        ],
    )
    routes = [[table, *([reasons] if reasons else [])] for table, reasons in route_tables(series)]
    yield render(
        "route.html",
        "tables.html",
        title="Route through PyTorch",
        lead="Which PyTorch drives which release through scaled_dot_product_attention, found without a GPU.",
        key=[],
        parts=[(tables[0].caption, tables) for tables in routes],
    )


def _launches(tables: Sequence[Table], render: Any) -> Iterator[Page]:
    """The page of launches, where any are recorded."""
    if tables:
        yield render(
            "launch.html",
            "tables.html",
            title="Launches",
            lead="What a call compiles anew and reads back from the card, step by step, counted without a GPU. A release that is in no row of a step "
            "compiles and reads nothing there.",
            key=[],
            parts=[(table.caption, [table]) for table in tables],
        )


def _chronicle(model: Model, found_timeline: Timeline, cards: Cards, render: Any) -> Iterator[Page]:
    commits = chronicle.commits_table(model)
    newest_first = [release.commit for release in reversed(model.releases)]
    yield render(
        "releases.html",
        "tables.html",
        title="Releases and commits",
        lead="Where each figure comes from: the release, its package page, its source upstream.",
        key=[],
        parts=[
            (
                "Releases",
                [beside_releases(chronicle.releases_table(model, found_timeline), newest_first, cards)],
            ),
            *([("Commits", [commits])] if commits else []),
        ],
    )
    for page in chronicle.release_pages(model, found_timeline):
        commit = page.release.commit
        yield render(
            f"releases/{page.release.version}.html",
            "release.html",
            title=page.release.version,
            page=page,
            warnings=cards.warnings(commit),
            clocked=clocked(cards, commit),
        )
    for step in found_timeline.steps:
        yield render(
            f"events/{step.page}",
            "step.html",
            title=chronicle.step_title(step),
            step=step,
            table=chronicle.step_table(step),
            toolchain=chronicle.step_toolchain(step),
            ends=_ends(step),
            warnings=[sentence for report in cards.of_step(step) for sentence in report.sentences],
            upstream=wording.UPSTREAM_URL,
        )


def _ends(step: Step) -> list[tuple[Point, str, str]]:
    return [(point, place(point), name) for point, name in ((step.after, "After"), (step.before, "Before"))]


_KERNELS = (
    "Spilled bytes per thread and instructions of every kernel, release by release; of main kernels also the instructions of one turn of "
    "the loop that it repeats, and the spilled accesses in such loops. Judged are the loops, and whole kernels where loops are not known. "
    "Where plain has no line, it is cu12's."
)
_UNTIMED = {
    "sm_100": " No time is predicted for Blackwell: no such card has timed FA4 for this record, so that nothing says what a loop costs there."
}


def _metrics() -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """Of each group without a card: its figures, their units, and whether they are judged."""
    result: dict[str, list[tuple[str, str, bool]]] = {}
    for group in GROUPS.values():
        metrics = [(title, unit, is_judged(name)) for name, (unit, title) in group.metrics.items()]
        result.setdefault(group.name, metrics)
    return [(name, metrics) for name, metrics in result.items() if not GROUPS[name].device]


def _nav(
    machine_names: Sequence[str], run_time: str, has_launches: bool, has_calls: bool
) -> list[tuple[str, str]]:
    """The menu: name and page."""
    return [
        ("Summary", "index.html"),
        ("Events", "events.html"),
        ("History", "history.html"),
        *((f"Kernels {arch}", f"kernels-{arch}.html") for arch in ARCHES),
        *([("Other calls", further_calls.INDEX)] if has_calls else []),
        *([("Run time", run_time)] if run_time else []),
        ("Memory", "memory.html"),
        ("Compile time", "compile.html"),
        *([("Launches", "launch.html")] if has_launches else []),
        ("Support", "support.html"),
        ("PyTorch", "route.html"),
        *((name, f"machines/{name}.html") for name in machine_names),
        ("Releases", "releases.html"),
        ("Reading", "reading.html"),
    ]


def _renderer(nav: Sequence[tuple[str, str]]) -> Any:
    environment = Environment(
        loader=PackageLoader("fa4_asv.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "meaning": WORDS.get,
        "anchor": anchor,
        "counted": counted,
        "linked": linked,
        "table_rows": table_rows,
    }

    def render(name: str, template: str, **data: Any) -> Page:
        root = "../" * name.count("/")
        return name, environment.get_template(template).render(root=root, here=name, nav=nav, **data)

    return render
