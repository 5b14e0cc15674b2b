"""What one record says twice: a figure that was edited everywhere it stands still contradicts what it is made of.

Each function gives one entry per check: "" where it holds, else what is wrong, in one line without the case's name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median

from fa4_asv.catalog.benchmarks import BY_TORCH, REFUSED, TRACED, TRACED_GROUPS
from fa4_asv.catalog.flavours import AS_CU12, PLAIN
from fa4_asv.catalog.kernels import BEYOND
from fa4_asv.catalog.launch import COUNTED, counts
from fa4_asv.integrity.loops import wrong_loops, wrong_whole
from fa4_asv.integrity.rounds import usual_control, wrong_rounds
from fa4_asv.record.explanation import Culprit, Explanation
from fa4_asv.record.schema import CaseRecord, Sidecar

Cases = Mapping[str, CaseRecord]
Groups = Mapping[str, Cases]

_BYTES_PER_INSTRUCTION = 16  # of every architecture since sm_70
_PADDING = "NOP"  # no instruction that is counted
_LONGEST_SPAN = 100  # characters of a note that is read as numbers
_NO_CHECK = {"torch", "checks"}  # words of a card's route that are not what a broken check answered


def checks(groups: Groups) -> Iterator[tuple[str, str]]:
    """Every check of a sidecar by itself: the case, and "" or what is wrong."""
    usual = usual_control(groups)
    for cases in groups.values():
        for case, record in cases.items():
            if record.state == "measured" and record.samples:
                yield case, wrong_rounds(record, usual)
                yield case, _spans(record.notes)
    for group, of_case in _OF_GROUP.items():
        cases = groups.get(group, {})
        whole = any(record.opcodes or record.parts for record in cases.values())
        for case, record in cases.items():
            if record.state == "measured" or group == "loops":
                for wrong in of_case(record, whole, groups, case):
                    yield case, wrong


def _kernel(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    """Instructions, local loads and stores, and code size against the histogram of opcodes."""
    opcodes, figures = record.opcodes, record.figures
    if not opcodes and record.why == AS_CU12:
        return  # cu12's record of the same digest has them
    if not opcodes:
        yield "the sidecar has no opcodes, and has those of other kernels" if whole else ""
        return
    count = sum(opcodes.values())
    yield _same(figures, "instructions", count - opcodes.get(_PADDING, 0), "the opcodes without NOP")
    yield _same(figures, "local_loads", opcodes.get("LDL", 0), "LDL")
    yield _same(figures, "local_stores", opcodes.get("STL", 0), "STL")
    yield _same(
        figures,
        "text_bytes",
        _BYTES_PER_INSTRUCTION * count,
        f"{count} opcodes of {_BYTES_PER_INSTRUCTION} bytes",
    )


def _same(figures: Mapping[str, int], name: str, expected: int, what: str) -> str:
    value = figures.get(name, expected)
    return "" if value == expected else f"{name} is {value}, {what} give {expected}"


def _loops(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    """Loops against the kernel that they were read from."""
    kernel = groups.get("codegen", {}).get(case)
    if kernel is not None:
        yield from wrong_loops(record, kernel)


def _whole(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    """A kernel and its loops in one record."""
    yield from wrong_whole(record)


def _peak(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    """What is neither input nor output against the workspaces, and the peak against these and what the call says itself."""
    extra = sum(record.parts.values())
    yield _same(record.figures, "extra_bytes", extra, "the workspaces")
    name = case.rpartition("/")[2]
    if name in TRACED:
        operands = _operand_bytes(name)
        yield _same(record.figures, "peak_bytes", operands + extra, "inputs, outputs and workspaces")


@cache
def _operand_bytes(traced: str) -> int:
    backward, shape = TRACED[traced]
    return shape.operand_bytes(backward)


def _workspaces(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    """What is neither input nor output against its parts, and the peak, which holds it."""
    yield _same(record.figures, "extra_bytes", sum(record.parts.values()), "the workspaces")
    extra, peak = (record.figures.get(name, 0) for name in ("extra_bytes", "peak_bytes"))
    yield "" if extra <= peak else f"extra_bytes is {extra}, peak_bytes {peak}"


def _growth(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    """Growth against the peaks of its family, and these against the calls' own records."""
    peaks = record.parts
    if not peaks:
        yield "the sidecar has no peaks of the family, and has those of others" if whole else ""
        return
    yield _same(record.figures, "growth_bytes", max(peaks.values()) - min(peaks.values()), "its peaks")
    arch = case.partition("/")[0]
    calls = groups.get("memory", {})
    for name, peak in peaks.items():
        call = calls.get(f"{arch}/{name}")
        if call is not None and call.state == "measured":
            known = call.figures.get("peak_bytes")
            yield "" if known == peak else f"the peak of {name} is {peak}, its own record says {known}"


