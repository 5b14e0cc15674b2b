"""The report as a part of publishing: written by asv's own publish, linked there and back, explanations and all."""

from __future__ import annotations

from pathlib import Path

import asv
import pytest

from fa4_asv.asv_plugin.hooks import short_tags
from fa4_asv.asv_plugin.publisher import EDITS, edit_pages
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.record.explanation import Explanation, Side, write_explanation
from fa4_asv.record.store import sidecar_path
from tests.support.backfills import commits
from tests.support.publishing import path_of, publish


def test_publishing_makes_the_report_linked_there_and_back(recorded, capsys):
    """Another machine's files appear, a broken one is refused by name, an explanation is shown."""
    old, new = (Side(commit, "", "d1", {}) for commit in commits(recorded)[:2])
    explanation = Explanation(
        "cu13", old, new, threads=("https://github.com/Dao-AILab/flash-attention/issues/1",)
    )
    write_explanation(recorded.results / "nogpu" / explanation.file_name, explanation)
    box = recorded.results / "someones-h200"
    box.mkdir()
    (box / "machine.json").write_text('{"machine": "someones-h200", "version": 1}')
    for path in (path_of(recorded, 2), sidecar_path(path_of(recorded, 2))):
        (box / path.name).write_text(path.read_text().replace('"nogpu"', '"someones-h200"'))
    path_of(recorded, 0).write_text("{")
    assert publish() == 1
    assert f"refused: results/nogpu/{path_of(recorded, 0).name}" in capsys.readouterr().err
    report = recorded.html / "report"
    assert '<a href="report/index.html">' in (recorded.html / "index.html").read_text()
    first = (recorded.html / "index.html").read_text().partition("<body>")[2].strip()
    assert first.startswith('<p id="fa4-needs">asv\'s own pages need a server')
    factors = (recorded.html / "regressions.js").read_text()
    assert factors.count("'from 0'") == 2 and factors.count("factor.toFixed(2)") == 2
    assert '<a href="../index.html">' in (report / "index.html").read_text()
    assert "cu13 on someones-h200" in (report / "releases" / "4.0.0b10.html").read_text()
    assert "not recorded yet" in (report / "releases" / "4.0.0b3.html").read_text()
    assert "4.0.0b4" in (report / "index.html").read_text()


@pytest.mark.parametrize("changed", sorted(EDITS))
def test_a_page_of_another_asv_is_told(tmp_path, changed):
    for name in EDITS:
        text = (Path(asv.__file__).parent / "www" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text if name != changed else text.replace(max(EDITS[name]), "another"))
    with pytest.raises(
        Fa4AsvError, match=f"{changed} is not as asv 0.6.6 writes it: .* stands in it 0 times"
    ):
        edit_pages(tmp_path)


def test_tags_are_as_short_as_they_can_be_told_apart():
    tags = {
        f"fa4-v{version}": number
        for number, version in enumerate(("4.0.0b9", "4.0.0b10", "4.0.0", "4.0.1b9"))
    }
    assert short_tags(tags) == {"b9": 0, "b10": 1, "4.0.0": 2, "4.0.1b9": 3}
    assert short_tags({}) == {}
