"""`fa4-asv doctor`: what this machine can measure, and why not the rest.

Nothing is imported that is looked for: versions come from the packages' metadata, the GPU from nvidia-smi.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.machinery import PathFinder
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from fa4_asv.base import isolation
from fa4_asv.base.files import same_bytes
from fa4_asv.base.machine import find_tool, python_tag
from fa4_asv.base.output import new_console, say_json
from fa4_asv.base.project import Project
from fa4_asv.history.repository import has_history
from fa4_asv.record.tables import print_table

TIMEOUT = 10.0  # seconds for a tool that only has to name itself
DISK_GB = 5
_NOT_NEEDED = "not needed: "  # how the advice begins for what no lane needs
PINS = "fa4_asv-pins.txt"
SYNC = "run `fa4-asv history sync`"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
GPU_QUERY = ("--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
GPU_MAJOR = {"hopper": 9, "blackwell": 10}
LANES = ("nogpu", *GPU_MAJOR)
_GPU_NEEDS = ("GPU", "torch for a GPU")
NOGPU_NEEDS = ("Linux", "Python", "git", "uv", "cuobjdump", "nvdisasm", "disk", "no flash-attn 2", "history")


@dataclass(frozen=True)
class Check:
    """One thing that was looked for. Where it is missing, `result` alone says what is wrong."""

    name: str
    result: str
    ok: bool
    advice: str = ""  # what to do; for something that no lane needs, what it is for

    def to_json(self) -> dict[str, str | bool]:
        return {"name": self.name, "found": self.result, "ok": self.ok, "words": self.advice}


@dataclass(frozen=True)
class Gpu:
    """One card, as nvidia-smi names it; `capability` as "9.0"."""

    name: str
    capability: str
    driver: str


class ToolFailed(Exception):
    """A tool is absent, hangs or fails; the message says which in a few words."""


def ask(tool: str, *arguments: str) -> str:
    """Standard output of a tool, which gets TIMEOUT seconds. Raises ToolFailed.

    A tool that a broken driver holds inside the kernel cannot even be killed: it is left behind.
    """
    pipe, name = subprocess.PIPE, Path(tool).name
    command, none = [tool, *arguments], subprocess.DEVNULL
    try:  # a session of its own, so that its children can be killed with it
        process = subprocess.Popen(command, stdin=none, stdout=pipe, stderr=pipe, start_new_session=True)
    except FileNotFoundError:
        raise ToolFailed(f"{name} not found") from None
    except OSError as error:
        raise ToolFailed(f"{name} does not start: {error.strerror}") from None
    try:
        out, err = (output.decode(errors="replace") for output in process.communicate(timeout=TIMEOUT))
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        raise ToolFailed(f"{name} did not answer in {TIMEOUT:g} s") from None
    if process.returncode != 0:
        raise ToolFailed(f"{name} failed: {first_line(err or out) or f'exit code {process.returncode}'}")
    return out


def first_line(text: str) -> str:
    """The first line that says something, printable and short."""
    lines = ("".join(c for c in line if c.isprintable()).strip() for line in text.splitlines())
    return next((line[:160] for line in lines if line), "")


def check_system() -> list[Check]:
    """Operating system and interpreter."""
    linux, python = Check("Linux", platform.release(), True), Check("Python", platform.python_version(), True)
    if (system := platform.system()) != "Linux":
        linux = Check(
            "Linux", f"{system or 'unknown system'} is not Linux", False, "FA4 compiles on Linux only"
        )
    if ".".join(python.result.split(".")[:2]) not in PYTHONS:
        wanted = f"Python {PYTHONS[0]} to {PYTHONS[-1]}"
        python = Check(
            "Python", f"Python {python.result} is not {wanted}", False, f"make .venv with {wanted}"
        )
    return [linux, python]


def check_tool(name: str, path: str | None, advice: str) -> Check:
    """A command-line tool: that it is there, starts, and which version it is."""
    try:
        answer = ask(path or name, "--version")
    except ToolFailed as error:
        return Check(name, str(error), False, advice)
    # NVIDIA's tools give "release 13.3, V13.3.73" below years of copyright.
    match = re.search(r"\bV(\d+(?:\.\d+)+)", answer) or re.search(r"\b(\d+(?:\.\d+)+)", answer)
    return Check(name, match[1] if match else first_line(answer) or "unknown version", True)


def check_tools() -> list[Check]:
    """What the suite calls: git, uv and NVIDIA's two readers of cubins."""
    again = "run `pip install -e .` in the checkout"
    try:
        import uv

        runs = check_tool("uv", uv.find_uv_bin(), again)
    except (ImportError, FileNotFoundError):  # one on PATH does not count: the suite does not call it
        runs = Check("uv", "uv not found", False, again)
    readers = [check_tool(name, find_tool(name), again) for name in ("cuobjdump", "nvdisasm")]
    return [check_tool("git", None, "install git; the history is a git repository"), runs, *readers]


