"""How well machine code predicts Hopper's times: the tables and the plot of docs/model.md, from the record alone.

    python tools/loop_model.py                   # every table; seconds
    python tools/loop_model.py --write           # into docs/model.md and docs/model.svg
    python tools/loop_model.py --kept FOLDER     # loops from SASS that tools/loop_cubins.py kept there, in place of the record's

The model is fa4_asv/compare/model.py. It is judged on neighbouring releases of which the clock tells a change or that there is none.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean

from history_record import (
    LARGE,
    LAST,
    MACHINE,
    OLDER,
    SECOND,
    STALE,
    Call,
    History,
    Release,
    Swept,
    load,
    shape_of,
    short,
    table,
)
from history_tables import filled
from loop_cubins import Cubins
from loop_plot import scatter

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import write_atomic
from fa4_asv.base.project import Project
from fa4_asv.catalog.shapes import CLASSES, SHAPES, class_of
from fa4_asv.compare.model import ARCH, Model, Silent, terms_of
from fa4_asv.compare.prediction import (
    GROUPS,
    Groups,
    Sample,
    code_of,
    is_backward,
    kernel_of,
    models_of,
    samples_between,
)
from fa4_asv.compare.rows import Measured, compare
from fa4_asv.measure.kernels.loop_records import loop_record
from fa4_asv.record.schema import CaseRecord

PAGE, PLOT = "docs/model.md", "docs/model.svg"
CLOCKED = ("faster", "slower", "same")
DIRECTIONS = {False: "forward", True: "backward"}
ALONE = ("4.0.0b10", LAST)  # releases that a fit sees alone
BUT_ONE, EARLIER = "all releases but the one", "all earlier releases"
Fit = Callable[[Release], Mapping[bool, Model]]  # the release that is to be predicted -> models
_UNITS = {"tiles": "cycles per tile", "spills": "cycles per access and tile", "loads": "cycles per byte"}
# What docs/model.md says of each.
_MEANING = {
    "turns": "tensor and slots as below, 1.4 cycles per slot, the root of the sum of their squares",
    "tensor": "N / 2 cycles per 64xNx16, or 16 + N / 4 where shared memory takes longer",
    "slots": "one cycle per instruction of a turn and warp, masked turns apart",
    "tiles": "start, first loads and end of a tile, which no other tile hides",
    "shared": "Q and dO written, dQ written and read: 128 bytes per cycle",
    "loads": "Q and dO of a turn, where one stage holds each: nothing hides them",
    "spills": "accesses to local memory outside of loops",
    "memory": "bytes of the kernels before and after the main one, at 4.8 TB/s",
}


def percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f} %"


def signed(change: float) -> str:
    return f"{100 * change:+.1f} %"


@dataclass(frozen=True)
class Step:
    """A call from one release to the next: the clock's change, the model's (None: silent), whether the clock tells 2 % or more."""

    release: Release
    call: Call
    clock: float
    model: float | None
    large: bool


class Judge:
    """The samples of a machine's sweeps, and the steps that its clock tells of."""

    def __init__(self, history: History, swept: Swept, cubins: Cubins | None) -> None:
        self.history, self.swept = history, swept
        self.kernels: dict[Release, Groups] = {}
        self.samples: list[Sample] = []
        for release, record in swept.records.items():
            groups = history.codegen[release].sidecar.groups
            self.kernels[release] = {**groups, "loops": kept_loops(groups, cubins)} if cubins else groups
            self.samples += samples_between(record.sidecar, self.kernels[release])
        lacking = [name for name in swept.records if not self.of(name.__eq__)]
        if lacking:
            raise Fa4AsvError(
                f"no loops of {', '.join(map(short, lacking))} are recorded: measure them, or name kept SASS with --kept"
            )
        self.held = {(sample.release, sample.call): sample for sample in self.samples}
        self.rows = cache(swept.rows)  # asked for by every table

    def of(self, chosen: Callable[[Release], bool]) -> list[Sample]:
        return [sample for sample in self.samples if chosen(sample.release)]

    @cached_property
    def fits(self) -> dict[str, Fit]:
        """By title; each model is fitted once. A pull request has all earlier releases."""
        order = list(self.swept.records)

        def earlier(after: Release) -> Mapping[bool, Model]:
            return models_of(self.of(lambda release: order.index(release) < order.index(after)))

        return {
            BUT_ONE: cache(lambda after: models_of(self.of(lambda release: release != after))),
            EARLIER: cache(earlier),
            **{f"{short(name)} alone": always(models_of(self.of(name.__eq__))) for name in ALONE},
        }

    def steps(self, fit: Fit) -> Iterator[Step]:
        """Every step of which the clock says something; `fit` gives the models for a release."""
        for before, after in self.swept.steps:
            models = fit(after)
            for call, row in self.rows(before, after).items():
                if row.verdict in CLOCKED and row.ratio is not None:
                    old, new = (self.held.get((name, call)) for name in (before, after))
                    change = predicted(models, old, new)
                    large = row.verdict != "same" and abs(row.ratio - 1) >= LARGE
                    yield Step(after, call, row.ratio - 1, change, large)

    def other_shapes(self) -> Iterator[Step]:
        """From STALE to LAST on OLDER, at sizes of which the fit saw few, by models of all samples."""
        models, releases = models_of(self.samples), (STALE, LAST)
        records = [self.history.older[name] for name in releases]
        base, head = (Measured(record.sidecar.groups, record.versions) for record in records)
        for row in compare(base, head, exact=False):
            if row.metric == "seconds" and row.verdict in CLOCKED and row.ratio is not None:
                change = self.between(models, row.key, releases)
                yield Step(
                    LAST,
                    row.key,
                    row.ratio - 1,
                    change,
                    row.verdict != "same" and abs(row.ratio - 1) >= LARGE,
                )

    def between(self, models: Mapping[bool, Model], call: Call, releases: Sequence[Release]) -> float | None:
        """What is predicted of a call by the kernels of two releases; None where the model is silent."""
        size, kernel = SHAPES[call[1].partition("/")[2]], kernel_of(call)
        try:
            old, new = (code_of(self.kernels[name], kernel) for name in releases)
            return models[is_backward(call)].change(old, new, size)
        except Silent:
            return None


