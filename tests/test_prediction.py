"""Predicted times from a record of invented kernels whose times follow the model: what is told, what is silent, how it is shown."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fa4_asv.base.project import Project
from fa4_asv.catalog.kernels import CASES, main_kernel
from fa4_asv.catalog.shapes import SHAPES, history, shape
from fa4_asv.compare import prediction
from fa4_asv.compare.commits import Commit, Plan
from fa4_asv.compare.formats import as_json, exit_code, markdown, text
from fa4_asv.compare.model import machine_code, terms_of
from fa4_asv.compare.sides import Comparison, held_against
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import iter_results
from fa4_asv.report.call_history import call_pages
from fa4_asv.report.cards import cards_of
from fa4_asv.report.events import timeline
from fa4_asv.report.install import advice
from fa4_asv.report.model import load
from fa4_asv.report.predicted import predicted_steps
from fa4_asv.report.run_time_cells import NONE
from fa4_asv.report.swept import Call, sweeps_of
from fa4_asv.report.wording import percent
from tests.support.fake_record import write_pair, write_releases
from tests.support.predicted import code_record, loop_record
from tests.support.results import make

PLAN = Plan(("day",), "each with the toolchain of its release day")
TURNS = (500, 500, 450, 600, 480, 700, 520, 300)  # of eight releases; the last two were not timed
TIMED = 6
TRUE = {False: (0.95, 7000.0, 0.0), True: (0.6, 0.9, 1.3, 0.0, 0.0, 1.7)}
CAUSAL, OTHER = "fwd_d128_causal", "fwd_d128_full"
CALL = ("forward-history", "fa4/b4_s8192_h16_d128_causal")


def kernels(release: int) -> dict[str, dict[str, CaseRecord]]:
    """Every main kernel on sm_90; one never changes, one has no loops, one spills in its loop in the last release."""
    loops, codes = {}, {}
    for name, case in CASES.items():
        if case.role == "main":
            turn = 500 if name == OTHER else TURNS[release]
            barriers, exp2 = (8, 32) if case.call.backward else (10, 66)
            spills = int(name == "fwd_d64_full" and release == len(TURNS) - 1)
            loops[f"sm_90/{name}"] = loop_record(turn, turn + 60, spills_inside=spills, exp2=exp2)
            codes[f"sm_90/{name}"] = code_record(f"{turn:064x}", barriers)
    loops["sm_90/bwd_d256_full"] = CaseRecord("unsupported", "loops: <b>a table</b> is missing")
    return {"codegen": codes, "loops": loops}


def clock(group: str, name: str, groups: dict[str, dict[str, CaseRecord]]) -> CaseRecord | None:
    """What a card with the true coefficients would have timed, in three rounds of one process."""
    backward, kernel = group.startswith("backward"), main_kernel(SHAPES[name], group.startswith("backward"))
    if not kernel or kernel == "bwd_d256_full":
        return None
    code = machine_code(groups["loops"][f"sm_90/{kernel}"], groups["codegen"][f"sm_90/{kernel}"])
    terms = terms_of(code, SHAPES[name], backward)
    seconds = [sum(a * b for a, b in zip(TRUE[backward], terms, strict=True))] * 3
    each = {"process": [0.0] * 3, "round": [0.0, 1.0, 2.0], "two modes": [0.0] * 3}
    return CaseRecord(
        "measured", samples={"seconds": seconds, "centre": seconds, **each}, notes={"sweep": "s", "card": "c"}
    )


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> tuple[Project, list[Commit]]:
    project = Project(tmp_path_factory.mktemp("predicted"))
    releases = write_releases(project, len(TURNS))
    for number, release in enumerate(releases):
        groups = kernels(number)
        write_pair(project, release, groups)
        if number < TIMED:
            timed = {
                group: {
                    f"fa4/{shape.name}": timed_record
                    for shape in history()
                    if (timed_record := clock(group, shape.name, groups))
                }
                for group in prediction.GROUPS
            }
            write_pair(project, release, timed, machine=prediction.CARD)
    return project, [Commit(release.version, release.commit, release.version) for release in releases]


def between(
    record: tuple[Project, list[Commit]], base: int, head: int, *bench: str, flavour: str = "cu13"
) -> Comparison:
    project, commits = record
    return held_against(project.results, (commits[base], commits[head]), flavour, "nogpu", PLAN, bench)


def told(comparison: Comparison) -> dict[tuple[str, str], prediction.Prediction]:
    assert comparison.predicted
    return {prediction_of_call.call: prediction_of_call for prediction_of_call in comparison.predicted.calls}


def test_a_change_that_no_card_timed_is_predicted(record):
    """520 to 300 instructions per turn: by what the true card would have said."""
    predicted = told(between(record, 6, 7))[CALL]
    shape_of_call = SHAPES["b4_s8192_h16_d128_causal"]
    codes = [
        machine_code(kernels(at)["loops"][f"sm_90/{CAUSAL}"], kernels(at)["codegen"][f"sm_90/{CAUSAL}"])
        for at in (6, 7)
    ]
    old, new = (
        sum(a * b for a, b in zip(TRUE[False], terms_of(code, shape_of_call, False), strict=True))
        for code in codes
    )
    assert predicted.change == pytest.approx(new / old - 1) and predicted.change < -0.1
    assert (
        predicted.error
        and predicted.error.mean < 1e-9
        and predicted.error.steps > 10
        and predicted.measured is None
    )
    assert predicted.interval == pytest.approx((predicted.change, predicted.change), abs=1e-6)


def test_the_furthest_change_stands_first_and_what_is_silent_last(record):
    predictions = between(record, 6, 7).predicted
    assert predictions and predictions.releases == TIMED
    changes = [call.change for call in predictions.calls]
    silent = changes.index(None)
    sizes = [abs(change) for change in changes[:silent] if change is not None]
    assert sizes == sorted(sizes, reverse=True) and set(changes[silent:]) == {None}


def test_a_kernel_with_the_same_machine_code_is_counted_and_no_more(record):
    """All calls of the kernel that never changes, and between releases with equal turns all but those without a kernel."""
    comparison = between(record, 6, 7)
    assert ("forward-history", "fa4/b4_s8192_h16_d128_full") not in told(comparison)
    assert comparison.predicted and comparison.predicted.same == 1
    equal = between(record, 0, 1).predicted
    assert equal and equal.same + len(equal.calls) == 2 * len(history())
    assert {call.why for call in equal.calls} == {"its main kernel is not watched"}


def test_silence_has_its_reason(record):
    calls = told(between(record, 6, 7))
    assert "not watched" in calls["forward-history", "fa4/b1_s8192_h64kv8_d64_w128"].why
    assert "a table" in calls["backward-history", "fa4/b4_s8192_h8_d256_full"].why
    assert "spills inside" in calls["forward-history", "fa4/b4_s8192_h32_d64_full"].why
    assert all(call.change is None for call in calls.values() if call.why)


def test_a_measured_time_stands_beside_what_is_predicted(record):
    """Six releases were timed: the verdict of the card, whatever it is, and the prediction still."""
    predicted = told(between(record, 2, 3))[CALL]
    assert (
        predicted.measured
        and predicted.measured.group == CALL[0]
        and predicted.change
        and predicted.change > 0.1
    )


def test_nothing_is_predicted_of_another_flavour_or_sides_without_loops(record):
    assert between(record, 6, 7, "^codegen.*spill").predicted is not None
    groups = kernels(0)
    assert not prediction.can_predict("cu12", groups, groups)
    assert not prediction.can_predict("cu13", groups, {"codegen": groups["codegen"]})
    assert prediction.can_predict("cu13", groups, groups)


def test_too_few_releases_are_no_model(record):
    """A record without times of the card: each call has a reason."""
    project, _ = record
    predictions = prediction.predictions_of(project.root / "without", kernels(6), kernels(7), {})
    reasons = {call.why for call in predictions.calls}
    assert predictions.releases == 0 and any("too few releases on h200-sxm" in why for why in reasons)
    assert all(call.change is None for call in predictions.calls)


def test_a_damaged_file_of_the_card_costs_one_release(record, tmp_path):
    project, _ = record
    results = tmp_path / "results"
    for path in project.results.rglob("*"):
        if path.is_file():
            copy = results / path.relative_to(project.results)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    damaged = next((results / prediction.CARD).glob("*.sidecar"))
    damaged.write_text("{")
    samples = prediction.samples_of(results)
    assert len({sample.release for sample in samples}) == TIMED - 1


def test_a_time_that_is_none_is_no_sample(record):
    """A time of 0, which no clock gives, and lists of two lengths, which `fa4-asv verify` names."""
    groups = kernels(0)
    good = clock(*CALL[:1], "b4_s8192_h16_d128_causal", groups)
    assert good
    broken = [{"centre": [0.0] * 3}, {"centre": [1e-3]}]
    for samples, expected in ((good.samples, 1), *(({**good.samples, **each}, 0) for each in broken)):
        sidecar = make(release="4.0.0b1")
        timed = replace(sidecar, groups={CALL[0]: {CALL[1]: replace(good, samples=samples)}})
        assert len(list(prediction.samples_between(timed, groups))) == expected


def test_the_error_is_that_of_releases_that_the_fit_did_not_see():
    """Errors of steps with other machine code, apart for what is predicted as large; the largest beside the mean."""
    step = prediction.Step("b2", CALL, clock=-0.05, model=-0.03, changed=True)
    steps = [
        step,
        replace(step, clock=0.0, model=-0.02),
        replace(step, clock=0.004, model=-0.001),
        replace(step, clock=0.09, changed=False),
        replace(step, call=("backward-history", CALL[1]), clock=-0.02, model=-0.05),
    ]
    errors = prediction.errors_of(steps)
    assert errors[False, True, False] == prediction.Error(pytest.approx(0.02), pytest.approx(0.02), 2)
    assert errors[False, False, False] == prediction.Error(pytest.approx(0.005), pytest.approx(0.005), 1)
    assert errors[True, True, False].mean == pytest.approx(0.03) and len(errors) == 3


def test_forwards_without_an_order_of_their_groups_have_errors_of_their_own():
    """Above head dim 128, and no backward."""
    wide = "fa4/b4_s8192_h16_d192v128_causal"
    assert prediction.kind_of((CALL[0], wide), 0.02) == (False, True, True)
    assert prediction.kind_of(CALL, 0.001) == (False, False, False)
    assert prediction.kind_of(("backward-history", wide), -0.001) == (True, False, False)


def test_a_step_is_predicted_without_its_own_release(record):
    """Were one release's time wrong by half, only what is fitted with it would be bent."""
    project, _ = record
    samples = prediction.samples_of(project.results)
    last = samples[-1].release
    bent = [
        replace(
            sample,
            timed=replace(
                sample.timed, seconds=sample.timed.seconds * (1.5 if sample.timed.code.turn > 500 else 1)
            ),
        )
        if sample.release == last
        else sample
        for sample in samples
    ]
    of_last = [step for step in prediction.steps_left_out(bent) if step.release == last]
    true = {step.call: step.model for step in prediction.steps_left_out(samples) if step.release == last}
    assert of_last and all(step.model == pytest.approx(true[step.call]) for step in of_last)


