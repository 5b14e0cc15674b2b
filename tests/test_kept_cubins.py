"""Loops of kernels whose cubins were read before: nothing is compiled for them, and nothing else is taken for them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fa4_asv.base.project import Project
from fa4_asv.catalog.flavours import PLAIN
from fa4_asv.catalog.metrics import LOOP_DIGITS, NO_KERNEL
from fa4_asv.measure.kernels import collect, kept_cubins
from fa4_asv.measure.kernels.cubin import opcode_histogram
from fa4_asv.measure.kernels.loops import read_loops
from fa4_asv.record.schema import CaseRecord, toolchain_digest
from tests.support.contexts import a_context
from tests.support.fake_record import releases, write_pair
from tests.support.loops import OUT_OF_LINE, sass

BYTES, TEXT = b"a cubin", sass(*OUT_OF_LINE)
DIGEST = hashlib.sha256(BYTES).hexdigest()
CASE = ("sm_90", "fwd_d128_full")
KEY = "/".join(CASE)


class Compiled(Exception):
    """Something was compiled."""


@pytest.fixture
def context(tmp_path, monkeypatch):
    """Of a release whose kernel is recorded; its cubin is kept."""
    records = recorded(tmp_path)
    cubin = tmp_path / "dumped.cubin"
    cubin.write_bytes(BYTES)
    kept_cubins.keep(records, cubin, DIGEST)

    def compile_it(*_: object) -> None:
        raise Compiled

    monkeypatch.setattr(collect, "_compile", compile_it)
    monkeypatch.setattr(kept_cubins, "read_cubin", lambda *_: SimpleNamespace(loops=read_loops(TEXT)))
    return records


def recorded(root, **others):
    """The context of a release that is in results/ with the kernel of `others`."""
    opcodes = opcode_histogram(TEXT)
    figures = {
        "instructions": 8,
        "text_bytes": 128,
        "registers": 9,
        "spill_bytes": 0,
        "local_loads": 0,
        "local_stores": 0,
    }
    kernel = {
        "state": "measured",
        "figures": figures,
        "sha256": DIGEST,
        "kernel": "K",
        "opcodes": opcodes,
        **others,
    }
    release = releases(1)[0]
    project = Project(root)
    path = write_pair(project, release, {"codegen": {KEY: CaseRecord(**kernel)}})
    sidecar = next(iter(kept_cubins.series_pairs(path.parent, release.commit, "cu13", "day"))).sidecar
    return a_context(
        root, machine="nogpu", commit=release.commit, policy="day", digest=sidecar.toolchain.digest
    )


def test_a_kept_cubin_is_read_and_nothing_is_compiled(context, monkeypatch):
    (record,) = collect.measure_loops(context, [CASE], 1).values()
    assert record.state == "measured" and record.figures["turn_instructions"] == 8
    assert record.sha256 == DIGEST[:LOOP_DIGITS]
    monkeypatch.setattr(kept_cubins, "read_cubin", None)
    assert kept_cubins.recorded_kernels(context)[KEY].sha256 == DIGEST
    again = dict(kept_cubins.loops_of_kept(context, [(CASE, [KEY])]))
    assert again == {CASE: {KEY: record}}, "what was read once is not read again"


def test_kept_loops_of_the_default_user_need_neither_a_compile_nor_cu12(context, monkeypatch):
    kernels = kept_cubins.recorded_kernels(context)
    monkeypatch.setattr(kept_cubins, "recorded_kernels", lambda _: kernels)

    def ask(*_: object) -> None:
        raise Compiled

    monkeypatch.setattr(collect, "_as_cu12", ask)
    (record,) = collect.measure_loops(replace(context, flavour=PLAIN), [CASE], 1).values()
    assert record.sha256 == DIGEST[:LOOP_DIGITS]


def test_a_kernel_that_release_refuses_has_no_loops_and_needs_no_compile(context, tmp_path):
    refused = recorded(tmp_path, state="unsupported", figures={}, sha256="", kernel="", opcodes={}, why="no")
    (record,) = collect.measure_loops(refused, [CASE], 1).values()
    assert (record.state, record.why) == ("unsupported", NO_KERNEL)


def test_a_kernel_that_was_broken_is_compiled_again(context, tmp_path):
    broken = recorded(tmp_path, state="broken", figures={}, sha256="", kernel="", opcodes={}, why="no")
    with pytest.raises(Compiled):
        collect.measure_loops(broken, [CASE], 1)


def test_other_bytes_than_the_digest_says_are_not_read(context):
    kept_cubins._path(context, DIGEST).write_bytes(b"another")
    with pytest.raises(Compiled):
        collect.measure_loops(context, [CASE], 1)


def test_what_another_toolchain_compiled_says_nothing(context):
    other = a_context(
        context_root(context),
        machine="nogpu",
        commit=context.commit,
        policy="day",
        digest=toolchain_digest("cu13", {}),
    )
    with pytest.raises(Compiled):
        collect.measure_loops(other, [CASE], 1)


def context_root(context):
    return Path(context.root)
