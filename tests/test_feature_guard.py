"""Calls with features against their reference, on a stand-in for FA4: what is right passes, each mutant is caught by name."""

from __future__ import annotations

import sys

import pytest

torch = pytest.importorskip("torch")

from fa4_asv.catalog.shapes import for_features, shape  # noqa: E402
from fa4_asv.measure.runtime import correctness, feature_reference, reference  # noqa: E402
from fa4_asv.measure.runtime.backends import backend  # noqa: E402
from fa4_asv.measure.runtime.inputs import FEATURE_KINDS, make  # noqa: E402
from fa4_asv.measure.runtime.tolerances import GuardFailed  # noqa: E402
from tests.support.feature_mutants import FEATURE_MUTANTS  # noqa: E402
from tests.support.mutants import lay  # noqa: E402
from tests.support.standin_runs import forget  # noqa: E402

SHAPES = {each.name: each for each in for_features()}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def held(each, kind, backward):
    """The guard's errors of FA4 as it is laid."""
    fa4, inputs = backend("fa4"), make(torch, correctness.small(each), "cpu", kind)
    outputs = correctness.results(fa4.prepare(torch, inputs), backward)
    return correctness.check_values(torch, fa4, inputs, outputs, kind)


@pytest.fixture
def laid(tmp_path, monkeypatch):
    """Puts the stand-in, or a mutant of it, in the place of FA4."""

    def put(mutant=None):
        folder = lay(tmp_path / "fa4", mutant)
        forget()
        monkeypatch.syspath_prepend(str(folder))

    yield put
    forget()


@pytest.mark.parametrize("kind", FEATURE_KINDS)
@pytest.mark.parametrize("each", SHAPES.values(), ids=SHAPES)
def test_the_stand_in_is_never_caught(laid, each, kind):
    laid()
    backward = each.has_backward
    errors = held(each, kind, backward)
    assert errors.keys() >= {"out", *(("dq", "dk", "dv") if backward else ())}
    assert ("dsink" in errors) == (each.features.sink and backward)
    assert ("dqv" in errors) == (bool(each.features.latent) and backward)


@pytest.mark.parametrize("name", FEATURE_MUTANTS)
def test_a_mutant_is_caught_by_name(laid, name):
    case = FEATURE_MUTANTS[name]
    laid(case.mutant)
    each = next(each for each in SHAPES.values() if case.shape in each.name)
    with pytest.raises(GuardFailed, match=rf"{correctness.small(each).name} \({case.kind}\): .*{case.named}"):
        held(each, case.kind, case.backward)


def test_a_mutant_of_the_backward_has_a_right_forward(laid):
    case = FEATURE_MUTANTS["sink_left_out_of_the_backward"]
    laid(case.mutant)
    each = next(each for each in SHAPES.values() if case.shape in each.name)
    assert held(each, case.kind, backward=False).keys() == {"out"}


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 20}], ids=str)
def test_the_formula_is_pytorchs_math_where_both_know_the_call(options):
    inputs = make(torch, shape(2, 4, 60, 32, 2, **options), "cpu")
    formula, math = (
        full(torch, inputs, False, cast=False) for full in (feature_reference.full, reference.full)
    )
    for name in ("out", "dq", "dk", "dv"):
        torch.testing.assert_close(formula[name], math[name], rtol=1e-4, atol=1e-5)


def test_inputs_show_what_gaussian_ones_hide():
    each = SHAPES["b2_s96_h4kv2_d64_causal_sink"]
    views, model = (make(torch, each, "cpu", kind) for kind in ("one-tensor", "model"))
    assert views.q.untyped_storage()._cdata == views.v.untyped_storage()._cdata
    assert not views.k.is_contiguous() and views.k.stride(1) == views.q.stride(1) == (4 + 2 * 2) * 64
    large = model.k.float().abs().mean((0, 1, 2))
    assert large[:2].min() > 3 * large[2:].max(), "two channels are far larger than the others"
    assert model.k[:, 0].float().norm() > 1.5 * model.k[:, 1].float().norm(), "and so is the first key"


def test_what_hid_from_gaussian_inputs_elsewhere_is_asked():
    """Head dim 256 in a batch, d72, Dv other than D, rows that see nothing; views, outliers, activations for every shape."""
    shapes = SHAPES.values()
    assert any(each.head_dim == 256 and each.batch >= 2 and each.has_backward for each in shapes)
    assert any(each.head_dim == 72 and each.has_backward for each in shapes)
    assert any(each.head_dim != each.head_dim_v and not each.features.latent for each in shapes)
    assert any(each.causal and each.keys < each.seq_len for each in shapes)
    assert {"one-tensor", "hard", "model"} < set(FEATURE_KINDS)
    hard = make(torch, SHAPES["b2_s96_h4kv2_d64_causal_sink"], "cpu", "hard")
    assert 0 < (hard.k.float().abs() > 15).float().mean() < 0.01, "a few large outliers"


def test_each_sequence_uses_another_number_of_keys():
    for each in SHAPES.values():
        if each.features.used:
            used = make(torch, each, "cpu").feature_tensors["seqused_k"].tolist()
            assert len(set(used)) == each.batch and max(used) < each.keys and min(used) >= each.seq_len
            assert not each.features.page or any(count % each.features.page for count in used)


def test_the_module_path_is_left_alone():
    assert not [name for name in sys.modules if name.startswith("flash_attn")]
