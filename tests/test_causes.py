"""Causes: the rule on every pattern of corners, files that survive a round trip, damaged ones refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.history.manifest import Manifest, Release
from fa4_asv.integrity.explanations import Explanations, combined, keep
from fa4_asv.integrity.verify import verify
from fa4_asv.record.explanation import (
    Culprit,
    Explanation,
    Side,
    Verdict,
    decide,
    read_explanation,
    write_explanation,
)
from fa4_asv.record.store import sidecar_path, write_sidecar
from tests.support.results import MEASURED, make

BASE = Side("b" * 40, "4.0.0b35", "d0", {"nvidia-cutlass-dsl": "4.8.0", "einops": "0.8.2"})
HEAD = Side("c" * 40, "4.0.0b36", "d1", {"nvidia-cutlass-dsl": "4.8.1", "einops": "0.8.2"})
CASE = "sm_90/fwd_d128_full"
FOUND = Explanation(
    "cu13",
    BASE,
    HEAD,
    ("flash_attn/cute/flash_fwd_sm90.py", "flash_attn/cute/<b>.py"),
    {
        CASE: {
            "spill_bytes": Verdict(0, 16, 0, 16, "toolchain"),
            "registers": Verdict(168, 169, None, 9, "unknown", "x"),
        }
    },
    {"sm_100/bwd_d256_full": Verdict("measured", "unsupported", "unsupported", "measured", "source")},
    {
        CASE: {
            "matrix": (8, 8),
            "addresses and integers": (880, 889),
            "local loads": (0, 2),
            "local stores": (0, 1),
            "padding": (12, 12),
        }
    },
    (
        Culprit("package", (CASE,), "nvidia-cutlass-dsl", "4.8.0", "4.8.1"),
        Culprit("commit", ("sm_100/bwd_d256_full",), commit="e" * 40, subject="Drop <256> | `x`"),
    ),
    ("two packages moved it together",),
    ("https://github.com/Dao-AILab/flash-attention/issues/2729",),
)


@pytest.mark.parametrize(
    ("corners", "cause"),
    [
        ((0, 16, 0, 16), "toolchain"),
        ((0, 16, 16, 0), "source"),
        ((0, 16, 0, 0), "both together"),  # neither alone
        ((0, 16, 8, 8), "both together"),  # each a half
        ((0, 16, 8, 0), "both together"),
        ((0, 16, 16, 16), "either alone"),
        ((16, 112, 8, 112), "toolchain"),  # the source alone moves it the other way
        ((5000, 5600, 5003, 5598), "toolchain"),
        ((5000, 5600, 5540, 5000), "source"),  # just within a tenth
        ((5000, 5600, 5539, 5000), "both together"),  # just beyond
        ((8, 17, 8, 16), "both together"),  # a change below ten: all of it
        ((16, 0, 16, 0), "toolchain"),
        ((0, 16, None, 16), "unknown"),
        ((0, 16, 16, None), "unknown"),
        (("measured", "unsupported", "unsupported", "measured"), "source"),
        (("unsupported", "measured", "unsupported", "broken"), "both together"),
    ],
)
def test_the_rule(corners, cause):
    base, head, source, toolchain = corners
    assert decide(base, head, source, toolchain) == cause
    # The other way round, what the source alone did is what the toolchain alone leaves undone.
    swapped = {"source": "toolchain", "toolchain": "source"}
    assert decide(base, head, toolchain, source) == swapped.get(cause, cause)


def test_exact_moves_read_the_same_backwards():
    for cause, source, toolchain in (("source", 16, 0), ("toolchain", 0, 16)):
        assert decide(0, 16, source, toolchain) == cause
        assert decide(16, 0, toolchain, source) == cause


def test_a_cause_survives_a_round_trip_in_the_same_bytes(tmp_path):
    path = tmp_path / FOUND.file_name
    assert path.name == "cccccccc-bbbbbbbb-cu13.cause"
    write_explanation(path, FOUND)
    first = path.read_bytes()
    assert read_explanation(path) == FOUND
    write_explanation(path, read_explanation(path))
    assert path.read_bytes() == first
    data = json.loads(first)
    assert data["packages"] == {"nvidia-cutlass-dsl": ["4.8.0", "4.8.1"]}
    assert data["cases"][CASE]["spill_bytes"] == {
        "base": 0,
        "head": 16,
        "source": 0,
        "toolchain": 16,
        "cause": "toolchain",
    }
    assert data["culprits"][0] == {
        "kind": "package",
        "name": "nvidia-cutlass-dsl",
        "from": "4.8.0",
        "to": "4.8.1",
        "cases": [CASE],
    }
    assert FOUND.unknown == [CASE]


def edited(path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.fault(
    kind="a damaged cause",
    inputs="missing fields; other types, formats, metrics, verdicts, states",
    happens="one line that names the file",
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "format is 2, this suite reads 1"),
        (lambda d: d["base"].update(commit="beef"), "commit is 'beef', expected 40 hexadecimal digits"),
        (lambda d: d["base"].pop("digest"), "KeyError: 'digest'"),
        (lambda d: d["cases"][CASE].update(speed={}), "no metric 'speed'"),
        (lambda d: d["cases"][CASE]["spill_bytes"].update(cause="source"), "corners say 'toolchain'"),
        (lambda d: d["cases"][CASE]["spill_bytes"].update(cause="aliens"), "cause is 'aliens'"),
        (lambda d: d["cases"][CASE]["spill_bytes"].update(head=-1), "-1 is not a count"),
        (lambda d: d["cases"][CASE]["spill_bytes"].update(head=True), "True is not a count"),
        (lambda d: d["states"]["sm_100/bwd_d256_full"].update(head="fine"), "state is 'fine'"),
        (lambda d: d["opcodes"][CASE].update(matrix=[1]), "ValueError"),
        (lambda d: d["culprits"][0].update(kind="ghost"), "kind of culprit is 'ghost'"),
        (lambda d: d.update(packages={}), "packages are not those in which base and head differ"),
        (lambda d: d.update(files=[1]), "1 is not text"),
        (lambda d: d.pop("threads"), "KeyError: 'threads'"),
    ],
)
def test_a_damaged_cause_is_refused_by_name(tmp_path, change, message):
    path = tmp_path / "nogpu" / FOUND.file_name
    write_explanation(path, FOUND)
    edited(path, change)
    with pytest.raises(Fa4AsvError) as error:
        read_explanation(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    ((_, line),) = Explanations.of(tmp_path).problems(Manifest())
    assert message in line
    assert str(path) not in line


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "\0", '{"format": 1}', '{"format": 1, "flavour"'])
def test_what_is_no_cause_is_refused(tmp_path, text):
    path = tmp_path / FOUND.file_name
    path.write_text(text)
    with pytest.raises(
        Fa4AsvError, match=r"is (not a \.cause file|not JSON) .*; restore it from git or explain again"
    ):
        read_explanation(path)


def test_more_cases_are_merged_and_threads_stay():
    other = "sm_90/fwd_d64_full"
    new = replace(
        FOUND,
        cases={other: {"registers": Verdict(1, 2, 2, 1, "source")}},
        states={},
        opcodes={},
        culprits=(Culprit("package", (other,), "nvidia-cutlass-dsl", "4.8.0", "4.8.1"),),
        notes=(),
        threads=(),
    )
    merged = combined(FOUND, new)
    assert merged.cases.keys() == {CASE, other}
    assert merged.states == FOUND.states
    assert merged.culprits == (
        Culprit("package", (CASE, other), "nvidia-cutlass-dsl", "4.8.0", "4.8.1"),
        FOUND.culprits[1],
    )
    assert merged.threads == FOUND.threads
    again = combined(FOUND, replace(FOUND, culprits=(), notes=()))
    assert (again.culprits, again.notes) == ((), ())
    assert merged.notes == FOUND.notes, "of the kernels that stay"
    assert combined(FOUND, replace(new, base=replace(BASE, digest="other"))).cases.keys() == {other}
    assert combined(None, new) == new


@pytest.fixture
def cause_path(project):
    """A checkout whose record holds one cause and the head's sidecar."""
    path = keep(project, FOUND)
    write_sidecar(
        sidecar_path(path.with_name("cccccccc-fa4-pyany-flavourcu13-toolchainday.json")),
        make(digest=HEAD.digest, packages=HEAD.packages, cases={CASE: MEASURED}),
    )
    releases = [
        Release(side.release, "x.tar.gz", "0" * 64, "2026-03-05T17:56:13Z", side.commit)
        for side in (BASE, HEAD)
    ]
    Manifest(tuple(releases)).save(project.manifest)
    return path


def told(project) -> list[str]:
    return [problem.what for problem in verify(project) if problem.path.suffix == ".cause"]


def test_verify_checks_causes_against_the_record(project, cause_path):
    assert told(project) == [f"{CASE} registers: head is 169, the record says 168; explain again"]
    edited(cause_path, lambda d: d["cases"][CASE]["registers"].update(head=168))
    assert told(project) == []
    edited(cause_path, lambda d: d["base"].update(release="4.0.0b9"))
    assert told(project) == ["says base is '4.0.0b9', but its commit is '4.0.0b35'; explain again"]
    edited(cause_path, lambda d: (d["base"].update(release="4.0.0b35"), d["head"].update(digest="d9")))
    assert told(project) == ["head has toolchain d9, the record d1; explain again"]
    cause_path.rename(cause_path.with_name("cccccccc-bbbbbbbb-cu12.cause"))
    assert "holds what belongs in cccccccc-bbbbbbbb-cu13.cause" in told(project)[0]


def test_a_damaged_cause_is_one_problem_and_is_replaced(project, cause_path):
    cause_path.write_text("{")
    (line,) = told(project)
    assert line.startswith("is not JSON")
    keep(project, FOUND)
    assert read_explanation(cause_path) == FOUND