def check_disk(project: Project) -> Check:
    """Free space where .asv lies, or will lie."""
    free = shutil.disk_usage(project.work if project.work.exists() else project.root).free / 1e9
    if free >= DISK_GB:
        return Check("disk", f"{free:.1f} GB free", True)
    advice = f"free some, or make {project.work.name} a link to a larger disk"
    # Two decimals, so that 4.99 does not read "5.0 GB free, 5 GB needed".
    return Check("disk", f"{int(free * 100) / 100:.2f} GB free, {DISK_GB} GB needed", False, advice)


def installed(package: str, folders: list[str] | None = None) -> str | None:
    """Version of a distribution in `folders` (default: this interpreter), never importing it."""
    for distribution in distributions(name=package, path=sys.path if folders is None else folders):
        # Read here: what an interrupted uninstall left has no metadata, and importlib.metadata raises.
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        if match := re.search(r"^Version: *(\S+)", text, re.MULTILINE):
            return match[1]
    return None


def base_folder(project: Project) -> Path:
    """The environment that `asv run` makes once for this Python, with torch."""
    return project.work / "base" / f"python{python_tag()}"


def base_packages(project: Project) -> list[str]:
    """The site-packages of a complete base environment; empty without one."""
    base = base_folder(project)
    whole = (base / PINS).is_file()
    return [str(folder) for folder in sorted(base.glob("lib/python*/site-packages"))] if whole else []


def check_base(project: Project) -> Check:
    """Whether the base environment is there, whole and of today's pins."""
    name, folders = "base environment", base_packages(project)
    if not folders:
        return Check(name, f"none for Python {python_tag()} yet", False, "the first `asv run` makes it")
    done, pins = base_folder(project) / PINS, project.root / "requirements" / "base.txt"
    if pins.is_file() and not same_bytes(done, pins):
        return Check(name, "made from other pins", False, "the next `asv run` makes it anew")
    torch = installed("torch", folders)
    advice = "" if torch else f"remove {done.relative_to(project.root)}; the next `asv run` makes it anew"
    return Check(name, f"torch {torch}" if torch else "holds no torch", torch is not None, advice)


def check_torch(project: Project) -> Check:
    """A torch that can drive a GPU; wheels for the CPU say so in their version."""
    base = base_packages(project)
    places = {"base environment": installed("torch", base), "this interpreter": installed("torch")}
    pairs = [(version, place) for place, version in places.items() if version]
    for version, place in pairs:
        if not version.endswith("+cpu"):
            return Check("torch for a GPU", f"{version} ({place})", True)
    advice = "only the GPU lanes need it: `pip install -r requirements/base.txt` with a CUDA build"
    what = f"torch {pairs[0][0]} ({pairs[0][1]}) is a CPU build" if pairs else "no torch in an interpreter"
    return Check("torch for a GPU", what, False, advice)


def check_shadow(project: Project) -> Check:
    """flash-attn 2 is a regular package and hides FA4's namespace package wherever both can be found."""
    name, base, top = "no flash-attn 2", base_packages(project), "flash_attn"
    try:
        here = find_spec(top)
    except ValueError:  # in sys.modules without a spec
        here = None
    there = PathFinder.find_spec(top, base) if base else None
    for place, spec, folders in (("this interpreter", here, None), ("the base environment", there, base)):
        version = installed("flash-attn", folders)
        # A namespace package, which FA4 is, has no location.
        origin = spec.origin if spec is not None and spec.has_location else None
        if version or origin:
            what = (f"flash-attn {version}" if version else top) + (f" at {origin}" if origin else "")
            advice = f"`pip uninstall flash-attn` in {place}, or take its folder off the path"
            return Check(name, f"{what} hides FA4 in {place}", False, advice)
    return Check(name, "nothing hides FA4", True)


def check_network(project: Project) -> Check:
    """Whether the network can be refused to what runs FA4's code; no lane needs it. CUDA is tried where a card is."""
    name, advice = "no network for FA4", "foreign code keeps the network: SECURITY.md"
    if why := isolation.why_network():
        return Check(name, f"cannot be refused ({why})", False, advice)
    python = base_folder(project) / "bin" / "python" if base_packages(project) else Path(sys.executable)
    if why := isolation.why_card_network(str(python)):
        return Check(name, f"refused, but not where a card is used ({why})", False, advice)
    return Check(name, "refused", True)


def find_gpus() -> tuple[list[Gpu], Check]:
    """The cards that nvidia-smi lists, and the check on them; none is normal."""
    advice = "only the GPU lanes need one"
    try:
        answer = ask("nvidia-smi", *GPU_QUERY)
    except ToolFailed as error:
        return [], Check("GPU", f"no NVIDIA GPU ({error})", False, advice)
    rows = (re.fullmatch(r"(.+?), *(\d+\.\d+), *([\w.]+)", line.strip()) for line in answer.splitlines())
    gpus = [Gpu(row[1], row[2], row[3]) for row in rows if row]
    if not gpus:
        message = first_line(answer)
        reason = f"nvidia-smi says {message!r}" if message else "nvidia-smi lists none"
        return [], Check("GPU", f"no NVIDIA GPU ({reason})", False, advice)
    kinds = dict.fromkeys(f"{gpu.name} ({gpu.capability}, driver {gpu.driver})" for gpu in gpus)
    return gpus, Check("GPU", ", ".join(kinds), True)


