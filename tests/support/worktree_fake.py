"""A worker that computes nothing: what it answers stands in comments of the FA4 that it was started for.

In interface.py: "# takes 1.05" is how many milliseconds a call takes (1.0 without), "# wrong" is what the guard says,
"# hangs" makes a timed call wait for ever. Each process has luck of its own, which the control shares.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fa4_asv.backfill.sweep import engine, worktree
from fa4_asv.base.project import Project
from fa4_asv.cli import worktree as command
from fa4_asv.history.repository import CUTE
from tests.support.compare_checkout import PYPROJECT, add_commit

WORKER = """
import json, os, random, re, sys, time
folder = os.environ["PYTHONPATH"].split(os.pathsep)[0]
text = open(os.path.join(folder, "flash_attn", "cute", "interface.py")).read()
told = dict(re.findall(r"# (takes|wrong|hangs)(?: (.*))?", text))
chance = random.Random(os.getpid())
luck = 1 + chance.gauss(0, 0.01)
nothing = {"samples": {}, "control": None, "errors": {}, "words": {}}
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    answer = nothing
    if job["what"] == "first":
        answer = nothing | {"samples": {"first_seconds": [1.0]}}
        if "wrong" in told:
            answer = {"error": {"kind": "guard", "words": told["wrong"], "refused": False, "guard": True}}
    if job["what"] == "turn":
        if "hangs" in told:
            time.sleep(600)
        each = 1e-3 * float(told.get("takes", 1.0)) * luck
        seconds = [each * (1 + chance.gauss(0, 0.001)) for _ in range(3)]
        answer = nothing | {"samples": {"seconds": seconds}, "control": 5e-4 * luck, "words": {"power": "none"}}
    print(json.dumps(answer), flush=True)
"""
FORWARD = r"^forward.*'b2_s256_h4_d64_causal'"


def lay_tree(folder: Path, told: str = "", pin: str = ">=1") -> Path:
    """A checkout of a FA4 that answers as `told`; `pin` is what its pyproject.toml demands of the compiler."""
    cute = folder / CUTE
    cute.mkdir(parents=True)
    for name, text in files_of(told, pin).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def files_of(told: str, pin: str = ">=1") -> dict[str, str]:
    """The files of a FA4 by their path."""
    return {
        f"{CUTE}/__init__.py": "",
        f"{CUTE}/interface.py": f"RUNS_ON_CPU = True\n# {told}\n",
        f"{CUTE}/pyproject.toml": PYPROJECT.format(pin=pin),
    }


def lay_base(project: Project, told: str = "") -> str:
    """The branch main with one commit, under a toolchain that needs no registry."""
    add_commit(project, "releases", "first", files_of(told))
    lock = project.work / "toolchain-locks" / "day" / "cu13"
    lock.mkdir(parents=True, exist_ok=True)
    commit = add_commit(project, "main", "base", files_of(told))
    (lock / f"{commit}.txt").write_text("nvidia-cutlass-dsl==1.0\n")
    return commit


def use_fakes(patch: pytest.MonkeyPatch, project: Project) -> None:
    """This interpreter as every toolchain and base, and the worker above."""
    path = project.root / "worker.py"
    path.write_text(WORKER, encoding="utf-8")
    patch.setattr(engine, "_WORKER", (str(path),))
    patch.setattr(worktree, "install", lambda *_: Path(sys.executable))
    patch.setattr(command, "base_for_a_card", lambda *_: Path(sys.executable))


if __name__ == "__main__":  # a run of its own, to be killed: the arguments are those of fa4-asv
    from fa4_asv.cli import run

    use_fakes(pytest.MonkeyPatch(), Project.find())
    run(sys.argv[1:])