# Shown


def shown(comparison: Comparison) -> str:
    stream = io.StringIO()
    text([comparison], Console(file=stream, width=200), 40, every=True)
    return stream.getvalue()


def with_error(comparison: Comparison, mean: float) -> Comparison:
    assert comparison.predicted
    error = prediction.Error(mean, 0.033, 14)
    calls = tuple(replace(call, error=error if call.error else None) for call in comparison.predicted.calls)
    return replace(comparison, predicted=replace(comparison.predicted, calls=calls))


@pytest.mark.parametrize(
    ("change", "mean", "wording"),
    [
        (-0.05, 0.01, "4.0 to 6.0 % faster"),
        (0.05, 0.01, "4.0 to 6.0 % slower"),
        (-0.012, 0.02, "3.2 % faster to 0.8 % slower"),
        (0.012, 0.02, "3.2 % slower to 0.8 % faster"),
        (-0.004, 0.01, "no change of 1% or more (-0.4%)"),
    ],
)
def test_a_prediction_in_words(record, change, mean, wording):
    comparison = with_error(between(record, 6, 7), mean)
    assert comparison.predicted
    first = replace(comparison.predicted.calls[0], change=change)
    changed = replace(comparison, predicted=replace(comparison.predicted, calls=(first,)))
    assert wording in shown(changed) and wording in markdown([changed])
    assert f"{mean:.1%}, at most 3.3% in 14 steps" in shown(changed)


