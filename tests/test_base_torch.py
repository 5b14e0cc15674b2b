"""Which torch a base environment gets: the CPU build by itself, CUDA's only where a person asks for it."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
from asv import util

from fa4_asv.asv_plugin import base_environments, base_torch
from fa4_asv.asv_plugin.base_torch import build_asked, found_by_pip, lay_pins

PINS = "# once\ntorch==2.13.0\nnumpy==2.3.5; python_version >= '3.11'\ntriton==3.7.0\n"
PYTHON = Path("/base/bin/python")


class Steps:
    """Commands in place of their effect; those that hold `fails` end as uv does without a network."""

    def __init__(self, fails: str = "") -> None:
        self.commands: list[list[str]] = []
        self.rest = ""
        self._fails = fails

    def __call__(self, command: list[str]) -> None:
        self.commands.append(command)
        if "-r" in command:
            self.rest = Path(command[-1]).read_text()
        if self._fails and self._fails in command:
            raise util.UserError("cannot make the base environment with torch: cause: dns error")

    @property
    def of_torch(self) -> list[str]:
        (command,) = (each for each in self.commands if each[-1] == "torch==2.13.0")
        return command


@pytest.fixture
def pip_finds(monkeypatch):
    return lambda version: monkeypatch.setattr(base_torch, "found_by_pip", lambda *_: version)


def test_the_cpu_build_is_asked_for_unless_a_card_or_a_person_asks_otherwise(monkeypatch):
    monkeypatch.delenv(base_torch.VARIABLE, raising=False)
    assert (build_asked(card=False), build_asked(card=True)) == ("cpu", "pip")
    for word in ("cpu", "pip", "auto", "cu130", "rocm6.4", "xpu"):
        monkeypatch.setenv(base_torch.VARIABLE, word)
        assert build_asked(card=False) == build_asked(card=True) == word
    monkeypatch.setenv(base_torch.VARIABLE, "cuda")
    with pytest.raises(
        util.UserError, match="FA4_ASV_TORCH_BUILD='cuda': write cpu, pip, auto, or a backend"
    ):
        build_asked(card=False)


def test_a_cpu_build_that_pip_is_led_to_is_taken(pip_finds, capsys):
    pip_finds("2.13.0+cpu")
    steps = Steps()
    lay_pins(PYTHON, PINS, "cpu", steps)
    assert steps.of_torch[:4] == [str(PYTHON), "-m", "pip", "install"]
    assert "torch 2.13.0+cpu, as pip is configured here" in capsys.readouterr().err
    assert steps.rest == PINS.replace("torch==2.13.0\n", ""), "torch is not asked for again"


@pytest.mark.parametrize("version", ["2.13.0", ""])
def test_else_uv_asks_for_the_cpu_build_by_name(pip_finds, capsys, version):
    pip_finds(version)
    steps = Steps()
    lay_pins(PYTHON, PINS, "cpu", steps)
    assert steps.of_torch[-3:] == ["--torch-backend", "cpu", "torch==2.13.0"]
    assert not any("-m" in command for command in steps.commands), "pip would take CUDA's"
    assert "torch 2.13.0, build cpu, from PyTorch's index" in capsys.readouterr().err


def test_where_no_cpu_build_is_to_be_had_nothing_is_installed_and_both_ways_are_named(pip_finds):
    pip_finds("2.13.0")
    steps = Steps(fails="--torch-backend")
    with pytest.raises(util.UserError) as refused:
        lay_pins(PYTHON, PINS, "cpu", steps)
    assert len(steps.commands) == 1
    text = str(refused.value)
    assert text.startswith("no cpu build of torch 2.13.0 from PyTorch's index (cause: dns error)")
    assert "pip finds 2.13.0, which may be CUDA's, several GB" in text
    assert "PIP_FIND_LINKS" in text and "FA4_ASV_TORCH_BUILD=pip" in text


def test_a_person_may_ask_for_what_pip_finds_or_for_another_backend(pip_finds, capsys):
    pip_finds("2.13.0")
    steps = Steps()
    lay_pins(PYTHON, PINS, "pip", steps)
    assert steps.of_torch[:4] == [str(PYTHON), "-m", "pip", "install"]
    assert "with CUDA these are several GB" in capsys.readouterr().err
    steps = Steps()
    lay_pins(PYTHON, PINS, "cu130", steps)
    assert steps.of_torch[-3:] == ["--torch-backend", "cu130", "torch==2.13.0"]


@pytest.mark.parametrize("version", ["2.13.0", "2.13.0+cpu"])
def test_what_pip_finds_is_asked_of_pip_as_it_is_configured(tmp_path, monkeypatch, version):
    """Real pip, led to one wheel."""
    name = f"torch-{version}"
    with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{name}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert found_by_pip(Path(sys.executable), "2.13.0") == version
    assert found_by_pip(Path(sys.executable), "9.9.9") == ""


@pytest.mark.parametrize(
    ("machine", "driver", "build"),
    [("nogpu", True, "cpu"), ("xeon-2c", False, "cpu"), ("h200-sxm", True, "pip")],
)
def test_only_a_run_that_drives_a_card_leaves_the_choice_to_pip(project, monkeypatch, machine, driver, build):
    monkeypatch.delenv(base_torch.VARIABLE, raising=False)
    pins = project.root / "requirements" / "base.txt"
    pins.parent.mkdir()
    pins.write_text(PINS)
    monkeypatch.setattr(base_environments.selection, "machine", lambda: machine)
    monkeypatch.setattr(base_environments.isolation, "has_card", lambda: driver)
    monkeypatch.setattr(base_environments, "run_step", lambda command, **_: Path(command[-1]).mkdir())
    builds = []
    monkeypatch.setattr(base_environments, "lay_pins", lambda *arguments: builds.append(arguments[2]))
    bases = base_environments.Bases(project, same=False)
    bases.make(60)
    assert builds == [build]
    assert bases.are_whole()
