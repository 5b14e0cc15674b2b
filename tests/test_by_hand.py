"""tests/proofs/by_hand.py: recorded figures against the tools asked by a shell, and a difference that is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.kernels import BEYOND
from fa4_asv.record.schema import CaseRecord
from tests.proofs import by_hand
from tests.support.fake_record import write_pair, write_releases

SASS = """\t.headerflags @"EF_CUDA_SM90"
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/              @!P0 LDL.64 R2, [R1] ;
        /*0020*/                   STL [R1+0x8], R2 ;
        /*0030*/                   NOP;
"""
USAGE = "Fatbin elf code:\n Function kernel:\n  REG:168 STACK:16 SHARED:1024 LOCAL:0 CONSTANT[0]:704\n"
FIGURES = {
    "registers": 168,
    "spill_bytes": 16,
    "instructions": 3,
    "local_loads": 1,
    "local_stores": 1,
    "text_bytes": 64,
}
KEY = by_hand.CASES["codegen"]


@pytest.fixture
def laid(project, tmp_path, monkeypatch):
    """Tools that print what NVIDIA's do, a cubin, and a record of it."""
    for name, text in (("cuobjdump", USAGE), ("nvdisasm", SASS)):
        script, output = tmp_path / name, tmp_path / f"{name}.txt"
        output.write_text(text)
        script.write_text(f"#!/bin/sh\ncat '{output}'\n")
        script.chmod(0o755)
    monkeypatch.setattr(by_hand, "find_tool", lambda name: str(tmp_path / name))
    monkeypatch.chdir(project.root)
    cubin = project.work / "cache" / "cubins" / "ab" / f"{'ab' * 32}.cubin"
    cubin.parent.mkdir(parents=True)
    cubin.write_bytes(b"cubin")
    record = CaseRecord("measured", figures=FIGURES, sha256="ab" * 32, kernel="K", opcodes={"NOP": 1})

    def recorded(**figures):
        (release,) = write_releases(project, 1)
        write_pair(project, release, {"codegen": {KEY: replace(record, figures={**FIGURES, **figures})}})
        monkeypatch.setattr("sys.argv", ["by_hand.py", release.version, "codegen", KEY])
        return cubin

    return recorded


def ended(capsys):
    with pytest.raises(SystemExit) as end:
        by_hand.main()
    return end.value.code, capsys.readouterr().out


def test_what_the_tools_say_is_what_is_recorded(laid, capsys):
    assert by_hand.by_hand(laid()) == FIGURES
    code, output = ended(capsys)
    assert code == 0 and f"codegen {KEY}: agrees: registers 168, spill_bytes 16, instructions 3" in output


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_that_differs_is_named(laid, capsys, figure):
    laid(**{figure: 7})
    code, output = ended(capsys)
    assert code == 1 and f"DIFFERS {{'{figure}': (7, {FIGURES[figure]})}}" in output


def test_a_cubin_that_was_not_compiled_here_says_how(laid, capsys):
    laid().unlink()
    code, output = ended(capsys)
    arch, call = KEY.split("/")
    assert code == 0 and f"not compiled here; asv run -b \"^codegen.Kernels.*{arch}', '{call}'\"" in output


def test_a_tool_that_prints_no_number_is_one_line(laid, tmp_path):
    cubin = laid()
    (tmp_path / "cuobjdump.txt").write_text("cannot read it")
    with pytest.raises(Fa4AsvError, match="registers of .*: expected one number, got ''"):
        by_hand.by_hand(cubin)


def test_one_kernel_of_each_group_is_asked():
    assert by_hand.CASES.keys() == {"codegen", *BEYOND}
    for group, key in by_hand.CASES.items():
        assert tuple(key.split("/")) in GROUPS[group].cases
