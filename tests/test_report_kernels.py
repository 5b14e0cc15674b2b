"""A page per kernel: its chart's data, its numbered events, its figures; the library beside the pages; known threads."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.compare.policy import BETTER, WORSE, effect_of_figures
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import iter_results
from fa4_asv.record.threads import load_threads
from fa4_asv.report import library as vendored
from fa4_asv.report.events import timeline
from fa4_asv.report.glossary import WORDS
from fa4_asv.report.library import FILES, LARGEST, PACKAGE, VERSION, library
from fa4_asv.report.model import Model, load
from fa4_asv.report.plots import kernel_plot, plot_json, runs
from fa4_asv.report.site import explanations, pages
from tests.support import ROOT
from tests.support.fake_record import HOSTILE, a_thread, write_pair, write_releases
from tests.support.pages import data_of_script
from tests.support.results import FIGURES

KERNEL = "sm_100/fwd_d128_full"
MEASURED = CaseRecord("measured", figures=FIGURES)


def model_of(project: Project) -> Model:
    return load(project, list(iter_results(project.results)))


def spilling(spill: int) -> dict[str, dict[str, CaseRecord]]:
    return {"codegen": {KERNEL: replace(MEASURED, figures={**FIGURES, "spill_bytes": spill})}}


@pytest.fixture
def story(project: Project) -> Project:
    """b1 to b5: a spill comes with b3's compiler and goes with b5."""
    for release, (spill, compiler) in zip(
        write_releases(project, 5),
        ((8, "4.5.2"), (8, "4.5.2"), (112, "4.6.0"), (112, "4.6.0"), (0, "4.6.0")),
        strict=True,
    ):
        write_pair(project, release, spilling(spill), compiler=compiler)
    return project


def plot_of(project: Project):
    model = model_of(project)
    return kernel_plot(model, timeline(model, []), [], *KERNEL.split("/"))


def test_events_are_numbered_from_the_oldest_and_stand_where_the_figure_changed(story):
    plot = plot_of(story)
    assert [(event.number, event.at) for event in plot.events] == [(1, 2), (2, 4)]
    first, second = (event.rows[0] for event in plot.events)
    assert [(moved.before, moved.after, moved.effect) for moved in first.moved] == [(8, 112, WORSE)]
    assert [(moved.before, moved.after, moved.effect) for moved in second.moved] == [(112, 0, BETTER)]
    assert first.why == "nvidia-cutlass-dsl 4.5.2 → 4.6.0" and first.causes == ["not yet explained"]
    assert (second.why, second.causes) == ("", ["source"]), "the toolchain is the same on both sides"


def test_a_known_thread_stands_with_the_events_in_which_it_came_and_went(story):
    thread = a_thread(KERNEL)
    story.threads.write_text(json.dumps({"format": 1, "threads": [thread]}))
    told = [[thread.thread for thread in event.rows[0].threads] for event in plot_of(story).events]
    assert told == [["flash-attention#7"], ["flash-attention#7"]]
    (loaded,) = load_threads(story.threads)
    order = model_of(story).versions
    assert [loaded.stands("cu13", version, order) for version in order] == [False, False, True, True, False]
    assert not loaded.stands("cu12", "4.0.0b4", order)
    for wrong in ({"url": "https://example.org/issues/7"}, {"thread": "flash-attention#8"}, {"line": "a\nb"}):
        story.threads.write_text(json.dumps({"format": 1, "threads": [{**thread, **wrong}]}))
        with pytest.raises(Fa4AsvError, match=r"threads\.json is damaged"):
            load_threads(story.threads)


