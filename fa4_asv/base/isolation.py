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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fa4_asv.base import scratch
from fa4_asv.base.errors import Fa4AsvError

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
_GIB = 1 << 30


@dataclass(frozen=True)
class Bounds:
    """Limits of a process: `data` bytes of memory of its own, `file` bytes of any file it writes (0: no limit)."""

    data: int = 0
    file: int = 0
    network: bool = True
    group: bool = True  # what it started ends with it


# A compile of FA4 takes up to 0.5 GiB (b36, both architectures) and writes some MB. A process with a card has neither
# limit: CUDA maps memory by the terabyte, and whether it works in a user namespace depends on the machine.
COMPILE = Bounds(data=4 * _GIB, file=_GIB, network=False)
COLLECT = Bounds(
    network=False
)  # our own code, in an interpreter where a toolchain's packages run code at its start
CARD = Bounds()


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
    return [*_launcher(replace(bounds, network=keeps_network(bounds))), *parts]


def ends_with_us(parts: Sequence[str]) -> list[str]:
    """The command that runs `parts`, a command of ours, as it is, and is killed when this process ends."""
    return [*_launcher(Bounds(group=False)), *parts]


def writes_no_larger_file(words: Sequence[str], most: int) -> list[str]:
    """The command that runs `words`, and may write no file of more than `most` bytes: a limit for what it downloads."""
    return [*_launcher(Bounds(file=most)), *words]


def _launcher(bounds: Bounds) -> list[str]:
    return [sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), json.dumps(asdict(bounds))]


def keeps_network(bounds: Bounds) -> bool:
    """Whether a process of such bounds keeps the network: as FA4_ASV_NETWORK says, or where the system cannot refuse it.

    Raises Fa4AsvError where the variable is another word than yes or no.
    """
    asked = os.environ.get(VARIABLE, "").strip()
    if asked not in ("", "yes", "no"):
        raise Fa4AsvError(f"{VARIABLE} is {asked!r}, expected yes or no (unset: no where no card is used)")
    keeps = bounds.network if not asked else asked == "yes"
    return keeps or bool(why_network())


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
