"""What a sweep refuses before it begins: one line each, exit code 2. nvidia-smi is a script of the tests."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fa4_asv.backfill.sweep import plan as planning
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import only_one
from fa4_asv.base.project import Project
from fa4_asv.cli import run
from fa4_asv.cli import sweep as module
from fa4_asv.history.registry import Registry
from fa4_asv.history.sync import sync
from fa4_asv.measure.runtime import card as cards_of
from fa4_asv.measure.runtime.card import Card, cards, strangers
from fa4_asv.record.schema import CaseRecord
from tests.support import ROOT
from tests.support.sweep_targets import CALLS, recorded, target

H100 = "0, NVIDIA H100 80GB HBM3, GPU-1, 81559, 4"
H200 = "0, NVIDIA H200, GPU-9, 143771, 4"
SWEEP = ["sweep", "-m", "box"]
Smi = Callable[..., None]


def only_git(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH on which nothing is but git: this machine may have a card."""
    folder.mkdir(exist_ok=True)
    (folder / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture
def smi(tmp_path, monkeypatch) -> Smi:
    """Puts an nvidia-smi on PATH that lists cards and processes, or runs other lines of shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    only_git(folder, monkeypatch)

    def lay(gpus: str = "", apps: str = "", script: str = "") -> None:
        answer = f"case $1 in --query-gpu*) printf '%s' '{gpus}';; *) printf '%s' '{apps}';; esac"
        path = folder / "nvidia-smi"
        path.write_text(f"#!{shutil.which('sh', path='/bin:/usr/bin')}\n{script or answer}\n")
        path.chmod(0o755)

    return lay


@pytest.fixture
def history(project, registry, monkeypatch) -> Project:
    """Three releases without the extra for CUDA 13; a base that nobody has to ask for torch."""
    sync(project, Registry())
    (project.root / "requirements").mkdir()
    shutil.copy(ROOT / "requirements" / "base.txt", project.root / "requirements")
    monkeypatch.setattr(module, "base_for_a_card", lambda *_: Path(sys.executable))
    return project


@pytest.fixture
def refused(history, capsys) -> Callable[..., str]:
    """Runs a command that must end with 2 and one line on stderr; that line."""

    def check(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            run([*SWEEP, *arguments])
        output = capsys.readouterr()
        assert ended.value.code == 2, output
        lines = output.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("fa4-asv: ") and not output.out, output
        assert not list(history.results.rglob("*.json")) or "holds figures" in lines[0]
        return lines[0].removeprefix("fa4-asv: ")

    return check


def test_a_machine_without_nvidia_smi(refused, tmp_path, monkeypatch):
    only_git(tmp_path / "empty", monkeypatch)
    assert refused().startswith("no card: nvidia-smi is not installed; `fa4-asv doctor` says")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'NVIDIA-SMI has failed'; exit 9", "no card: nvidia-smi says 'NVIDIA-SMI has failed'"),
        ("exit 9", "no card: nvidia-smi says ''"),
        ("exit 0", "no card: nvidia-smi lists none; a sweep times kernels on a Hopper or Blackwell card"),
        ("echo No devices were found", "nvidia-smi answered 'No devices were found', expected index,name"),
        (f"echo '{H100.replace('81559', '[N/A]')}'", "nvidia-smi answered '0, NVIDIA H100"),
        (r"printf '\377\376\n'; exit 3", "no card: nvidia-smi says "),
        ("echo " + "x" * 9000, "nvidia-smi answered 'xxx"),
    ],
)
def test_an_nvidia_smi_that_does_not_tell(refused, smi, script, message):
    smi(script=script)
    line = refused()
    assert line.startswith(message) and len(line) < 400


def test_an_nvidia_smi_that_hangs(refused, smi, monkeypatch):
    """As it does beside a card that fell off its bus."""
    monkeypatch.setattr(cards_of, "_TIMEOUT", 0.2)
    smi(script=f"exec {shutil.which('sleep', path='/bin:/usr/bin')} 60")
    assert refused().startswith("no card: nvidia-smi does not answer (")


def test_an_nvidia_smi_that_is_no_program(refused, smi, tmp_path):
    smi()
    (tmp_path / "bin" / "nvidia-smi").write_bytes(b"\x7fELFnothing")
    assert refused().startswith("no card: nvidia-smi does not answer (")


def test_another_process_on_the_card(refused, smi):
    smi(H100, "GPU-1, 42, python3\nGPU-1, 43, a, b\nGPU-2, 44, elsewhere\n")
    expected = "NVIDIA H100 80GB HBM3 (card 0) is used by python3 (pid 42), a, b (pid 43); end it, or choose"
    assert refused().startswith(expected)


def test_a_process_on_another_card_is_nobodys_business(smi):
    smi(H100, "GPU-2, 44, elsewhere\n")
    assert cards() == [Card(0, "NVIDIA H100 80GB HBM3", "GPU-1", 81559, 4)]
    assert strangers(cards()[0]) == []


def test_a_card_of_another_kind_than_the_record(refused, smi, history):
    (history.results / "box").mkdir(parents=True)
    notes = {"card": "c" * 12, "card name": "NVIDIA H100 80GB HBM3"}
    recorded(history, "x", {CALLS[0].key: CaseRecord("measured", samples={"seconds": [1e-3]}, notes=notes)})
    smi(H200)
    assert refused().startswith(
        "box holds figures of NVIDIA H100 80GB HBM3, and this card is NVIDIA H200; name another machine with -m"
    )


def test_a_card_of_another_kind_than_the_name(refused, smi):
    smi(H200)
    assert refused("-m", "h100-sxm").startswith("the name h100-sxm says H100, and this card is NVIDIA H200")


def test_more_cards_than_there_are(refused, smi):
    smi(H100)
    assert refused("--cards", "2") == "--cards 2: this machine has 1"


def test_a_release_without_the_flavour(refused, smi):
    smi(H100)
    message = "4.0.0b4 has no flavour cu13; leave out --flavour cu13, or this release"
    assert refused("4.0.0b4", "--flavour", "cu13") == message
    assert refused("4.0.0b4") == "no commit that was named has flavour cu13"


def test_no_room_on_the_card(refused, smi, monkeypatch):
    smi(H100.replace("81559, 4", "24564, 20000"))
    monkeypatch.setattr(planning, "lay", lambda *_: ([target("x")] * 30, []))
    message = (
        r"31 processes need about \d+ GiB of NVIDIA H100 80GB HBM3, which has 4 GiB free; name fewer releases"
    )
    assert re.match(message, refused())


def test_no_room_on_the_disk(refused, smi, monkeypatch):
    smi(H100)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=100 << 20))
    assert refused() == "100 MiB are free on the disk of checkout; a sweep needs 2048"


def test_an_unknown_release(refused):
    assert "4.0.0b99" in refused("4.0.0b99")


def test_the_machine_of_exact_figures(refused):
    assert refused("-m", "nogpu") == "a sweep measures times: name the machine, not 'nogpu'"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".", "..", "a\nb"])
def test_a_name_that_is_no_folder(refused, name):
    """It is one below results/ and one below .asv/."""
    assert "-m" in refused("-m", name)


def test_a_regular_expression_that_matches_nothing(refused):
    assert refused("-b", "nothing") == "no call of history matches 'nothing'"


@pytest.mark.parametrize("pattern", ["(", "*", "[a"])
def test_what_is_no_regular_expression(refused, pattern):
    assert repr(pattern) in refused("-b", pattern)


def test_the_cpus_set_beside_a_cards(refused):
    assert refused("--set", "cpu", "--set", "history").startswith("the set cpu is timed on a processor")


def test_another_one_is_running(refused, smi, history):
    smi(H100)
    (history.work / "backfill").mkdir(parents=True)
    with only_one(history.work / "backfill" / ".lock"):
        assert refused().startswith(
            "a backfill, comparison or sweep measures in this checkout; wait for it, or stop it"
        )


def test_no_history(project, capsys):
    with pytest.raises(SystemExit) as ended:
        run(SWEEP)
    assert ended.value.code == 2
    assert "no FA4 history here yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--rounds", "0"], ["--processes", "0"], ["--cores", "0"], ["--cards", "0"]]
)
def test_a_number_that_means_nothing(history, arguments):
    with pytest.raises(SystemExit) as ended:
        run([*SWEEP, *arguments])
    assert ended.value.code == 2


# Said without a card.


def test_a_dry_run_needs_no_card(history, capsys, tmp_path, monkeypatch):
    only_git(tmp_path / "empty", monkeypatch)
    run_dry = [*SWEEP, "--dry-run", "--json", "--rounds", "4", "--cores", "16"]
    with pytest.raises(SystemExit) as ended:
        run(run_dry)
    assert not ended.value.code
    output = json.loads(capsys.readouterr().out)
    assert (output["commits"], output["calls"], output["processes"], output["rounds"]) == (
        3,
        len(CALLS),
        2,
        4,
    )
    assert output["total"] == pytest.approx(sum(output["seconds"].values())) and output["total"] > 0
    assert not (history.work / "sweeps").exists()


def test_a_cards_digest_tells_cards_apart_and_names_none():
    first, second = Card(0, "NVIDIA H100", "GPU-1"), Card(0, "NVIDIA H100", "GPU-2")
    assert first.digest != second.digest and len(first.digest) == 12
    assert first.digest == Card(3, "another", "GPU-1", 1, 1).digest
    with pytest.raises(Fa4AsvError):
        cards("no-such-program")
