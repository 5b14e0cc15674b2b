"""`fa4-asv explain` from the command line: whole reports, what it keeps, how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.benchmarks import key_of
from fa4_asv.cli import explain, run
from fa4_asv.explain.pairs import _ask
from fa4_asv.integrity.verify import verify
from fa4_asv.measure.context import Context
from fa4_asv.record.explanation import read_explanation
from tests.support.contexts import a_context
from tests.support.explain_fake import CASE, NEW, OLD, FakeShop, upstream
from tests.support.explain_fake import synced as synced
from tests.support.explain_fake import two as two
from tests.support.golden import assert_golden
from tests.support.results import FIGURES

ENDS = ["explain", "fa4-v4.0.0b3", "fa4-v4.0.0b10", "--flavour", "cu12", "--arch", "sm_100"]
KERNELS = ["-b", "'fwd_(d64|d96|d128|d256)_full'"]
SUBJECT = "Use [clc](javascript:x) | `twice` <img src=x>"


def spills(source, packages, case):
    """d128 by the toolchain, d64 by the commit "two", d96 refused by the new source, d256 by both."""
    text = (source.folder / "flash_attn" / "cute" / "interface.py").read_text()
    new = text not in ("VERSION = '4.0.0b3'\n", "VERSION = 1\n")
    late = packages == NEW
    if "d96" in case:
        return "unsupported: AssertionError: <b>head_dim</b> | 96" if new else 0
    if "d256" in case:
        return 480 if new and late else 0
    return 112 if (late if "d128" in case else new) else 8


@pytest.fixture
def shop(two, monkeypatch):
    """The command with a compiler of a few words."""
    project, *_ = two
    upstream(project, ["one", SUBJECT])
    monkeypatch.setattr(explain, "base_here", lambda *_: Path("python"))
    made = []

    def make(project, base, flavour, terminal):
        made.append(FakeShop(project, spills))
        return made[-1]

    monkeypatch.setattr(explain, "Workshop", make)
    monkeypatch.setattr("fa4_asv.explain.packages.versions_between", lambda *_: [])
    return made


def ended(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        run(arguments)
    return end.value.code


@pytest.mark.parametrize(("style", "golden"), [("text", "explain.txt"), ("markdown", "explain.md")])
def test_the_whole_report(shop, capsys, style, golden):
    assert ended([*ENDS, *KERNELS, "--format", style]) == 0
    out = capsys.readouterr().out
    assert_golden(golden, out)


def test_json_is_what_is_kept_and_verify_accepts_it(shop, two, capsys):
    project, base, head = two
    assert ended([*ENDS, *KERNELS, "--format", "json", "--keep", "-o", "why.json"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    name = f"results/nogpu/{head.source.commit[:8]}-{base.source.commit[:8]}-cu12.cause"
    assert f"kept {name}" in err
    (entry,) = json.loads((project.root / "why.json").read_text())
    assert entry == json.loads((project.root / name).read_text())
    explanation = read_explanation(project.root / name)
    assert {culprit.kind for culprit in explanation.culprits} == {"package", "commit"}
    assert explanation.cases["sm_100/fwd_d256_full"]["spill_bytes"].cause == "both together"
    assert [problem for problem in verify(project) if problem.path.suffix == ".cause"] == []
    assert not list((project.results / "nogpu").glob("*.json")), "no figure of asv's is made"


def test_no_culprits_compiles_the_corners_only(shop, capsys):
    assert ended([*ENDS, *KERNELS, "--no-culprits", "--limit", "2"]) == 0
    assert len(shop[0].asked) == 4
    assert "and 8 more (--limit)" in capsys.readouterr().out


def test_an_unknown_cause_is_exit_code_1(shop, monkeypatch, capsys):
    def blocked(source, packages, case):
        return (
            "broken: killed by SIGSEGV"
            if packages == OLD and source.release == "4.0.0b10"
            else spills(source, packages, case)
        )

    monkeypatch.setattr(explain, "Workshop", lambda project, *_: FakeShop(project, blocked))
    assert ended([*ENDS, "-b", "'fwd_d128_full'"]) == 1
    out = capsys.readouterr().out
    assert "3 figures changed in 1 kernel: 3 by an unknown cause" in out
    assert "said: new source with old toolchain: broken: killed by SIGSEGV: sm_100/fwd_d128_full" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "fa4-v9", "fa4-v4.0.0b10"], "unknown release or commit 'fa4-v9'"),
        (["explain", "fa4-v4.0.0b3"], "Missing argument 'HEAD'"),
        (["explain", "fa4-v4.0.0b3", "fa4-v4.0.0b10", "--flavour", "cu13"], "has no cu13 extra"),
        ([*ENDS, "-b", "nothing"], "no kernel is selected by --bench 'nothing'"),
        ([*ENDS, "-b", "(", "-b", "x"], "--bench '(' is not a regular expression"),
    ],
)
def test_what_cannot_be_done_is_one_line(shop, capsys, arguments, message):
    assert ended(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_flavour_that_a_side_lacks_is_left_out(shop, capsys):
    arguments = ["explain", "fa4-v4.0.0b3", "fa4-v4.0.0b10", "-b", "sm_100.*'fwd_d128_full'"]
    assert ended(arguments) == 0
    out, err = capsys.readouterr()
    assert "cu13 is left out: 4.0.0b3 has no cu13 extra" in err
    assert "4.0.0b3 -> 4.0.0b10, cu12: 3 figures changed in 1 kernel" in out


def test_an_interrupt_says_how_to_go_on(shop, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeShop, "records", interrupted)
    assert ended([*ENDS, *KERNELS]) == 130
    assert "interrupted: what was compiled is cached; run it again to go on" in capsys.readouterr().err


def process(tmp_path: Path, script: str) -> Path:
    """In place of a toolchain's interpreter."""
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable}\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def context(project) -> Context:
    return a_context(project.root, flavour="cu12")


def test_the_process_that_compiles_answers_records(tmp_path, context):
    answer = {key_of(CASE): {"state": "measured", "figures": FIGURES}}
    script = f"import sys, json, os; assert json.load(sys.stdin) == {[list(CASE)]!r}; print({json.dumps(json.dumps(answer))})"
    result = _ask(process(tmp_path, script), context, [CASE])
    assert result[key_of(CASE)].figures == FIGURES


def test_the_process_that_compiles_sees_no_secret(tmp_path, context, monkeypatch):
    monkeypatch.setenv("GH_TOKEN", "a secret")
    script = "import os, sys; sys.exit('seen' if 'GH_TOKEN' in os.environ else 'not seen')"
    with pytest.raises(Fa4AsvError, match="gave no answer: not seen"):
        _ask(process(tmp_path, script), context, [CASE])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit('no torch here')", "gave no answer: no torch here"),
        ("import os; os.kill(os.getpid(), 9)", "gave no answer: exit code -9"),
        ("print('{')", "gave no answer: exit code 0"),
    ],
)
def test_a_process_that_dies_is_one_line(tmp_path, context, script, message):
    with pytest.raises(Fa4AsvError, match=message):
        _ask(process(tmp_path, script), context, [CASE])
