"""What a process that runs foreign code is given: few variables, a home and temporary files of its own, limits, no network.

FA4's sources and their compilers are other people's code. Every process that imports them is started through `command`, with
the variables of `environment`. SECURITY.md says what is left.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import shutil
import site
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fa4_asv.base import scratch
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import read_text

VARIABLE = "FA4_ASV_NETWORK"
# What passes. Compile workers drop what steers the compiler besides (measure.driver_stubs).
_NAMES = (
    *(
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "OMP_NUM_THREADS",
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED",
    ),
    *("PYTHONPATH", "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED", "TZ"),
)
_BEGINNINGS = (
    *("ASV_", "CUDA_", "CUTE_", "CUTLASS_", "FA4_ASV_", "FA_", "FLASH_ATTENTION_", "LC_", "NCCL_", "NVIDIA_"),
    *("PYTORCH_", "QUACK_", "TORCH_"),
)
# An index's address may hold a password; NVIDIA_API_KEY begins like a harmless one.
_SECRET = re.compile("INDEX_URL|KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|COOKIE|PROXY")
_LAUNCHER = str(Path(__file__).with_name("launcher.py"))
_PROBE = Path(__file__).with_name("card_probe.py")
_PROBE_SECONDS = 120.0  # importing torch from a cold disk takes up to a minute
_CARDS = ("nvidia[0-9]*", "dxg")  # devices of the driver; dxg is WSL's
_GIB = 1 << 30


@dataclass(frozen=True)
class Bounds:
    """Limits of a process: `data` bytes of memory of its own, `file` bytes of any file it writes (0: no limit)."""

    data: int = 0
    file: int = 0
    network: bool = True
    group: bool = True  # what it started ends with it
    card: bool = False  # its program is a Python with torch that uses a card: it keeps the network where CUDA needs that


# A compile of FA4 takes up to 0.5 GiB (b36, both architectures) and writes some MB. A process with a card has neither
# limit, since CUDA maps memory by the terabyte: who asks it watches its memory (measure.pool).
COMPILE = Bounds(data=4 * _GIB, file=_GIB, network=False)
COLLECT = Bounds(
    network=False
)  # our own code, in an interpreter where a toolchain's packages run code at its start
CARD = Bounds(network=False, card=True)


def environment(folder: Path, more: Mapping[str, str] | Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """Variables of a process whose home and temporary files lie in `folder`; `more` stands above all. Raises OSError."""
    home, temporary = folder / "home", folder / "tmp"
    for path in (home, temporary):
        path.mkdir(exist_ok=True)
    result = {name: value for name, value in os.environ.items() if passes(name)}
    result["PATH"] = os.pathsep.join(
        filter(os.path.isabs, os.environ.get("PATH", os.defpath).split(os.pathsep))
    )
    if site.ENABLE_USER_SITE:  # torch of `pip install --user` lies in the home
        result["PYTHONUSERBASE"] = site.getuserbase()
    own = {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        scratch.OWNER: str(scratch.own()),
        scratch.LOCKS: str(scratch.lock_folder()),
    }
    return {**result, **own, **dict(more)}


def passes(name: str) -> bool:
    """Whether a variable of that name reaches foreign code."""
    return name in _NAMES or (name.startswith(_BEGINNINGS) and not _SECRET.search(name))


def command(parts: Sequence[str], bounds: Bounds) -> list[str]:
    """The command that runs `parts` within `bounds`, and is killed when this process (this thread of it) ends.

    Raises FileNotFoundError where there is no such program, Fa4AsvError for a wrong FA4_ASV_NETWORK.
    """
    if not shutil.which(parts[0]):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), parts[0])
    return [*_launcher(replace(bounds, network=keeps_network(bounds, parts[0]))), *parts]


def ends_with_us(parts: Sequence[str]) -> list[str]:
    """The command that runs `parts`, a command of ours, as it is, and is killed when this process ends."""
    return [*_launcher(Bounds(group=False)), *parts]


def writes_no_larger_file(command: Sequence[str], most: int) -> list[str]:
    """The command that runs `words`, and may write no file of more than `most` bytes: a limit for what it downloads."""
    return [*_launcher(Bounds(file=most)), *command]


def _launcher(bounds: Bounds) -> list[str]:
    return [sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), json.dumps(asdict(bounds))]


def keeps_network(bounds: Bounds, python: str) -> bool:
    """Whether a process of such bounds keeps the network: as FA4_ASV_NETWORK says, or where it cannot be refused.

    `python` is the interpreter that is started; it is asked where a card is used. Raises Fa4AsvError where the variable is
    another word than yes or no.
    """
    asked = _asked()
    wanted = bounds.network if not asked else asked == "yes"
    return wanted or bool(why_kept(bounds, python))


def why_kept(bounds: Bounds, python: str) -> str:
    """Why the network cannot be refused to a process of such bounds, "" where it can or FA4_ASV_NETWORK gives it."""
    asked = _asked()
    if asked == "yes":
        return ""
    return why_network() or (why_card_network(python) if bounds.card and not asked else "")


def _asked() -> str:
    asked = os.environ.get(VARIABLE, "").strip()
    if asked not in ("", "yes", "no"):
        raise Fa4AsvError(f"{VARIABLE} is {asked!r}, expected yes or no (unset: no, unless CUDA needs it)")
    return asked


@functools.cache
def why_network() -> str:
    """Why this system cannot refuse a process the network, "" where it can."""
    if os.geteuid() == 0 and Path(_LAUNCHER).stat().st_uid != 0:
        return "root cannot use another user's checkout from a user namespace"
    try:
        done = subprocess.run(_launcher(COLLECT), capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return " ".join(str(error).split())
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]


def keeps_words(why: str) -> str:
    """The line that tells a person that the network is not refused, and why."""
    return f"processes that run FA4 keep the network: it cannot be refused here ({why})"


# Whether CUDA works in a namespace without network depends on the machine, so it is tried; once, since it takes seconds.
# Processes that this one starts from then on know the answer by a variable.
ANSWER = "FA4_ASV_CARD_NETWORK"
_ALL_PARTS = {"memory", "profile"}
_trying = threading.Lock()


def has_card() -> bool:
    """Whether a driver shows a card to this machine."""
    return any(path for pattern in _CARDS for path in Path("/dev").glob(pattern))


def why_card_network(python: str) -> str:
    """Why a process with a card must keep the network, "" where it need not or where there is no card.

    `python` is an interpreter with torch. Raises OSError where the probe cannot be started.
    """
    if why := why_network():
        return why
    if not has_card():
        return ""
    with _trying:
        if ANSWER not in os.environ:
            os.environ[ANSWER] = _lost_without_network(python)
        return os.environ[ANSWER]


def _lost_without_network(python: str) -> str:
    """What CUDA cannot do in a namespace without network and can outside of one, as text; "" for nothing."""
    within, reason = _cuda_parts(python, Bounds(network=False))
    if within == _ALL_PARTS:
        return ""
    outside, _ = _cuda_parts(python, Bounds())
    lost = outside - within
    return one_line(f"without it CUDA gives no {' and no '.join(sorted(lost))}: {reason}") if lost else ""


def _cuda_parts(python: str, bounds: Bounds) -> tuple[set[str], str]:
    """The parts of CUDA that work in a process of such bounds, and the last line of its errors."""
    with scratch.folder("probe") as own:
        command = [*_launcher(bounds), python, "-c", read_text(_PROBE)]
        try:
            done = subprocess.run(
                command, cwd=own, env=environment(own), capture_output=True, text=True, timeout=_PROBE_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return set(), str(error)
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return set(done.stdout.split()) & _ALL_PARTS, last
