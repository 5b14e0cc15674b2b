"""The report: from an invented record to the last byte, and what it makes of foreign words and broken files."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.shapes import SHAPES
from fa4_asv.cli import run
from fa4_asv.history.commits import Commit, add_commits
from fa4_asv.record.explanation import Explanation, Side, Verdict, write_explanation
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import iter_results, read_sidecar, sidecar_path
from fa4_asv.report.events import UNEXPLAINED, timeline
from fa4_asv.report.machines import machines, peak_of, tflops
from fa4_asv.report.model import load
from fa4_asv.report.overview import headline
from fa4_asv.report.site import pages, write_report
from fa4_asv.report.sound_record import explanations
from fa4_asv.report.support import maps
from tests.support import ROOT
from tests.support.fake_record import HOSTILE, NAME, kernels, write_pair, write_releases
from tests.support.golden import assert_golden
from tests.support.pages import without_own_scripts
from tests.support.results import FIGURES

MEASURED = CaseRecord("measured", figures=FIGURES)


@pytest.fixture
def small(project: Project) -> Project:
    """Three releases: the spill goes with the source alone, then the instructions grow and the compiler moved, too."""
    first, second, third = write_releases(project, 3)
    write_pair(project, first, kernels(), compiler="4.8.0")
    write_pair(project, second, kernels(spill_bytes=0, local_loads=0, local_stores=0), compiler="4.8.0")
    write_pair(project, third, kernels(spill_bytes=0, local_loads=0, local_stores=0, instructions=990))
    write_pair(project, third, kernels(), flavour="cu12")
    return project


def model_of(project: Project):
    return load(project, list(iter_results(project.results)))


def made(project: Project) -> dict[str, str]:
    model = model_of(project)
    return dict(pages(model, timeline(model, explanations(project, []))))


def report(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run(["report", *arguments])
    return int(ended.value.code or 0)


def test_the_first_page_to_the_last_byte(small):
    page = made(small)["index.html"]
    many = f" {len(GROUPS['codegen'].cases)} kernels."
    assert page.count(many) == 1
    assert_golden("report_index.html", page.replace(many, " 94 kernels."))


def test_neither_clock_nor_hash_seed_nor_folder_nor_cores_enter(small, tmp_path):
    """Three other processes with another seed and time zone write the same bytes elsewhere."""
    target = tmp_path / "elsewhere" / "report"
    done = subprocess.run(
        [sys.executable, "-m", "fa4_asv", "report", "--output", str(target)],
        cwd=small.root,
        env={
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": "7",
            "TZ": "Asia/Tokyo",
            "PATH": "/usr/bin:/bin",
            "FA4_ASV_CORES": "3",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    paths = {
        path.relative_to(target).as_posix(): path.read_text(encoding="utf-8")
        for path in target.rglob("*")
        if path.is_file()
    }
    assert paths == made(small)
    assert not [name for name, text in paths.items() if str(tmp_path) in text]


def test_the_newest_release_is_judged_and_swapping_the_sides_inverts_it(small):
    model = model_of(small)
    top = headline(model, timeline(model, []))
    assert (top.label, top.before, top.verdict) == ("4.0.0b3", "4.0.0b2", "worse")
    assert top.sentences == [
        "Worse: 1 figure of 1 case (cu13); most of all fwd_d128_full on sm_100, cu13: instructions 900 → 990 (+10.0\xa0%)."
    ]
    first, second, third = (release for release in model.releases)
    write_pair(small, second, kernels(instructions=990), compiler="4.8.0")
    write_pair(small, third, kernels())
    model = model_of(small)
    assert headline(model, timeline(model, [])).verdict == "better"
    write_pair(small, third, kernels(instructions=991))
    model = model_of(small)
    assert headline(model, timeline(model, [])).verdict == "no relevant change"


def test_a_cause_is_told_only_where_it_is_proven(small):
    model = model_of(small)
    source, both = timeline(model, []).steps
    assert {event.cause for event in source.events} == {"source"}  # the toolchain is the same
    assert {event.cause for event in both.events} == {UNEXPLAINED}
    _, second, third = model.releases
    sides = [
        Side(release.commit, release.version, point.record.sidecar.toolchain.digest, {})
        for release, point in zip((second, third), model.exact()[0].points[1:], strict=True)
    ]
    verdict = {NAME: {"instructions": Verdict(900, 990, 900, 990, "toolchain")}}
    explanation = Explanation("cu13", *sides, files=("flash_attn/cute/x.py",), cases=verdict)
    path = small.results / "nogpu" / explanation.file_name
    write_explanation(path, explanation)
    told = timeline(model, explanations(small, []))
    assert [event.cause for event in told.steps[1].events] == ["toolchain"]
    path.write_text("{")
    assert report() == 1
    assert "4.0.0b3-cu13-sm_100.html" in {each.name for each in (small.html / "report" / "events").iterdir()}


def test_foreign_words_are_text_and_never_markup(small):
    machine = 'box "><script>alert(1)'
    write_pair(small, model_of(small).releases[2], timed(1e-3), machine=machine)
    site = made(small)
    assert f"machines/{machine}.html" in site
    for name, text in site.items():
        assert "<script" not in without_own_scripts(text), name
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in site["support.html"]


def timed(seconds: float, backend: str = "fa4") -> dict[str, dict[str, CaseRecord]]:
    samples = {"seconds": [seconds * 0.9, seconds, seconds * 1.2]}
    notes = {"error out hard": "0.25", "error dq gaussian": "0.5", "notes": "drifts"}
    record = CaseRecord("measured", samples=samples, notes=notes)
    shapes = ("b32_s1024_h16_d128_full", "b16_s2048_h16_d128_full", "b8_s4096_h16_d128_full")
    return {"forward": {f"{backend}/{shape}": record for shape in shapes}}


def test_another_machines_times_appear_with_rates_and_shares(small, capsys):
    write_pair(small, model_of(small).releases[2], timed(1e-3), machine="someones-h200")
    (machine,) = machines(model_of(small))
    row = next(row for row in machine.measured[0].tables[0].rows if row[0] == "b32_s1024_h16_d128_full")
    rate = 4 * 32 * 16 * 1024 * 1024 * 128 / 1e-3 / 1e12
    assert tflops(1e-3, SHAPES["b32_s1024_h16_d128_full"], backward=False) == pytest.approx(rate)
    assert row[1:6] == ["fa4", "1\xa0ms", f"{rate:,.0f}", f"{rate / 989.5:.0%}", "0.25 (dq gaussian)"]
    assert peak_of("someones-laptop") is None
    assert report("--json") == 0
    assert json.loads(capsys.readouterr().out)["refused"] == []
    assert "someones-h200" in (small.html / "report" / "index.html").read_text()


def test_a_broken_file_is_refused_by_name_and_the_rest_reported(small, capsys):
    path = next(iter_results(small.results))
    path.write_text(path.read_text()[:100])
    assert report() == 1
    assert f"refused: results/nogpu/{path.name}: is not JSON" in capsys.readouterr().err
    assert (small.html / "report" / "index.html").is_file()
    for other in iter_results(small.results):
        other.write_text("{")
    before = (small.html / "report" / "index.html").read_bytes()
    assert report() == 2
    assert "there is no sound result file" in capsys.readouterr().err
    assert (small.html / "report" / "index.html").read_bytes() == before


def test_a_folder_that_is_no_report_is_never_replaced(small, tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(Fa4AsvError, match="holds files that are not a report"):
        write_report(small, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_an_upstream_commit_leads_upstream(small):
    """A commit that is not a release: its own history, a page per step, links to where it is."""
    old, new = write_releases(small, 5)[3:]
    for release, figures in ((old, kernels()), (new, kernels(instructions=1000))):
        write_pair(small, release, figures)
    write_releases(small, 3)
    site = made(small)
    text = site[f"events/{new.commit[:8]}-cu13-sm_100.html"]
    assert f"https://github.com/Dao-AILab/flash-attention/commit/{new.commit}" in text
    assert f'id="{new.commit}"' in site["releases.html"] and f'id="{new.commit[:8]}"' in site["releases.html"]
    assert new.commit[:8] not in site["kernels-sm_100.html"]  # the releases' lines stay their own


def test_commits_of_one_second_stand_in_the_order_of_their_branch(small):
    """Rebased together: neither date nor hash says which came first. Their subjects come out inert."""
    releases = write_releases(small, 6)[3:]
    date = int(releases[0].time.timestamp() * 1000)
    for release, instructions in zip(releases, (900, 950, 1000), strict=True):
        write_pair(small, release, kernels(instructions=instructions), date=date)
    write_releases(small, 3)
    for turns in ((1, 2, 3), (3, 2, 1)):
        small.upstream.unlink(missing_ok=True)
        day = "2026-05-05T12:00:00Z"
        listed = [Commit(r.commit, day, "main", HOSTILE, at) for r, at in zip(releases, turns, strict=True)]
        add_commits(small.upstream, listed)
        (series,) = (line for line in model_of(small).series if line.key.history == "upstream")
        expected = [
            release.commit for _, release in sorted(zip(turns, releases, strict=True), key=lambda p: p[0])
        ]
        assert [point.commit for point in series.points] == expected
    assert all("<script>alert" not in text for text in made(small).values())
    assert "&lt;script&gt;" in made(small)["events.html"]


def test_a_flavour_that_a_release_lacks_is_no_change(small):
    """It is said once on the support map, and the next release that has it gains nothing by that."""
    first, second, _ = model_of(small).releases
    lacking = {"codegen": {case: CaseRecord("unsupported", "no extra yet") for case in kernels()["codegen"]}}
    write_pair(small, first, lacking, flavour="cu12")
    write_pair(small, second, kernels(instructions=901), flavour="cu12")
    model = model_of(small)
    steps = [step for step in timeline(model, []).steps if step.key.flavour == "cu12"]
    assert [(step.before.label, step.after.label) for step in steps] == [("4.0.0b2", "4.0.0b3")]
    row = '<th scope="row">every feature<td>unsupported, cu12 (torch on CUDA 12)<td>b1<td>no extra yet<'
    assert made(small)["support.html"].count(row) == 2


def test_the_support_map_has_a_column_for_neighbours_that_are_alike_the_newest_first(small):
    """Hundreds of releases that differ a few times would else be hundreds of columns, and a page of megabytes."""
    first, second, third = model_of(small).releases
    whole = kernels()["codegen"]
    for release, cases in (
        (first, {**whole, NAME: CaseRecord("broken", "x")}),
        (second, whole),
        (third, whole),
    ):
        write_pair(small, release, {"codegen": cases})
    (known,) = [each for each in maps(model_of(small).exact()) if each.arch == "sm_100"]
    assert list(known.table.head) == ["feature", "b2 to b3 (2)", "b1"]
    css = {tuple(cell.css for cell in row[1:]) for row in known.table.rows}
    assert ("measured", "broken") in css


def test_the_report_needs_neither_torch_nor_asv(small):
    code = (
        "import sys\n"
        "for name in ('torch', 'asv', 'cutlass', 'ray', 'elftools', 'requests'):\n"
        "    sys.modules[name] = None\n"
        "from fa4_asv.cli import run\n"
        "run(['report'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=small.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0 problems" in done.stdout


def test_figures_on_the_pages_are_those_of_the_record(real_report):
    """Every figure of one release's table against its sidecar."""
    path = next(p for p in iter_results(ROOT / "results", "nogpu") if p.name.startswith("d14f663b"))
    sidecar = read_sidecar(sidecar_path(path))
    page = (real_report / "releases" / f"{sidecar.release}.html").read_text()
    cases = {case: record for case, record in sidecar.groups["codegen"].items() if record.state == "measured"}
    assert len(cases) > 90
    for case, record in cases.items():
        cells = "".join(f"<td>{record.figures[name]:,}" for name in FIGURES)
        assert f'<th scope="row">{case}{cells}<' in page


def test_the_committed_report_is_that_of_the_committed_record(real_report):
    """Byte for byte; after new results run `fa4-asv report` and commit html/report/."""
    committed = ROOT / "html" / "report"
    names = {path.relative_to(committed) for path in committed.rglob("*") if path.is_file()}
    assert names == {path.relative_to(real_report) for path in real_report.rglob("*") if path.is_file()}
    different = [
        str(name)
        for name in sorted(names)
        if (committed / name).read_bytes() != (real_report / name).read_bytes()
    ]
    assert different == []
