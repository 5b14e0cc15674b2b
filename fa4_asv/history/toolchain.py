"""The toolchain behind a commit: what a user got on its day, resolved by uv, kept in lock files.

A lock holds everything that FA4 needs except torch, numpy and what torch brings: those come from the base
environment. The CUDA flavour (cu12: plain; cu13: the `[cu13]` extra; plain: cu12's packages, and which torch pip resolved
with them) and the policy ("day"; pinned packages or one commit's toolchain for all commits) are part of asv's series.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from fa4_asv.base import isolation, scratch
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import link_tree, only_one, read_text, write_atomic
from fa4_asv.base.machine import python_tag
from fa4_asv.base.project import Project
from fa4_asv.base.uv_command import uv_command, uv_environment
from fa4_asv.catalog.flavours import INSTALLED, OF_TORCH, PLAIN, without_torch
from fa4_asv.history.demands import Demands, demands_of
from fa4_asv.history.repository import resolve
from fa4_asv.record.schema import toolchain_digest

FLAVOURS = INSTALLED
OVERRIDE_VARIABLE = "FA4_ASV_TOOLCHAIN"
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+!=-]*")
# One lock serves every Linux, and every Python from the oldest that a commit supports on.
LARGEST_DOWNLOAD = 4 << 30  # bytes of one file that uv may write; CUDA's largest library has 0.7 GB
_PLATFORM = "x86_64-manylinux_2_28"
_MOST_BYTES = 64 << 10  # of a lock; FA4's have 600
_NEEDED = "nvidia-cutlass-dsl"
# What decides which kernels are compiled, and to what.
_COMPILER = (_NEEDED, "quack-kernels", "apache-tvm-ffi")
# Locks of commits that are not recorded yet, below a checkout's work folder.
_CACHED = "toolchain-locks"


class UnsupportedFlavour(Fa4AsvError):
    """The commit has no such flavour: by design, not by accident."""


@dataclass(frozen=True)
class Policy:
    """`name` is "day", the overrides joined, or "as-" and the commit `as_of`, whose toolchain of the day all get.

    `overrides` are requirements such as "quack-kernels==0.6.5".
    """

    name: str
    overrides: tuple[Requirement, ...] = ()
    as_of: str = ""

    @classmethod
    def of_commit(cls, project: Project, ref: str) -> Policy:
        """Every commit under the toolchain that `ref` has under "day". Raises Fa4AsvError when it is unknown."""
        commit = resolve(project, ref)
        return cls(f"as-{commit[:8]}", as_of=commit)

    @classmethod
    def from_environment(cls) -> Policy:
        """The policy that FA4_ASV_TOOLCHAIN asks for.

        Raises Fa4AsvError on anything but "day", pins (name==version) and "as:" with a known commit.
        """
        text = os.environ.get(OVERRIDE_VARIABLE, "").strip()
        if text in ("", "day"):
            return cls("day")
        if text.startswith("as:"):
            return cls.of_commit(Project.find(), text.removeprefix("as:"))
        pins = []
        for part in re.split(r"[,\s]+", text):
            try:
                requirement = Requirement(part)
            except InvalidRequirement:
                requirement = None
            exact = requirement is not None and re.fullmatch(r"==[^,*]+", str(requirement.specifier))
            if requirement is None or not exact:
                raise Fa4AsvError(
                    f"{OVERRIDE_VARIABLE}={text!r} is not a list of pins; write for example nvidia-cutlass-dsl==4.8.1, "
                    "or as:fa4-v4.0.0b36 for the toolchain of that release"
                )
            requirement.name = canonicalize_name(requirement.name)
            pins.append(requirement)
        pins.sort(key=lambda pin: pin.name)
        return cls("_".join(f"{pin.name}{pin.specifier}" for pin in pins), tuple(pins))


def can_name_locks(*parts: str) -> bool:
    """Whether each can be a flavour's or policy's name: folders of locks are called so."""
    return all(map(_FOLDER.fullmatch, parts))


@dataclass(frozen=True)
class Lock:
    """A resolved toolchain: exact versions by package, and the digest of them."""

    path: Path
    flavour: str
    policy: str
    packages: dict[str, str]

    @property
    def digest(self) -> str:
        """Identity of the installed set."""
        return toolchain_digest(self.flavour, self.packages)

    @property
    def installed(self) -> Lock:
        """What is installed for it: of plain cu12's packages, since torch comes from the base environment."""
        if self.flavour != PLAIN:
            return self
        return Lock(self.path, "cu12", self.policy, without_torch(self.packages))


