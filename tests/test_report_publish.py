"""The report as a part of publishing: written by asv's own publish, linked there and back, explanations and all."""

from __future__ import annotations

import pytest

from fa4_asv.asv_plugin.publisher import factors_from_zero, link_from
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.record.explanation import Explanation, Side, write_explanation
from fa4_asv.record.store import sidecar_path
from tests.support.backfills import commits
from tests.support.publishing import path_of, publish


def test_publishing_makes_the_report_linked_there_and_back(recorded, capsys):
    """Another machine's files appear, a broken one is refused by name, an explanation is shown."""
    old, new = (Side(commit, "", "d1", {}) for commit in commits(recorded)[:2])
    found = Explanation("cu13", old, new, threads=("https://github.com/Dao-AILab/flash-attention/issues/1",))
    write_explanation(recorded.results / "nogpu" / found.file_name, found)
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
    assert first.startswith("<p>asv's own pages need a server")
    factors = (recorded.html / "regressions.js").read_text()
    assert factors.count("'from 0'") == 2 and factors.count("factor.toFixed(2)") == 2
    assert '<a href="../index.html">' in (report / "index.html").read_text()
    assert "cu13 on someones-h200" in (report / "releases" / "4.0.0b10.html").read_text()
    assert "not recorded yet" in (report / "releases" / "4.0.0b3.html").read_text()
    assert "4.0.0b4" in (report / "index.html").read_text()


def test_a_bar_of_another_asv_is_told(tmp_path):
    (tmp_path / "index.html").write_text("<ul></ul>")
    with pytest.raises(Fa4AsvError, match="has no bar to link the report from"):
        link_from(tmp_path / "index.html")


def test_a_script_of_another_asv_is_told(tmp_path):
    (tmp_path / "regressions.js").write_text("text(ratio)")
    with pytest.raises(Fa4AsvError, match="does not write factors as it did"):
        factors_from_zero(tmp_path / "regressions.js")