def test_every_format_has_it_and_no_exit_code_depends_on_it(record):
    comparison = with_error(between(record, 6, 7), 0.02)
    printed, page = shown(comparison), markdown([comparison])
    for form in (printed, page):
        assert "model of 6 releases on h200-sxm, docs/model.md" in form
        assert "forward b4_s8192_h16_d128_causal" in form and "silent: its main kernel is not watched" in form
    assert "| 2.0%, at most 3.3% in 14 steps |" in page
    assert "<b>a table" not in page.replace("`silent: no loops: loops: <b>a table</b> is missing`", "")
    data = json.loads(as_json([comparison]))["comparisons"][0]["predicted"]
    calls = {(call["group"], call["case"]): call for call in data["calls"]}
    assert data["machine"] == "h200-sxm" and data["releases"] == TIMED and data["same_kernel"] == 1
    assert calls[CALL]["low"] == pytest.approx(calls[CALL]["change"] - 0.02)
    assert calls[CALL]["high"] == pytest.approx(calls[CALL]["change"] + 0.02)
    assert "silent" in calls["forward-history", "fa4/b1_s8192_h64kv8_d64_w128"]
    assert exit_code([comparison]) == exit_code([replace(comparison, predicted=None)])


def test_a_comparison_without_predictions_says_nothing_of_them(record):
    comparison = replace(between(record, 6, 7), predicted=None)
    assert "redicted" not in shown(comparison) + markdown([comparison]) + as_json([comparison])