def read_lock(path: Path, flavour: str, policy: str) -> Lock:
    """Raises Fa4AsvError when it cannot be read, or a line is anything but `name==version`."""
    if _CACHED in path.parts:
        advice = "delete it and it is resolved again"
    else:
        advice = f"it is a committed file: restore it with `git checkout -- {path}`"
    try:
        packages = _packages(read_text(path, _MOST_BYTES, advice))
    except ValueError as error:
        raise Fa4AsvError(f"{path} {error}; {advice}") from None
    return Lock(path, flavour, policy, packages)


def _packages(text: str) -> dict[str, str]:
    """Raises ValueError saying what is not a lock."""
    packages = {}
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9_.+!-]+)", line)
        if not match:
            raise ValueError(f"is damaged at {line[:80]!a}")
        packages[match[1]] = match[2]
    if _NEEDED not in packages:
        raise ValueError(f"names no {_NEEDED}")
    return packages


def lock_for(
    project: Project,
    key: str,
    pyproject: str,
    day: datetime,
    flavour: str,
    policy: Policy,
    committed: bool = True,
) -> Lock:
    """The lock of the commit known as `key` (a release, or a hash), resolved now if there is none.

    `pyproject` is the text of the commit's own pyproject.toml, `day` the moment its user installed it
    (UTC). Locks of releases are committed; those of other commits are kept with the caches until the commit
    is recorded (`keep_lock`). Raises UnsupportedFlavour when the commit has no such extra, Fa4AsvError when
    nothing resolves.
    """
    if flavour == PLAIN:
        return _lock_with_torch(project, key, pyproject, day, policy, committed)
    path = _path_of(project, policy, flavour, key, committed)
    of_the_day = partial(lock_for, project, key, pyproject, day, flavour, Policy("day"), committed)
    return _lock_at(path, key, pyproject, day, flavour, policy, of_the_day)


def _path_of(project: Project, policy: Policy, flavour: str, key: str, committed: bool) -> Path:
    path = project.lock(policy.name, flavour, key)
    if committed or path.is_file():
        return path
    return project.work / _CACHED / policy.name / flavour / path.name


def _lock_with_torch(
    project: Project, key: str, pyproject: str, day: datetime, policy: Policy, committed: bool
) -> Lock:
    """cu12's lock, and the torch that pip brought with it on the day.

    Raises Fa4AsvError where `policy` is another than the day's, nothing resolves, or that torch has the resolver choose
    another compiler: the packages of the two flavours would then not be the same.
    """
    if policy.name != "day":
        raise Fa4AsvError(f"flavour {PLAIN} is the torch of the day: it has no toolchain {policy.name}")
    libraries = lock_for(project, key, pyproject, day, "cu12", policy, committed)
    path = _path_of(project, policy, PLAIN, key, committed)
    if not path.is_file():
        result = _packages(_resolve(key, demands_of(pyproject, key), day, PLAIN, policy, ""))
        for name, version in libraries.packages.items():
            if name.startswith(_COMPILER) and result.get(name) != version:
                raise Fa4AsvError(f"with torch {key} gets {name} {result.get(name)}, without it {version}")
        named = {name: version for name, version in result.items() if name in OF_TORCH}
        if len(named) != 2:
            raise Fa4AsvError(f"no torch with a CUDA runtime resolves for {key}, only {named or 'nothing'}")
        pins = sorted({**libraries.packages, **named}.items())
        head = f"# {key}, flavour {PLAIN}, policy day, as of {day:%Y-%m-%dT%H:%M:%SZ}, with the torch of the day\n"
        write_atomic(path, head + "".join(f"{name}=={version}\n" for name, version in pins))
    return read_lock(path, PLAIN, policy.name)


