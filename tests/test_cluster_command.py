"""`backfill --ray` from outside, without a cluster: what it refuses, what it needs, what it tells."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from asv.util import UserError

from fa4_asv.backfill.cluster.node import Answer
from fa4_asv.cli import run
from tests.support import ROOT
from tests.support.backfills import KERNELS
from tests.support.played_pool import PlayedPool

pytest_plugins = ["tests.support.cluster_site"]
WORDS = ["backfill", "--flavour", "cu13", "-b", "^codegen.Kernels"]


def ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        run([*WORDS, *arguments])
    return stopped.value.code


class PlayedRay(PlayedPool):
    """In place of `RayPool`: nodes answer with what the template holds."""

    made: list[dict] = []
    works: set[str] = set()

    def __init__(self, site, address, cores, gpu="", **more):
        super().__init__(self.answered, "a", "b")
        self.site = site
        PlayedRay.made.append({"address": address, "cores": cores, "gpu": gpu, **more})

    def submit(self, ticket, order, avoid):
        told = json.loads(order)
        arguments = told["arguments"]
        PlayedRay.works.add(told["work"])
        super().submit(ticket, arguments[-1].encode(), avoid)

    def answered(self, commit, node):
        from tests.support.cluster_site import answer

        print("what an engine prints")
        return answer(self.site, self.site.commits.index(commit))


@pytest.fixture
def played(site, monkeypatch):
    """The engine is played; Ray is neither needed nor imported."""
    from types import SimpleNamespace

    module = SimpleNamespace(
        LOCAL="local", RayPool=lambda *arguments, **more: PlayedRay(site, *arguments, **more)
    )
    monkeypatch.setitem(sys.modules, "fa4_asv.backfill.cluster.ray_pool", module)
    PlayedRay.made.clear()
    PlayedRay.works.clear()
    return site


def test_the_command_is_the_same_on_a_cluster(played, capsys):
    assert ended("--ray", "local") == 0
    out, err = capsys.readouterr()
    assert [line.partition(" (")[0] for line in out.splitlines()] == [
        f"[1/3] 4.0.0b3 cu13: {KERNELS} measured on far",
        f"[2/3] 4.0.0b4 cu13: {KERNELS} measured on far",
        f"[3/3] 4.0.0b10 cu13: {KERNELS} measured on far",
    ]
    assert "what an engine prints" in err
    assert sorted(played.recorded()) == sorted(commit[:8] for commit in played.commits)
    assert ended("--ray", "local") == 0
    assert capsys.readouterr().out == "nothing is missing\n" and len(PlayedRay.made) == 1


def test_json_is_all_that_stdout_holds(played, capsys):
    assert ended("--ray", "head:6379", "--cores", "4", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"runs": 3, "failed": []} and "[3/3]" in err
    (made,) = PlayedRay.made
    package = made.pop("package")
    assert made == {"address": "head:6379", "cores": 4, "gpu": ""}
    assert not package.exists()  # it was sent
    assert PlayedRay.works == {"~/.cache/fa4_asv"}


def test_where_sources_are(played):
    ended("--ray", "auto", "--shared")
    assert PlayedRay.made[0]["folder"] == str(played.project.root) and "package" not in PlayedRay.made[0]
    assert PlayedRay.works == {""}


def test_what_fails_everywhere_is_the_exit_code(played, capsys, monkeypatch):
    bad = Answer(fault="task", why="asv recorded nothing (exit code 1)", host="far", log="last words\n")
    answered = PlayedRay.answered
    hopeless = played.commits[1]
    monkeypatch.setattr(
        PlayedRay,
        "answered",
        lambda self, task, node: bad if task == hopeless else answered(self, task, node),
    )
    assert ended("--ray", "local") == 1
    out, err = capsys.readouterr()
    assert "4.0.0b4 cu13: failed" in out and len(played.recorded()) == 2
    assert (
        "attempt 2 of 2: 4.0.0b4 cu13: asv recorded nothing (exit code 1); log: .asv/backfill/logs/4.0.0b4-cu13.log"
        in err
    )
    assert "last words" in (played.project.work / "backfill" / "logs" / "4.0.0b4-cu13.log").read_text()


def test_a_clock_needs_a_card_and_a_card_a_name(played, capsys):
    assert ended("--ray", "local", "--machine", "my-box", "-b", "^compile") == 2
    assert "machine 'my-box' is for times" in capsys.readouterr().err
    assert ended("--ray", "local", "--gpu", "H100") == 2
    assert "--gpu without --machine" in capsys.readouterr().err
    assert PlayedRay.made == []


def test_without_ray_the_rest_works_and_ray_is_asked_for(site):
    """In a process where Ray cannot be imported, as where the extra is not installed."""
    code = "import sys; sys.modules['ray'] = None; from fa4_asv.cli import run; run(sys.argv[1:])"

    def run_without_ray(*arguments):
        return subprocess.run(
            [sys.executable, "-c", code, *WORDS, *arguments],
            cwd=site.project.root,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )

    plan = run_without_ray("--dry-run")
    assert plan.returncode == 0 and "3 runs are missing over 3 commits" in plan.stdout
    refused = run_without_ray("--ray", "local")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "--ray needs Ray: pip install 'fa4_asv[cluster]'" in refused.stderr


def test_a_nodes_asv_takes_the_machine_it_was_told(tmp_path, monkeypatch):
    """Its user has no ~/.asv-machine.json, and nobody to ask."""
    from asv.machine import Machine

    from fa4_asv.asv_plugin import commands, selection

    def load(_conf, args, _machine_file=None):
        return Machine.load(interactive=True, machine_name=args.machine, _path=_machine_file)

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FA4_ASV_MACHINE_RECORD", '{"machine": "lab-h100", "ram": "any"}')
    try:
        made = commands.on_machine(load, None, SimpleNamespace(machine="lab-h100", bench=None))
        assert vars(made) == {"machine": "lab-h100", "ram": "any"} and selection.machine() == "lab-h100"
        assert commands.on_machine(load, None, SimpleNamespace(machine=None, bench=None)).machine == "nogpu"
        with pytest.raises(UserError, match="Run asv at the console"):
            commands.on_machine(load, None, SimpleNamespace(machine="other", bench=None))
    finally:
        selection._machine.clear()
    assert list(tmp_path.iterdir()) == []
