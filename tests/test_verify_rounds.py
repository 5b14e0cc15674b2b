"""What a timed case says of its rounds contradicts its samples, or what the same sweep says elsewhere."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4_asv.integrity import rounds
from fa4_asv.integrity.consistency import checks
from fa4_asv.integrity.rounds import Peaks, Sweeps, wrong_rounds
from fa4_asv.integrity.verify import verify
from fa4_asv.record.modes import two_modes
from fa4_asv.record.schema import CaseRecord, Sidecar, Toolchain
from tests.support import ROOT
from tests.support.sweep_fake import CALL, FORWARD, LONG, swept, turns

CASE = "fa4/b16_s2048_h16_d128_causal"


def pooled(*sizes: int, seed: int = 0) -> dict[str, list[float]]:
    """A case of the older protocol: its rounds' samples one after another, and what each round says."""
    rng = random.Random(seed)
    blocks = [[round(1e-3 * (1 + rng.gauss(0, 0.002)), 9) for _ in range(size)] for size in sizes]
    return {
        "seconds": [value for block in blocks for value in block],
        "centre": [median(block) for block in blocks],
        "two modes": [float(bool(two_modes(block))) for block in blocks],
        "control": [2e-4 for _ in blocks],
    }


@pytest.mark.parametrize("sizes", [(20,), (20, 21, 33), (5, 5, 5, 5, 5), (24, 20, 20, 40, 20)])
@pytest.mark.parametrize("seed", range(5))
def test_rounds_that_were_pooled_are_found_again(sizes, seed):
    samples = pooled(*sizes, seed=seed)
    assert wrong_rounds(CaseRecord("measured", samples=samples), 2e-4) == ""
    for at in range(len(sizes)):
        for factor in (0.1, 0.9999, 1.01):
            centres = [*samples["centre"]]
            centres[at] *= factor
            wrong = wrong_rounds(CaseRecord("measured", samples={**samples, "centre": centres}), 2e-4)
            assert "which no run of its samples gives" in wrong, (at, factor)


@pytest.mark.fault(
    kind="rounds that contradict their samples",
    inputs="centres, modes, controls, samples and lengths of the older protocol",
    happens="`verify` names it, exit code 1",
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"two modes": [1.0, 0.0, 0.0]}, "which no run of its samples gives"),
        ({"two modes": [0.5, 0.0, 0.0]}, "two modes 0.5, expected 0 or 1"),
        ({"two modes": [0.0]}, "different numbers of rounds"),
        ({"control": [2e-4, 2e-4]}, "different numbers of rounds"),
        ({"control": [2e-4, -1.0, 2e-4]}, "control -1.0, expected more than 0"),
        ({"control": [2e-4, 5e-4, 2e-4]}, "control 0.0005, its others take 0.0002"),
        ({"seconds": [1e-3] * 60}, "which no run of its samples gives"),
    ],
)
def test_what_contradicts_pooled_samples(change, message):
    samples = pooled(20, 20, 20)
    assert message in wrong_rounds(CaseRecord("measured", samples={**samples, **change}), 2e-4)


def test_a_case_with_very_many_samples_ends_soon(monkeypatch):
    """All alike: each cut would do. Then a centre must at least be among the samples."""
    monkeypatch.setattr(rounds, "_STEPS", 1000)
    samples = {"seconds": [1e-3] * 5000, "centre": [1e-3] * 5, "two modes": [0.0] * 5}
    assert wrong_rounds(CaseRecord("measured", samples=samples)) == ""
    samples["centre"][3] = 2e-3
    assert "centre 0.002, its samples 0.001 to 0.001" in wrong_rounds(CaseRecord("measured", samples=samples))