def lock_of_tree(folder: Path, name: str, pyproject: str, flavour: str, policy: Policy) -> Lock:
    """The lock of sources that no commit holds, resolved now and written into `folder`.

    `policy` has no `as_of`. Raises UnsupportedFlavour, Fa4AsvError (see lock_for).
    """
    path = folder / policy.name / flavour / f"{name}.txt"
    without_pins = partial(lock_of_tree, folder, name, pyproject, flavour, Policy("day"))
    return _lock_at(path, name, pyproject, datetime.now(timezone.utc), flavour, policy, without_pins)


def _lock_at(
    path: Path,
    key: str,
    pyproject: str,
    day: datetime,
    flavour: str,
    policy: Policy,
    of_the_day: Callable[[], Lock],
) -> Lock:
    """The lock file `path`, resolved first if there is none. `of_the_day` gives what a policy with pins begins with."""
    demands = demands_of(pyproject, key)
    if flavour == "cu13" and demands.cu13 is None:
        raise UnsupportedFlavour(f"{key} has no cu13 extra: its toolchain is CUDA 12 only")
    if not path.is_file():
        pins = _constraints(of_the_day(), policy) if policy.overrides else ""
        resolved = _resolve(key, demands, day, flavour, policy, pins)
        head = f"# {key}, flavour {flavour}, policy {policy.name}, as of {day:%Y-%m-%dT%H:%M:%SZ}, without torch and numpy\n"
        write_atomic(path, head + resolved)
    lock = read_lock(path, flavour, policy.name)
    for pin in policy.overrides:
        # uv passes over an override of what is not a dependency: the series would carry a false name.
        if f"=={lock.packages.get(pin.name)}" != str(pin.specifier):
            path.unlink()
            raise Fa4AsvError(
                f"{pin} has no effect: {key} does not depend on {pin.name} (or it comes with torch)"
            )
    return lock


def keep_lock(project: Project, key: str, flavour: str, policy: str, packages: dict[str, str]) -> None:
    """Commit the toolchain that a commit was recorded with, where no lock of it is committed yet."""
    path = project.lock(policy, flavour, key)
    if not path.is_file():
        lines = "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))
        write_atomic(
            path,
            f"# {key}, flavour {flavour}, policy {policy}, as recorded, without torch and numpy\n{lines}",
        )


def _constraints(day: Lock, policy: Policy) -> str:
    """Pins of everything that is not overridden; a package's own parts (-libs-...) go with it."""
    names = tuple(pin.name for pin in policy.overrides)
    pins = (f"{name}=={version}" for name, version in day.packages.items() if not name.startswith(names))
    return "\n".join(pins)


def _resolve(key: str, demands: Demands, day: datetime, flavour: str, policy: Policy, pins: str) -> str:
    """`name==version` lines by uv. Raises Fa4AsvError with uv's reason, or when they are no toolchain of FA4's."""
    extra = "[cu13]" if flavour == "cu13" else ""
    overrides = [
        f"{pin.name}{extra if pin.name == _NEEDED else ''}{pin.specifier}" for pin in policy.overrides
    ]
    files = {
        "requirements.txt": demands.of_flavour(flavour),
        "--excludes": "" if flavour == PLAIN else "torch\nnumpy\n",
        "--constraints": pins,
        "--overrides": "\n".join(overrides),
    }
    # An override is newer than the day by intent; the other packages are pinned then.
    until = [] if policy.overrides else ["--exclude-newer", f"{day:%Y-%m-%dT%H:%M:%SZ}"]
    failed = f"no toolchain for {key} ({flavour}, {policy.name})"
    with scratch.folder("lock") as folder:
        arguments = []
        for name, text in files.items():
            path = folder / name.lstrip("-")
            path.write_text(text, encoding="utf-8")
            arguments += [name, str(path)] if name.startswith("--") else [str(path)]
        nowhere = folder / "empty"
        nowhere.mkdir()
        command = uv_command("pip", "compile", *arguments, *_how_to_resolve(demands), *until)
        done = _called(command, 300, nowhere)
    if done.returncode != 0:
        raise Fa4AsvError(f"{failed}: {_reason(done.stderr)}")
    try:
        _packages(done.stdout)
    except ValueError as error:
        raise Fa4AsvError(f"{failed}: what was resolved {error}; nothing was kept") from None
    return done.stdout