_NUMBER = r"(-?\d+(?:\.\d+)?)"
_SPAN = re.compile(rf"{_NUMBER} to {_NUMBER} \w+, median {_NUMBER}")
_SHARE = re.compile(r"reported for (\d+) of (\d+) samples")


def _spans(notes: Mapping[str, str]) -> str:
    """Clock, power and temperature: a median between two ends, and no more samples than there are."""
    for name, text in notes.items():
        if span := _SPAN.fullmatch(text[:_LONGEST_SPAN]):
            least, most, middle = map(float, span.groups())
            if not least <= middle <= most:
                return f"{name} is {text}"
        if (share := _SHARE.fullmatch(text[:_LONGEST_SPAN])) and int(share[1]) > int(share[2]):
            return f"{name} is {text}"
    return ""


def _allocated(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    """What the trace did not see against the peak on the card and the traced one."""
    traced, samples = record.notes.get("traced", ""), record.samples
    if traced.isascii() and traced.isdigit() and {"peak_bytes", "untraced_bytes"} <= samples.keys():
        expected = [abs(peak - int(traced[:_LONGEST_SPAN])) for peak in samples["peak_bytes"]]
        untraced = samples["untraced_bytes"]
        yield (
            ""
            if untraced == expected
            else f"untraced_bytes is {untraced[0]:g}, peak and trace give {expected[0]:g}"
        )
    else:
        yield "the sidecar has no traced peak"


_MICROSECONDS = re.compile(rf"{_NUMBER} us")
_HOST_ROUNDING = (
    0.25  # of the longer way; a difference of medians is not the median of differences: up to 0.04 recorded
)


def _host(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    """What SDPA adds per call against the two ways that it is the difference of."""
    ways = [
        _MICROSECONDS.fullmatch(record.notes.get(name, "")[:_LONGEST_SPAN])
        for name in ("direct", "through SDPA")
    ]
    if ways[0] and ways[1] and "centre" in record.samples:
        direct, through = (float(way[1]) * 1e-6 for way in ways if way)
        added = median(record.samples["centre"])
        near = abs(through - direct - added) <= _HOST_ROUNDING * max(through, direct)
        yield (
            ""
            if near
            else f"the sidecar's centre is {added:.4g} s, the two ways are {through - direct:.4g} apart"
        )


def _route(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    yield _same(record.figures, "broken", len(record.notes), "the checks that have a reason")
    broken, made = record.figures.get("broken", 0), record.figures.get("checks", len(record.notes))
    yield "" if broken <= made else f"broken is {broken} of {made} checks"


def _route_beyond(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    refused = sum(reason.startswith(REFUSED) for reason in record.notes.values())
    yield _same(record.figures, "refused", refused, "the checks that are refused")
    yield _same(record.figures, "broken", len(record.notes) - refused, "the others that have a reason")
    ended, made = len(record.notes), record.figures.get("checks", len(record.notes))
    yield "" if ended <= made else f"{ended} of {made} checks have a reason"


def _launch(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    """Each figure against the places that say what it counts."""
    for metric, count in counts(record.parts).items():
        yield _same(record.figures, metric, count, f"the parts that were {COUNTED[metric]}")


def _beyond_of_card(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    reasons = [reason for name, reason in record.notes.items() if name not in _NO_CHECK]
    refused = sum(reason.startswith(REFUSED) for reason in reasons)
    for name, count in (("broken", len(reasons) - refused), ("refused", refused)):
        values = record.samples.get(name, [count])
        yield "" if set(values) == {count} else f"{name} is {values[0]:g}, {count} checks have a reason"


def _route_of_card(record: CaseRecord, whole: bool, groups: Groups, case: str) -> Iterator[str]:
    checks = len(record.notes.keys() - _NO_CHECK)
    values = record.samples.get("broken", [checks])
    yield "" if set(values) == {checks} else f"broken is {values[0]:g}, {checks} checks have a reason"


_OF_GROUP: dict[str, Callable[[CaseRecord, bool, Groups, str], Iterator[str]]] = {
    "codegen": _kernel,
    "loops": _loops,
    "memory": _peak,
    "growth": _growth,
    "allocated": _allocated,
    "route-host": _host,
    "route": _route,
    **{name: _route_beyond for name in BY_TORCH if name != "route"},
    "launch": _launch,
    "route-card": _route_of_card,
    "route-beyond-card": _beyond_of_card,
    **dict.fromkeys(BEYOND, _whole),
    **{f"{group}-memory": _workspaces for group in TRACED_GROUPS},
}


Content = tuple[dict[str, int], dict[str, int], str]


@dataclass
class Cubins:
    """What every record says of each cubin's digest: the same bytes have the same figures wherever they stand."""

    by_digest: dict[str, list[tuple[Content, list[tuple[Path, str]]]]] = field(default_factory=dict)
    as_cu12: list[tuple[str, CaseRecord, tuple[Path, str]]] = field(default_factory=list)  # without opcodes

    def add(self, path: Path, cases: Cases) -> None:
        for case, record in cases.items():
            if record.sha256 and record.why == AS_CU12:
                self.as_cu12.append((record.sha256, record, (path, case)))
            elif record.sha256:
                content = (record.figures, record.opcodes or record.parts, record.kernel)
                versions = self.by_digest.setdefault(record.sha256, [])
                places = next((places for known, places in versions if known == content), None)
                if places is None:
                    versions.append((content, [(path, case)]))
                else:
                    places.append((path, case))

    def wrong(self) -> Iterator[tuple[Path, str]]:
        """The files that say something else of a digest than most do; where no version is in most, all of them."""
        for digest, versions in self.by_digest.items():
            most = Counter(len(places) for _, places in versions)
            largest = max(most)
            for _, places in versions if len(versions) > 1 else ():
                if len(places) < largest or most[largest] > 1:
                    for path, case in places:
                        yield (
                            path,
                            f"{case}: cubin {digest:.12} has other figures, opcodes, parts or name elsewhere",
                        )
        for digest, record, (path, case) in self.as_cu12:
            known = [(figures, kernel) for (figures, _, kernel), _ in self.by_digest.get(digest, ())]
            if known and (record.figures, record.kernel) not in known:
                yield path, f"{case}: cubin {digest:.12} has other figures or another name elsewhere"


@dataclass
class AsCu12:
    """Kernels of plain that are said to be cu12's, against cu12's own record of that commit."""

    cu12: dict[tuple[str, str], str] = field(default_factory=dict)
    taken_over: list[tuple[Path, tuple[str, str], str]] = field(default_factory=list)

    def add(self, path: Path, sidecar: Sidecar) -> None:
        if sidecar.toolchain.policy != "day" or sidecar.toolchain.flavour not in ("cu12", PLAIN):
            return
        for case, record in sidecar.groups.get("codegen", {}).items():
            if sidecar.toolchain.flavour == "cu12":
                self.cu12[sidecar.commit, case] = record.sha256
            elif record.why == AS_CU12:
                self.taken_over.append((path, (sidecar.commit, case), record.sha256))

    def wrong(self) -> Iterator[tuple[Path, str]]:
        """The files of plain whose kernel is another; one that cu12 has not recorded cannot be checked."""
        for path, key, digest in self.taken_over:
            if self.cu12.get(key, digest) != digest:
                yield (
                    path,
                    f"{key[1]}: says it is cu12's kernel, whose cubin is {self.cu12[key]:.12}, not {digest:.12}",
                )


def cause_checks(explanation: Explanation) -> Iterator[tuple[str, str]]:
    """Every check of an explanation by itself, beside those of reading it (a cause against its corners)."""
    for case, roles in explanation.opcodes.items():
        for name, index in (("base", 0), ("head", 1)):
            counts = {role: pair[index] for role, pair in roles.items()}
            verdicts = explanation.cases.get(case, {})
            whole = sum(counts.values()) - counts.get("padding", 0)
            for metric, count, what in (
                ("instructions", whole, "the roles without padding"),
                ("local_loads", counts.get("local loads", 0), "the role local loads"),
                ("local_stores", counts.get("local stores", 0), "the role local stores"),
            ):
                if metric in verdicts:
                    figure = getattr(verdicts[metric], name)
                    wrong = f"{metric} at {name} is {figure}, {what} give {count}"
                    yield case, "" if figure == count else wrong
    for culprit in explanation.culprits:
        for case in culprit.cases:
            causes = {verdict.cause for verdict in explanation.cases.get(case, {}).values()}
            causes |= {explanation.states[case].cause} if case in explanation.states else set()
            yield case, _wrong_culprit(culprit, causes)


def _wrong_culprit(culprit: Culprit, causes: set[str]) -> str:
    """A package explains what the toolchain moved, a commit what the source moved."""
    side = "toolchain" if culprit.kind == "package" else "source"
    if not causes:
        return "a culprit is named, and no figure or state that changed"
    if causes <= {"source", "toolchain"} - {side}:
        return f"a {culprit.kind} is named, but what moved it is the {causes.pop()}"
    return ""