@pytest.mark.fault(
    kind="rounds of a sweep that contradict themselves",
    inputs="order of rounds and processes, modes of three samples, kernels' seconds, a first call of no time, less than no memory",
    happens="`verify` names it, exit code 1",
)
@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("round", [0, 2, 1], "round 1 by process 0 after round 2"),
        ("round", [0, 1, 1], "round 1 by process 0 after round 1"),
        ("process", [0, 1, 0], "round 2 by process 0 after round 1 by process 1"),
        ("two modes", [0, 1, 0], "two modes in round 2, of 3 samples"),
        ("kernel main", [0.5], "kernels take 0.5 s, the whole call 1"),
        ("kernel main", [1.6], "kernels take 1.6 s"),
        ("first_seconds", [0.0], "first_seconds 0.0, expected more than 0"),
        ("peak_bytes", [-512], "peak_bytes -512, expected more than 0"),
    ],
)
def test_what_contradicts_the_rounds_of_a_sweep(name, values, message):
    record = swept(turns((0.0, 0.0, 0.0)))
    assert wrong_rounds(record) == ""
    assert message in wrong_rounds(CaseRecord("measured", samples={**record.samples, name: values}))


def test_the_fault_that_this_began_with(project):
    """A round's centre of 0.0014 s that became 0.0001 s, in a committed record of a card."""
    folder = project.results / "h200-sxm"
    folder.mkdir(parents=True)
    (path,) = (ROOT / "results" / "h200-sxm").glob("d14f663b*flavourcu13-toolchainday.sidecar")
    for name in ("machine.json", path.name, path.with_suffix(".json").name):
        shutil.copy(path.parent / name, folder / name)
    shutil.copy(ROOT / "results" / "benchmarks.json", project.results / "benchmarks.json")
    shutil.copytree(ROOT / "history", project.root / "history")
    assert verify(project) == []
    data = json.loads((folder / path.name).read_text())
    data["groups"]["backward"][CASE]["samples"]["centre"][1] = 0.0001
    (folder / path.name).write_text(json.dumps(data))
    (problem,) = verify(project)
    assert problem.what.startswith(f"{CASE}: the sidecar has centre 0.0001 of its round 2, which no run")


def sidecar(
    number: int, groups: dict[str, dict[str, CaseRecord]], machine: str = "card"
) -> tuple[Path, Sidecar]:
    """Of the commit of that number."""
    chain = Toolchain("day", "cu13", "", {})
    return (
        Path("results") / machine / f"{number}.sidecar",
        Sidecar(1, "1", machine, f"{number:040x}", "fa4", "", chain, groups),
    )


def wrong(checker: Sweeps | Peaks, *files: tuple[Path, Sidecar]) -> list[str]:
    for path, each in files:
        checker.add(path, each)
    return [f"{path.stem}: {what}" for path, what in checker.wrong()]


def commits(change: Callable[[int, dict[str, list[float]]], object]) -> list[tuple[Path, Sidecar]]:
    """Four commits of one sweep with two calls each; `change` is done to the samples of the first call."""
    files = []
    for number in range(4):
        cases = {
            call: swept(turns((0.0, 0.0, 0.0)), None, {"cudnn": 2.0}, order=number)
            for call in (CALL, LONG, "fa4/x")
        }
        change(number, cases[CALL].samples)
        files.append(sidecar(number, {FORWARD: cases}))
    return files


@pytest.mark.fault(
    kind="commits of a sweep that contradict each other",
    inputs="a yardstick's time, a turn",
    happens="`verify` names the file that says something else than most, exit code 1",
)
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "cudnn",
            2.1,
            f"1: {FORWARD} {CALL}: cudnn took 2.1 s in round 2, other commits of the sweep say otherwise",
        ),
        (
            "order",
            3,
            f"1: {FORWARD} {CALL}: its turn in round 2 is 3, other calls of the commit say otherwise",
        ),
    ],
)
def test_commits_of_a_sweep_share_yardsticks_and_turns(name, value, message):
    def change(number: int, samples: dict[str, list[float]]) -> None:
        if number == 1:
            samples[name] = [*samples[name][:2], value]

    assert wrong(Sweeps(), *commits(lambda *_: None)) == []
    assert wrong(Sweeps(), *commits(change)) == [message]


