"""Which numbers of a sidecar can be edited without `verify` seeing it: a list, each entry with its reason.

Every leaf of one record of each kind is edited, a little and by ten times. What is not listed here is seen, whatever its place.
"""

from __future__ import annotations

import pytest

from fa4_asv.integrity.consistency import checks
from fa4_asv.record.schema import CaseRecord
from tests.support.leaves import Bench, Edit, Kind, edits, kinds

_RAW = "measured once; nothing is derived from it but what moves with it"
_SAMPLE = "a raw sample: only one that moves its round's median, or asv's quartiles or interval, contradicts something"
_ROUGH = "the profiler's, by another clock: only the sum of all kernels is held to the whole call, within 1.5 times"
_PART = (
    "at most the kernel's opcodes, which do not stand beside it here; loops of the same cubin say it again"
)
# By protocol and leaf: a small edit, or any, can stay unseen.
ALONE = {
    "rounds": {
        "samples seconds": _SAMPLE,
        "samples control": f"{_RAW}; twice or half of the usual is seen",
    },
    "sweep": {
        "samples seconds": _SAMPLE,
        "samples control": f"{_RAW}; twice or half of the usual is seen",
        "samples first_seconds": _RAW,
        "samples peak_bytes": "whole blocks; held to the trace of the call and to other cards, where there are any",
        "samples kernel main": _ROUGH,
        "samples kernel pre": _ROUGH,
        "samples kernel post": _ROUGH,
        "samples kernel other": _ROUGH,
        "samples process": "a process may have been replaced between any two rounds",
        "samples round": "the last one: rounds that failed leave gaps",
    },
    "loops": {
        "parts exp2": _PART,
        "parts registers": "what the warps asked for: only loops of the same cubin say it again",
        "parts UTCHMMA": _PART,
    },
    "route": {"figures checks": "how many checks the suite made that day; never fewer than are broken"},
}
# What a small edit leaves unseen, but ten times the value does not.
FAR_IS_SEEN = {
    "rounds": {"samples control"},
    "sweep": {"samples control", "samples kernel main"},
}
PROTOCOLS = (
    "rounds",
    "sweep",
    "accuracy",
    "allocated",
    "compile",
    "import",
    "codegen",
    "loops",
    "memory",
    "growth",
    "route",
)


def of(protocol: str) -> list[Kind]:
    return [kind for kind in kinds() if kind.protocol == protocol]


def unseen(kind: Kind) -> list[Edit]:
    bench = Bench(kind)
    assert not bench.sees(bench.record), "as recorded it is sound"
    return [edit for edit in edits(bench.record) if not bench.sees(edit.record)]


@pytest.mark.slow
@pytest.mark.fault(
    kind="one number of a sidecar that was edited",
    inputs="each figure, sample, count and part of each kind of record, by little and by ten times; the result file stays",
    happens="`verify` names it, exit code 1; what stands alone is listed in the test, with reasons",
)
@pytest.mark.parametrize(
    "protocol",
    # A sweep's record has the most numbers by far; single ones of them: test_verify_rounds.py, test_sweep_record.py.
    [pytest.param(each, marks=[pytest.mark.nightly] * (each == "sweep")) for each in PROTOCOLS],
)
def test_every_number_that_does_not_stand_alone_is_held_to_others(protocol):
    result = of(protocol)
    assert result, "the record has such cases"
    for kind in result:
        for edit in unseen(kind):
            alone = edit.name in ALONE.get(protocol, {}) or edit.name.startswith("notes ")
            assert alone, (kind.group, kind.case, edit.name, edit.at)
            assert not (edit.far and edit.name in FAR_IS_SEEN.get(protocol, ())), (
                kind.case,
                edit.name,
                edit.at,
            )


@pytest.mark.parametrize(
    ("note", "before", "after"),
    [
        ("sm clock", "1965 to 1980 MHz, median 1970", "1965 to 1980 MHz, median 1985"),
        ("power draw", "290 to 300 W, median 295", "310 to 300 W, median 295"),
        ("power cap", "reported for 9 of 20 samples", "reported for 29 of 20 samples"),
    ],
)
def test_numbers_in_a_note_fit_each_other(note, before, after):
    for text, sound in ((before, True), (after, False)):
        samples = {"seconds": [0.1], "centre": [0.1], "two modes": [0.0]}
        groups = {"forward": {"x": CaseRecord("measured", samples=samples, notes={note: text})}}
        assert any(wrong for _, wrong in checks(groups)) is not sound
