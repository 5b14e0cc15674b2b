"""The environments that hold torch: the base of everything, and one for each further torch asked for.

Each is made once below .asv/base and is whole when the pins it was made from stand in it, word for word.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

from asv import util
from asv.console import log

from fa4_asv.asv_plugin import selection
from fa4_asv.asv_plugin.base_torch import build_asked, lay_pins, pinned_torch, run_step
from fa4_asv.base import isolation, scratch
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import only_one, read_text
from fa4_asv.base.machine import NOGPU, python_tag
from fa4_asv.base.output import say
from fa4_asv.base.project import Project
from fa4_asv.base.uv_command import uv_command
from fa4_asv.catalog.benchmarks import BY_TORCH, GROUPS, TORCHES

VARIABLE = "FA4_ASV_TORCHES"
_PINS = "fa4_asv-pins.txt"
_RESTORE = "restore it from git"
_BASE_TIMEOUT = 3600.0  # torch over a slow network, outside of asv's own install_timeout


def torches_asked() -> tuple[str, ...]:
    """The versions that FA4_ASV_TORCHES names. Raises asv's UserError, one line, on any other word."""
    text = os.environ.get(VARIABLE, "").strip()
    if text == "all":
        return TORCHES
    torches = dict.fromkeys(word for word in re.split(r"[,\s]+", text) if word)
    unknown = [word for word in torches if word not in TORCHES]
    if unknown:
        raise util.UserError(
            f"{VARIABLE}={text!r}: no torch {unknown[0]!r}; write `all` or some of {','.join(TORCHES)}"
        )
    return tuple(torches)


def torches_selected() -> set[str]:
    """The torches of the route cases that this run selects; none on a machine that measures by a clock."""
    if selection.machine() != NOGPU:
        return set()
    return {case[0] for name in BY_TORCH for case in GROUPS[name].selected(selection.benchmarks())}


@cache
def torch_of(python: str) -> str:
    """The version of torch that an interpreter holds, without its build ("+cpu"); "" if none."""
    code = "import importlib.metadata as m; print(m.version('torch').partition('+')[0])"
    done = _ask(python, code)
    return done.stdout.strip()


def _ask(python: str, code: str) -> subprocess.CompletedProcess[str]:
    """`code` in another interpreter, which imports packages of others."""
    command = isolation.command([python, "-c", code], isolation.COLLECT)
    return subprocess.run(command, capture_output=True, text=True, env=isolation.environment(scratch.own()))


