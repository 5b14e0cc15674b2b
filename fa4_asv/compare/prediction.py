"""Predicted times of the history set's calls on Hopper, from the record alone: what `compare` says where no card is at hand.

The model (`model.py`) is fitted to one machine's sweeps and to the loops of the same releases. Its error is that of releases
which the fit did not see. A prediction is shown, never judged, and never stands in the place of a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

from fa4_asv.base.machine import NOGPU
from fa4_asv.catalog import benchmarks
from fa4_asv.catalog.benchmarks import SWEEP_SETS
from fa4_asv.catalog.kernels import main_kernel
from fa4_asv.catalog.shapes import SHAPES, SdpaShape
from fa4_asv.compare.model import ARCH, MachineCode, Model, Silent, Timed, fitted, machine_code
from fa4_asv.compare.rows import Row
from fa4_asv.record.schema import CaseRecord, Sidecar
from fa4_asv.record.store import Pair, Wanted, series_of, sound_pairs
from fa4_asv.record.turns import is_of_a_sweep, turns_of

CARD, FLAVOUR, POLICY = "h200-sxm", "cu13", "day"  # machine and series that the model is fitted to
GROUPS = SWEEP_SETS["history"]
LARGE = 0.01  # a predicted change that is told; the model's error is not the same on either side of it
_ORDERED = 128  # the largest head dim at which FA4's forward has its warp groups take turns by a barrier
Groups = Mapping[str, Mapping[str, CaseRecord]]
Call = tuple[str, str]  # group, case


def shape_of(call: Call) -> SdpaShape | None:
    return SHAPES.get(call[1].partition("/")[2])


def is_backward(call: Call) -> bool:
    return call[0].startswith("backward")


def kernel_of(call: Call) -> str:
    """Its main kernel among those that are watched; "" for none."""
    shape = shape_of(call)
    return main_kernel(shape, is_backward(call)) if shape else ""


def code_of(groups: Groups, kernel: str) -> MachineCode:
    """What the record of a commit says of a kernel. Raises Silent."""
    case = f"{ARCH}/{kernel}"
    return machine_code(groups.get("loops", {}).get(case), groups.get("codegen", {}).get(case))


def digest_of(groups: Groups, kernel: str) -> str:
    record = groups.get("codegen", {}).get(f"{ARCH}/{kernel}")
    return record.sha256 if record else ""


@dataclass(frozen=True)
class Sample:
    """A call of a release that the card timed, and the digest of its main kernel."""

    release: str
    call: Call
    timed: Timed
    digest: str


def samples_of(results: Path, machine: str = CARD) -> list[Sample]:
    """Every timed call whose main kernel the model understands, the oldest release first; damaged files are passed over."""
    clocked = sorted(_pairs(results, machine, lambda _: True), key=lambda pair: (pair.result.date, pair.path))
    names = tuple(pair.path.name[:8] for pair in clocked)
    compiled = {
        pair.sidecar.commit: pair.sidecar.groups
        for pair in _pairs(results, NOGPU, lambda path: path.name.startswith(names))
    }
    return [
        sample
        for pair in clocked
        if pair.sidecar.commit in compiled
        for sample in samples_between(pair.sidecar, compiled[pair.sidecar.commit])
    ]


def _pairs(results: Path, machine: str, wanted: Wanted) -> list[Pair]:
    """Of the releases of the model's series."""
    pairs = sound_pairs(results, machine, lambda path: f"flavour{FLAVOUR}" in path.name and wanted(path))
    return [
        pair for pair in pairs if pair.sidecar.release and series_of(pair.sidecar)[1:] == (FLAVOUR, POLICY)
    ]


def samples_between(clocked: Sidecar, compiled: Groups) -> Iterator[Sample]:
    """Of one release: its times, and the figures of its kernels."""
    for group in GROUPS:
        for case, record in clocked.groups.get(group, {}).items():
            call, shape = (group, case), shape_of((group, case))
            turns = turns_of(record) if is_of_a_sweep(record) else []
            if shape is None or not turns or not kernel_of(call):
                continue
            try:
                code = code_of(compiled, kernel_of(call))
            except Silent:
                continue
            seconds = median(turn.seconds for turn in turns)
            yield Sample(
                clocked.release, call, Timed(code, shape, seconds), digest_of(compiled, kernel_of(call))
            )


def models_of(samples: Sequence[Sample]) -> dict[bool, Model]:
    """By direction: whether it is that of backwards. A direction that cannot be fitted is missing."""
    models = {}
    for backward in (False, True):
        rows = [sample.timed for sample in samples if is_backward(sample.call) == backward]
        try:
            models[backward] = fitted(rows, backward)
        except Silent:
            continue
    return models


@dataclass(frozen=True)
class Step:
    """A call from one release to the next: the change of its time on the card, and the one that a model predicts."""

    release: str
    call: Call
    clock: float
    model: float
    changed: bool  # whether its main kernel is other machine code

    @property
    def error(self) -> float:
        return abs(self.model - self.clock)


