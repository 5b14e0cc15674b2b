"""The page of launches: neighbouring releases of which the same is said share a row, and what is as it should be has none."""

from __future__ import annotations

import pytest

from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import TRACED
from fa4_asv.catalog.launch import STEPS, counts
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import iter_results
from fa4_asv.report.launches import tables
from fa4_asv.report.model import Model, load
from fa4_asv.report.site import write_report
from tests.support.fake_record import write_pair, write_releases

KERNEL, READ = "compiled Backward", "read in _flash_attn_bwd (interface.py)"


def launch(kernels: int = 0, reads: int = 0) -> CaseRecord:
    parts = {name: count for name, count in ((KERNEL, kernels), (READ, reads)) if count} | {
        "allocated in x": 3
    }
    return CaseRecord("measured", figures=counts(parts), parts=parts)


def steps(again: CaseRecord, first: CaseRecord | None = None) -> dict[str, CaseRecord]:
    return {
        f"sm_90/varlen_tensor_d128/{step}": (first or launch(4)) if step == "first" else again
        for step in STEPS
    }


CALL = "fwd_b8_s4096_h16_d128_full"
MEMORY = {
    f"sm_90/{CALL}": CaseRecord(
        "measured", figures={"peak_bytes": TRACED[CALL][1].operand_bytes(backward=False), "extra_bytes": 0}
    )
}
BROKEN = CaseRecord("broken", "ValueError: <no> tensor")


@pytest.fixture
def model(project: Project) -> Model:
    """Six releases: as it should be, compiling and reading for two, as it should be, broken, not run."""
    releases = write_releases(project, 6)
    bad = steps(launch(2, 4))
    not_run = {case: CaseRecord("not run", "not selected") for case in bad}
    for release, cases in zip(
        releases, (steps(launch()), bad, bad, steps(launch()), steps(BROKEN, BROKEN), not_run), strict=True
    ):
        write_pair(project, release, {"launch": cases, "memory": MEMORY})
    return load(project, list(iter_results(project.results)))


def texts(model: Model) -> list[tuple[str, list[list[str]]]]:
    return [
        (
            table.caption,
            [[cell if isinstance(cell, str) else cell.text for cell in row] for row in table.rows],
        )
        for table in tables(model.exact())
    ]


def test_faults_have_rows_by_span_and_steps(model):
    (caption, rows), (_, first) = texts(model)
    later = "again, length, batch, strides, process"
    second, third, fifth = (model.releases[at].version.removeprefix("4.0.0") for at in (1, 2, 4))
    assert caption == "Compiled again or read back on sm_90, cu13"
    assert rows == [
        ["varlen_tensor_d128", later, f"{second} to {third} (2)", "2", "4", f"{KERNEL}; {READ}"],
        ["varlen_tensor_d128", later, fifth, "broken", "–", BROKEN.why],
    ]
    assert [row[1:4] for row in first if row[1] == "first"][0][2] == "4"
    assert {row[1] for row in first} == {"first", "short", "first, short"}


def test_a_release_without_faults_is_in_no_row_and_one_that_did_not_run_is_in_none(model):
    at = {label for _, rows in texts(model) for row in rows for label in row[2].split()}
    assert model.releases[5].version.removeprefix("4.0.0") not in at


def test_the_page_is_there_where_launches_are_recorded_and_escapes_reasons(project, model, tmp_path):
    write_report(project, tmp_path / "report")
    page = (tmp_path / "report" / "launch.html").read_text()
    assert "ValueError: &lt;no&gt; tensor" in page and "<no>" not in page
    assert "launch.html" in (tmp_path / "report" / "index.html").read_text()


def test_without_launches_there_is_no_page(project, tmp_path):
    for release in write_releases(project, 2):
        write_pair(project, release, {"memory": MEMORY})
    write_report(project, tmp_path / "report")
    assert not (tmp_path / "report" / "launch.html").exists()
    assert "launch.html" not in (tmp_path / "report" / "index.html").read_text()


def test_other_groups_keep_no_parts(project, model):
    point = model.exact()[0].measured[0]
    assert all(record.parts for record in point.cases("launch").values())
    assert not any(record.parts for record in point.cases("memory").values())