class Bases:
    """The main base (`same`: the interpreter that runs asv) and those of the torches asked for."""

    def __init__(self, project: Project, same: bool) -> None:
        self._project, self._same = project, same
        self._asked = torches_asked()

    @property
    def folder(self) -> Path:
        # Resolved: a staged checkout links here, and a toolchain's folder is named after its base's path.
        return (self._project.work / "base").resolve() / f"python{python_tag()}"

    @property
    def python(self) -> Path:
        return Path(sys.executable) if self._same else self.folder / "bin" / "python"

    @property
    def _pins(self) -> Path:
        return self._project.root / "requirements" / "base.txt"

    def _pins_of(self, torch: str) -> str:
        """The base's pins with another torch, which brings a triton of its own choice."""
        text = re.sub(r"(?m)^torch==.*$", f"torch=={torch}", read_text(self._pins, advice=_RESTORE))
        return re.sub(r"(?m)^triton==.*$", "triton", text)

    def _folder_of(self, torch: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}-torch{torch}")

    def _pinned_torch(self) -> str:
        return pinned_torch(read_text(self._pins, advice=_RESTORE))

    def _further(self) -> list[str]:
        """The torches that need a base of their own in this run."""
        if self._same:
            return []
        selected = torches_selected() - {self._pinned_torch()}
        return [torch for torch in self._asked if torch in selected]

    def versions(self) -> tuple[str, ...]:
        """Every torch whose route can be asked for, whether its base is made yet or not."""
        own = torch_of(sys.executable) if self._same else self._pinned_torch()
        asked = () if self._same else self._asked
        return tuple(torch for torch in TORCHES if torch == own or torch in asked)

    def are_whole(self) -> bool:
        """Whether all that this run needs is there."""
        if self._same:
            return True
        main = _is_whole(self.folder, read_text(self._pins, advice=_RESTORE))
        return main and all(_is_whole(self._folder_of(t), self._pins_of(t)) for t in self._further())

    def interpreters(self) -> dict[str, Path]:
        """Version of torch -> a base's interpreter, for the route cases that this run selects."""
        selected = torches_selected()
        if not selected:
            return {}
        own = torch_of(sys.executable) if self._same else self._pinned_torch()
        paths = {own: self.python} if own in selected else {}
        paths |= {torch: self._folder_of(torch) / "bin" / "python" for torch in self._further()}
        return paths

    def make(self, timeout: float) -> None:
        """Make what is missing. Raises asv's UserError, one line, when that fails."""
        self.make_main(timeout, card=selection.machine() != NOGPU and isolation.has_card())
        for torch in self._further():
            self._make(self._folder_of(torch), self._pins_of(torch), timeout)

    def make_main(self, timeout: float, card: bool = False) -> None:
        """Make the main base where it is missing, and no further torch; `card`: its torch is to drive one.

        Raises asv's UserError.
        """
        if self._same:
            self._check_same()
        else:
            self._make(self.folder, read_text(self._pins, advice=_RESTORE), timeout, build_asked(card))

    def _make(self, folder: Path, pins: str, timeout: float, build: str = "") -> None:
        """`build` is that of the pinned torch; "" for a further one, whose CUDA libraries are part of what is asked."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with only_one(folder.parent / f".{folder.name}.lock"):
            if _is_whole(folder, pins):
                return
            log.info(f"Creating {folder.name} with torch (once, about a minute)")
            shutil.rmtree(folder, ignore_errors=True)
            python = folder / "bin" / "python"
            wanted = folder.with_name(f".{folder.name}.txt")
            wanted.write_text(pins, encoding="utf-8")
            step = partial(run_step, timeout=timeout)
            if build:
                step([sys.executable, "-m", "virtualenv", "--quiet", "-p", sys.executable, str(folder)])
                lay_pins(python, pins, build, step)
            else:
                step(uv_command("venv", "--quiet", "--python", sys.executable, str(folder)))
                step(uv_command("pip", "install", "--quiet", "--python", str(python), "-r", str(wanted)))
            wanted.replace(folder / _PINS)

    def _check_same(self) -> None:
        needed = "import torch, numpy, triton, asv_runner, elftools"
        done = _ask(sys.executable, needed)
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[-1]
            raise util.UserError(
                f"fa4:same needs torch and asv_runner in {sys.executable} ({reason}); "
                f"install {self._pins.relative_to(self._project.root)} there or run without -E fa4:same"
            )
        own = torch_of(sys.executable)
        if set(self._asked) - {own}:
            log.warning(f"{VARIABLE} has no effect with -E fa4:same: the route is asked of torch {own} only")


def _is_whole(folder: Path, pins: str) -> bool:
    done = folder / _PINS
    return done.is_file() and read_text(done, advice="remove it") == pins


def torches_here(project: Project, environment: str) -> tuple[str, ...]:
    """The torches that a run in asv's `environment` ("", "fa4:same", ...) can ask for their route.

    Raises Fa4AsvError where FA4_ASV_TORCHES names another.
    """
    try:
        return Bases(project, same=environment.endswith(":same")).versions()
    except util.UserError as error:
        raise Fa4AsvError(str(error)) from None


def base_here(project: Project, environment: str, card: bool = False) -> Path:
    """The interpreter with torch behind asv's `environment` ("", "fa4:same", ...), made now if there is none.

    Raises Fa4AsvError.
    """
    try:
        bases = Bases(project, same=environment.endswith(":same"))
        bases.make_main(_BASE_TIMEOUT, card)
    except util.UserError as error:
        raise Fa4AsvError(str(error)) from None
    return bases.python


def base_for_a_card(project: Project, environment: str) -> Path:
    """The same for commands that use a card: a line says so where what runs FA4 keeps the network. Raises Fa4AsvError."""
    python = base_here(project, environment, card=True)
    if why := isolation.why_kept(isolation.CARD, str(python)):
        say(isolation.keeps_words(why), err=True)
    return python