def steps_left_out(samples: Sequence[Sample]) -> list[Step]:
    """Each step as predicted by a model that was fitted without the later release."""
    releases = list(dict.fromkeys(sample.release for sample in samples))
    held = {(sample.release, sample.call): sample for sample in samples}
    steps = []
    for before, after in pairwise(releases):
        models = models_of([sample for sample in samples if sample.release != after])
        steps += [
            step
            for (release, call), sample in held.items()
            if release == after and (old := held.get((before, call)))
            for step in step_between(models, old, sample)
        ]
    return steps


def step_between(models: Mapping[bool, Model], old: Sample, new: Sample) -> Iterator[Step]:
    """One step, or none where the model is silent."""
    model = models.get(is_backward(new.call))
    try:
        change = model.change(old.timed.code, new.timed.code, new.timed.shape) if model else None
    except Silent:
        return
    if change is not None:
        clock = new.timed.seconds / old.timed.seconds - 1
        yield Step(new.release, new.call, clock, change, old.digest != new.digest)


@dataclass(frozen=True)
class Error:
    """Mean and largest error of a kind of prediction, over `steps` of releases that the fit did not see."""

    mean: float
    largest: float
    steps: int


Kind = tuple[bool, bool, bool]
Errors = Mapping[Kind, Error]


def kind_of(call: Call, change: float) -> Kind:
    """What the model's error depends on: backward or forward; a predicted change of LARGE and more; and whether nothing orders
    the warp groups of a forward, as above head dim 128: how they interleave is not in the code.
    """
    shape, backward = shape_of(call), is_backward(call)
    return backward, abs(change) >= LARGE, not backward and shape is not None and shape.head_dim > _ORDERED


def errors_of(steps: Sequence[Step]) -> dict[Kind, Error]:
    """Of the steps in which the machine code changed: where it is the same, there is nothing to predict."""
    kinds: dict[Kind, list[float]] = {}
    for step in steps:
        if step.changed:
            kinds.setdefault(kind_of(step.call, step.model), []).append(step.error)
    return {kind: Error(fmean(errors), max(errors), len(errors)) for kind, errors in kinds.items()}


@dataclass(frozen=True)
class Prediction:
    """The change of a call's time between two commits (-0.05: 5 % less), with its error; or `why` there is none.

    `measured` is the card's own verdict, where it timed both commits.
    """

    call: Call
    kernel: str
    change: float | None = None
    error: Error | None = None
    why: str = ""
    measured: Row | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        if self.change is None or self.error is None:
            return None
        return self.change - self.error.mean, self.change + self.error.mean


@dataclass(frozen=True)
class Predictions:
    """Of two commits, by a model of `releases` releases on `machine`: the furthest change first, then what is silent; of `same`
    calls the main kernel is the same machine code.
    """

    machine: str
    releases: int
    calls: tuple[Prediction, ...]
    same: int = 0


def can_predict(flavour: str, base: Groups, head: Groups) -> bool:
    """Whether both sides have loops, of the flavour that the model is fitted to."""
    return flavour == FLAVOUR and bool(base.get("loops")) and bool(head.get("loops"))


def predictions_of(results: Path, base: Groups, head: Groups, measured: Mapping[Call, Row]) -> Predictions:
    """For the calls of the history set; `measured` by the card, where it timed both."""
    return predictions_from(samples_of(results), base, head, measured)


def predictions_from(
    samples: Sequence[Sample], base: Groups, head: Groups, measured: Mapping[Call, Row]
) -> Predictions:
    """The same from samples that a caller holds already."""
    models, errors = models_of(samples), errors_of(steps_left_out(samples))
    calls, same = [], 0
    for call in (name for group in GROUPS for name in _calls(group)):
        if _is_same(base, head, kernel_of(call)):
            same += 1
        else:
            prediction = _prediction(models, errors, call, (base, head))
            calls.append(replace(prediction, measured=measured.get(call)))
    calls.sort(key=lambda prediction: (prediction.change is None, -abs(prediction.change or 0.0)))
    return Predictions(CARD, len({sample.release for sample in samples}), tuple(calls), same)


def _calls(group: str) -> list[Call]:
    return [(group, "/".join(case)) for case in benchmarks.GROUPS[group].cases]


def _is_same(base: Groups, head: Groups, kernel: str) -> bool:
    digests = {digest_of(side, kernel) for side in (base, head)}
    return len(digests) == 1 and "" not in digests


def _prediction(
    models: Mapping[bool, Model], errors: Errors, call: Call, sides: tuple[Groups, Groups]
) -> Prediction:
    kernel, shape, model = kernel_of(call), shape_of(call), models.get(is_backward(call))
    if not kernel or shape is None:
        return Prediction(call, kernel, why="its main kernel is not watched")
    if model is None:
        return Prediction(call, kernel, why=f"too few releases on {CARD} have both times and loops")
    try:
        old, new = (code_of(side, kernel) for side in sides)
        change = model.change(old, new, shape)
    except Silent as why:
        return Prediction(call, kernel, why=str(why))
    return Prediction(call, kernel, change, errors.get(kind_of(call, change)))
