"""An audit with the real compilers: a release as committed is equal in every benchmark, an edit of all places is found.

Slow, needs the package registry and no GPU.
"""

from __future__ import annotations

import json
import shutil

import pytest

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.integrity.staging import stage
from fa4_asv.integrity.verify import verify
from fa4_asv.record.store import sidecar_path
from tests.support import ROOT
from tests.support.real_checkout import ENVIRONMENT, command

pytestmark = pytest.mark.slow
NAME = f"d14f663b-{ENVIRONMENT}.json"


def test_b36_is_what_compiling_gives_and_an_edit_of_all_places_is_not(real, tmp_path):
    """Seed 1 draws the same kernel both times; between, its registers change wherever they stand."""
    staged = stage(real, tmp_path / "staged")
    folder = staged.results / "nogpu"
    folder.mkdir()
    for path in (ROOT / "results" / "nogpu" / NAME, ROOT / "results" / "nogpu" / "machine.json"):
        shutil.copy(path, folder)
    shutil.copy(sidecar_path(ROOT / "results" / "nogpu" / NAME), folder)
    words = ("audit", "--sample", "1", "--seed", "1", "-E", "fa4:same", "--json")
    done = command(staged.root, "fa4_asv", *words)
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    checked = {group: entry["checked"] for group, entry in found["cases"].items()}
    assert checked.pop("loops") in (0, 1), "those of the kernel, where it is a main one"
    on_request = {name for name, group in GROUPS.items() if group.on_request}
    assert {name: number for name, number in checked.items() if name not in on_request} == {
        "codegen": 1,
        "memory": 144,
        "growth": 16,
        "route": 2,
        "launch": 140,
    }
    data = [json.loads(path.read_text()) for path in (folder / NAME, sidecar_path(folder / NAME))]
    values = data[0]["results"]["codegen.Kernels.track_registers"][0]
    data[0]["results"]["codegen.Kernels.track_registers"][0] = [
        value + 1 for value in values if value is not None
    ]
    for record in data[1]["groups"]["codegen"].values():
        if record["state"] == "measured":
            record["figures"]["registers"] += 1
    (folder / NAME).write_text(json.dumps(data[0]))
    sidecar_path(folder / NAME).write_text(json.dumps(data[1]))
    assert verify(staged, arriving=True) == [], "nothing in the record contradicts it"
    done = command(staged.root, "fa4_asv", *words)
    assert done.returncode == 1, done.stderr + done.stdout
    told = {each["file"]: each["what"] for each in json.loads(done.stdout)["differences"]}
    assert told.keys() == {f"results/nogpu/{NAME}", f"results/nogpu/{sidecar_path(folder / NAME).name}"}
    assert all(what.startswith("registers: recorded ") for what in told.values())
