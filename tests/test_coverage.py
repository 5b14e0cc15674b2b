"""docs/coverage.md: made from the tables, and every argument of FA4 has a line in it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from fa4_asv.catalog import coverage
from fa4_asv.catalog.kernels import CALLS, KERNEL_GROUPS
from fa4_asv.record.store import read_sidecar
from tests.support import ROOT

PAGE = ROOT / "docs" / "coverage.md"
TOOL = runpy.run_path(str(ROOT / "tools" / "coverage_page.py"))


def test_the_page_is_what_the_tables_say():
    assert PAGE.read_text(encoding="utf-8") == TOOL["page"](), "run python tools/coverage_page.py"


def test_every_call_of_the_suite_is_counted_where_its_group_is():
    for arch in coverage.ARCHES:
        names = {call.name for call in coverage.calls_of(arch)}
        for group in KERNEL_GROUPS.values():
            calls = {case.call.name for case in group.cases.values()}
            assert calls <= names if arch in group.arches else True
    assert {call.name for arch in coverage.ARCHES for call in coverage.calls_of(arch)} == CALLS.keys()


def test_each_argument_is_given_by_a_call_or_says_why_not():
    for argument in coverage.ARGUMENTS:
        assert coverage.asking(argument), argument
    assert all(coverage.NOT_WATCHED.values())
    assert not {*coverage.ARGUMENTS} & {*coverage.NOT_WATCHED}


def test_what_is_refused_is_of_an_argument_and_an_architecture_that_are_known():
    for arch, argument in (*coverage.REFUSED, *coverage.PARTLY):
        assert arch in coverage.ARCHES and argument in coverage.ARGUMENTS


SIGNATURE = "def flash_attn_func(q, k, v, causal=False, *, softcap=0.0{more}): pass\nclass X: pass\n"


def test_a_new_argument_is_named_with_its_function():
    assert list(coverage.unknown(SIGNATURE.format(more=""))) == []
    source = SIGNATURE.format(more=", paged_values=None")
    assert list(coverage.unknown(source)) == [("flash_attn_func", "paged_values")]


def test_only_what_is_public_is_asked():
    assert coverage.arguments_of("def _flash_attn_fwd(odd): pass\nasync def f(): pass") == {}


def test_what_is_no_python_is_an_error():
    with pytest.raises(SyntaxError):
        list(coverage.unknown("def flash_attn_func(:"))


def test_the_tool_fails_where_the_page_is_another(monkeypatch, tmp_path):
    other = tmp_path / "coverage.md"
    other.write_text("another page", encoding="utf-8")
    monkeypatch.setitem(TOOL["main"].__globals__, "PAGE", Path(other))
    monkeypatch.setattr("sys.argv", ["coverage_page.py", "--check"])
    with pytest.raises(SystemExit, match=r"coverage\.md is not what the tables say"):
        TOOL["main"]()
    monkeypatch.setattr("sys.argv", ["coverage_page.py"])
    TOOL["main"]()
    assert other.read_text(encoding="utf-8") == TOOL["page"]()


def test_what_the_record_says_is_refused_is_what_the_page_says():
    """b36 as committed, where an architecture has a call with the argument; FA4 itself: test_real_coverage.py."""
    (path,) = (ROOT / "results" / "nogpu").glob("d14f663b-*-flavourcu13-toolchainday.sidecar")
    refused: dict[str, str] = {}
    for cases in read_sidecar(path).groups.values():
        refused |= {
            case: record.why if record.state == "unsupported" else ""
            for case, record in cases.items()
            if record.state in ("measured", "unsupported")
        }
    asked = 0
    for arch in coverage.ARCHES:
        for argument in coverage.ARGUMENTS:
            calls = (f"{arch}/{call.name}" for call in coverage.asking(argument))
            messages = [refused[call] for call in calls if call in refused]
            expected = coverage.REFUSED.get((arch, argument), "")
            if messages:
                asked += 1
                assert all(messages) == bool(expected), (arch, argument)
                assert any(expected in each for each in messages), (arch, argument)
    assert asked > len(coverage.ARGUMENTS)
