"""The first page's rules: what to install, any two releases, what stands; search, JSON, the feed. An invented record."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.compare.changes import exact_changes
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import iter_results
from fa4_asv.report.cards import cards_of
from fa4_asv.report.events import timeline
from fa4_asv.report.install import advice
from fa4_asv.report.model import Model, load
from fa4_asv.report.open_data import feed
from fa4_asv.report.other_chips import chips
from fa4_asv.report.pairs import MOST, histories, pairs_value
from fa4_asv.report.search import entries
from fa4_asv.report.site import pages
from fa4_asv.report.standing import all_table, short_table, standing, value_of
from tests.support.fake_record import HOSTILE, a_thread, write_pair, write_releases
from tests.support.pages import data_of_script
from tests.support.results import FIGURES

KERNEL, OTHER, BROKEN = "sm_100/fwd_d128_full", "sm_100/bwd_d128_full", "sm_100/fwd_d64_full"
ATOM = "{http://www.w3.org/2005/Atom}"


def model_of(project: Project) -> Model:
    return load(project, list(iter_results(project.results)))


def kernel(spill: int = 0, instructions: int = 900) -> CaseRecord:
    return CaseRecord("measured", figures={**FIGURES, "spill_bytes": spill, "instructions": instructions})


def codegen(spill: int = 0, instructions: int = 900, **more: CaseRecord):
    named = {name.replace("__", "/"): record for name, record in more.items()}
    return {"codegen": {KERNEL: kernel(spill, instructions), OTHER: kernel(), **named}}


@pytest.fixture
def story(project: Project) -> Project:
    """b1 to b6. Spills: cu13 8, 8, 500, 500, 8, 16; cu12 spills more. Instructions grow in b2 and stay."""
    releases = write_releases(project, 6)
    for release, spill, instructions in zip(
        releases, (8, 8, 500, 500, 8, 16), (900, 1000, 1000, 1000, 1000, 1010), strict=True
    ):
        write_pair(project, release, codegen(spill, instructions))
        write_pair(project, release, codegen(spill + 100, instructions), flavour="cu12")
    return project


def advised(project: Project):
    model = model_of(project)
    result = standing(histories(model), [], timeline(model, []))
    return {each.arch: each for each in advice(model, [], cards_of(model, []), result)}


def test_the_newest_release_under_the_flavour_that_spills_less_is_recommended(story):
    (each,) = advised(story).values()
    assert (each.arch, each.release.text) == ("sm_100", "b6")
    assert each.command == "pip install 'flash-attn-4[cu13]==4.0.0b6' 'nvidia-cutlass-dsl[cu13]==4.8.1'"
    facts = {name: [cell.text for cell in cells] for name, cells in each.facts}
    assert facts["spills"] == [
        "16 spilled bytes per thread in 2 main kernels together; most in fwd_d128_full"
    ]
    assert facts["speed"] == ["not timed here: no card of this kind is in the record"]
    (avoid,) = each.avoid
    assert avoid[0] == "b3 to b4 (2)"
    assert avoid[1].text == "up to 500 spilled bytes per thread (16 in b6), most in fwd_d128_full"


def test_with_equal_spills_cu13_is_recommended(story):
    write_pair(story, model_of(story).releases[5], codegen(16), flavour="cu12")
    assert "[cu13]" in advised(story)["sm_100"].command
    write_pair(story, model_of(story).releases[5], codegen(15), flavour="cu12")
    assert "[cu13]" not in advised(story)["sm_100"].command


def loops(inside: int):
    figures = {metric: inside if metric == "spills_inside" else 100 for metric in GROUPS["loops"].metrics}
    return {"loops": {case: CaseRecord("measured", figures=figures) for case in (KERNEL, OTHER)}}


def test_spills_are_those_of_hot_loops_where_every_flavour_has_them(story):
    """cu12 spills more bytes of stack, but nothing in its loops."""
    newest = model_of(story).releases[5]
    write_pair(story, newest, {**codegen(16), **loops(5)})
    assert "[cu13]" in advised(story)["sm_100"].command, "cu12 has no loops: bytes are compared"
    write_pair(story, newest, {**codegen(116), **loops(0)}, flavour="cu12")
    each = advised(story)["sm_100"]
    assert "[cu13]" not in each.command
    spills = dict(each.facts)["spills"][0].text
    assert spills == "0 spilled accesses inside loops in 2 main kernels together"


def test_a_release_that_is_yanked_or_does_not_compile_or_crashes_is_avoided(story):
    releases = model_of(story).releases
    fails = CaseRecord("broken", "killed")
    for flavour in ("cu13", "cu12"):
        write_pair(story, releases[5], codegen(0, sm_100__fwd_d64_full=fails), flavour=flavour)
    assert advised(story)["sm_100"].release.text == "b5"
    Manifest(tuple(replace(r, yanked="wrong" if r.version == "4.0.0b5" else "") for r in releases)).save(
        story.manifest
    )
    each = advised(story)["sm_100"]
    assert each.release.text == "b2", "b3 and b4 spill much more than b2"
    told = {name: cell.text for name, cell in each.avoid}
    assert told["b6"] == "1 broken kernel" and told["b5"] == "yanked: wrong"


def test_a_call_that_no_release_passes_is_a_known_problem_and_speaks_against_none(story):
    """On cards; one that some release passes speaks against those that do not."""
    releases, case = model_of(story).releases, "fa4/b16_s2048_h16_d72_full_varlen"
    wrong, right = (
        CaseRecord("broken", "guard: dq is off"),
        CaseRecord("measured", samples={"seconds": [1e-3]}),
    )

    def timed(last: CaseRecord):
        for release, record in ((releases[4], wrong), (releases[5], last)):
            write_pair(story, release, {"backward-shapes": {case: record}}, machine="b200-box")
        return advised(story)["sm_100"]

    each = timed(wrong)
    problems = [cell.text for cell in dict(each.facts)["known problems"]]
    assert each.release.text == "b6" and not any(name == "b5" for name, _ in each.avoid)
    assert "1 of 1 call broken on b200-box, in every release that a card was asked" in problems
    thread = {
        **a_thread(case),
        "group": "backward-shapes",
        "metric": "",
        "arch": "sm_100",
        "spans": {"cu13": ["4.0.0b5", ""]},
    }
    story.threads.write_text(json.dumps({"format": 1, "threads": [thread]}))
    assert [cell.text for cell in dict(advised(story)["sm_100"].facts)["known problems"]][
        0
    ] == "it spills (flash-attention#7)"
    assert len(dict(advised(story)["sm_100"].facts)["known problems"]) == len(problems), "the thread says it"
    assert "1 of 1 call broken on b200-box" in {
        cell.text for name, cell in timed(right).avoid if name == "b5"
    }


def test_a_compiler_that_does_not_import_is_named_with_its_reason(story):
    newest = model_of(story).releases[5]
    why = "the process ended with exit code 1: ModuleNotFoundError: No module named 'x.y'"
    for compiler in ("4.6.2", "4.6.3"):
        broken = {"codegen": {KERNEL: CaseRecord("broken", why), OTHER: CaseRecord("broken", why)}}
        write_pair(story, newest, broken, compiler=compiler, policy=f"nvidia-cutlass-dsl=={compiler}")
    told = [(name, cell.text) for name, cell in advised(story)["sm_100"].avoid]
    assert told[0] == ("nvidia-cutlass-dsl 4.6.2, 4.6.3", "FA4 does not import: No module named 'x.y'")


def test_any_two_releases_are_judged_as_compare_judges_them(story):
    """What the page looks up is what `compare` says, for every pair in both directions."""
    model = model_of(story)
    result = histories(model)
    value = pairs_value(model, result, [], [])
    assert value["versions"] == model.versions[-MOST:]
    names = [title for title, _ in value["metrics"]]
    for flavour, series in zip(value["flavours"], (each.series for each in result), strict=True):
        for at, before in enumerate(series.points):
            for after_at, after in enumerate(series.points[at + 1 :], at + 1):
                expected = {
                    (row.case, row.metric, row.base, row.head, row.effect)
                    for row in exact_changes(before.record, after.record)
                    if row.effect
                }
                assert looked_up(flavour, names, at, after_at) == expected, (before.label, after.label)


def looked_up(flavour, names, before: int, after: int) -> set[tuple[object, ...]]:
    """As compare.js reads the data."""
    titles = {"spill (stack frame)": "spill_bytes", "instructions": "instructions"}
    result = set()
    for arch, name, _, runs, kinds, pairs in flavour["cases"]:
        classes = [value for at, value in runs for _ in [at]]
        starts = [at for at, _ in runs]
        old, new = (
            classes[max(i for i, start in enumerate(starts) if start <= at)] for at in (before, after)
        )
        pair = next((each for each in pairs if each[:2] == [min(old, new), max(old, new)]), None)
        for told in pair[2:] if pair and old != new else []:
            sign = told if old < new else -told
            metric = abs(told) - 1
            sides = (kinds[old][metric], kinds[new][metric])
            result.add((f"{arch}/{name}", titles[names[metric]], *sides, "worse" if sign > 0 else "better"))
    return result


def test_what_became_worse_and_did_not_recover_stands_with_its_release(story):
    model = model_of(story)
    result = standing(histories(model), [], timeline(model, []))
    told = {
        (each.series, each.row.metric): (
            each.best.label,
            each.row.base,
            each.row.head,
            each.since.label,
            each.cause,
        )
        for each in result
    }
    assert told[("cu13", "instructions")] == ("4.0.0b1", 900, 1010, "4.0.0b2", "source")
    assert told[("cu13", "spill_bytes")] == ("4.0.0b5", 8, 16, "4.0.0b6", "source"), "500 in b3 has recovered"
    assert short_table(result).rows[0][0].href == "kernels/sm_100-fwd_d128_full.html"
    assert json.loads(json.dumps(value_of(result)))[0]["now"] in (16, 116, 1010)
    write_pair(story, model.releases[5], codegen(0, 900))
    model = model_of(story)
    left = standing(histories(model), [], timeline(model, []))
    assert [each for each in left if each.series == "cu13"] == []


def test_where_releases_between_have_no_record_the_span_is_named(story):
    """A case that is recorded of b1, b4 and b6 alone spills from b4 on: it came in one of three releases."""
    releases = model_of(story).releases
    for at, spill in ((0, 0), (3, 224), (5, 224)):
        write_pair(story, releases[at], codegen(8, sm_100__fwd_d64_full=kernel(spill)))
    model = model_of(story)
    result = standing(histories(model), [], timeline(model, []))
    (each,) = (each for each in result if each.name == "fwd_d64_full" and each.row.metric == "spill_bytes")
    assert (each.best.label, each.since.label, each.came) == ("4.0.0b1", "4.0.0b4", "b2 to b4")
    (entry,) = (
        entry
        for entry in value_of(result)
        if (entry["name"], entry["figure"]) == ("fwd_d64_full", "spill_bytes")
    )
    assert (entry["earliest"], entry["since"]) == ("4.0.0b2", "4.0.0b4")
    texts = [cell.text if hasattr(cell, "text") else cell for cell in all_table([each]).rows[0]]
    assert "b2 to b4" in texts


def test_other_chips_have_a_line_from_their_group(story):
    """The newest release of which no recorded kernel is broken; releases without the group are passed over."""
    releases = model_of(story).releases
    assert chips(model_of(story)) == []
    sm_120, refused, broken = (
        "sm_120/fwd_d128_full",
        CaseRecord("unsupported", "no"),
        CaseRecord("broken", "ICE"),
    )
    sound = CaseRecord("measured", figures=dict.fromkeys(GROUPS["consumer"].metrics, 1200))
    for at, last in ((1, sound), (3, refused), (4, broken)):
        cases = {sm_120: sound, "sm_120/bwd_d128_full": last}
        write_pair(story, releases[at], codegen(8) | {"consumer": cases})
    (chip,) = chips(model_of(story))
    assert (chip.name, chip.release.text) == ("RTX 50 and RTX PRO (Blackwell, sm_120)", "b4")
    assert chip.facts.text == (
        "cu13; 1 kernel compiles, FA4 refuses 1; 1,200 spilled accesses inside loops; "
        "no card of this kind is in the record"
    )
    assert (chip.facts.href, chip.avoid) == ("calls-consumer.html", "b5 (1)")
    write_pair(story, releases[4], codegen(8) | {"consumer": {sm_120: sound}}, flavour="cu12")
    assert chips(model_of(story)) == [chip], "cu13 where it is recorded"


def test_the_search_finds_kernels_releases_events_and_threads(story):
    thread = a_thread(KERNEL)
    story.threads.write_text(json.dumps({"format": 1, "threads": [thread]}))
    site = dict(pages(model_of(story), timeline(model_of(story), [])))
    _, result = data_of_script(site["data/search.js"])
    pages_of = {title: page for title, _, page in result}
    assert pages_of["flash-attention#7: it spills"] == "kernels/sm_100-fwd_d128_full.html"
    assert pages_of["fwd_d128_full on sm_100"] == "kernels/sm_100-fwd_d128_full.html"
    assert pages_of["b6, 2026-01-07"] == "releases/4.0.0b6.html"
    assert pages_of["event: b3 on sm_100, cu13"] == "events/4.0.0b3-cu13-sm_100.html"
    for page in pages_of.values():
        assert page.partition("#")[0] in site, page
    model = model_of(story)
    assert entries(model, timeline(model, []), [], [])[0][0] == "flash-attention#7: it spills"


def test_the_feed_is_atom_of_the_newest_events_with_foreign_words_as_text(story):
    model = model_of(story)
    root = ElementTree.fromstring(feed(timeline(model, [])))
    result = root.findall(f"{ATOM}entry")
    assert result[0].find(f"{ATOM}title").text == "b6 on sm_100, cu12 (torch on CUDA 12)"
    assert (
        result[0]
        .find(f"{ATOM}summary")
        .text.startswith("Against 4.0.0b5: 2 figures of 1 case worse. Cause: source.")
    )
    assert root.find(f"{ATOM}updated").text == result[0].find(f"{ATOM}updated").text == "2026-01-07T08:00:00Z"
    ids = [each.find(f"{ATOM}id").text for each in result]
    assert len(ids) == len(set(ids))
    (step, *_) = timeline(model, []).steps
    before = replace(step.before.record, release=HOSTILE)
    hostile = replace(step, before=replace(step.before, record=before))
    text = feed(type(timeline(model, []))((hostile,)))
    assert "<script" not in text and ElementTree.fromstring(text) is not None


def test_the_json_files_say_their_format_and_hold_the_figures_of_the_record(story):
    site = dict(pages(model_of(story), timeline(model_of(story), [])))
    index = json.loads(site["data/index.json"])
    assert index["feed"] == "../events.atom"
    for name in index["files"]:
        assert json.loads(site[f"data/{name}"])["format"] == index["format"] == 1
    figures = json.loads(site["data/figures.json"])["figures"]["Kernels on sm_100"]
    (entry,) = (each for each in figures if each["key"] == KERNEL)
    (spills,) = (each for each in entry["metrics"] if each["name"] == "spill_bytes")
    assert spills["curves"][0]["values"] == [8, 8, 500, 500, 8, 16]
    told = json.loads(site["data/events.json"])["events"]
    assert [each["after"] for each in told if each["flavour"] == "cu13"] == [
        "4.0.0b2",
        "4.0.0b3",
        "4.0.0b5",
        "4.0.0b6",
    ]
    (worse,) = (each for each in told if (each["after"], each["flavour"]) == ("4.0.0b3", "cu13"))
    assert worse["figures"] == [["codegen", KERNEL, "spill_bytes", 8, 500, "worse", "source"]]
    install = json.loads(site["data/install.json"])["install"]
    assert [each["release"] for each in install] == ["b6"]


def test_the_first_page_says_what_to_install_and_what_stands(story):
    page = dict(pages(model_of(story), timeline(model_of(story), [])))["index.html"]
    for anchor in ("install", "newest", "history", "standing"):
        assert page.count(f'id="{anchor}"') == 1, anchor
    assert re.search(r"<h3>B200 \(Blackwell\): <a href=\"releases/4\.0\.0b6\.html\">b6</a></h3>", page)
    assert 'data-before="4.0.0b5" data-after="4.0.0b6"' in page