def examine(project: Project) -> tuple[list[Check], list[Gpu]]:
    """Every check, in the order in which a person would put things right, and the GPUs."""
    checks = [*check_system(), *check_tools(), check_disk(project), check_shadow(project)]
    if all(check.ok for check in checks if check.name == "git"):  # without it nobody can tell
        synced = has_history(project)
        result = "synced" if synced else "the history is not synced"
        checks.append(Check("history", result, synced, "" if synced else SYNC))
    checks += [check_base(project), check_torch(project), check_network(project)]
    for name in ("flash-attn-4", "nvidia-cutlass-dsl"):
        version = installed(name)
        advice = "" if version else f"{_NOT_NEEDED}each release is laid with its own"
        checks.append(Check(name, version or "not in this interpreter", version is not None, advice))
    gpus, gpu = find_gpus()
    return [*checks, gpu], gpus


def judge(checks: list[Check], gpus: list[Gpu]) -> dict[str, list[str]]:
    """Every reason why a lane cannot be measured here; none means that it can."""
    missing = {check.name: check.result for check in checks if not check.ok}
    common = [missing[name] for name in NOGPU_NEEDS if name in missing]
    why_not = {"nogpu": common}
    for lane, major in GPU_MAJOR.items():
        lacks = [missing[name] for name in _GPU_NEEDS if name in missing]
        if gpus and not any(gpu.capability.startswith(f"{major}.") for gpu in gpus):
            others = ", ".join(dict.fromkeys(f"{gpu.name} is {gpu.capability}" for gpu in gpus))
            lacks.insert(0, f"no GPU of capability {major}.x ({others})")
        why_not[lane] = common + lacks
    return why_not


def _state(check: Check, lane: str) -> Text:
    """Missing is what the lane needs."""
    if check.ok:
        return Text("ok", style="green")
    return Text("missing", style="red") if check.name in _needs(lane) else Text("no")


def _needs(lane: str) -> tuple[str, ...]:
    return NOGPU_NEEDS if lane == LANES[0] else (*NOGPU_NEEDS, *_GPU_NEEDS)


def _is_told(check: Check, lane: str) -> bool:
    """What is wrong, and concerns the lane."""
    elsewhere = check.name in _GPU_NEEDS and lane == LANES[0]
    return not (check.ok or elsewhere or check.advice.startswith(_NOT_NEEDED))


def render(
    checks: list[Check], lanes: dict[str, list[str]], lane: str, console: Console, every: bool = False
) -> None:
    """One line per lane, then what is wrong for `lane`; all checks with `every`.

    Tools' words are data: never markup. In a file the line of a lane never wraps.
    """
    for name, why_not in lanes.items():
        line = f"{name}: no - {'; '.join(why_not)}" if why_not else f"{name}: ready"
        console.print(Text(line), soft_wrap=not console.is_terminal)
    shown = [check for check in checks if every or _is_told(check, lane)]
    rows: list[list[str | Text]] = [
        [check.name, _state(check, lane), check.result, check.advice.removeprefix(_NOT_NEEDED)]
        for check in shown
    ]
    print_table(console, ("check", "", "found", "what to do"), rows)
    if len(shown) < len(checks):
        fine = sum(check.ok for check in checks)
        console.print(Text(f"{fine} of {len(checks)} checks are ok; --all shows them all"))


@click.command()
@click.option(
    "--lane", type=click.Choice(LANES), default="nogpu", show_default=True, help="The lane for the exit code."
)
@click.option("--all", "every", is_flag=True, help="Every check, also what is ok.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def doctor(lane: str, every: bool, as_json: bool) -> None:
    """What this machine can measure, and why not the rest.

    A lane is a set of benchmarks that need the same machine. nogpu is what plain `asv run` measures; hopper
    (capability 9.x) and blackwell (10.x) need such a card.
    Exit code: 0 the lane is ready, 1 it is not, 2 it could not be checked.

    \b
    Examples:
      fa4-asv doctor
      fa4-asv doctor --lane hopper
      fa4-asv doctor --all
      fa4-asv doctor --json
    """
    checks, gpus = examine(Project.find())
    lanes = judge(checks, gpus)
    if as_json:
        verdicts = {name: {"ready": not why_not, "why_not": why_not} for name, why_not in lanes.items()}
        records = {"checks": [check.to_json() for check in checks], "gpus": [asdict(gpu) for gpu in gpus]}
        say_json({"lane": lane, "lanes": verdicts, **records})
    else:
        render(checks, lanes, lane, new_console(), every)
    sys.exit(1 if lanes[lane] else 0)
