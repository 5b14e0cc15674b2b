"""One recorded release: where its result file is, how it is damaged, what `verify` says then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fa4_asv.integrity.verify import verify

DATE = 1772733373000  # in ms, the day of the recorded release


def result_file(project) -> Path:
    return project.results / "nogpu" / "cccccccc-fa4-pyany-flavourcu13-toolchainday.json"


def edit(path: Path, change: Callable[[dict], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def told(project) -> list[str]:
    lines = [f"{problem.path.name}: {problem.what}" for problem in verify(project)]
    assert not any("\n" in line for line in lines)
    return lines
