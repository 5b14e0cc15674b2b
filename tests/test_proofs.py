"""What the proofs in tests/proofs decide by, without the minutes that they take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.proofs import kills, mutants
from tests.support import ROOT

PROOFS = sorted(path.stem for path in (ROOT / "tests" / "proofs").glob("*.py") if path.stem != "__init__")


def test_after_a_kill_the_report_is_compared_byte_by_byte_and_asvs_pages_by_name(project):
    report = project.html / "report" / "events"
    report.mkdir(parents=True)
    (report / "a.html").write_text("one")
    (project.html / "info.json").write_text('{"published": 1}')
    before = kills.site_of(project)
    (project.html / "info.json").write_text('{"published": 2}')
    assert kills.site_of(project) == before
    (report / "a.html").write_text("two")
    assert kills.site_of(project) != before
    (report / "a.html").write_text("one")
    (project.html / "info.json").unlink()
    assert kills.site_of(project) != before


def test_a_mutant_that_is_not_caught_is_named(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuite><testcase name="test_mutant_a"><properties><property name="mutant" value="a"/>'
        '<property name="catcher" value="guard"/><property name="words" value="guard: off"/></properties></testcase>'
        '<testcase name="test_mutant_b"/><testcase name="test_other"/></testsuite>'
    )
    assert mutants.rows(report) == [("a", "guard", "off"), ("test_mutant_b", "NOT CAUGHT", "")]


def test_the_files_of_the_mutants_are_there():
    assert all((mutants.ROOT / name).is_file() for name in mutants.TESTS)


@pytest.mark.parametrize("name", PROOFS)
def test_a_proof_says_how_it_is_run_and_a_page_names_it(name):
    text = (ROOT / "tests" / "proofs" / f"{name}.py").read_text()
    assert re.search(rf"(?m)^    python -m tests\.proofs\.{name}\b", text)
    pages = "".join(path.read_text() for path in sorted(Path(ROOT / "docs").glob("*.md")))
    assert f"python -m tests.proofs.{name}" in pages
    assert f"`{name}`" in (ROOT / "docs" / "testing.md").read_text()
