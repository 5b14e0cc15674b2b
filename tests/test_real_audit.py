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

pytestmark = pytest.mark.slow
NAME = f"d14f663b-{ENVIRONMENT}.json"


def keep_first_of_each_group_on_request(data: list[dict[str, Any]]) -> None:
    """As a narrow run records them: of a draw they are most of the compiles, and one of each tells as much."""
    result, sidecar = data
    for group in (GROUPS[name] for name in sidecar["groups"] if GROUPS[name].on_request):
        records = sidecar["groups"][group.name]
        first = next(case for case, record in records.items() if record["state"] == "measured")
        records |= {case: {"state": "not run"} for case in records if case != first}
        for name in map(group.benchmark, group.metrics):
            values, axes = result["results"][name][:2]
            cases = ["/".join(map(ast.literal_eval, message)) for message in itertools.product(*axes)]
            values[:] = [
                value if case == first else math.nan for case, value in zip(cases, values, strict=True)
            ]


def test_b36_is_what_compiling_gives_but_for_an_edit_of_all_places(real, tmp_path):
    """Registers are edited wherever they stand: the audit tells those of the kernel that was drawn, and nothing else."""
    staged = stage(real, tmp_path / "staged")
    folder = staged.results / "nogpu"
    folder.mkdir()
    shutil.copy(ROOT / "results" / "nogpu" / "machine.json", folder)
    paths = [folder / NAME, sidecar_path(folder / NAME)]
    data = [json.loads((ROOT / "results" / "nogpu" / path.name).read_text()) for path in paths]
    keep_one_group_on_request(*data)
    keep_first_of_each_group_on_request(data)
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
        "memory": 144,
        "growth": 16,
        "route": 2,
        "launch": 140,
    }
    assert {name for name in on_request if checked.get(name)} == {"mla", "mla-memory"}
    assert not answer["not_checked"]
    told = {each["file"]: each for each in answer["differences"]}
    assert len(answer["differences"]) == 2
    assert told.keys() == {f"results/nogpu/{path.name}" for path in paths}
    for each in told.values():
        registers = committed[each["case"]]
        assert each["what"] == f"registers: recorded {registers + 1}, anew {registers}"


def keep_one_group_on_request(result: dict[str, Any], sidecar: dict[str, Any]) -> None:
    """Each costs a start of FA4 and a compile; MLA's is the smallest."""
    for name, group in GROUPS.items():
        if group.on_request and name not in ("mla", "mla-memory"):
            sidecar["groups"].pop(name, None)
            for metric in group.metrics:
                result["results"].pop(group.benchmark(metric), None)
