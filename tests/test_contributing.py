"""The examples of CONTRIBUTING.md, applied to a copy of the suite: each is where it says, passes ruff, and does what it is for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?:python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"# (?P<file>\S+), (?P<where>a new file|.*\b(?:before|in place of) `(?P<line>.+)`)")
COPIED = ("fa4_asv", "benchmarks", "docs")


@dataclass(frozen=True)
class Example:
    """A block of code; `line` is the beginning of a line of `file`, "" of a new file."""

    file: str
    line: str
    replaces: bool
    code: str

    def apply(self, root: Path) -> None:
        """Write it into the checkout `root`, in place of its line or above it; two blank lines follow a class.

        Where it stands already it stays: somebody followed the example to the letter.
        """
        path = root / self.file
        if not self.line:
            path.write_text(self.code, encoding="utf-8")
            return
        text = path.read_text(encoding="utf-8")
        if self.code in text:
            return
        lines = text.splitlines(keepends=True)
        (at,) = (at for at, each in enumerate(lines) if each.strip().startswith(self.line))
        code = self.code + ("\n\n" if self.code.startswith(("class ", "def ")) else "")
        lines[at : at + self.replaces] = [code]
        path.write_text("".join(lines), encoding="utf-8")


def examples(title: str) -> list[Example]:
    """Those of a section. Every block of code has a place."""
    section = TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    result = []
    for block in BLOCK.findall(section):
        place, _, code = block.partition("\n")
        match = PLACE.fullmatch(place)
        assert match, place
        result.append(Example(match["file"], match["line"] or "", "in place of" in place, code))
    return result


def applied(title: str, root: Path) -> list[Path]:
    """A copy of the suite in `root` after the examples of a section; the Python files that they changed."""
    for name in COPIED:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    told = examples(title)
    for example in told:
        example.apply(root)
    return sorted({root / example.file for example in told if example.file.endswith(".py")})


# After any example: the classes of benchmarks have the cases of the catalog, and every metric has a rule.
HOLDS = """
import importlib
from pathlib import Path
from fa4_asv.backfill.sweep.plan import calls_of_sets
from fa4_asv.catalog.benchmarks import GROUPS, SWEEP_SETS
from fa4_asv.catalog.shapes import SHAPES, for_cpu
from fa4_asv.compare.policy import RULES

def of_class(group):
    file, name, _ = group.stem.split(".")
    return getattr(getattr(importlib.import_module(f"benchmarks.{file}"), name), "params", [])

assert Path(importlib.import_module("fa4_asv").__file__).is_relative_to(Path.cwd())
for group in GROUPS.values():
    of_catalog = [] if group.only_case else zip(*group.cases)
    assert list(map(set, of_class(group))) == list(map(set, of_catalog)), group.name
assert RULES.keys() == {metric for group in GROUPS.values() for metric in group.metrics}
assert all(call.case[1] in SHAPES for name in SWEEP_SETS for call in calls_of_sets([name], ()))
"""
KERNEL = """
for name in ("codegen", "consumer", "ultra"):
    assert [case for case in GROUPS[name].cases if case[1] == "fwd_d64_causal_gqa4"], name
assert {case[0] for group in GROUPS.values() for case in group.selected(["'fwd_d64_causal_gqa4'"])} == {
    "sm_90", "sm_100", "sm_103", "sm_120"
}
"""
SHAPE = """
assert ("math", "b1_s512_h2_d96_causal") in GROUPS["forward-cpu"].cases
assert GROUPS["forward-cpu"].selected(["forward.Cpu.*math.*b1_s512_h2_d96_causal"]) == [("math", "b1_s512_h2_d96_causal")]
"""
BACKEND = """
import torch
from fa4_asv.measure.runtime import reference, tolerances
from fa4_asv.measure.runtime.backends import backend
from fa4_asv.measure.runtime.correctness import kernels_of
from fa4_asv.measure.runtime.inputs import make

eager, able = backend("eager"), for_cpu()[0]
assert [eager.why_not(torch, shape, "cpu", False) == "" for shape in for_cpu()] == [shape == able for shape in for_cpu()]
inputs = make(torch, able, "cpu")
calls = eager.prepare(torch, inputs)
exact, low = (reference.full(torch, inputs, low) for low in (False, True))
tolerances.compare(torch, calls.forward(), {"out": exact["out"]}, {"out": low["out"]}, "eager")
assert any(eager.kernel in name for name in kernels_of(torch, calls.raw_forward, "cpu"))
assert ("eager", able.name) in GROUPS["forward-cpu"].cases
"""
BENCHMARK = """
import benchmarks.sources
from types import SimpleNamespace

Path("flash_attn/cute/nested").mkdir(parents=True)
Path("flash_attn/cute/nested/a.py").write_text("x = 1")
(record,) = benchmarks.sources.measure(SimpleNamespace(source="."), GROUPS["sources"].cases).values()
assert record.figures == {"python_bytes": 5}
assert GROUPS["sources"].only_case == "cute"
assert f"| python_bytes | not judged | {RULES['python_bytes'].why} |" in Path("docs/verdicts.md").read_text()
"""
SWEEP_SET = """
assert [call.group for call in calls_of_sets(["long"], ())] == 2 * ["forward-history-long", "backward-history-long"]
"""


@pytest.mark.parametrize(
    ("title", "check"),
    {
        "Add a kernel case": KERNEL,
        "Add a shape": SHAPE,
        "Add a backend": BACKEND,
        "Add a benchmark": BENCHMARK,
        "Add a sweep set": SWEEP_SET,
    }.items(),
)
def test_an_example_does_what_it_is_for(title: str, check: str, tmp_path: Path) -> None:
    if check is BACKEND:
        pytest.importorskip("torch")
    changed = applied(title, tmp_path)
    ruff = [sys.executable, "-m", "ruff"]
    for command in (
        [*ruff, "check", "--no-cache", *changed],
        [*ruff, "format", "--no-cache", "--check", *changed],
        [sys.executable, "-c", HOLDS + check],
    ):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_section_with_code_is_tried() -> None:
    titles = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    assert [title for title in titles if examples(title)] == [
        title for title in titles if title.startswith("Add a ")
    ]
