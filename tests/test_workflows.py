"""The workflows against GitHub's schema, zizmor, and what docs/continuous-integration.md promises."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
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
    r'make (?:\.venv/\.suite|nightly)|(?:\.venv/bin/python|python3) -m tools\.ci\.(\w+)|\.venv/bin/asv machine --yes --machine "\$MACHINE"'
)
OUTSIDE = {"compare", "measure", "audit"}  # steps that run code from outside
MAY_WRITE = {
    ("comment", "comment"): {"pull-requests"},
    ("gpu", "ask"): {"pull-requests"},
    ("gpu", "comment"): {"pull-requests"},
    ("nightly", "accept"): {"contents"},
    ("nightly", "pages"): {"pages", "id-token"},
    ("nightly", "alert"): {"issues"},
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
    match = (SHELL.fullmatch(step["run"]) for step in job["steps"] if "run" in step)
    return {each[1] for each in match if each and each[1]}


@pytest.fixture(scope="module")
def callers(tmp_path_factory) -> list[Path]:
    """The four files that the page tells a fork to write."""
    folder = tmp_path_factory.mktemp("fork") / ".github" / "workflows"
    folder.mkdir(parents=True)
    paths = []
    for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        path = folder / f"{re.match('name: (.*)', block)[1]}.yml"
        path.write_text(block)
        paths.append(path)
    return paths


def tool(name: str, *arguments: str) -> None:
    program = Path(sys.executable).with_name(name)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)
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
    assert [path.stem for path in callers] == [
        "fa4-asv",
        "fa4-asv-comment",
        "fa4-asv-gpu-label",
        "fa4-asv-gpu",
    ]
    assert len(callers[0].read_text().splitlines()) <= 10
    for path in callers:
        (job,) = load(path)["jobs"].values()
        if path.stem == "fa4-asv-gpu-label":
            assert "uses" not in job and [step["run"] for step in job["steps"]] == ["true"]
            continue
        called = load(FOLDER / Path(job["uses"].partition("@")[0]).name)
        inputs = (called["on"]["workflow_call"] or {}).get("inputs", {})
        assert set(job.get("with", {})) <= set(inputs)
        assert {name for name, each in inputs.items() if each.get("required")} <= set(job.get("with", {}))
        # A called job gets no more than its caller grants.
        assert job["permissions"] == granted(each["permissions"] for each in called["jobs"].values())
    started = {path.stem: load(path)["on"].get("workflow_run", {}).get("workflows") for path in callers}
    assert started["fa4-asv-comment"] == ["fa4-asv"]
    assert started["fa4-asv-gpu"] == ["fa4-asv-gpu-label"]


def granted(permissions: Iterable[dict[str, str]]) -> dict[str, str]:
    """The most that any of them asks for."""
    most: dict[str, str] = {}
    for each in permissions:
        most |= {name: kind for name, kind in each.items() if most.get(name) != "write"}
    return most


def test_actions_are_pinned_to_one_commit_each():
    pins: dict[str, set[str]] = {}
    for path in FILES:
        for line in path.read_text().splitlines():
            if "uses:" in line:
                match = re.fullmatch(
                    r"\s+uses: ([\w-]+/[\w-]+)[\w/-]*@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line
                )
                assert match, f"{path.name}: {line}"
                pins.setdefault(match[1], set()).add(f"{match[2]} {match[3]}")
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
    if steps_of(job) & OUTSIDE or "make nightly" in text:
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
        match = SHELL.fullmatch(step["run"])
        assert match, step["run"]
        if match[1]:
            source = (ROOT / "tools" / "ci" / f"{match[1]}.py").read_text()
            required = set(re.findall(r'setting\("([A-Z_]+)", [^)"]+\)', source))
            assert required <= set(step.get("env", {})), f"{name}: {required - set(step.get('env', {}))}"


def test_the_audit_uses_nothing_that_the_measuring_job_left():
    job = load(FOLDER / "nightly.yml")["jobs"]["audit"]
    text = str(job)
    assert steps_of(job) == {"audit"} and job["needs"] == "accept"
    assert "actions/cache" not in text and "download-artifact" not in text


def jobs_before_a_person(workflow: dict[str, Any]) -> set[str]:
    """Jobs on a machine that is not GitHub's which no approval stands before."""
    return {
        name
        for name, job in workflow["jobs"].items()
        if not str(job.get("runs-on", "")).startswith("ubuntu-") and "environment" not in job
    }


def test_a_label_a_person_and_a_runner_group_stand_before_the_gpu():
    workflow = load(FOLDER / "gpu.yml")
    assert set(workflow["jobs"]) == {"ask", "gpu", "comment"}
    ask, job = workflow["jobs"]["ask"], workflow["jobs"]["gpu"]
    assert jobs_before_a_person(workflow) == set()
    assert job["needs"] == "ask" and "needs.ask.outputs.number != ''" in job["if"]
    assert job["environment"] == "fa4-asv-gpu"
    assert job["runs-on"] == {"group": "fa4-asv-gpu", "labels": ["linux", "fa4-asv-gpu"]}
    assert "needs.ask.outputs.head" in job["name"], "the person who approves sees the commit"
    # From GitHub's answer to `ask`, never from the run: a pull request can start a run as it likes.
    assert "github.event" not in str(job)
    assert steps_of(ask) == {"labelled"} and "fork" not in str(ask["steps"][0])


def test_a_pull_request_starts_no_job_on_a_machine_of_yours(callers):
    """What `pull_request` starts is the pull request's own file; the GPU is reached through the default branch's."""
    for path in callers:
        on = load(path)["on"]
        assert (
            not {"pull_request", "pull_request_target", "push"} & set(on) or "gpu.yml" not in path.read_text()
        )
    workflow = load(FOLDER / "gpu.yml")
    assert set(workflow["on"]) == {"workflow_call"}
    assert "github.event_name == 'workflow_run'" in workflow["jobs"]["ask"]["if"]


def test_the_page_says_the_settings_first_and_by_the_names_that_the_workflow_has():
    text = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"(?m)^## (.*)$", text)
    assert headings[0] == "Settings that the GPU workflow needs"
    settings = text[text.index(headings[0]) : text.index(headings[1])]
    job = load(FOLDER / "gpu.yml")["jobs"]["gpu"]
    inputs = load(FOLDER / "gpu.yml")["on"]["workflow_call"]["inputs"]
    assert f"runner group** `{job['runs-on']['group']}`" in settings
    assert f"environment** `{job['environment']}`" in settings
    assert f"The label is `{inputs['label']['default']}`" in settings
    assert "/.github/workflows/gpu.yml@" in settings and "selected workflows" in settings


@pytest.mark.parametrize(("workflow", "name"), [("comment", "comment"), ("gpu", "comment"), ("gpu", "ask")])
def test_a_job_with_a_token_that_writes_checks_out_the_suite_only(workflow, name):
    job = load(FOLDER / f"{workflow}.yml")["jobs"][name]
    (checkout,) = [step for step in job["steps"] if "uses" in step]
    assert checkout["with"]["ref"] == "${{ job.workflow_sha }}"
    assert checkout["with"]["repository"] == "${{ job.workflow_repository }}"
