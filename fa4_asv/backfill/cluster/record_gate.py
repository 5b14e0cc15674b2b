"""The driver's side of the record: what a node is told of a task, and what of its answer is let in.

The one writer of `results/`: nodes never see it. What comes back is unpacked aside, compared with the task and
verified like anybody's files before it is moved.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.backfill.cluster.archive import pack, unpack
from fa4_asv.backfill.cluster.order import Answer, Order
from fa4_asv.backfill.tasks import BackfillRequest, Task, asv_words, machine_record
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import read_text
from fa4_asv.base.machine import MACHINE_VARIABLE, NOGPU
from fa4_asv.base.project import Project
from fa4_asv.base.side_by_side import VARIABLE as CORES
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Lock, Policy, UnsupportedFlavour
from fa4_asv.integrity.staging import seed, stage, take
from fa4_asv.record.store import all_pairs

# Of the driver's environment, what decides how a task is measured. Indices and passwords stay here.
_CARRIED = ("FA4_ASV_TOOLCHAIN", "FA4_ASV_TORCHES", "FA4_ASV_OTHERS", "FA4_ASV_NETWORK", "FA4_ASV_MEMORY")
_SOURCES = ("benchmarks", "fa4_asv", "requirements", "history", "asv.conf.json", ".asv/history.git")


@dataclass(frozen=True)
class Site:
    """How nodes are to work: `cores` of a task, its card's type `gpu`, their folders `work` and `wheels` ("": none)."""

    cores: int = 1
    gpu: str = ""
    work: str = ""
    wheels: str = ""


class RecordGate:
    """Orders out, records in, for one backfill of one project."""

    def __init__(
        self, project: Project, request: BackfillRequest, environment: str, site: Site, timeout: float
    ) -> None:
        self._project, self._request, self._environment = project, request, environment
        self._site, self._timeout = site, timeout
        self._policy = Policy.from_environment()
        self._digests: dict[Task, str] = {}

    def order(self, task: Task) -> bytes:
        """What a node is told of `task`. Its toolchain is resolved here: a node may be without a network.

        Raises Fa4AsvError where there is no toolchain for it.
        """
        source = lay_source(self._project, task.commit)
        try:
            lock = source.lock(self._project, task.flavour, self._policy)
            locks = _locks(self._project, lock)
            self._digests[task] = lock.digest
        except UnsupportedFlavour:
            locks = {}
            self._digests[task] = ""  # the node finds the same, and records it
        with self._aside(task) as staged:
            seed(self._project, staged, task.commit, task.environment)
            known = pack(staged.results)
        arguments = asv_words(task, self._request, self._environment)
        variables = self._variables()
        order = Order(
            arguments,
            task.flavour,
            self._request.machine,
            self._site.work,
            self._timeout,
            known,
            locks,
            variables,
        )
        return order.dump()

    def _variables(self) -> dict[str, str]:
        result = {name: os.environ[name] for name in _CARRIED if name in os.environ}
        result[CORES] = str(self._site.cores)
        if not self._site.gpu:
            result["CUDA_VISIBLE_DEVICES"] = ""  # who asked for no card sees none
        if self._site.wheels:
            links = self._site.wheels
            result |= {
                "UV_OFFLINE": "1",
                "UV_FIND_LINKS": links,
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": links,
            }
        if self._request.machine != NOGPU:
            result[MACHINE_VARIABLE] = json.dumps(machine_record(self._project, self._request.machine))
        return result

    def keep(self, task: Task, answer: Answer) -> list[Path]:
        """Move what `answer` holds into `results/`; the files that were moved. The log is kept in any case.

        Raises Fa4AsvError, with nothing moved, where there is a fault, or anything that is not sound or not
        of this task.
        """
        log = self._project.work / "backfill" / "logs" / f"{task.name}-{task.flavour}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"on {answer.host}, {answer.seconds:.1f} s\n{answer.log}", encoding="utf-8")
        try:
            if answer.fault:
                raise Fa4AsvError(answer.why)
            with self._aside(task) as staged:
                unpack(answer.results, staged.results)
                self._check(task, staged)
                return take(staged, self._project)
        except Fa4AsvError as error:
            raise Fa4AsvError(f"{error}; log: {os.path.relpath(log, self._project.root)}") from None

    def _check(self, task: Task, staged: Project) -> None:
        """Raises Fa4AsvError unless all that came is of this task."""
        pairs = list(all_pairs(staged.results))
        if not pairs:
            raise Fa4AsvError("the answer holds no result file with its sidecar")
        for pair in pairs:
            side = pair.sidecar
            fields = (
                side.machine,
                side.commit,
                side.toolchain.flavour,
                side.toolchain.policy,
                side.toolchain.digest,
            )
            asked = (
                self._request.machine,
                task.commit,
                task.flavour,
                self._request.policy,
                self._digests[task],
            )
            if fields != asked:
                raise Fa4AsvError(
                    f"{pair.path.name} is of {' '.join(fields)}, expected {' '.join(asked)}; refused"
                )

    @contextmanager
    def _aside(self, task: Task) -> Iterator[Project]:
        folder = self._project.work / "backfill" / f"{os.getpid()}-{task.commit[:12]}-{task.flavour}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            yield stage(self._project, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _locks(project: Project, lock: Lock) -> dict[str, str]:
    return {os.path.relpath(lock.path, project.root): read_text(lock.path)}


def package(project: Project, folder: Path) -> Path:
    """A copy of all that a node needs of this checkout, as `folder` (absent before). Raises Fa4AsvError."""
    try:
        for name in _SOURCES:
            source, target = project.root / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.lock"))
            else:
                shutil.copyfile(source, target)
    except OSError as error:
        raise Fa4AsvError(f"cannot copy the sources to {folder}: {error.strerror or error}") from None
    return folder
