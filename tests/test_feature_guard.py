"""Calls with features against their reference, on a stand-in for FA4: what is right passes."""

from __future__ import annotations

import sys

import pytest

torch = pytest.importorskip("torch")

from fa4_asv.catalog.shapes import for_features  # noqa: E402
from fa4_asv.measure.runtime import correctness  # noqa: E402
from fa4_asv.measure.runtime.backends import backend  # noqa: E402
from fa4_asv.measure.runtime.inputs import FEATURE_KINDS  # noqa: E402
from tests.support.mutants import lay  # noqa: E402
from tests.support.standin_runs import forget  # noqa: E402


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    folder = lay(tmp_path_factory.mktemp("standin") / "fa4", None)
    forget()
    sys.path.insert(0, str(folder))
    yield backend("fa4")
    sys.path.remove(str(folder))
    forget()


@pytest.mark.parametrize("kind", FEATURE_KINDS)
@pytest.mark.parametrize("each", for_features(), ids=lambda each: each.name)
def test_the_stand_in_is_never_caught(standin, each, kind):
    backward = each.has_backward and not each.features.latent
    errors = correctness.check_whole(torch, standin, each, "cpu", backward, kind, options=False)
    assert errors.keys() >= {"out"}