def kept_loops(groups: Groups, cubins: Cubins) -> dict[str, CaseRecord]:
    """The group `loops` of a release, of the kernels that the model needs, from kept SASS."""
    cases = {f"{ARCH}/{kernel_of((group, f'fa4/{name}'))}" for group in GROUPS for name in _names(group)}
    result = groups["codegen"]
    return {
        case: loop_record(result[case], cubins.loops(result[case].sha256)) for case in cases & result.keys()
    }


def _names(group: str) -> list[str]:
    from fa4_asv.catalog.benchmarks import GROUPS as benchmarks

    return [case[1] for case in benchmarks[group].cases]


def predicted(models: Mapping[bool, Model], old: Sample | None, new: Sample | None) -> float | None:
    """The change of time; None where the model is silent."""
    if not old or not new or is_backward(new.call) not in models:
        return None
    try:
        return models[is_backward(new.call)].change(old.timed.code, new.timed.code, new.timed.shape)
    except Silent:
        return None


def always(models: Mapping[bool, Model]) -> Fit:
    """The same models for every release."""
    return lambda _: models


@dataclass(frozen=True)
class Score:
    """Of the steps on which the model speaks: mean absolute errors of it and of "no change", and signs that are right."""

    steps: int
    silent: int
    model: float
    still: float
    right: int

    @property
    def cells(self) -> tuple[str, ...]:
        share = percent(self.model / self.still, 0) if self.still else "–"
        errors = percent(self.model, 2), percent(self.still, 2)
        return str(self.steps), str(self.silent), *errors, share, f"{self.right} of {self.steps}"


def score(steps: Sequence[Step]) -> Score | None:
    """None where the model speaks on none."""
    told = [(step.model, step.clock) for step in steps if step.model is not None]
    if not told:
        return None
    model, still = (
        fmean(abs(change - clock) for change, clock in told),
        fmean(abs(clock) for _, clock in told),
    )
    right = sum(change * clock > 0 for change, clock in told)
    return Score(len(told), len(steps) - len(told), model, still, right)


def errors(first: Judge, second: Judge) -> list[str]:
    judged = {title: list(first.steps(fit)) for title, fit in first.fits.items()} | {
        f"{MACHINE}, judged on {SECOND}": list(second.steps(always(models_of(first.samples)))),
        f"{MACHINE}, judged on {OLDER}, {short(STALE)} to {short(LAST)}": list(first.other_shapes()),
    }
    rows = [
        row
        for backward, direction in DIRECTIONS.items()
        for title, steps in judged.items()
        for row in _rows(direction, title, steps, backward)
    ]
    head = "direction | fitted on | steps | number | silent | model's error | no change's error | share | sign right"
    return table(head, rows, 3)


def _rows(direction: str, title: str, steps: Iterable[Step], backward: bool) -> list[tuple[str, ...]]:
    chosen = [step for step in steps if is_backward(step.call) == backward]
    rows = []
    for label, part in (("2 % or more", [step for step in chosen if step.large]), ("all", chosen)):
        if result := score(part):
            cells = result.cells if label != "all" else (*result.cells[:-1], "–")
            rows.append((direction, title, label, *cells))
    return rows