def test_the_data_of_a_chart_is_the_figures_of_the_record(story):
    site = dict(pages(model_of(story), timeline(model_of(story), [])))
    name, value = data_of_script(site["data/kernels/sm_100-fwd_d128_full.js"])
    assert name == "data/kernels/sm_100-fwd_d128_full.js"
    metrics = {metric["name"]: metric for metric in value["metrics"]}
    assert metrics["spill_bytes"]["curves"][0]["values"] == [8, 8, 112, 112, 0]
    assert set(GROUPS["codegen"].metrics) <= metrics.keys()
    assert runs([None, None, 5, 5, None]) == [[0, None], [2, 5], [4, None]]
    _, releases = data_of_script(site["data/releases.js"])
    assert releases["versions"] == [f"4.0.0b{number}" for number in range(1, 6)]
    assert releases["compilers"] == {"cu13": ["4.5.2", "4.5.2", "4.6.0", "4.6.0", "4.6.0"]}


def test_a_page_of_a_kernel_holds_its_figures_as_a_table_and_is_linked_to_and_from(story):
    site = dict(pages(model_of(story), timeline(model_of(story), [])))
    page = site["kernels/sm_100-fwd_d128_full.html"]
    spans = re.findall(r'<th scope="row"><a href="\.\./releases/[^"]+">([^<]+)</a><td>([^<]+)<td>(\d+)', page)
    assert spans == [
        ("b5", "4.6.0", "0"),
        ("b3 to b4 (2)", "4.6.0", "112"),
        ("b1 to b2 (2)", "4.5.2", "8"),
    ]
    assert 'href="kernels/sm_100-fwd_d128_full.html"' in site["kernels-sm_100.html"]
    event = "events/4.0.0b3-cu13-sm_100.html"
    assert f'href="../{event}"' in page
    assert 'href="../kernels/sm_100-fwd_d128_full.html"' in site[event]


def test_foreign_words_in_data_are_no_markup(story):
    model = model_of(story)
    broken = CaseRecord("broken", HOSTILE + "</script>\u2028")
    refused = {"codegen": {KERNEL: broken, "sm_100/fwd_d64_full": MEASURED}}
    write_pair(story, model.releases[4], refused)
    site = dict(pages(model_of(story), timeline(model_of(story), [])))
    for name, text in site.items():
        if name.startswith("data/"):
            assert not set("<>&\u2028") & set(text), name
    _, value = data_of_script(site["data/kernels/sm_100-fwd_d128_full.js"])
    assert "<script>" in json.dumps(value), "it is kept as words"


def test_the_pages_allow_no_script_or_style_but_files_beside_them(story):
    site = dict(pages(model_of(story), timeline(model_of(story), [])))
    for name, text in site.items():
        if name.endswith(".html"):
            assert text.count("default-src 'none'; script-src 'self'; style-src 'self';") == 1, name
            assert " style=" not in text and " on" + "click" not in text, name


def test_the_library_is_that_of_the_package_and_small(monkeypatch):
    files = library()
    assert f"uPlot (v{VERSION})" in files["lib/uPlot.iife.min.js"]
    assert "MIT License" in files["lib/uPlot-LICENSE.txt"]
    assert sum(len(text.encode()) for text in files.values()) <= LARGEST
    monkeypatch.setitem(FILES, "uPlot.min.css", (FILES["uPlot.min.css"][0], "0" * 64))
    with pytest.raises(Fa4AsvError, match=f"vendor/uPlot.min.css is not that of {PACKAGE} {VERSION}"):
        vendored.library()


def test_the_library_is_what_the_registry_has(npm):
    for name, (path, _) in FILES.items():
        assert library()[f"lib/{name}"] == (npm / PACKAGE / path).read_text(encoding="utf-8")


def broken_between(model, thread, flavour):
    """The first release in which each case is broken on a card by the guard, and the first one that passes later, else ""."""
    found = set()
    for series in model.series:
        for case in thread.cases:
            records = [(point.label, point.cases(thread.group).get(case)) for point in series.points]
            told = [(label, record) for label, record in records if record and record.state != "not run"]
            if series.key.flavour == flavour and told:
                wrong = [label for label, record in told if record.why.startswith("guard: ")]
                later = [label for label, record in told if record.state == "measured"]
                found.add((wrong[0], *(later or [""])))
    return found


