"""How long a backfill will take, by what was recorded."""

from __future__ import annotations

import json
import shutil

from fa4_asv.backfill.estimates import Estimate, estimate
from fa4_asv.backfill.tasks import BackfillRequest, Task, missing
from tests.support import ROOT
from tests.support.backfills import CODEGEN, commits, record


def test_the_estimate_is_the_median_of_what_was_recorded(history):
    first, second, third = commits(history)
    tasks = missing(history, [second, third], CODEGEN)
    assert estimate(history.results, tasks, CODEGEN) == Estimate(None, ("codegen",))
    record(history, first, "4.0.0b3")
    assert estimate(history.results, tasks, CODEGEN) == Estimate(200.0, ())
    assert estimate(history.results, [], CODEGEN) == Estimate(None, ())


def test_what_is_measured_figure_by_figure_is_estimated_by_its_own_duration(history):
    """The real record of a machine with a clock: two releases of it, 200 s and 400 s for compile."""
    box = shutil.copytree(ROOT / "results" / "xeon-2c", history.results / "xeon-2c")
    shorter, longer, *others = sorted(box.glob("*-*.json"))
    for path in others:
        path.unlink()
    for path, jit, start in ((shorter, 200.0, 20.0), (longer, 400.0, 30.0)):
        data = json.loads(path.read_text())
        at = data["result_columns"].index("duration")
        data["results"]["compile.Jit.track_seconds"][at] = jit
        data["results"]["compile.Import.track_seconds"][at] = start
        path.write_text(json.dumps(data))
    tasks = [Task(commit, "x", "cu13", ("compile", "import", "forward")) for commit in commits(history)[:2]]
    assert estimate(history.results, tasks, BackfillRequest(machine="xeon-2c")) == Estimate(
        2 * (300.0 + 25.0), ("forward",)
    )
