"""`fa4-asv check-card`: what counts as a difference, what ends a call, and the stand-in through the real worker."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest

from fa4_asv.backfill.sweep.engine import Subject
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.shapes import core
from fa4_asv.cli import check_card as module
from fa4_asv.cli import run
from fa4_asv.cli.check_card import (
    APART,
    SHORTEST,
    SLACK,
    Call,
    calls_of,
    check,
    cubins_of,
    differences,
    findings_of,
)
from fa4_asv.measure.pool import Outcome
from fa4_asv.measure.runtime.card import Card
from fa4_asv.record.schema import CaseRecord
from tests.support import ROOT
from tests.support.fake_record import write_pair, write_releases
from tests.support.mutants import MUTANTS, lay
from tests.support.standin_runs import D64

SHAPE = core()[0].name
CALL = Call("fa4", SHAPE, backward=False)
ANSWERS = {
    "guard": {},
    "seconds": {"seconds": [1e-3, 1.1e-3, 0.9e-3]},
    "kernels": {"kernel pre": [0.2e-3], "kernel main": [0.8e-3]},
    "bytes": {"peak_bytes": [1000.0]},
}
GROUPS = {
    "memory": {f"sm_90/fwd_{SHAPE}": CaseRecord("measured", figures={"peak_bytes": 1000, "extra_bytes": 0})}
}


def asking(errors: dict[str, dict] | None = None, **samples: dict) -> tuple[list[str], object]:
    """What answers with ANSWERS but for `samples` and `errors`, and the questions that it was asked."""
    asked: list[str] = []

    def ask(job: dict) -> Outcome:
        asked.append(job["what"])
        error = (errors or {}).get(job["what"])
        return Outcome("", {"error": error} if error else {"samples": (ANSWERS | samples)[job["what"]]})

    return asked, ask


def test_a_call_that_agrees_has_its_figures():
    asked, ask = asking()
    result = check(ask, CALL, "cuda", "sm_90", GROUPS)
    assert asked == ["guard", "seconds", "kernels", "bytes"]
    assert (result.state, result.reason, result.seconds) == ("agrees", "", 1e-3)
    assert result.profiler_seconds == pytest.approx(1e-3)
    assert (result.peak_bytes, result.traced_bytes) == (1000, 1000)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ({"kernels": {"kernel main": [0.8e-3]}}, "+25.0% by events against the profiler, at most 10%"),
        ({"kernels": {"kernel main": [1.2e-3]}}, "-16.7% by events against the profiler"),
        ({"bytes": {"peak_bytes": [1000.0 + 2 * SLACK]}}, "peak +2,097,152 bytes against the trace"),
    ],
)
def test_a_difference_is_named_with_its_size(samples, reason):
    result = check(asking(**samples)[1], CALL, "cuda", "sm_90", GROUPS)
    assert result.state == "differs" and reason in result.reason


def test_what_is_within_the_bounds_or_unknown_is_no_difference():
    assert differences(1e-3, 1e-3 * (1 + 0.9 * APART), 5.0 + SLACK, 5.0) == []
    assert differences(0.9 * SHORTEST, 0.5 * SHORTEST, None, 5.0) == [], "short calls start slowly"
    assert differences(1e-3, 0.0, 5.0, None) == [], "no profiler, no trace"


@pytest.mark.parametrize(
    ("what", "refused", "state", "asked_for"),
    [("guard", False, "broken", 1), ("guard", True, "refused", 1), ("seconds", False, "broken", 2)],
)
def test_a_call_without_an_answer_is_asked_no_more(what, refused, state, asked_for):
    asked, ask = asking({what: {"words": "dq is off", "refused": refused}})
    result = check(ask, CALL, "cuda", "sm_90", GROUPS)
    assert (result.state, result.reason, len(asked)) == (state, f"{what}: dq is off", asked_for)


def test_a_process_that_is_gone_and_a_yardstick():
    assert check(lambda job: Outcome("", lost="killed"), CALL, "cuda", "sm_90", {}).reason == "guard: killed"
    asked, ask = asking()
    assert check(ask, Call("cudnn", SHAPE, True), "cuda", "sm_90", GROUPS).state == "agrees"
    assert "bytes" not in asked, "memory is traced of FA4 only"


def test_kernels_are_recognised_by_their_bytes(tmp_path):
    (tmp_path / "deep").mkdir()
    for number in range(3):
        (tmp_path / "deep" / f"{number}.cubin").write_bytes(bytes([number]))
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(2)]
    keys = ("sm_90/fwd_d64_full", "sm_100/fwd_d64_full")
    codegen = {key: CaseRecord("measured", sha256=digest) for key, digest in zip(keys, digests, strict=True)}
    codegen["sm_90/no"] = CaseRecord("broken", why="no digest")
    assert cubins_of(tmp_path, {"codegen": codegen}, "sm_90") == (["sm_90/fwd_d64_full"], 3)


def test_shapes_are_selected_by_name():
    assert len(calls_of(["fa4"], "")) == 60
    assert calls_of(["fa4", "cudnn"], f"^{SHAPE}$")[2] == Call("cudnn", SHAPE, False)
    for pattern, message in (("(", "is not a regular expression"), ("nothing", "no core shape matches")):
        with pytest.raises(Fa4AsvError, match=message):
            calls_of(["fa4"], pattern)


@pytest.mark.nightly  # with answers that are made up: the tests above
def test_the_stand_in_through_the_real_worker(tmp_path):
    """One shape on this processor: the stand-in agrees with its trace; a release whose gradient is wrong is broken."""
    pytest.importorskip("torch")
    states = []
    for mutant in ("", "dq_one_percent"):
        root = tmp_path / (mutant or "standin")
        lay(root, MUTANTS.get(mutant))
        subject = Subject("x", "x", sys.executable, (str(root), str(ROOT)), "")
        calls = [Call("fa4", D64, backward=True)]
        (result,) = findings_of(subject, calls, "cpu", "sm_90", {}, tmp_path, 60.0)
        states.append((result.state, result.reason))
        if not mutant:
            assert result.seconds and result.peak_bytes and result.tflops
    assert states[0] == ("agrees", "")
    assert states[1][0] == "broken" and "dq is 1.0099 times the reference" in states[1][1]


@pytest.fixture
def checkout(project, monkeypatch):
    """A record of one release; a card; calls whose answers are given in place of a process."""
    (release,) = write_releases(project, 1)
    write_pair(project, release, GROUPS, flavour="cu13")
    monkeypatch.setattr(module, "cards", lambda: [Card(0, "NVIDIA H200", "GPU-1")])
    monkeypatch.setattr(module, "refuse_busy", lambda card: None)
    monkeypatch.setattr(module, "_laid", lambda *arguments: Subject("x", "x", "python", (), ""))
    return project


def output_of(monkeypatch, capsys, errors: dict | None, *arguments: str) -> tuple[int, str]:
    class Answering:
        def ask(self, job):
            return asking(errors)[1](job.payload)

        def close(self):
            pass

    monkeypatch.setattr(module, "LastingWorker", Answering)
    with pytest.raises(SystemExit) as ended:
        run(["check-card", "--shapes", f"^{SHAPE}$", *arguments])
    return int(ended.value.code), capsys.readouterr().out


def test_the_command_says_what_agrees_by_its_exit_code(checkout, monkeypatch, capsys):
    code, out = output_of(monkeypatch, capsys, None)
    assert code == 0 and "2 agrees" in out and "0 kernels compiled here" in out
    code, out = output_of(
        monkeypatch, capsys, {"seconds": {"words": "off \x1b[31m by 1 %", "refused": False}}, "--json"
    )
    data = json.loads(out)
    assert (code, data["arch"], [call["state"] for call in data["calls"]]) == (1, "sm_90", ["broken"] * 2)
    code, out = output_of(monkeypatch, capsys, {"guard": {"words": "off \x1b[31m", "refused": True}})
    assert code == 0 and "2 refused" in out and "\x1b[31m" not in out
    code, out = output_of(monkeypatch, capsys, None, "--seconds", "0")
    assert code == 1 and "2 left over" in out


def test_what_cannot_start_is_one_line(checkout, monkeypatch, capsys):
    for arguments, message in (
        (["--release", "4.0.0b99"], "no record of 4.0.0b99 cu13"),
        (["--flavour", "cu12"], "no record of"),
    ):
        with pytest.raises(SystemExit) as ended:
            run(["check-card", *arguments])
        assert ended.value.code == 2 and message in capsys.readouterr().err
    monkeypatch.setattr(module, "cards", lambda: [Card(0, "NVIDIA A100", "GPU-1")])
    with pytest.raises(SystemExit) as ended:
        run(["check-card"])
    assert ended.value.code == 2
    assert "NVIDIA A100 is no Hopper or Blackwell card" in capsys.readouterr().err
