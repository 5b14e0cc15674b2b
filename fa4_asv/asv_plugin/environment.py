"""The `fa4` environment of asv: torch once, FA4's sources and toolchain laid over it per commit.

Selected by "environment_type": "fa4". Python "any" (the default) makes one virtual environment with
torch below .asv/base; `-E fa4:same` uses the interpreter that runs asv, which must hold torch.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from asv import environment, util
from asv.console import log

from fa4_asv.asv_plugin import selection
from fa4_asv.asv_plugin.base_environments import Bases
from fa4_asv.asv_plugin.repo import branches_here
from fa4_asv.base import isolation, scratch
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import parse_json, read_json, write_atomic
from fa4_asv.base.machine import ANY_PYTHON, NOGPU, python_tag
from fa4_asv.base.project import Project
from fa4_asv.history.source import Source, lay_source, refuse_shadow
from fa4_asv.history.toolchain import Lock, Policy, UnsupportedFlavour, install
from fa4_asv.measure.context import VARIABLE, Context, context_of


@functools.cache
def _tell_of_network(python: str, bounds: isolation.Bounds) -> None:
    """Say once where what runs foreign code keeps the network; `python` has torch."""
    if why := isolation.why_kept(bounds, python):
        log.warning(isolation.keeps_words(why))


def _bounds(machine: str) -> isolation.Bounds:
    """Of a process that measures for `machine`."""
    return isolation.COLLECT if machine == NOGPU else isolation.CARD


def environment_name(flavour: str, policy: str) -> str:
    """What asv calls the environment of a flavour and policy on a machine whose clock measures, with this Python."""
    name: str = environment.get_env_name("fa4", python_tag(), {"flavour": flavour, "toolchain": policy}, {})
    return name


class Fa4Environment(environment.Environment):  # type: ignore[misc]
    """One CUDA flavour under one toolchain policy; which commit it holds changes in milliseconds.

    Nothing is installed in place: sources and toolchains are folders of their own, made once, so that
    no two commits, flavours or policies can share a state.
    """

    tool_name = "fa4"

    def __init__(self, conf: Any, python: str, requirements: dict[str, str], tagged_env_vars: Any) -> None:
        try:
            self._policy = Policy.from_environment()
        except Fa4AsvError as error:
            raise util.UserError(str(error)) from None
        if not self.matches(python):
            raise util.UserError(f"environment fa4 has no Python {python!r}; write `-E fa4` or `-E fa4:same`")
        self._project_files = Project.find(Path.cwd())
        # `asv run` without a range fails at a branch that is not here; it makes its environments first.
        conf.branches = branches_here(self._project_files, conf.branches)
        self._bases = Bases(self._project_files, same=python == "same")
        self._flavour = requirements.get("flavour", "cu12")
        requirements = {"flavour": self._flavour, "toolchain": self._policy.name}
        # Exact figures do not depend on Python; what a clock measures does. `asv profile` records neither, and
        # looks for an environment of its own Python.
        exact = selection.machine() == NOGPU and selection.command() != "Profile"
        label = ANY_PYTHON if exact else python_tag()
        self._owner = os.getpid()
        # asv derives folder and name from these while its own __init__ runs.
        self._python, self._requirements = label, requirements
        super().__init__(conf, label, requirements, tagged_env_vars)

    @classmethod
    def matches(cls, python: str) -> bool:
        return python in ("same", ANY_PYTHON)

    def check_presence(self) -> bool:
        return Path(self._path).is_dir() and self._bases.are_whole()

    def _setup(self) -> None:
        Path(self._path).mkdir(parents=True, exist_ok=True)
        self._bases.make(self._install_timeout)

    # A commit: its sources and its toolchain.

    @property
    def installed_commit_hash(self) -> str | None:
        """Always None: what is laid depends on more than the commit, and laying it takes milliseconds."""
        return None

    def install_project(self, conf: Any, repo: Any, commit_hash: str) -> None:
        """Lay sources and toolchain of `commit_hash`. An expected failure is one line and a failed build."""
        if not re.fullmatch(
            "[0-9a-f]{40}", commit_hash
        ):  # `asv run TAGS`: results would be recorded under a name
            raise util.UserError(
                f"{commit_hash} is not a hash of a commit; write `asv run ALL` in place of TAGS"
            )
        # What an earlier round laid must not vouch for this one.
        selection.forget(commit_hash, self.name)
        try:
            self._hold(commit_hash)
        except (Fa4AsvError, OSError, subprocess.SubprocessError) as error:
            log.error(f"fa4-asv: {' '.join(str(error).split())}")
            raise util.ProcessError(["fa4-asv", "install", commit_hash], 1, "", str(error)) from None

    def _hold(self, commit: str) -> None:
        self._set_commit_hash(commit)
        self._held_file.unlink(missing_ok=True)
        source = lay_source(self._project_files, commit)
        torches: dict[str, str] = {}
        unsupported, lock, python = "", None, self._bases.python
        try:
            lock = source.lock(self._project_files, self._flavour, self._policy)
            python = install(self._project_files, lock, self._bases.python)
            torches = {
                torch: str(install(self._project_files, lock, base))
                for torch, base in self._bases.interpreters().items()
            }
        except UnsupportedFlavour as refusal:
            unsupported = str(refusal)
        refuse_shadow(python, source.folder)
        _tell_of_network(str(self._bases.python), _bounds(selection.machine()))
        context = self._context(source, lock, unsupported, torches)
        # A killed run of the same process id may have left records here.
        shutil.rmtree(context.spool, ignore_errors=True)
        write_atomic(self._held_file, json.dumps({"python": str(python), "context": context.dump()}))

    @property
    def _held_file(self) -> Path:
        """What this asv process last laid here; a file, because `asv run -j` lays it in a forked child."""
        return self._project_files.work / "held" / f"{self._owner}-{self.dir_name}.json"

    def _read_held(self) -> tuple[str, Context]:
        if not self._held_file.exists():
            raise util.UserError(f"nothing is installed in {self.name} yet")
        held = read_json(self._held_file, advice="run it again")
        context = Context(**parse_json(held["context"].encode()))
        selection.remember(context)
        return held["python"], context

    def _context(
        self, source: Source, lock: Lock | None, unsupported: str, torches: dict[str, str]
    ) -> Context:
        spool = self._project_files.work / "spool" / str(self._owner) / f"{source.commit[:12]}-{self.name}"
        return context_of(
            self._project_files.root,
            source,
            lock,
            machine=selection.machine(),
            environment=self.name,
            flavour=self._flavour,
            policy=self._policy.name,
            spool=str(spool),
            unsupported=unsupported,
            terminal=selection.terminal(),
            select=selection.benchmarks(),
            torches=torches,
        )

    def run(self, args: list[str], **kwargs: Any) -> Any:
        """Run the commit's interpreter; benchmarks find their context in one variable."""
        python, context = self._read_held()
        log.debug(f"Running '{' '.join(args)}' in {self.name}")
        # What asv adds for benchmarks; the process is ours, but a toolchain's packages run code at its start.
        kwargs.pop("env", None)
        added = dict(self.env_vars)
        path = os.pathsep.join([context.source, context.root])
        # asv's check_output drops PYTHONPATH unless it stands in ASV_PYTHONPATH as well.
        added |= {
            "PYTHONPATH": path,
            "ASV_PYTHONPATH": path,
            VARIABLE: context.dump(),
        } | self._global_env_vars
        try:
            command = isolation.command([python, *args], _bounds(context.machine))
        except Fa4AsvError as error:
            raise util.UserError(str(error)) from None
        return util.check_output(command, env=isolation.environment(scratch.own(), added), **kwargs)
