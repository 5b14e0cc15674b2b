"""The workflows against GitHub's schema, zizmor, and what docs/continuous-integration.md promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support import ROOT

FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
PAGE = ROOT / "docs" / "continuous-integration.md"
# The only words a workflow may say to a shell.
SHELL = re.compile(
    r'make \.venv/\.suite|(?:\.venv/bin/python|python3) -m tools\.ci\.(\w+)|\.venv/bin/asv machine --yes --machine "\$MACHINE"'
)
OUTSIDE = {"compare", "measure", "audit"}  # steps that run code from outside
MAY_WRITE = {
    ("comment", "comment"): {"pull-requests"},
    ("nightly", "accept"): {"contents"},
    ("nightly", "pages"): {"pages", "id-token"},
}


def load(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def jobs() -> list[Any]:
    return [
        pytest.param(path.stem, name, job, id=f"{path.stem}-{name}")
        for path in FILES
        for name, job in load(path)["jobs"].items()
    ]


def steps_of(job: dict[str, Any]) -> set[str]:
    """Names of the modules in tools/ci that a job runs."""
    found = (SHELL.fullmatch(step["run"]) for step in job["steps"] if "run" in step)
    return {each[1] for each in found if each and each[1]}


@pytest.fixture(scope="module")
def callers(tmp_path_factory) -> list[Path]:
    """The three files that the page tells a fork to write."""
    folder = tmp_path_factory.mktemp("fork") / ".github" / "workflows"
    folder.mkdir(parents=True)
    paths = []
    for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        path = folder / f"{re.match('name: (.*)', block)[1]}.yml"
        path.write_text(block)
        paths.append(path)
    return paths


def tool(name: str, *words: str) -> None:
    program = Path(sys.executable).with_name(name)
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_are_workflows_by_githubs_schema(callers):
    assert [path.stem for path in FILES] == ["comment", "compare", "gpu", "nightly"]
    files = [str(path) for path in (*FILES, *callers)]
    tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)


def test_zizmor_finds_nothing(callers):
    strict = ("zizmor", "--offline", "--no-progress", "--no-config", "--persona")
    tool(*strict, "pedantic", *map(str, FILES))
    tool(*strict, "regular", *map(str, callers))


def test_the_checks_can_fail(tmp_path):
    bad = tmp_path / ".github" / "workflows" / "bad.yml"
    bad.parent.mkdir(parents=True)
    text = (FOLDER / "comment.yml").read_text()
    bad.write_text(
        text.replace("python3 -m", "echo ${{ github.event.workflow_run.head_branch }}; python3 -m")
    )
    with pytest.raises(AssertionError, match="template-injection"):
        tool("zizmor", "--offline", "--no-progress", "--no-config", str(bad))
    bad.write_text(text.replace("runs-on", "run-on"))
    with pytest.raises(AssertionError, match="run-on"):
        tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(bad))


def test_a_caller_is_ten_lines_and_calls_what_is_there(callers):
    assert [path.stem for path in callers] == ["fa4-asv", "fa4-asv-comment", "fa4-asv-gpu"]
    assert len(callers[0].read_text().splitlines()) <= 10
    names = {path.stem for path in callers}
    for path in callers:
        (job,) = load(path)["jobs"].values()
        called = load(FOLDER / Path(job["uses"].partition("@")[0]).name)
        inputs = (called["on"]["workflow_call"] or {}).get("inputs", {})
        assert set(job.get("with", {})) <= set(inputs)
        assert {name for name, each in inputs.items() if each.get("required")} <= set(job.get("with", {}))
        # A called job gets no more than its caller grants.
        needed = {
            name: kind for each in called["jobs"].values() for name, kind in each["permissions"].items()
        }
        assert job["permissions"] == needed
    assert set(load(callers[1])["on"]["workflow_run"]["workflows"]) == names - {"fa4-asv-comment"}


def test_actions_are_pinned_to_one_commit_each():
    pins: dict[str, set[str]] = {}
    for path in FILES:
        for line in path.read_text().splitlines():
            if "uses:" in line:
                found = re.fullmatch(
                    r"\s+uses: ([\w-]+/[\w-]+)[\w/-]*@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line
                )
                assert found, f"{path.name}: {line}"
                pins.setdefault(found[1], set()).add(f"{found[2]} {found[3]}")
    assert all(len(versions) == 1 for versions in pins.values()), pins
    assert all(name.startswith("actions/") for name in pins)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_workflow_grants_by_default_or_runs_twice_at_once(path):
    workflow = load(path)
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"].startswith("fa4-asv-")
    assert "pull_request_target" not in path.read_text()
    assert not re.search(r"\bsecrets\b", path.read_text())


@pytest.mark.parametrize(("workflow", "name", "job"), jobs())
def test_a_job_holds_no_more_than_it_needs(workflow, name, job):
    writes = {what for what, kind in job["permissions"].items() if kind == "write"}
    assert writes == MAY_WRITE.get((workflow, name), set())
    assert job["timeout-minutes"] <= 350
    text = str(job)
    if steps_of(job) & OUTSIDE:
        assert job["permissions"] == {"contents": "read"}
        assert "github.token" not in text
    for step in job["steps"]:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # What could be poisoned by code from outside is restored only where such code runs anyway.
        assert not step.get("uses", "").startswith("actions/cache") or steps_of(job) & OUTSIDE


@pytest.mark.parametrize(("workflow", "name", "job"), jobs())
def test_a_shell_hears_only_the_projects_own_steps_and_no_expression(workflow, name, job):
    for step in job["steps"]:
        if "run" not in step:
            continue
        found = SHELL.fullmatch(step["run"])
        assert found, step["run"]
        if found[1]:
            source = (ROOT / "tools" / "ci" / f"{found[1]}.py").read_text()
            required = set(re.findall(r'setting\("([A-Z_]+)", [^)"]+\)', source))
            assert required <= set(step.get("env", {})), f"{name}: {required - set(step.get('env', {}))}"


def test_the_audit_uses_nothing_that_the_measuring_job_left():
    job = load(FOLDER / "nightly.yml")["jobs"]["audit"]
    text = str(job)
    assert steps_of(job) == {"audit"} and job["needs"] == "accept"
    assert "actions/cache" not in text and "download-artifact" not in text


def test_the_label_and_a_person_stand_before_the_gpu():
    (job,) = load(FOLDER / "gpu.yml")["jobs"].values()
    assert "github.event.action == 'labeled'" in job["if"]
    assert "github.event.label.name == inputs.label" in job["if"]
    assert job["environment"] == "fa4-asv-gpu"
    assert "self-hosted" in job["runs-on"]
    # The labelled commit, not a branch that can move while somebody makes up his mind.
    assert "github.event.pull_request.head.sha" in str(job)
    assert "head.ref" not in str(job)


def test_the_comment_checks_out_the_suite_only():
    (job,) = load(FOLDER / "comment.yml")["jobs"].values()
    (checkout,) = [step for step in job["steps"] if "uses" in step]
    assert checkout["with"]["ref"] == "${{ job.workflow_sha }}"
    assert checkout["with"]["repository"] == "${{ job.workflow_repository }}"
