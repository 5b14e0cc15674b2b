"""What the model reads from machine code of each step of a card's history, beside its time.

Each step is predicted by a model that was fitted without the later release, as docs/model.md tests it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fa4_asv.compare.prediction import (
    CARD,
    FLAVOUR,
    POLICY,
    Errors,
    Sample,
    Step,
    errors_of,
    kind_of,
    samples_between,
    steps_left_out,
)
from fa4_asv.report import wording
from fa4_asv.report.model import Model, Point
from fa4_asv.report.run_time_cells import NONE
from fa4_asv.report.swept import Call, Swept

Predicted = Mapping[tuple[str, Call], str]  # release and call: the change with the model's mean error


def predicted_steps(model: Model, swept: Swept) -> Predicted:
    """Of the series that the model is fitted to; nothing of another."""
    if (swept.key.machine, swept.key.flavour, swept.key.policy) != (CARD, FLAVOUR, POLICY):
        return {}
    compiled = [point for series in model.exact() if series.key.flavour == FLAVOUR for point in series.points]
    steps = steps_left_out(samples_of(swept, compiled))
    errors = errors_of(steps)
    return {(step.release, Call(*step.call)): _text(step, errors) for step in steps}


def samples_of(swept: Swept, compiled: Iterable[Point]) -> list[Sample]:
    """What a card timed, with the machine code of the same commits, which `compiled` holds."""
    groups = {point.commit: point.record.sidecar.groups for point in compiled}
    return [
        sample
        for point in swept.points
        for sample in samples_between(point.record.sidecar, groups.get(point.commit, {}))
    ]


def _text(step: Step, errors: Errors) -> str:
    if not step.changed:
        return "same code"
    error = errors.get(kind_of(step.call, step.model))
    if error is None:
        return NONE
    return f"{wording.percent(1.0, 1.0 + step.model)} ± {wording.share(error.mean, 1)}"