def test_every_known_thread_is_what_the_record_shows():
    """In its first release the figure is worse than in the release before, in its last better, or the case is broken from the one on
    and until the other; else the file says no figure."""
    project = Project(ROOT)
    model = load(project, list(iter_results(project.results)))
    assert model.threads
    for thread in model.threads:
        assert thread.compilers or thread.spans, thread.thread
        for flavour, (first, gone) in thread.spans.items():
            if not thread.metric:
                assert broken_between(model, thread, flavour) == {(first, gone)}, thread
                continue
            (series,) = (each for each in model.exact() if each.key.flavour == flavour)
            for case in thread.cases:
                known = {
                    point.label: value
                    for point in series.points
                    if (value := point.figure(thread.group, case, thread.metric)) is not None
                }
                labels = list(known)
                at = labels.index(first)
                if at:
                    before = known[labels[at - 1]]
                    assert effect_of_figures(thread.metric, before, known[first]) == WORSE, (thread, case)
                if gone:
                    during = known[labels[labels.index(gone) - 1]]
                    assert effect_of_figures(thread.metric, during, known[gone]) == BETTER, (thread, case)


def test_every_kernel_of_the_record_has_a_page_and_a_chart(real_report):
    project = Project(ROOT)
    model = load(project, list(iter_results(project.results)))
    asked = {case for each in model.exact() for point in each.points for case in point.cases("codegen")}
    made = {path.stem for path in (real_report / "kernels").glob("*.html")}
    assert made == {case.replace("/", "-") for case in asked}
    for path in (real_report / "kernels").glob("*.html"):
        assert (real_report / "data" / "kernels" / f"{path.stem}.js").is_file()
    steps = timeline(model, explanations(project, []))
    story = kernel_plot(model, steps, [], "sm_100", "fwd_d128_full")
    told = {
        model.versions[event.at]
        for event in story.events
        for row in event.rows
        if row.curve == "cu13" and any(thread.number == "2729" for thread in row.threads)
    }
    assert {"4.0.0b20", "4.0.0b31"} <= told
    assert json.loads(json.dumps(plot_json(story)))["title"] == "fwd_d128_full on sm_100"


# Heads that say what stands below them without knowing the field; versions, hashes and letters before a number.
PLAIN_HEADS = {
    "call",
    "calls",
    "case",
    "commit",
    "commit here",
    "date",
    "feature",
    "kernel",
    "kernel or call",
    "kernels",
    "machine",
    "message",
}
PLAIN_HEADS |= {
    "notes",
    "now",
    "package",
    "reads",
    "reason",
    "seconds",
    "shape",
    "time",
    "upstream",
    "after",
    "before",
    "all",
    "less is better",
}
PLAIN_HEADS |= {
    "what changed",
    "what moved",
    "where, or why not",
    "kernels and calls changed",
    "tokens per sequence",
}
PLAIN_HEADS |= {
    "allocations on the card, allocations",
    "calls of which more than 5\xa0% of the ratios differ by more than 1\xa0%",
    "distance of the peak from its trace, bytes",
    "growth of peak memory with the sequence, bytes",
    "releases",
}
RELEASE_OR_HASH = re.compile(r"b\d+( to b\d+ \(\d+\))?|\d+\.\d+\.\d+\w*|[0-9a-f]{8}")


def test_every_head_of_a_table_is_plain_or_explained_where_it_stands(real_report):
    """As scripts/words.js looks it up: the whole head, its first part, its first word."""
    unknown = set()
    for path in real_report.rglob("*.html"):
        heads = re.findall(r'<th scope="col">(.*?)</th>', path.read_text(encoding="utf-8"))
        for head in {html.unescape(re.sub("<.*?>", "", cell)) for cell in heads}:
            asked = (head, head.partition(",")[0], head.partition(" ")[0].rstrip(","))
            if not (
                head in PLAIN_HEADS or RELEASE_OR_HASH.fullmatch(head) or any(word in WORDS for word in asked)
            ):
                unknown.add(head)
    assert not unknown, "explain them in report/glossary.py"
