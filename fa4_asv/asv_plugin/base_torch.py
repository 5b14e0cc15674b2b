"""The packages of a base environment, torch first: its CPU build, unless another one is asked for.

CUDA's gigabytes never come unasked: kernels are compiled without them. A person's own configuration of pip comes first:
where it leads to a CPU build, that one is taken. Else uv asks PyTorch's own index for one.

`python -m fa4_asv.asv_plugin.base_torch` installs requirements/base.txt for the interpreter that runs it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from asv import util

from fa4_asv.base import scratch
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import parse_json, read_text
from fa4_asv.base.output import say
from fa4_asv.base.project import Project
from fa4_asv.base.uv_command import uv_command, uv_environment

VARIABLE = "FA4_ASV_TORCH_BUILD"
CPU, PIP = "cpu", "pip"  # what pip finds: from the public index on x86_64 this is CUDA's build
_DRY_SECONDS = 300.0
_TORCH = re.compile(r"(?m)^torch==([^\s;+]+).*\n?")
Step = Callable[[list[str]], None]


def build_asked(card: bool) -> str:
    """CPU, PIP, or a backend of uv's such as cu130 or auto; `card`: what is installed is to drive one.

    Raises asv's UserError on a word that is none of them.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text and not re.fullmatch(r"pip|cpu|auto|xpu|cu[0-9]+|rocm[0-9.]+", text):
        raise util.UserError(f"{VARIABLE}={text!r}: write cpu, pip, auto, or a backend such as cu130")
    return text or (PIP if card else CPU)


def pinned_torch(pins: str) -> str:
    """The version of torch among `pins` (requirements, one per line); "" where there is none."""
    match = _TORCH.search(pins)
    return match[1] if match else ""


def lay_pins(python: Path, pins: str, build: str, step: Step) -> None:
    """Install `pins` for the interpreter `python`. `step` runs a command and raises asv's UserError, as this does."""
    _lay_torch(python, pinned_torch(pins), build, step)
    with scratch.folder("pins") as folder:
        rest = folder / "rest.txt"
        rest.write_text(_TORCH.sub("", pins), encoding="utf-8")
        step(uv_command("pip", "install", "--quiet", "--python", str(python), "-r", str(rest)))


def _lay_torch(python: Path, version: str, build: str, step: Step) -> None:
    pin = f"torch=={version}"
    # No bytecode: a process writes that of the few modules that it imports.
    by_pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", pin]
    if build == PIP:
        say(f"torch {version} as pip finds it; with CUDA these are several GB", err=True)
        return step(by_pip)
    pip_version = found_by_pip(python, version) if build == CPU else ""
    if pip_version.endswith("+cpu"):
        say(f"torch {pip_version}, as pip is configured here", err=True)
        return step(by_pip)
    say(f"torch {version}, build {build}, from PyTorch's index", err=True)
    try:
        step(uv_command("pip", "install", "--quiet", "--python", str(python), "--torch-backend", build, pin))
    except util.UserError as error:
        raise util.UserError(_refused(version, build, pip_version, str(error).partition(": ")[2])) from None
    return None


def _refused(version: str, build: str, pip_version: str, reason: str) -> str:
    pip = f" and pip finds {pip_version or 'none'}, which may be CUDA's, several GB" if build == CPU else ""
    return (
        f"no {build} build of torch {version} from PyTorch's index ({reason}){pip}. Lead pip to a CPU build "
        f"(PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL), or set {VARIABLE}=pip to take what pip finds"
    )


def found_by_pip(python: Path, version: str) -> str:
    """The version with its build ("2.13.0+cpu") that pip would install as a person configured it; "" where it finds none.

    Nothing is installed; of an index that serves metadata, nothing else is downloaded.
    """
    command = [str(python), "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed"]
    command += ["--report", "-", f"torch=={version}"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_DRY_SECONDS, env=uv_environment(), check=True
        )
        return str(parse_json(done.stdout)["install"][0]["metadata"]["version"])
    except (subprocess.SubprocessError, OSError, ValueError, LookupError, TypeError):
        return ""


def run_step(command: list[str], timeout: float = 3600.0) -> None:
    """Run a command that installs. Raises asv's UserError with the last line that it said."""
    try:
        util.check_call(command, timeout=timeout, display_error=False, env=uv_environment())
    except (util.ProcessError, OSError) as error:
        message = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
        raise util.UserError(f"cannot make the base environment with torch: {one_line(message)}") from None


def main() -> int:
    """Exit code 0, or 2 after one line."""
    try:
        pins = read_text(Project.find().root / "requirements" / "base.txt", advice="restore it from git")
        lay_pins(Path(sys.executable), pins, build_asked(card=False), run_step)
    except (Fa4AsvError, util.UserError) as error:
        say(one_line(str(error), 2000), err=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
