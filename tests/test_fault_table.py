"""The table of faults in docs/testing.md is what the marked tests say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.faults import BEGIN, END, Fault, filled, table

PAGE = ROOT / "docs" / "testing.md"
pytest_plugins = ["pytester"]


@pytest.mark.slow
def test_the_table_is_what_the_tests_say(tmp_path):
    """Collected, not run: tools/fault_table.py runs them."""
    page = Path(shutil.copy(PAGE, tmp_path))
    command = [sys.executable, "tools/fault_table.py", "--collect-only", "--fault-table", str(page)]
    done = subprocess.run([*command, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert page.read_text() == PAGE.read_text(), "run `python tools/fault_table.py`"


def test_a_row_counts_the_cases_of_its_test_and_joins_the_tests_of_the_same_words():
    in_test_a, in_test_b = (
        Fault("a|b", "x\ny", "one line", "test_a.py:test_c"),
        Fault("a|b", "x\ny", "one line", "test_b.py:test_d"),
    )
    assert table(Counter({in_test_a: 3, in_test_b: 1})).splitlines()[2:] == [
        "| a\\|b | x y | one line | `test_a.py` c: 3; `test_b.py` d: 1 |"
    ]


def test_a_page_without_its_place_is_an_error():
    assert filled(f"a\n{BEGIN}\nold\n{END}\nz", "new\n") == f"a\n{BEGIN}\n\nnew\n\n{END}\nz"
    for page in ("", BEGIN, f"{END}{BEGIN}"):
        with pytest.raises(ValueError, match="faults"):
            filled(page, "")


MARKED = """
import pytest

@pytest.mark.fault(kind="k", inputs="i", happens="h")
@pytest.mark.parametrize("x", [1, 2])
def test_it(x):
    assert x < {bound}
"""


@pytest.mark.parametrize(("bound", "written"), [(3, True), (2, False)])
def test_only_a_run_that_passes_writes(pytester, bound, written):
    pytester.makepyfile(MARKED.format(bound=bound))
    page = pytester.path / "page.md"
    page.write_text(f"{BEGIN}{END}")
    pytester.runpytest("-p", "tests.support.faults", "--fault-table", str(page))
    assert ("| k | i | h |" in page.read_text()) == written
    assert ("it: 2 |" in page.read_text()) == written


@pytest.mark.parametrize("fields", ['kind="k"', 'kind="k", inputs="", happens="h"', '"k"'])
def test_a_fault_without_its_words_is_an_error(pytester, fields):
    pytester.makepyfile(MARKED.format(bound=9).replace('kind="k", inputs="i", happens="h"', fields))
    assert pytester.runpytest("-p", "tests.support.faults").ret == pytest.ExitCode.USAGE_ERROR