def large(first: Judge) -> list[str]:
    """Every step of LARGE and more."""
    both = zip(*(first.steps(first.fits[title]) for title in (BUT_ONE, EARLIER)), strict=True)
    rows = [
        (
            short(without_step.release),
            f"{DIRECTIONS[is_backward(without_step.call)]} `{shape_of(without_step.call).name}`",
            signed(without_step.clock),
            *(_told(step.model) for step in (without_step, earlier)),
        )
        for without_step, earlier in both
        if without_step.large
    ]
    return table(f"release | call | clock | {BUT_ONE} | {EARLIER}", rows, 2)


def _told(change: float | None) -> str:
    return "silent" if change is None else signed(change)


def coefficients(first: Judge) -> list[str]:
    """Of all releases together, with the share of the newest release's time that each term has."""
    rows = []
    for backward, model in models_of(first.samples).items():
        for at, (name, value) in enumerate(model.named.items()):
            if value is not None:
                shares = [_share(model, sample, at) for sample in _newest(first, backward)]
                told = f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
                told += f" {_UNITS[name]}" if name in _UNITS else ""
                span = f"{100 * min(shares):.0f} to {percent(max(shares), 0)}"
                rows.append((DIRECTIONS[backward], name, told, span, _MEANING[name]))
    return table(
        f"direction | term | coefficient | share of {short(LAST)}'s times | what it stands for", rows
    )


def _newest(judge: Judge, backward: bool) -> list[Sample]:
    return [sample for sample in judge.of(lambda each: each == LAST) if is_backward(sample.call) == backward]


def _share(model: Model, sample: Sample, at: int) -> float:
    terms = terms_of(sample.timed.code, sample.timed.shape, model.backward)
    return (model.coefficients[at] or 0.0) * terms[at] / model.seconds(sample.timed.code, sample.timed.shape)


def times(first: Judge) -> list[str]:
    """How far a call's time itself is off, by class, for models fitted without the release."""
    off: dict[tuple[bool, str], list[float]] = {}
    for release in first.swept.records:
        models = first.fits[BUT_ONE](release)
        for sample in first.of(lambda each, release=release: each == release):
            model = models[is_backward(sample.call)]
            error = model.seconds(sample.timed.code, sample.timed.shape) / sample.timed.seconds - 1
            off.setdefault((model.backward, class_of(sample.timed.shape)), []).append(error)
    rows = [
        (name, *(cell for backward in DIRECTIONS for cell in _spread(off.get((backward, name), []))))
        for name in CLASSES
    ]
    return table("class | forward: mean error | largest | backward: mean error | largest", rows, 1)


def _spread(result: Sequence[float]) -> tuple[str, str]:
    if not result:
        return "–", "–"
    return percent(fmean(map(abs, result)), 1), signed(max(result, key=abs))


def spoken(first: Judge) -> list[str]:
    """The set on which the model speaks."""
    calls = first.swept.calls
    watched = [call for call in calls if kernel_of(call)]
    steps = list(first.steps(first.fits[BUT_ONE]))
    told = [step for step in steps if step.model is not None]
    rows = [
        ("calls of the history set", str(len(watched)), str(len(calls))),
        ("steps that the clock tells", str(len(told)), str(len(steps))),
        ("of 2 % or more", str(sum(s.large for s in told)), str(sum(s.large for s in steps))),
    ]
    return table("what | it speaks on | of", rows, 1)


TABLES = {"coefficients": coefficients, "large": large, "times": times, "spoken": spoken}


def made(history: History, cubins: Cubins | None) -> tuple[dict[str, str], str]:
    """The tables by name, and the plot."""
    first, second = (Judge(history, swept, cubins) for swept in (history.first, history.second))
    result = {name: make(first) for name, make in TABLES.items()} | {"errors": errors(first, second)}
    steps = list(first.steps(first.fits[EARLIER]))
    return {name: "\n".join(lines) for name, lines in result.items()}, scatter(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--kept", type=Path, metavar="FOLDER", help="where disassembled kernels are kept")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE} and {PLOT}")
    options = parser.parse_args()
    try:
        run(Project.find(), Cubins(options.kept) if options.kept else None, options.write)
    except Fa4AsvError as error:
        parser.exit(2, f"{error}\n")


def run(project: Project, cubins: Cubins | None, write: bool) -> None:
    result, plot = made(load(project), cubins)
    if write:
        page = project.root / PAGE
        write_atomic(page, filled(page.read_text(encoding="utf-8"), result))
        write_atomic(project.root / PLOT, plot)
    else:
        print("\n\n".join(f"{name}\n\n{text}" for name, text in result.items()))


if __name__ == "__main__":
    main()