def _how_to_resolve(demands: Demands) -> list[str]:
    # Nothing of what a commit asks for is executed by resolving it: no build, no other interpreter than this one,
    # which answers for the oldest.
    arguments = [
        "--python",
        sys.executable,
        "--python-version",
        demands.python,
        "--python-platform",
        _PLATFORM,
    ]
    arguments += ["--no-build", "--no-python-downloads", "--no-sources"]
    arguments += ["--no-header", "--no-annotate", "--quiet", "--prerelease", "if-necessary-or-explicit"]
    return arguments


def _called(
    command: list[str], seconds: float, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """uv, ended and said in one line. Raises Fa4AsvError where it takes longer. uv itself knows no limit of a download's size."""
    try:
        return subprocess.run(
            isolation.writes_no_larger_file(command, LARGEST_DOWNLOAD),
            cwd=folder,
            env=uv_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise Fa4AsvError(f"uv took longer than {seconds:.0f} s and was ended; try again") from None


def _reason(stderr: str) -> str:
    """uv's message in one line; the usual causes named."""
    message = one_line(re.sub(r"[×│├╰▶─╭╯]", " ", stderr), 10_000)
    if "upload" in message and "date" in message:
        return "the registry serves no upload times, which a toolchain of the day needs; use another index"
    if re.search(r"dns error|[Cc]onnection refused|error sending request|Failed to fetch", message):
        return f"the registry cannot be reached ({message[:200]})"
    return message[:400] or "uv gave no reason"


def install(project: Project, lock: Lock, base: Path) -> Path:
    """The interpreter of a small virtual environment that holds `lock` over `base`'s packages.

    `base` is an interpreter with torch. A toolchain's folder is made aside and renamed, so that it is
    whole or absent; it is never changed afterwards. 1 s from a warm uv cache, 5 ms if it exists. Packages
    that a pack brought (`packed_packages`) are linked instead of installed.
    """
    lock = lock.installed
    tag = hashlib.sha256(f"{base} {python_tag()}".encode()).hexdigest()[:8]
    folder = project.work / "toolchains" / f"{lock.flavour}-{lock.digest}-{tag}"
    python = folder / "bin" / "python"
    if python.exists():
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    with only_one(folder.parent / f".{folder.name}.lock"):
        if python.exists():
            return python
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            _fill(aside, lock, base, packed_packages(project.work, lock, python_tag()))
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return python


def packed_packages(work: Path, lock: Lock, python: str) -> Path:
    """Where below a checkout's `work` a pack brings the packages of `lock` for one version of Python ("3.12")."""
    return work / "packages" / f"{lock.flavour}-{lock.digest}-python{python}"


def lay_packages(lock: Lock, *where: str) -> None:
    """Install the packages of `lock`; `where` are uv's own options for the place, such as --python. Raises Fa4AsvError."""
    pins = [f"{name}=={version}" for name, version in sorted(lock.packages.items())]
    # Up to DSL 4.5 the cu13 libraries overwrite files of libs-base and must be laid on top of them.
    last = [pin for pin in pins if pin.startswith("nvidia-cutlass-dsl-libs-cu13")]
    for step in ([pin for pin in pins if pin not in last], last):
        if step:
            _uv(lock, "pip", "install", "--quiet", "--no-deps", *where, *step)


def _fill(folder: Path, lock: Lock, base: Path, packed: Path) -> None:
    _uv(lock, "venv", "--quiet", "--allow-existing", "--python", str(base), str(folder))
    python = str(folder / "bin" / "python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    inside, outside = (
        subprocess.run([exe, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        for exe in (python, str(base))
    )
    if packed.is_dir():
        link_tree(packed, Path(inside))
    else:
        lay_packages(lock, "--python", python)
    # The leading z: the toolchain's own .pth files come first, and its packages before the base's.
    Path(inside, "zz_fa4_asv_base.pth").write_text(f"import site; site.addsitedir({outside!r})\n")


def _uv(lock: Lock, *arguments: str) -> None:
    done = _called(uv_command(*arguments), 1800)
    if done.returncode != 0:
        raise Fa4AsvError(
            f"cannot install the toolchain {lock.path.name} ({lock.flavour}): {_reason(done.stderr)}"
        )