def test_two_commits_cannot_have_the_same_turn():
    files = commits(lambda *_: None)
    other = replace(files[2][1], groups=files[1][1].groups)
    problems = wrong(Sweeps(), files[1], (files[2][0], other))
    assert problems[:2] == [
        f"{n}: has turn 1 in round 0 of a sweep, and so has another commit" for n in (1, 2)
    ]


def test_other_sweeps_and_cards_are_no_siblings():
    files = commits(lambda *_: None)
    moved = {
        call: replace(record, notes={**record.notes, "card": "f" * 12})
        for call, record in files[0][1].groups[FORWARD].items()
    }
    assert wrong(Sweeps(), files[0], sidecar(9, {FORWARD: moved})) == []


def with_peak(peak: float) -> dict[str, dict[str, CaseRecord]]:
    record = swept(turns((0.0, 0.0, 0.0)))
    return {FORWARD: {CALL: replace(record, samples={**record.samples, "peak_bytes": [peak]})}}


@pytest.mark.fault(
    kind="a peak of a card that is nobody else's",
    inputs="a byte more, a sixteenth, sixteen times; against the trace and another card",
    happens="`verify` names it, exit code 1",
)
@pytest.mark.parametrize(
    ("peak", "message"),
    [
        (1 << 20, ""),
        ((1 << 20) + 512 * 10, ""),
        ((1 << 20) + 1, "expected a multiple of 512"),
        (1 << 24, "peak_bytes is 16777216, elsewhere 1048576; the same call, the same toolchain"),
        (1 << 16, "peak_bytes is 65536, elsewhere 1048576"),
    ],
)
def test_a_peak_is_near_the_trace_and_other_cards(peak, message):
    traced = {
        "memory": {
            "sm_90/fwd_b4_s8192_h16_d128_causal": CaseRecord("measured", figures={"peak_bytes": 1 << 20})
        }
    }
    for sibling in (sidecar(1, traced, "nogpu"), sidecar(1, with_peak(1 << 20), "card-2")):
        problems = wrong(Peaks(), sibling, sidecar(1, with_peak(peak)))
        assert any(message in what for what in problems) if message else problems == []
    assert wrong(Peaks(), sidecar(1, with_peak(1 << 20)), sidecar(2, with_peak(1 << 24))) == [], (
        "another commit"
    )


NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0, 0.0, -0.0, 1e308, -1e308, 5e-324, 10**300, 0.5, 1e-3]),
    st.floats(0, 1),
)
NAMES = [
    "seconds",
    "centre",
    "two modes",
    "control",
    "kept",
    "order",
    "process",
    "round",
    "cudnn",
    "kernel main",
]
NAMES += ["peak_bytes", "untraced_bytes", "first_seconds"]


@given(
    st.dictionaries(st.sampled_from(NAMES), st.lists(NUMBERS, min_size=1, max_size=12), min_size=1),
    st.dictionaries(
        st.sampled_from(["traced", "sm clock", "direct", "through SDPA", "card"]),
        st.sampled_from(
            ["9" * 300, "1 to 2 MHz, median 3", "-1 us", "1 us", "", "reported for 2 of 1 samples"]
        ),
    ),
    st.sampled_from(["forward", "allocated", "route-host", FORWARD]),
)
@settings(deadline=None, max_examples=400)
def test_no_samples_end_in_a_traceback(samples, notes, group):
    record = CaseRecord("measured", samples=samples, notes=notes)
    for _, output in checks({group: {"fa4/x": record, "y": record}}):
        assert "\n" not in output
    for checker in (Sweeps(), Peaks()):
        wrong(checker, *[sidecar(number, {group: {"fa4/x": record}}) for number in (1, 1, 2)])
