"""An audit with the real compilers: a release as committed is equal in every benchmark, an edit of all places is found.

Slow, needs the package registry and no GPU.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import shutil
from typing import Any

import pytest

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.integrity.staging import stage
from fa4_asv.integrity.verify import verify
from fa4_asv.record.store import sidecar_path
from tests.support import ROOT
from tests.support.real_checkout import ENVIRONMENT, command
from tests.support.results import json_of

pytestmark = pytest.mark.slow
NAME = f"d14f663b-{ENVIRONMENT}.json"


# What is kept of the groups that are drawn whole, by the beginning of a case: each start of FA4 costs four seconds.
KEPT = {
    "memory": ("sm_100/fwd_b1_", "sm_100/bwd_b1_"),
    "growth": ("sm_90/bwd_d64",),
    "launch": ("sm_90/autograd_d128", "sm_90/varlen_tensor_d128"),
    "mla-memory": ("sm_100/mla_decode",),
}


def keep_some_of_each_group(result: dict[str, Any], sidecar: dict[str, Any]) -> None:
    """As a narrow run records them. The groups on request but for MLA's traces go: each costs compiles besides."""
    for group in (GROUPS[name] for name in [*sidecar["groups"]]):
        names = [group.benchmark(metric) for metric in group.metrics]
        if group.on_request and group.name not in KEPT:
            sidecar["groups"].pop(group.name)
            for name in names:
                result["results"].pop(name, None)
        elif group.name in KEPT:
            records = sidecar["groups"][group.name]
            chosen = {case for case in records if case.startswith(KEPT[group.name])}
            records |= {case: {"state": "not run"} for case in records.keys() - chosen}
            for name in names:
                values, axes = result["results"][name][:2]
                cases = ["/".join(map(ast.literal_eval, axis)) for axis in itertools.product(*axes)]
                values[:] = [
                    value if case in chosen else math.nan for case, value in zip(cases, values, strict=True)
                ]


def test_b36_is_what_compiling_gives_but_for_an_edit_of_all_places(real, tmp_path):
    """Registers are edited wherever they stand: the audit tells those of the kernel that was drawn, and nothing else."""
    staged = stage(real, tmp_path / "staged")
    folder = staged.results / "nogpu"
    folder.mkdir()
    shutil.copy(ROOT / "results" / "nogpu" / "machine.json", folder)
    paths = [folder / NAME, sidecar_path(folder / NAME)]
    data = [json_of(ROOT / "results" / "nogpu" / path.name) for path in paths]
    keep_some_of_each_group(*data)
    row = data[0]["results"]["codegen.Kernels.track_registers"]
    row[0] = [value + 1 for value in row[0] if value is not None]
    committed = {}
    for case, record in data[1]["groups"]["codegen"].items():
        if record["state"] == "measured":
            committed[case] = record["figures"]["registers"]
            record["figures"]["registers"] += 1
    for path, content in zip(paths, data, strict=True):
        path.write_text(json.dumps(content))
    assert verify(staged, arriving=True) == [], "nothing in the record contradicts it"
    done = command(
        staged.root, "fa4_asv", "audit", "--sample", "1", "--seed", "1", "-E", "fa4:same", "--json"
    )
    assert done.returncode == 1, done.stderr + done.stdout
    answer = json.loads(done.stdout)
    checked = {group: entry["checked"] for group, entry in answer["cases"].items()}
    assert checked.pop("loops") in (0, 1), "those of the kernel, where it is a main one"
    on_request = {name for name, group in GROUPS.items() if group.on_request}
    assert {name: number for name, number in checked.items() if name not in on_request} == {
        "codegen": 1,
        "memory": 32,
        "growth": 1,
        "route": 2,
        "launch": 28,
    }
    assert {name for name in on_request if checked.get(name)} == {"mla-memory"}
    assert not answer["not_checked"]
    told = {each["file"]: each for each in answer["differences"]}
    assert len(answer["differences"]) == 2
    assert told.keys() == {f"results/nogpu/{path.name}" for path in paths}
    for each in told.values():
        registers = committed[each["case"]]
        assert each["what"] == f"registers: recorded {registers + 1}, anew {registers}"
