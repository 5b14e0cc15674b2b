"""The record verified and read in one go: each file is opened once, and what `verify` refuses is left out."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.base.machine import NOGPU
from fa4_asv.base.project import Project
from fa4_asv.integrity.verify import Problem, sound_files, verify
from fa4_asv.record.explanation import Explanation, read_explanation
from fa4_asv.record.store import Entry
from fa4_asv.report.model import Kept, Model, kept, model_of


@dataclass(frozen=True)
class SoundRecord:
    """`problems` as `verify` found them; `pairs` is what could be read, sound or not, by the result file."""

    project: Project
    problems: Sequence[Problem]
    pairs: Mapping[Path, Kept]

    @property
    def files(self) -> list[Path]:
        """The result files without a problem."""
        return [path for path in sound_files(self.project, self.problems) if path in self.pairs]

    def model(self) -> Model:
        """Raises Fa4AsvError where a list of commits or threads is damaged."""
        return model_of(self.project, [self.pairs[path] for path in self.files])


def explanations(project: Project, problems: Sequence[Problem]) -> list[Explanation]:
    """What `fa4-asv explain --keep` kept, without what `verify` finds wrong. Raises Fa4AsvError."""
    bad = {problem.path for problem in problems}
    paths = sorted((project.results / NOGPU).glob("*.cause"))
    return [read_explanation(path) for path in paths if path not in bad]


def read_record(project: Project) -> SoundRecord:
    """Raises Fa4AsvError where nothing can be checked, see `verify`."""
    pairs: dict[Path, Kept] = {}

    def keep(entry: Entry) -> None:
        if entry.pair:
            pairs[entry.path] = kept(entry.pair)

    with no_cycles():
        return SoundRecord(project, verify(project, each=keep), pairs)


@contextmanager
def no_cycles() -> Iterator[None]:
    """Without the collector of cycles: it would look through millions of records, again and again, and find none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