# The kernels of calls


def test_a_main_kernel_is_one_that_is_watched_or_none():
    assert main_kernel(shape(4, 16, 8192, 192, head_dim_v=128, causal=True), True) == "bwd_d192_128_causal"
    assert main_kernel(shape(1, 32, 8192, 128, kv_heads=8, causal=True), False) == "fwd_d128_causal_gqa4"
    assert main_kernel(shape(16, 16, 2048, 128, variant="varlen"), False) == "fwd_d128_full_varlen"
    assert main_kernel(shape(4, 16, 8192, 128, window=128), False) == "fwd_d128_window"
    for unwatched in (
        shape(1, 64, 8192, 64, kv_heads=8, window=128),
        shape(1, 32, 8192, 128, kv_heads=4, causal=True),
        shape(4, 16, 8192, 128, dtype="fp16"),
        shape(4, 16, 8192, 80),
        shape(8, 32, 4096, 128, variant="paged"),
    ):
        assert main_kernel(unwatched, False) == ""


def test_every_watched_case_is_the_main_kernel_of_its_own_call():
    for name, case in CASES.items():
        if case.role == "main" and case.call.return_lse:
            assert main_kernel(case.call.shape, case.call.backward) == name


def test_the_card_is_one_of_the_record():
    assert (Path(__file__).parents[1] / "results" / prediction.CARD).is_dir()


def test_the_report_says_what_is_predicted_of_a_release_that_no_card_timed(record):
    """In *Install this*: the newest release, of eight of which the card timed six."""
    project, _ = record
    model = load(project, list(iter_results(project.results)))
    swept = sweeps_of(model)
    (hopper,) = advice(model, swept, cards_of(model, swept), [])
    assert hopper.release.text == "b8"
    timed, predicted = (cell.text for cell in dict(hopper.facts)["speed"])
    assert timed == f"not timed yet: {prediction.CARD} timed b{TIMED} last"
    assert re.fullmatch(
        r"predicted against b6 from machine code, no clock: \d+ calls change by 1% or more "
        r"\(most: (forward|backward) b\S+ [\d.]+ to [\d.]+ % faster\), \d+ by less; silent on \d+",
        predicted,
    ), predicted


def test_the_report_predicts_as_the_record_does_and_shows_it_beside_the_time(record):
    """Its model of the record is slim: what predictions are made of must be in it."""
    project, _ = record
    model = load(project, list(iter_results(project.results)))
    (timed,) = [swept for swept in sweeps_of(model) if swept.key.machine == prediction.CARD]
    (compiled,) = model.exact()
    for number, point in enumerate(compiled.points):
        slim, whole = (
            prediction.code_of(groups, CAUSAL) for groups in (point.record.sidecar.groups, kernels(number))
        )
        assert slim == whole and whole.barriers
    steps = prediction.steps_left_out(prediction.samples_of(project.results))
    shown = predicted_steps(model, timed)
    assert shown.keys() == {(step.release, Call(*step.call)) for step in steps} and steps
    for step in steps:
        text = shown[step.release, Call(*step.call)]
        assert text == "same code" if not step.changed else text.startswith(percent(1.0, 1.0 + step.model))
    (page,) = [
        page
        for page in call_pages(model, [timed], timeline(model, []))
        if page.title == Call(*CALL).title and page.name.startswith("run-time")
    ]
    table = page.parts[0].table
    at = table.head.index("predicted")
    texts = [cell if isinstance(cell, str) else cell.text for cell in (row[at] for row in table.rows)]
    newest_first = [step for step in reversed(steps) if step.call == CALL]
    assert texts == [shown[step.release, Call(*CALL)] for step in newest_first] + [NONE]


def test_other_machines_have_no_predicted_column(record):
    project, _ = record
    model = load(project, list(iter_results(project.results)))
    (timed,) = [swept for swept in sweeps_of(model) if swept.key.machine == prediction.CARD]
    assert predicted_steps(model, replace(timed, key=replace(timed.key, machine="another"))) == {}
