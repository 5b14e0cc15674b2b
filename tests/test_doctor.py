"""`fa4-asv doctor` on machines that are not this one: probes are scripts on PATH, or replaced."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner

from fa4_asv.base.project import Project
from fa4_asv.cli import doctor

H100 = "NVIDIA H100 80GB HBM3, 9.0, 570.86.15"
B200 = "NVIDIA B200, 10.0, 580.65.06"
Usage = namedtuple("Usage", "total used free")


class Machine:
    """A healthy machine without GPU and torch; each method makes it another one."""

    def __init__(self, bin_: Path, site: Path, project: Project) -> None:
        self.bin, self.site, self.project = bin_, site, project

    def tool(self, name: str, script: str) -> str:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    def nvidia_smi(self, *lines: str) -> None:
        self.tool("nvidia-smi", f"cat <<'END'\n{chr(10).join(lines)}\nEND")

    def distribution(self, name: str, version: str, site: Path | None = None) -> None:
        folder = (site or self.site) / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def base(self, pins: str = "torch==2.13.0\n") -> Path:
        """A base environment, for the same pins as requirements/base.txt by default."""
        requirements = self.project.root / "requirements"
        requirements.mkdir(exist_ok=True)
        (requirements / "base.txt").write_text("torch==2.13.0\n")
        folder = self.project.work / "base" / f"python{doctor.python_tag()}"
        site = folder / "lib" / f"python{doctor.python_tag()}" / "site-packages"
        site.mkdir(parents=True)
        (folder / "fa4_asv-pins.txt").write_text(pins)
        return site

    def run(self, *arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(doctor.doctor, list(arguments))
        assert done.exit_code == code, done.output
        return done.output

    def json(self, *arguments: str, code: int = 0) -> dict:
        answer = json.loads(self.run("--json", *arguments, code=code))
        return answer | {"by_name": {check["name"]: check for check in answer["checks"]}}

    def lines(self, code: int = 0, lane: str = "nogpu") -> dict[str, str]:
        """The first lines of the text: lane and verdict."""
        first = self.run("--lane", lane, code=code).splitlines()[:3]
        return {name: verdict for name, _, verdict in (line.partition(": ") for line in first)}


@pytest.fixture
def machine(tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path / "bin", tmp_path / "site", project)
    made.bin.mkdir()
    made.site.mkdir()
    made.tool("git", "echo git version 2.39.5")
    tools = {
        name: made.tool(name, "echo 'Copyright 2005-2026'; echo 'Cuda, release 13.3, V13.3.73'")
        for name in ("cuobjdump", "nvdisasm")
    }
    for module in ("torch", "flash_attn"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(doctor, "find_tool", tools.get)
    monkeypatch.setattr("uv.find_uv_bin", lambda: made.tool("uv", "echo uv 0.9.1"))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(doctor, "has_history", lambda project: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100e9, 40e9, 60e9))
    # `cat` and `sleep` of the scripts; no nvidia-smi and no git of the machine that runs the tests.
    for name in ("cat", "sleep"):
        (made.bin / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    # What the interpreter of the tests happens to hold is not asked.
    monkeypatch.setattr(sys, "path", [str(made.site)])
    return made


def test_a_machine_without_gpu_is_ready_for_nogpu(machine: Machine):
    answer = machine.lines()
    no = "no - no NVIDIA GPU (nvidia-smi not found); no torch in an interpreter"
    assert answer == {"nogpu": "ready", "hopper": no, "blackwell": no}
    assert "\x1b[" not in machine.run()


def test_colour_is_for_a_terminal(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's word for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = machine.run("--all")
    assert "\x1b[32mok" in text
    assert text.splitlines()[0] == "nogpu: ready"


def test_without_all_only_what_the_lane_lacks_is_shown(machine: Machine):
    few, every = machine.run(), machine.run("--all")
    assert "GPU" in every and "git" in every and "not needed" not in every
    assert "base environment" in few and "2.39.5" not in few and "missing" not in few
    assert few.splitlines()[-1] == "10 of 15 checks are ok; --all shows them all"
    assert "missing" in machine.run("--lane", "hopper", code=1)


def test_a_gpu_lane_lacks_only_the_gpu(machine: Machine):
    machine.distribution("torch", "2.13.0")
    assert machine.lines(code=1, lane="hopper")["hopper"] == "no - no NVIDIA GPU (nvidia-smi not found)"


def test_json_has_every_check_and_lane(machine: Machine):
    machine.nvidia_smi(H100)
    answer = json.loads(machine.run("--json", "--lane", "hopper", code=1))
    assert set(answer) == {"lane", "lanes", "checks", "gpus"}
    assert answer["lane"] == "hopper"
    assert answer["gpus"] == [
        {"name": "NVIDIA H100 80GB HBM3", "capability": "9.0", "driver": "570.86.15"},
    ]
    assert answer["lanes"]["nogpu"] == {"ready": True, "why_not": []}
    assert answer["lanes"]["hopper"] == {"ready": False, "why_not": ["no torch in an interpreter"]}
    assert all(set(check) == {"name", "found", "ok", "words"} for check in answer["checks"])
    assert all(check["ok"] or check["words"] for check in answer["checks"])
    versions = {check["name"]: check["found"] for check in answer["checks"] if check["ok"]}
    assert versions["git"] == "2.39.5"
    assert versions["uv"] == "0.9.1"
    assert versions["cuobjdump"] == versions["nvdisasm"] == "13.3.73"
    assert versions["GPU"] == "NVIDIA H100 80GB HBM3 (9.0, driver 570.86.15)"


@pytest.mark.parametrize(
    ("cards", "ready"),
    [([H100], {"hopper"}), ([B200], {"blackwell"}), ([B200, H100, H100], {"hopper", "blackwell"})],
)
def test_the_card_decides_the_lane(machine: Machine, cards: list[str], ready: set[str]):
    machine.nvidia_smi(*cards)
    machine.distribution("torch", "2.13.0+cu130")
    for lane in ("hopper", "blackwell"):
        verdict = machine.lines(lane=lane, code=0 if lane in ready else 1)[lane]
        assert (verdict == "ready") == (lane in ready)


def test_the_wrong_card_is_named(machine: Machine):
    machine.nvidia_smi("NVIDIA GeForce, RTX 5090, 12.0, 580.1", "NVIDIA B100, 100.0, 580.1")
    machine.distribution("torch", "2.13.0")
    verdict = machine.lines(code=1, lane="blackwell")["blackwell"]
    assert (
        verdict == "no - no GPU of capability 10.x (NVIDIA GeForce, RTX 5090 is 12.0, NVIDIA B100 is 100.0)"
    )


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (r"printf '[bold]\033[31mgarbage, more, \377\n'", "says '[bold][31mgarbage, more, \ufffd'"),
        ("echo 'NVIDIA X, [N/A], 570.1'", "says 'NVIDIA X, [N/A], 570.1'"),
        (":", "nvidia-smi lists none"),
        ("echo 'no driver here'; exit 9", "nvidia-smi failed: no driver here"),
        ("exit 9", "nvidia-smi failed: exit code 9"),
    ],
)
def test_nvidia_smi_says_something_else(machine: Machine, script: str, reason: str):
    machine.tool("nvidia-smi", script)
    assert reason in machine.lines()["hopper"]
    machine.run("--lane", "hopper", code=1)


def test_a_hanging_nvidia_smi_is_left(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    machine.tool("nvidia-smi", "sleep 30; echo late")
    monkeypatch.setattr(doctor, "TIMEOUT", 0.3)
    start = time.monotonic()
    assert "(nvidia-smi did not answer in 0.3 s)" in machine.lines()["hopper"]
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("name", ["git", "uv", "cuobjdump", "nvdisasm"])
def test_no_lane_without_its_tools(machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str):
    def missing() -> str:
        raise FileNotFoundError

    if name == "uv":
        monkeypatch.setattr("uv.find_uv_bin", missing)
    elif name != "git":
        git = str(machine.bin / "git")
        monkeypatch.setattr(doctor, "find_tool", lambda asked: None if asked == name else git)
    (machine.bin / name).unlink(missing_ok=True)
    verdicts = machine.lines(code=1)
    assert verdicts["nogpu"] == f"no - {name} not found"
    assert verdicts["hopper"].startswith(f"no - {name} not found; ")


def test_a_tool_that_does_not_start(machine: Machine):
    (machine.bin / "git").chmod(0o644)
    assert machine.lines(code=1)["nogpu"] == "no - git does not start: Permission denied"


def test_a_package_that_shadows_fa4_is_found_not_imported(machine: Machine):
    package = machine.site / "flash_attn" / "__init__.py"
    package.parent.mkdir()
    package.write_text("raise SystemExit('imported')")
    what = f"no - flash_attn at {package} hides FA4 in this interpreter"
    assert machine.lines(code=1)["nogpu"] == what
    assert "flash_attn" not in sys.modules


def test_flash_attn_2_in_the_base_environment(machine: Machine):
    machine.distribution("flash-attn", "2.8.3", machine.base())
    check = machine.json(code=1)["by_name"]["no flash-attn 2"]
    assert check["found"] == "flash-attn 2.8.3 hides FA4 in the base environment"
    assert "pip uninstall flash-attn" in check["words"]


def test_fa4_itself_is_no_shadow(machine: Machine):
    (machine.site / "flash_attn" / "cute").mkdir(parents=True)
    machine.distribution("flash-attn-4", "4.0.0b36")
    (machine.site / "flash_attn-2.8.3.dist-info").mkdir()  # left by an interrupted uninstall
    answer = machine.json()
    assert answer["by_name"]["no flash-attn 2"]["ok"]
    assert answer["by_name"]["flash-attn-4"]["found"] == "4.0.0b36"
    assert not answer["by_name"]["nvidia-cutlass-dsl"]["ok"]


@pytest.mark.parametrize(("free", "ok"), [(5e9, True), (4.999e9, False), (0, False)])
def test_disk(machine: Machine, monkeypatch: pytest.MonkeyPatch, free: float, ok: bool):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100e9, 100e9 - free, free))
    verdict = machine.lines(code=0 if ok else 1)["nogpu"]
    assert verdict == ("ready" if ok else f"no - {'4.99' if free else '0.00'} GB free, 5 GB needed")


@pytest.mark.parametrize(
    ("probe", "value", "reason"),
    [
        ("platform.system", "Darwin", "Darwin is not Linux"),
        ("platform.python_version", "3.14.0rc1", "Python 3.14.0rc1 is not Python 3.10 to 3.13"),
        ("platform.python_version", "3.1.4", "Python 3.1.4 is not Python 3.10 to 3.13"),
    ],
)
def test_system(machine: Machine, monkeypatch: pytest.MonkeyPatch, probe: str, value: str, reason: str):
    monkeypatch.setattr(probe, lambda: value)
    assert machine.lines(code=1)["nogpu"] == f"no - {reason}"


def test_base_environment_and_its_torch(machine: Machine):
    assert machine.json()["by_name"]["base environment"]["words"] == "the first `asv run` makes it"
    site = machine.base()
    assert machine.json()["by_name"]["base environment"]["found"] == "holds no torch"
    machine.distribution("torch", "2.13.0+cpu", site)
    by_name = machine.json()["by_name"]
    assert by_name["base environment"] == {
        "name": "base environment",
        "found": "torch 2.13.0+cpu",
        "ok": True,
        "words": "",
    }
    assert by_name["torch for a GPU"]["found"] == "torch 2.13.0+cpu (base environment) is a CPU build"
    machine.distribution("torch", "2.12.0")
    assert machine.json()["by_name"]["torch for a GPU"]["found"] == "2.12.0 (this interpreter)"
    assert "torch" not in sys.modules


def test_a_base_environment_of_other_pins(machine: Machine):
    machine.base("torch==2.12.0\n")
    assert machine.json()["by_name"]["base environment"]["found"] == "made from other pins"


def test_no_lane_without_a_history(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    assert machine.json()["by_name"]["history"]["found"] == "synced"
    monkeypatch.setattr(doctor, "has_history", lambda project: False)
    verdicts = machine.lines(code=1)
    assert verdicts["nogpu"] == "no - the history is not synced"
    assert verdicts["hopper"].startswith("no - the history is not synced; ")
    assert machine.json(code=1)["by_name"]["history"]["words"] == "run `fa4-asv history sync`"


def test_help_shows_examples():
    text = CliRunner().invoke(doctor.doctor, ["--help"]).output
    assert "fa4-asv doctor --lane hopper" in text
    assert "[default: nogpu]" in text
