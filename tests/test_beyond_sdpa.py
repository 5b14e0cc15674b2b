"""The ways to FA4 that are not SDPA: real torch on an FA4 that computes nothing, one defect at a time; and records of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from fa4_asv.catalog.benchmarks import BY_TORCH, GROUPS, REFUSED  # noqa: E402
from fa4_asv.catalog.features import Features  # noqa: E402
from fa4_asv.catalog.shapes import shape  # noqa: E402
from fa4_asv.integrity.consistency import checks  # noqa: E402
from fa4_asv.measure.driver_stubs import Lacking, target_environment  # noqa: E402
from fa4_asv.measure.pool import Outcome  # noqa: E402
from fa4_asv.measure.route import collect as route  # noqa: E402
from fa4_asv.measure.route import flex, refusals, varlen  # noqa: E402
from fa4_asv.measure.runtime import beyond_on_gpu, worker  # noqa: E402
from fa4_asv.measure.runtime.inputs import make  # noqa: E402
from fa4_asv.record.schema import CaseRecord  # noqa: E402
from tests.support import ROOT, silent_fa4  # noqa: E402

OURS = "2.13.0"
needs_ours = pytest.mark.skipif(
    route.plain_version(torch.__version__) != OURS, reason=f"needs torch {OURS}, the base's own"
)


def asked(folder, arch, *edits):
    """What the worker answers of both ways; here in one process, since importing torch takes most of the time."""
    silent_fa4.lay(folder, *edits)
    path = os.pathsep.join((str(folder), str(ROOT)))
    surroundings = {**os.environ, **dict(target_environment(arch, "cu13")), "PYTHONPATH": path}
    ways = ("flex", "varlen")
    done = subprocess.run(
        [sys.executable, "-m", "fa4_asv.measure.route.beyond_worker"],
        input="".join(json.dumps({"route": way}) + "\n" for way in ways),
        capture_output=True,
        text=True,
        env=surroundings,
        timeout=300,
    )
    ready, *answers = done.stdout.splitlines()
    assert len(answers) == len(ways), done.stderr
    return dict(zip(ways, map(json.loads, answers), strict=True))


@pytest.mark.slow
@needs_ours
def test_all_that_hopper_refuses_is_said_in_torchs_words(tmp_path):
    answers = asked(tmp_path, "sm_90")
    assert {way: answer["broken"] for way, answer in answers.items()} == {"varlen": {}, "flex": {}}
    assert answers["varlen"]["checks"] == len(varlen.CHECKS) and answers["flex"]["checks"] == len(flex.CHECKS)
    assert answers["flex"]["refused"] == {}
    refused = answers["varlen"]["refused"]
    assert refused.keys() == {"block_table", "num_splits_4"}
    assert "paged KV (block_table) not supported on SM 90" in refused["block_table"]


@pytest.mark.slow
@needs_ours
def test_defects_are_found_by_the_check_that_is_about_them(tmp_path):
    """An LSE in 16 bits, gradients of K without its heads, no argument for block tables of functions, a refusal of FA4's."""
    answers = asked(
        tmp_path,
        "sm_100",
        ("torch.empty(heads_first, dtype=torch.float32", "torch.empty(heads_first, dtype=torch.float16"),
        (
            "    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)",
            "    assert not deterministic, 'no deterministic backward'\n"
            "    return torch.empty_like(q), torch.empty_like(q), torch.empty_like(v)",
        ),
        (
            "page_table=None, num_splits=1, out=None, lse=None, score_mod=None, mask_mod=None,\n"
            "                    block_sparse_tensors=None, aux_tensors=None",
            "page_table=None, num_splits=1, out=None, lse=None, score_mod=None, mask_mod=None,\n"
            "                    aux_tensors=None",
        ),
    )
    broken = answers["varlen"]["broken"]
    assert broken.keys() == {"lse", "meta", "backward_gqa"}
    assert "float16" in broken["lse"] and broken["backward_gqa"].startswith("dK is Seen(shape=(512, 8, 128)")
    assert answers["varlen"]["refused"].keys() == {"deterministic"}
    forward = {name for name in answers["flex"]["broken"] if name.startswith("forward")}
    assert forward == {name for name in flex.CHECKS if name.startswith("forward")}
    assert "unexpected keyword argument 'block_sparse_tensors'" in answers["flex"]["broken"]["forward_full"]
    assert answers["flex"]["refused"].keys() == {"deterministic"}


# Outcomes of a check.


def _raises(error):
    def run(_):
        raise error

    return run


