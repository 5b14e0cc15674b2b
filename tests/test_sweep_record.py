"""A sweep's record read back: compare, changes, noise and verify, from sidecars alone."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from fa4_asv.cli import run
from fa4_asv.compare.noise import percentile
from fa4_asv.compare.rows import Measured, Row, compare
from fa4_asv.compare.sweeps import calls_of, pools_of, sidecars_of
from fa4_asv.integrity.rounds import wrong_rounds
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.turns import turns_of
from tests.support.fake_record import write_pair, write_releases
from tests.support.sweep_fake import BACKWARD, CALL, FORWARD, LONG, add_groups, noisy, swept, turns

LEVEL = math.log(1e-3)


@pytest.fixture(autouse=True)
def history(monkeypatch):
    add_groups(monkeypatch)


@pytest.fixture
def card(project):
    """Ten releases on a card: the forward of the seventh and later is 2 % slower, the backward noisy; the last two
    lack the long call."""
    lay(project, "card", 10)
    return project


def lay(
    project, machine: str, count: int, notes: Mapping[str, str] | None = None, factor: float = 1.0
) -> None:
    for number, release in enumerate(write_releases(project, 10)[:count]):
        level = LEVEL + math.log(factor) + (math.log(1.02) if number >= 6 else 0.0)
        forward = {CALL: swept(noisy(f"{machine}{number}", level), notes, order=number)}
        if number < 8:
            forward[LONG] = swept(noisy(f"long{machine}{number}", LEVEL + 2, 0.02), notes, order=number)
        backward = {CALL: swept(noisy(f"back{machine}{number}", LEVEL, 0.005), notes, order=number)}
        write_pair(project, release, {FORWARD: forward, BACKWARD: backward}, machine=machine)


def row_of(old: CaseRecord, new: CaseRecord, project, case: str = CALL) -> Row:
    pools = pools_of(sidecars_of(project.results, "card"))
    base, head = (Measured({FORWARD: {case: record}}, pools=pools) for record in (old, new))
    (row,) = compare(base, head, exact=False)
    return row


def record(project, number: int, group: str = FORWARD, case: str = CALL, machine: str = "card") -> CaseRecord:
    (result,) = [
        sidecar for sidecar in sidecars_of(project.results, machine) if sidecar.release == f"4.0.0b{number}"
    ]
    return result.groups[group][case]


def run_command(capsys, *arguments: str) -> tuple[int, str, str]:
    code = 0
    try:
        run([*arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# compare


def test_releases_of_one_sweep_are_compared_by_its_pooled_spread(card):
    row = row_of(record(card, 6), record(card, 7), card)
    assert (row.verdict, row.reason, row.effect) == ("slower", "interval-excludes-0", "worse")
    assert row.low < row.ratio < row.high and row.ratio == pytest.approx(1.02, abs=0.004)
    assert "(9 degrees of freedom)" in row.message
    assert row_of(record(card, 1), record(card, 2), card).verdict == "same"
    assert row_of(record(card, 7), record(card, 6), card).verdict == "faster"


def test_the_command_uses_the_rule(card, capsys):
    code, out, err = run_command(
        capsys, "compare", "4.0.0b6", "4.0.0b7", "-m", "card", "--no-run", "--format", "json"
    )
    assert (code, err) == (1, "")
    (rows,) = [each["rows"] for each in json.loads(out)["comparisons"]]
    verdicts = {(row["group"], row["case"]): row["verdict"] for row in rows}
    assert verdicts[FORWARD, CALL] == "slower" and verdicts[FORWARD, LONG] == "unclear"


def test_a_record_without_processes_goes_on_with_the_old_rule(card):
    old = record(card, 6)
    plain = CaseRecord(
        "measured", samples={name: old.samples[name] for name in ("seconds", "centre", "two modes")}
    )
    row = row_of(plain, plain, card)
    assert row.verdict == "same" and "rounds differ by" in row.message
    row = row_of(old, plain, card)
    assert (row.verdict, row.reason) == ("not comparable", "head-rounds-unknown")


@pytest.mark.parametrize(
    ("notes", "yardsticks", "verdict", "reason"),
    [
        ({"card": "b" * 12}, {}, "not comparable", "other-card"),
        ({"sweep": "other"}, {}, "not comparable", "other-sweep"),
        ({"card": "b" * 12}, {"fa2": 2e-3}, "slower", "interval-excludes-0"),
        ({"card": "b" * 12}, {"fa2": 2.04e-3, "cudnn": 1e-3}, "same", "change-ruled-out"),
        ({"card": "b" * 12, "torch": "2.14.0"}, {"fa2": 2e-3}, "not comparable", "other-yardstick"),
    ],
)
def test_figures_of_two_cards_are_compared_as_ratios_or_not_at_all(card, notes, yardsticks, verdict, reason):
    """The second card is 2 % slower at this call; by fa2, as slow as the first."""
    releases = write_releases(card, 20)[10:]
    beside = {"fa2": 2e-3} if yardsticks else {}
    for number, release in enumerate(releases):
        timed = swept(noisy(f"other{number}", LEVEL + math.log(1.02), 0.0005), notes, yardsticks)
        write_pair(card, release, {FORWARD: {CALL: timed}}, machine="card")
    old = swept(turns_of(record(card, 1)), yardsticks=beside)
    row = row_of(old, record(card, 12), card)
    assert (row.verdict, row.reason) == (verdict, reason)
    back = row_of(record(card, 12), old, card)
    assert back.verdict == {"slower": "faster"}.get(verdict, verdict)


@pytest.mark.parametrize(
    ("yardsticks", "verdict", "reason"),
    [({}, "not comparable", "other-rounds"), ({"fa2": 2e-3}, "slower", "interval-excludes-0")],
)
def test_a_release_that_was_timed_later_is_told_by_the_yardstick_only(card, yardsticks, verdict, reason):
    """Of the same sweep and card, but in rounds that no other release has."""
    later = [replace(turn, round=turn.round + 6) for turn in noisy("later", LEVEL + 0.02, 0.0005)]
    write_pair(
        card, write_releases(card, 11)[10], {FORWARD: {CALL: swept(later, None, yardsticks)}}, machine="card"
    )
    old = swept(turns_of(record(card, 1)), yardsticks=yardsticks)
    row = row_of(old, record(card, 11), card)
    assert (row.verdict, row.reason) == (verdict, reason)
    if not yardsticks:
        assert (
            row.message
            == "measured with rounds that fewer than 5 releases share, and no yardstick was timed beside both"
        )


def test_both_flavours_of_a_commit_count_in_one_pool(card):
    release = write_releases(card, 10)[0]
    write_pair(card, release, {FORWARD: {CALL: swept(noisy("plain", LEVEL))}}, flavour="cu12", machine="card")
    (result,) = [
        call
        for key, call in calls_of(sidecars_of(card.results, "card")).items()
        if (key.group, key.case) == (FORWARD, CALL)
    ]
    assert len(result) == 11


# changes


def test_changes_tell_the_neighbours_of_a_machine(card, capsys):
    code, out, err = run_command(capsys, "changes", "-m", "card", "--last", "10", "--json")
    assert (code, err) == (0, "")
    steps = json.loads(out)
    assert [(step["before"], step["after"]) for step in steps][5] == ("4.0.0b6", "4.0.0b7")
    slower = [
        (step["after"], row["group"]) for step in steps for row in step["rows"] if row["verdict"] == "slower"
    ]
    assert (("4.0.0b7", FORWARD)) in slower
    (row,) = [row for row in steps[7]["rows"] if row["case"] == LONG]
    assert (row["verdict"], row["reason"]) == ("not comparable", "head-not-run")
    code, out, _ = run_command(capsys, "changes", "-m", "card", "--last", "5")
    assert code == 0 and "4.0.0b6 -> 4.0.0b7: " in out and "slower" in out and "toolchain: the same" in out


@pytest.mark.parametrize(
    "command", [("changes", "-m", "nowhere"), ("noise", "nowhere"), ("noise", "card", "--against", "nowhere")]
)
def test_a_machine_without_a_sweep_is_one_line(card, capsys, command):
    code, out, err = run_command(capsys, *command)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "nowhere" in err


# noise


def test_noise_counts_alarms_and_spreads_call_by_call(card, capsys):
    code, out, err = run_command(capsys, "noise", "card", "--json")
    assert (code, err) == (0, "")
    data = json.loads(out)
    calls = {(call["group"], call["case"]): call for call in data["calls"]}
    assert data["pairs"] == 28 == sum(call["pairs"] for call in calls.values())
    assert data["false_alarms"] == sum(call["alarms"] for call in calls.values())
    assert data["rate_interval"][0] <= data["false_alarms"] / 28 <= data["rate_interval"][1]
    quiet, long = calls[FORWARD, CALL], calls[FORWARD, LONG]
    assert quiet["spread"] < 0.002 < 0.008 < long["spread"] and quiet["visible"] < 0.01 < long["visible"]
    assert (quiet["releases"], quiet["freedom"], long["releases"]) == (10, 9, 8)
    assert [(each["title"], each["calls"]) for each in data["classes"]] == [
        ("below 2.5 ms", 2),
        ("2.5 ms and longer", 1),
    ]
    assert sum(each["alarms"] for each in data["classes"]) == data["false_alarms"]
    code, out, _ = run_command(capsys, "noise", "card")
    assert code == 0 and f"{FORWARD} {CALL[4:]}" in out
    assert out.startswith(f"false alarms: {data['false_alarms']} of 28 pairs, ")


def test_two_cards_agree_or_not(card, capsys):
    lay(card, "second", 8, {"card": "b" * 12}, factor=1.3)  # slower throughout: the ratios are the same
    code, out, err = run_command(capsys, "noise", "card", "--against", "second", "--json")
    assert (code, err) == (0, "")
    short, long = json.loads(out)["agreement"]
    assert (short["ratios"], long["ratios"]) == (14, 7)
    assert short["median"] < 0.01 < long["bound"]
    assert long["beyond"] == [f"{FORWARD} {LONG} cu13"]
    code, out, _ = run_command(capsys, "noise", "card", "--against", "second")
    assert code == 0 and "against second, below 2.5 ms: 14 ratios to the newest release differ by " in out


def test_a_single_process_has_no_spread(project, capsys):
    for release in write_releases(project, 3):
        write_pair(project, release, {FORWARD: {CALL: swept(turns((LEVEL,) * 3))}}, machine="card")
    code, out, _ = run_command(capsys, "noise", "card", "--json")
    data = json.loads(out)
    assert (code, data["pairs"], data["rate_interval"], data["classes"]) == (0, 0, None, [])
    assert (data["calls"][0]["spread"], data["calls"][0]["visible"]) == (None, None)
    assert run_command(capsys, "noise", "card")[1].startswith("false alarms: unknown, ")


def test_percentiles_by_hand():
    assert percentile([5, 1, 3, 2, 4], 0.5) == 3
    assert percentile(list(range(1, 21)), 0.95) == 19
    assert percentile([7.0], 0.95) == 7.0


def test_torch_and_asv_are_not_needed(card):
    code = (
        "import sys\n"
        "for name in ('torch', 'asv', 'cutlass', 'ray', 'elftools', 'uv', 'requests', 'numpy', 'scipy'):\n"
        "    sys.modules[name] = None\n"
        "from fa4_asv.cli import run\n"
        "run(['noise', 'card', '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=card.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pairs"] == 28


# verify


def planted(change: Callable[[dict[str, list[float]]], object]) -> str:
    samples = {
        name: list(values) for name, values in swept(noisy("x", LEVEL), None, {"cudnn": 1e-3}).samples.items()
    }
    change(samples)
    return wrong_rounds(CaseRecord("measured", samples=samples))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda samples: None, ""),
        (lambda samples: samples["process"].pop(), "different numbers of rounds: "),
        (lambda samples: samples["cudnn"].pop(), "cudnn 5"),
        (lambda samples: samples["process"].__setitem__(0, 0.5), "process 0.5, expected a whole number"),
        (lambda samples: samples["round"].__setitem__(1, -1), "round -1, expected a whole number"),
        (lambda samples: samples["kept"].__setitem__(1, 4), "18 samples, its rounds kept 19"),
        (
            lambda samples: samples["centre"].__setitem__(2, 1.0),
            "centre 1.0 of its round 3, the samples 0.00",
        ),
        (lambda samples: samples.pop("order"), "no samples 'order'"),
        (lambda samples: samples["seconds"].reverse(), " of its round "),
    ],
)
def test_what_verify_says_of_rounds(change, message):
    output = planted(change)
    assert (message in output) if message else output == ""


def test_verify_names_the_case(card, capsys):
    assert run_command(capsys, "verify")[:2] == (0, "10 result files: sound\n")
    path = next((card.results / "card").glob("*.sidecar"))
    data = json.loads(path.read_text())
    data["groups"][FORWARD][CALL]["samples"]["centre"][0] *= 1.01
    path.write_text(json.dumps(data))
    code, out, _ = run_command(capsys, "verify")
    assert code == 1 and f"{CALL}: the sidecar has centre " in out