def test_a_refusal_is_not_broken_and_what_needs_it_is_refused_too():
    checks = {
        "passes": (lambda _: "", ()),
        "wrong": (lambda _: "no", ()),
        "lacks": (_raises(Lacking("torch 2.11.0 has no such name")), ()),
        "adapter": (
            _raises(RuntimeError("FA4 forward unsupported: paged KV not supported on SM 90")),
            ("passes",),
        ),
        "breaks": (_raises(ValueError("too many values")), ()),
        "after_lacks": (lambda _: "", ("lacks",)),
        "after_wrong": (lambda _: "", ("passes", "wrong")),
    }
    result = refusals.run_checks(checks, None)
    assert result.broken.keys() == {"wrong", "breaks", "after_wrong"}
    assert result.refused["lacks"] == "torch 2.11.0 has no such name"
    assert "SM 90" in result.refused["adapter"]
    assert (result.refused["after_lacks"], result.broken["after_wrong"]) == ("needs lacks", "needs wrong")


@pytest.mark.parametrize(
    ("calls", "expected", "message"),
    [
        ([], {}, "FA4 was called 0 times"),
        ([{}, {}], {}, "FA4 was called 2 times"),
        ([{"causal": False}], {"causal": True}, "FA4 was called with causal=False, not True"),
        ([{}], {"page_table": ...}, "FA4 was called without page_table"),
        ([{"page_table": object(), "causal": True}], {"page_table": ..., "causal": True}, ""),
    ],
)
def test_what_fa4_was_told(calls, expected, message):
    assert refusals.told(calls, expected) == message


def test_whatever_torch_remembers_of_cudnn_is_asked_again():
    """torch 2.15 keeps the version in one function and the choice in another."""
    cudnn = SimpleNamespace(version=lambda: 90_000)

    @lru_cache
    def version():
        return cudnn.version()

    @lru_cache
    def choice():
        return (version() or 0) >= 91_800

    driver = object.__new__(varlen.VarlenDriver)
    driver._torch = SimpleNamespace(backends=SimpleNamespace(cudnn=cudnn))
    driver._varlen = SimpleNamespace(version=version, choice=choice, name="torch.nn.attention.varlen")
    choices = []
    for ask in (driver.without_cudnn, driver.with_cudnn, driver.without_cudnn):
        ask()
        choices.append(choice())
    assert choices == [False, True, False]


def test_what_a_torch_lacks_is_said_by_name():
    def varlen_attn(query, key):
        pass

    with pytest.raises(Lacking, match="torch's varlen_attn has no argument block_table"):
        refusals.takes(varlen_attn, {"block_table": 1, "key": 2})
    with pytest.raises(Lacking, match=r"torch 2\.11\.0 has no torch\.nn\.attention\.Nothing"):
        refusals.attribute(torch.nn.attention, "Nothing", "2.11.0")


def test_a_template_is_filled_in_as_torch_would(monkeypatch):
    monkeypatch.setenv("FA4_ASV_ARCH", "sm_100")
    text = (
        '{{def_kernel("Q", "K")}}\n    {% if HAS_SCORE_MOD %}\n    def score_mod(tSrS_ssa):\n'
        '        {{ modification(output_name="tSrS_ssa") | indent_except_first(2) }}\n        return tSrS_ssa\n'
        "    {% endif %}\n    return Q, {{ get_output() }}, {{ SPARSE_Q_BLOCK_SIZE }}, {{ get_tensor_buffers() }}\n"
    )
    source = flex.fill_in(text, flex.Flex(score=True, reads=True))
    assert source.startswith("def kernel(Q, K, OUTPUT, BUFFER):")
    namespace: dict = {}
    exec(source, namespace)
    assert "tSrS_ssa = tSrS_ssa" in source and "256, ['BUFFER']" in source
    assert "score_mod" not in flex.fill_in(text, flex.Flex())


# Records.


def test_both_ways_are_on_request_and_by_torch():
    for name in BY_TORCH[1:]:
        assert GROUPS[name].on_request and GROUPS[name].cases == GROUPS["route"].cases
        assert GROUPS[name].selected([]) == [] and GROUPS[name].selected(["^route"]) == []
        assert GROUPS[name].selected(["^beyond_sdpa"])


def test_a_record_counts_broken_and_refused_checks_apart():
    answer = {"torch": "2.13.0+cpu", "checks": 19, "broken": {"lse": "x"}, "refused": {"block_table": "no"}}
    (record,) = route._records(("2.13.0", "sm_90"), Outcome("2.13.0/sm_90", answer)).values()
    assert record.figures == {"broken": 1, "refused": 1, "checks": 19}
    assert record.notes == {"lse": "x", "block_table": f"{REFUSED}no"}
    groups = {"route-varlen": {"2.13.0/sm_90": record}}
    assert not [wrong for _, wrong in checks(groups) if wrong]
    for figure, value in (("broken", 2), ("refused", 0), ("checks", 1)):
        edited = CaseRecord("measured", figures={**record.figures, figure: value}, notes=record.notes)
        assert [wrong for _, wrong in checks({"route-varlen": {"2.13.0/sm_90": edited}}) if wrong]


def test_a_torch_without_the_way_is_unsupported_in_words():
    error = {
        "error": {"kind": "Lacking", "words": "torch 2.9.0 has no torch.nn.attention.varlen", "refused": True}
    }
    (record,) = route._records(("2.9.0", "sm_90"), Outcome("2.9.0/sm_90", error)).values()
    assert record.state == "unsupported" and "has no torch.nn.attention.varlen" in record.why


# On a card: played on a processor, where torch's plain formula stands for FlexAttention, and the formula for packed sequences.


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def _played(monkeypatch, wrong=lambda out: out):
    """torch's function for packed sequences, computed by the formula."""
    from fa4_asv.measure.runtime import feature_reference

    state = {}

    def of(torch, each, device):
        state["inputs"] = make(torch, each, device)
        return state["inputs"]

    def varlen_attn(
        query, key, value, cu_q, cu_k, max_q, max_k, *, window_size=(-1, -1), enable_gqa=False, seqused_k=None,
        block_table=None, num_splits=None,
    ):  # fmt: skip
        inputs = state["inputs"]
        if block_table is not None:
            key, value = (x[block_table.long()].flatten(1, 2) for x in (key, value))
        else:
            key, value = key.unsqueeze(0), value.unsqueeze(0)
        leaves = {"q": query.unsqueeze(0).float(), "k": key.float(), "v": value.float()}
        parts = [
            feature_reference._attend(torch, inputs, leaves, number, True)
            for number in range(inputs.shape.batch)
        ]
        return wrong(torch.cat(parts)).to(query.dtype)

    monkeypatch.setattr(beyond_on_gpu, "make", of)
    monkeypatch.setattr(
        beyond_on_gpu.importlib,
        "import_module",
        lambda name: (
            SimpleNamespace(varlen_attn=varlen_attn) if name.endswith("varlen") else sys.modules[name]
        ),
    )


CACHE = Features(keys=96, page=16, used=True)
SMALL = {
    "varlen": {
        "backward_gqa": beyond_on_gpu._varlen(
            shape(3, 4, 50, 32, 2, causal=True, variant="varlen"), backward=True
        ),
        "block_table_16": beyond_on_gpu._varlen(
            shape(3, 4, 1, 32, 2, causal=True, variant="varlen", features=CACHE)
        ),
    },
    "flex": {
        "forward_document": beyond_on_gpu._flex(shape(2, 2, 128, 32, features=Features(mask="document"))),
        "forward_alibi": beyond_on_gpu._flex(shape(2, 2, 128, 32, features=Features(score="alibi"))),
    },
}


def test_packed_sequences_are_held_to_the_formula(monkeypatch, one_thread):
    monkeypatch.setattr(beyond_on_gpu, "CHECKS", SMALL)
    _played(monkeypatch)
    count, result = beyond_on_gpu.run_checks(torch, "varlen", "cpu")
    assert (count, result.broken, result.refused) == (2, {}, {})
    _played(monkeypatch, wrong=lambda out: out * 1.05)
    count, result = beyond_on_gpu.run_checks(torch, "varlen", "cpu")
    assert result.broken.keys() == SMALL["varlen"].keys() and all(
        "out is" in reason for reason in result.broken.values()
    )


def test_flexattention_is_held_to_the_formula(monkeypatch, one_thread):
    import torch.nn.attention.flex_attention as attention

    # Eager, by torch's own formula: compiling it for a processor takes a minute.
    monkeypatch.setattr(attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(beyond_on_gpu, "CHECKS", SMALL)
    count, result = beyond_on_gpu.run_checks(torch, "flex", "cpu")
    assert (count, result.broken, result.refused) == (2, {}, {})
    real = beyond_on_gpu._score
    monkeypatch.setattr(
        beyond_on_gpu, "_score", lambda inputs: lambda score, b, h, q, k: real(inputs)(score, b, h, k, q)
    )
    _, result = beyond_on_gpu.run_checks(torch, "flex", "cpu")
    assert result.broken.keys() == {"forward_alibi"}


def test_without_a_card_the_ways_on_a_card_are_refused():
    if not torch.cuda.is_available():
        answer = worker.beyond_case(torch, {"what": "route-beyond", "way": "flex"})
        assert answer["error"]["refused"] and "needs a CUDA GPU" in answer["error"]["words"]


def test_a_record_of_a_card_counts_both():
    notes = {"torch": "2.14.1", "checks": "11", "forward_full": "off", "block_table": f"{REFUSED}SM 90"}
    record = CaseRecord("measured", samples={"broken": [1.0], "refused": [1.0]}, notes=notes)
    assert not [wrong for _, wrong in checks({"route-beyond-card": {"varlen": record}}) if wrong]
    record.samples["refused"][0] = 2.0
    assert [wrong for _, wrong in checks({"route-beyond-card": {"varlen": record}}) if wrong] == [
        "refused is 2, 1 checks have a reason"
    ]
