"""Measure on a machine without a network, from what `fa4-asv pack` packed. Needs nothing but Python, torch and git.

    python3 airgap.py join --work DIR PARTS                   # parts that arrive one by one: any order, as often as you like
    python3 airgap.py measure --machine h200-sxm -o results.tar.gz          # a card: what CORE lists
    python3 airgap.py measure --machine nogpu --jobs 8 --bench '^codegen'   # what needs no card, on many cores
    python3 airgap.py measure --machine NAME --jobs 8 --pin --bench '^compile'   # what a clock measures, a core each
    python3 airgap.py sweep -o results.tar.gz -- -m h200-sxm                # `fa4-asv sweep -m h200-sxm`
    python3 airgap.py exec -- asv show                                      # any command in the suite's environment

Uses the interpreter that starts it: it must have torch, with CUDA for a card. Nothing is installed into it: an
environment of its own is made in --work, over its packages. The pack is unpacked once per --work. What was measured
is written to -o while it goes on. Wrong input is one line and exit code 2.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import json
import os
import queue
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

# What a card is asked, the most wanted first: what was measured is kept after each.
CORE = (
    "^forward.Core",
    "^backward.Core",
    "^memory.Allocated.track",
    "^route.(Card|Host)",
    "^accuracy.(Forward|Backward).track",
    "^forward.Yardsticks",
    "^backward.Yardsticks",
)
# What comes back: results, what must be committed beside results of commits, and what a sweep has not recorded yet.
KEPT = (
    "results/*/*.json",
    "results/*/*.sidecar",
    "history/upstream.json",
    "history/toolchains/*/*/*",
    ".asv/sweeps/*/*/*.json*",
)
PROJECT = "project.tar.gz"
_BLOCK = 1 << 20
_LARGEST_TEXT, _LARGEST_ZIP, _LARGEST_PROJECT = 16 << 20, 64 << 20, 1 << 30  # bytes
_KEEP_EVERY = 30.0  # seconds: what a machine that is taken away may lose


class Failure(Exception):
    """What is wrong and what to do, in one line."""


def tell(message: str, stream: TextIO | None = None) -> None:
    """Write a line in ASCII; names and other programs' words steer no terminal: what is not seen becomes an escape."""
    line = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in message)
    print(line.encode("ascii", "backslashreplace").decode(), file=stream or sys.stdout)


# The pack: parts that arrive, checked and unpacked once.


def read_index(folders: Sequence[Path]) -> dict[str, Any]:
    """pack.json of the first of `folders` that has one. Raises Failure for none, or for two of different packs."""
    entries = [json_of(path) for folder in folders if (path := folder / "pack.json").exists()]
    if not entries:
        raise Failure(f"no pack.json in {folders[-1]}; carry it there with the parts")
    index: dict[str, Any] = entries[0]
    for item in entries:
        refuse_odd(item)
    if len({item["sha256"] for item in entries}) > 1:
        raise Failure(f"{folders[0]} holds parts of another pack; name another --work")
    return index


def refuse_odd(index: Any) -> None:
    """Raises Failure where it is no pack.json that `fa4-asv pack` wrote."""
    try:
        if index["format"] != 1:
            raise Failure(f"the pack has format {index['format']!r:.40}; use the airgap.py that came with it")
        parts = [(part["name"], part["sha256"], part["bytes"]) for part in index["parts"]]
        texts = [index["sha256"], index["python"], *index["beside"], *index["beside"].values()]
        texts += [word for name, digest, _ in parts for word in (name, digest)]
        sizes = [index["unpacked"], *(size for _, _, size in parts)]
        fine = all(isinstance(word, str) for word in texts) and all(type(count) is int for count in sizes)
    except (LookupError, TypeError, AttributeError, ValueError):
        fine = False
    if not fine:
        raise Failure("pack.json is damaged; carry it again")


def text_of(path: Path) -> str:
    """What a small file holds. Raises Failure; a pipe or device is not waited for."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise Failure(f"{path} is not a file; remove it and carry it again")
            content = stream.read(_LARGEST_TEXT + 1)
        if len(content) > _LARGEST_TEXT:
            raise Failure(f"{path} has more than {_LARGEST_TEXT:,} bytes; carry it again")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Failure(f"{path} cannot be read: {why}; carry it again") from None


def json_of(path: Path) -> Any:
    """The JSON of a small file. Raises Failure."""
    try:
        return json.loads(text_of(path))
    except (ValueError, RecursionError):
        raise Failure(f"{path.name} is damaged; carry it again") from None


def digest_of(path: Path) -> str:
    """sha256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def wanted_of(index: dict[str, Any]) -> dict[str, str]:
    """Name -> sha256 of each file that the pack needs."""
    wanted = {part["name"]: part["sha256"] for part in index["parts"]} | dict(index["beside"])
    if odd := [name for name in wanted if Path(name).name != name or name.startswith(".")]:
        raise Failure(f"pack.json names {odd[0]!r}, which is not a plain name; carry it again")
    return wanted


def find_parts(
    index: dict[str, Any], folders: Sequence[Path]
) -> tuple[dict[str, Path], list[str], list[Path]]:
    """Each file of the pack that is whole in one of `folders`, the names of those in none, and what is damaged."""
    paths, missing, damaged = {}, [], []
    for name, digest in wanted_of(index).items():
        here = [folder / name for folder in folders if (folder / name).is_file()]
        whole = next((path for path in here if digest_of(path) == digest), None)
        if whole:
            paths[name] = whole
        elif here:
            damaged.append(here[-1])
        else:
            missing.append(name)
    return paths, missing, damaged


def refuse_damaged(damaged: Sequence[Path]) -> None:
    """Raises Failure where there is one."""
    if damaged:
        raise Failure(f"{damaged[0]} is damaged: it is not what was packed; carry it again")


def take(folder: Path, work: Path) -> list[str]:
    """Copy what arrived in `folder` to `work`, where it is kept until all is there. The names still missing.

    Raises Failure for a damaged part; the whole ones are taken first.
    """
    kept_path = work / "parts"
    index = read_index([kept_path, folder])
    paths, missing, damaged = find_parts(index, [kept_path, folder])
    new = {name: path for name, path in paths.items() if path.parent != kept_path}
    require_room(work, sum(path.stat().st_size for path in new.values()))
    kept_path.mkdir(parents=True, exist_ok=True)
    if not (kept_path / "pack.json").exists():
        copy_whole(folder / "pack.json", kept_path / "pack.json")
    for name, path in new.items():
        copy_whole(path, kept_path / name)
    refuse_damaged(damaged)
    return missing


def copy_whole(source: Path, target: Path) -> None:
    """The copy is whole or absent, whenever this is killed."""
    aside = target.with_name(f".{target.name}")
    shutil.copyfile(source, aside)
    aside.replace(target)


def require_room(folder: Path, needed: int) -> None:
    """Raises Failure where the file system of `folder` (which may not exist yet) has less than `needed` bytes."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise Failure(
            f"{needed / 1e6:.0f} MB are needed in {folder} and {free / 1e6:.0f} MB are free; "
            "make room or name another --work"
        )


class Joined(io.RawIOBase):
    """The parts one after another as one stream, which also computes their digest."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._left, self._digest = list(paths), hashlib.sha256()
        self._stream: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._stream is None:
                if not self._left:
                    return 0
                self._stream = self._left.pop(0).open("rb")
            if count := self._stream.readinto(buffer):  # type: ignore[attr-defined]
                self._digest.update(memoryview(buffer)[:count])
                return int(count)
            self._stream.close()
            self._stream = None

    def hexdigest(self) -> str:
        """sha256 of all that is left and all that was read."""
        while self.read(_BLOCK):
            pass
        return self._digest.hexdigest()


def unpack(folder: Path, work: Path) -> Path:
    """The unpacked pack, `work`/pack; unpacked now if it is not yet. Raises Failure."""
    inside, path = work / "pack", work / "parts"
    if inside.is_dir():
        refuse_another(folder, inside)
        return inside
    index = read_index([path, folder])
    if index["python"] != f"{sys.version_info[0]}.{sys.version_info[1]}":
        raise Failure(f"the pack is for Python {index['python']}, this is {sys.version.split()[0]}")
    paths, missing, damaged = find_parts(index, [path, folder])
    refuse_damaged(damaged)
    if missing:
        raise Failure(f"{in_short(missing)} of {len(wanted_of(index))} files of the pack missing in {folder}")
    require_room(work, int(index["unpacked"] * 1.05))
    aside = work / f".pack-{os.getpid()}"
    try:
        extract(index, paths, aside)
        (aside / "pack.json").write_text(json.dumps(index))
        aside.rename(inside)
    except (OSError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise Failure(f"the pack cannot be unpacked: {' '.join(str(error).split())}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)
    return inside


def refuse_another(folder: Path, inside: Path) -> None:
    """Raises Failure where `folder` has the index of another pack than the one that was unpacked."""
    there = folder / "pack.json"
    if there.is_file() and read_index([folder])["sha256"] != read_index([inside])["sha256"]:
        raise Failure(f"{inside} is of another pack than {folder}; name another --work")


def in_short(names: Sequence[str]) -> str:
    """At most four names."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def extract(index: dict[str, Any], paths: dict[str, Path], target: Path) -> None:
    """Lay what the parts hold below `target`, which is made. Raises Failure where they are not what was packed."""
    target.mkdir(parents=True)
    zipped = target / ".zstandard"
    for name in index["beside"]:
        with zipfile.ZipFile(paths[name]) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST_ZIP:
                raise Failure(f"{name} unpacks to more than {_LARGEST_ZIP >> 20} MiB; it was not packed so")
            archive.extractall(zipped)
    sys.path.insert(0, str(zipped))
    try:
        import zstandard
    except ImportError as error:
        raise Failure(f"{in_short(list(index['beside']))} does not work here: {error}") from None
    finally:
        sys.path.remove(str(zipped))
    joined = Joined([paths[part["name"]] for part in index["parts"]])
    shape = zstandard.ZstdDecompressor(max_window_size=2**31)
    try:
        with (
            shape.stream_reader(cast(BinaryIO, joined), read_size=_BLOCK, closefd=False) as plain,
            tarfile.open(fileobj=plain, mode="r|", bufsize=_BLOCK) as tar,
        ):
            left = index["unpacked"]
            for member in tar:
                left -= member.size
                if left < 0:
                    raise Failure(
                        "the pack holds more than pack.json says; carry pack.json and the parts again"
                    )
                lay_member(tar, member, target)
    except zstandard.ZstdError as error:
        raise Failure(f"the pack cannot be unpacked: {error}") from None
    shutil.rmtree(zipped)
    if joined.hexdigest() != index["sha256"]:
        raise Failure("the joined parts are not what was packed; carry pack.json and the parts again")


def lay_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """One member below `target`: a file, a folder, or a hard link to a file laid before. Raises Failure for others."""
    path = inside_of(target, member.name)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.islnk():
        os.link(inside_of(target, member.linkname), path)
        return
    source = tar.extractfile(member) if member.isreg() else None
    if source is None:
        raise Failure(
            f"the pack holds {member.name!r}, which is neither file nor folder; it was not packed so"
        )
    # "x": nothing that was laid before is written through.
    with path.open("xb") as stream:
        shutil.copyfileobj(source, stream, _BLOCK)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)
    os.utime(path, (member.mtime, member.mtime))


def inside_of(target: Path, name: str) -> Path:
    """The path of a member; no symbolic link is ever laid, so the name alone decides. Raises Failure."""
    parts = name.split("/")
    if not name or name.startswith("/") or "\\" in name or any(word in ("", ".", "..") for word in parts):
        raise Failure(f"the pack holds {name!r}, which would be laid outside; it was not packed so")
    return target.joinpath(*parts)


# The environment that commands run in.


class Place:
    """Where everything lies: `work` and the checkout; `python` has the suite over this interpreter's packages."""

    def __init__(self, folder: Path, work: Path, checkout: Path | None) -> None:
        self.folder, self.work = folder, work
        self.inside, self.outside_checkout = work / "pack", checkout
        self.checkout = checkout or work / "checkout"
        self.python = work / "venv" / "bin" / "python"
        # Digests of the results and the history as they came: what differs was measured here.
        name = hashlib.sha256(str(self.checkout).encode()).hexdigest()[:8]
        self.baseline = work / f"baseline-{name}.json"

    def lay(self) -> None:
        """Unpack, and make what is missing. Raises Failure."""
        self.work.mkdir(parents=True, exist_ok=True)
        with only_one(self.work / ".lock"):
            unpack(self.folder, self.work)
            if not (self.work / "laid").exists():
                self._make_environment()
                (self.work / "laid").touch()
            self._lay_checkout()
            self._link_state()

    def _make_environment(self) -> None:
        shutil.rmtree(self.work / "venv", ignore_errors=True)
        checked([sys.executable, "-m", "venv", "--without-pip", str(self.work / "venv")])
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        here, there = (checked([str(exe), "-c", code]).strip() for exe in (sys.executable, self.python))
        shutil.copytree(self.inside / "suite", there, copy_function=os.link, dirs_exist_ok=True)
        Path(there, "zz_base.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        for name, module in (("asv", "asv"), ("fa4-asv", "fa4_asv")):
            script = self.python.with_name(name)
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(str(self.python))} -m {module} "$@"\n')
            script.chmod(0o755)
        (self.python.parent / "uv").unlink(missing_ok=True)
        os.link(Path(there) / "bin" / "uv", self.python.parent / "uv")

    def _lay_checkout(self) -> None:
        """The packed project, laid again when another one came; what was measured stays."""
        archive, mark = self.folder / PROJECT, self.work / "project.sha256"
        if self.outside_checkout:
            if not (self.outside_checkout / "asv.conf.json").is_file():
                raise Failure(
                    f"{self.outside_checkout} is not a checkout of the suite: it has no asv.conf.json"
                )
            if not self.baseline.exists():
                self._set_baseline(
                    {name: digest_of(path) for name, path in measured(self.outside_checkout, KEPT)}
                )
            return
        if not archive.is_file():
            if not mark.exists():
                raise Failure(f"no {PROJECT} in {self.folder}; carry it there or name a --checkout")
            return
        digest = digest_of(archive)
        if mark.exists() and text_of(mark) == digest:
            return
        try:
            self._lay_project(archive)
        except (OSError, EOFError, tarfile.TarError) as error:
            raise Failure(f"{archive} is damaged ({error}); carry it again") from None
        mark.write_text(digest)

    def _lay_project(self, archive: Path) -> None:
        mine = self.changed(KEPT).keys() if self.baseline.exists() else set()
        digests = {}
        with tarfile.open(archive) as tar:
            if sum(member.size for member in tar.getmembers()) > _LARGEST_PROJECT:
                raise tarfile.TarError(f"it unpacks to more than {_LARGEST_PROJECT >> 20} MiB")
            for member in tar.getmembers():
                content = tar.extractfile(member) if member.isfile() else None
                if content and member.name.startswith(("results/", "history/")):
                    digests[member.name] = hashlib.sha256(content.read()).hexdigest()
            others = [member for member in tar.getmembers() if member.name not in mine]
            tar.extractall(self.checkout, members=others, filter="data")
        self._set_baseline(digests)

    def _set_baseline(self, digests: dict[str, str]) -> None:
        aside = self.baseline.with_suffix(".part")
        aside.write_text(json.dumps(digests))
        aside.replace(self.baseline)

    def changed(self, patterns: Sequence[str]) -> dict[str, Path]:
        """Files of the checkout that match and are not as they came, by name."""
        before = json_of(self.baseline)
        paths = {}
        for name, path in measured(self.checkout, patterns):
            try:
                if digest_of(path) != before.get(name):
                    paths[name] = path
            except FileNotFoundError:  # another process took it away
                continue
        return paths

    def _link_state(self) -> None:
        """The checkout's .asv is the pack's: history and packages there, caches and toolchains made there."""
        link, target = self.checkout / ".asv", self.inside / "asv"
        if link.is_symlink() and link.resolve() == target.resolve():
            return
        if link.is_dir() and not link.is_symlink():
            raise Failure(f"{link} is a folder with contents of its own; move it away or use no --checkout")
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    def environment(self, policy: str) -> dict[str, str]:
        """Variables for a command there. A policy's name joins its pins by "_"."""
        path = f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        offline = {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "FA4_ASV_TOOLCHAIN": policy.replace("_", ",")}
        result = {**os.environ, **offline, "PATH": path, "PYTHONPATH": str(self.checkout)}
        # asv drops PYTHONPATH unless it stands here as well.
        result["ASV_PYTHONPATH"] = str(self.checkout)
        result.pop("VIRTUAL_ENV", None)
        return result

    def names_in(self, name: str) -> list[str]:
        """A list of the pack: releases, commits, flavours."""
        return text_of(self.inside / f"{name}.txt").split()


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """One process at a time lays; others wait."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def checked(
    command: list[str],
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
    fine: tuple[int, ...] = (0,),
) -> str:
    """The command's output. Raises Failure with its last output where its exit code is not `fine`."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode not in fine:
        parts = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise Failure(f"{' '.join(command[:4])} ... failed: {parts[0]}")
    return done.stdout


# What comes back.


def measured(checkout: Path, patterns: Sequence[str]) -> list[tuple[str, Path]]:
    """Name and path of the files that match, in order. By name: another process may write temporary files there."""
    paths = {path for pattern in patterns for path in checkout.glob(pattern) if path.is_file()}
    return [(str(path.relative_to(checkout)), path) for path in sorted(paths)]


def keep(place: Place, output: Path, patterns: Sequence[str]) -> None:
    """What was measured here so far and what the commands said, as one file; the old one or the new, never half."""
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_name(output.name + ".part")
    with tarfile.open(aside, "w:gz", compresslevel=3) as tar:
        for name, path in place.changed(patterns).items():
            add(tar, path, name)
        for log in sorted(place.work.glob("*.log")):
            add(tar, log, f"logs/{log.name}")
    aside.replace(output)


def add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """One file. One that another process removes meanwhile is no fault."""
    try:
        content, changed = path.read_bytes(), path.stat().st_mtime
    except FileNotFoundError:
        return
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(content), int(changed), 0o644
    tar.addfile(member, io.BytesIO(content))


def run_keeping(
    place: Place, command: list[str], policy: str, output: Path | None, patterns: Sequence[str]
) -> int:
    """Run `command` in the checkout; write `output` every 30 s and at the end. Its exit code.

    SIGTERM is passed on, and what was finished is written.
    """
    try:
        child = subprocess.Popen(command, cwd=place.checkout, env=place.environment(policy))
    except OSError as error:
        raise Failure(f"cannot run {command[0]!r}: {error.strerror}") from None
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    # A terminal sends Ctrl-C to the command as well: it decides how to end.
    signal.signal(signal.SIGINT, lambda *_: None)
    while True:
        try:
            code = child.wait(timeout=_KEEP_EVERY)
            break
        except subprocess.TimeoutExpired:
            pass
        if output:
            keep(place, output, patterns)
    if output:
        keep(place, output, patterns)
    return code if code >= 0 else 128 - code


# What asv measures, benchmark by benchmark.


def measure(place: Place, arguments: argparse.Namespace) -> int:
    """Each benchmark on each release or commit under each flavour by `asv run`; 1 where one failed."""
    environment = place.environment(arguments.policy)
    asv = [str(place.python), "-m", "asv"]
    if arguments.machine != "nogpu":
        named = ["machine", "--yes", "--machine", arguments.machine]
        checked([*asv, *named], place.checkout, environment)
    flavours = arguments.flavour or place.names_in("flavours")
    one_flavour_each(place.checkout, flavours)
    checked(
        [*asv, "setup", "-E", "fa4:same"], place.checkout, environment, fine=(0, 1)
    )  # asv says 1 for success
    cores: queue.Queue[int] = queue.Queue()
    for core in cores_apart() if arguments.pin else ():
        cores.put(core)
    keeping = threading.Lock()

    def step(bench: str, revision: str, flavour: str) -> bool:
        command = [*asv, "run", "--config", configuration_of(flavour), "-E", "fa4:same"]
        command += ["-m", arguments.machine, "--bench", bench, f"{revision}^!"]
        log = place.work / f"{arguments.machine}-{revision}-{flavour}.log"
        core = cores.get() if arguments.pin else None
        begin = time.monotonic()
        try:
            with log.open("a") as stream:
                done = subprocess.run(
                    on_core(command, core), cwd=place.checkout, env=environment, stdout=stream
                )
        finally:
            if core is not None:
                cores.put(core)
        took = f"{time.monotonic() - begin:.0f} s"
        tell(f"{bench} {revision} {flavour}: {took}, exit code {done.returncode}", sys.stderr)
        # After each step: what was measured is safe, whatever happens to the machine.
        with keeping:
            keep(place, Path(arguments.output), KEPT)
        return done.returncode == 0

    fine = True
    for bench in arguments.bench or CORE:
        with ThreadPoolExecutor(arguments.jobs) as threads:
            steps = [
                threads.submit(step, bench, revision, flavour)
                for flavour in flavours
                for revision in revisions(place, arguments)
            ]
        ended = [each.result() for each in steps]  # each of them: what one raised is said
        fine &= all(ended)
    verify = [str(place.python), "-m", "fa4_asv", "verify"]
    verified = subprocess.run(verify, cwd=place.checkout, env=environment).returncode
    return 0 if fine and not verified else 1


def configuration_of(flavour: str) -> str:
    """Where asv's configuration for one flavour lies, in the checkout."""
    return f"asv.{flavour}.conf.json"


def one_flavour_each(checkout: Path, flavours: Sequence[str]) -> None:
    """A configuration for each flavour that is measured: asv would fail on another that was not packed."""
    configuration = json_of(checkout / "asv.conf.json")
    for flavour in flavours:
        configuration["matrix"]["req"]["flavour"] = [flavour]
        (checkout / configuration_of(flavour)).write_text(json.dumps(configuration, indent=4))


def cores_apart() -> list[int]:
    """One processor of each core that this process may use; the first is left to this process itself."""
    result: dict[str, int] = {}
    for processor in sorted(os.sched_getaffinity(0)):
        path = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        result.setdefault(path.read_text() if path.is_file() else str(processor), processor)
    first, *others = result.values()
    os.sched_setaffinity(0, {first})
    return others or [first]


def on_core(command: list[str], core: int | None) -> list[str]:
    """The command, bound to a core where one is named."""
    if core is None:
        return command
    code = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execv(sys.argv[2], sys.argv[2:])"
    return [command[0], "-c", code, str(core), *command]


def revisions(place: Place, arguments: argparse.Namespace) -> list[str]:
    """What is asked for, or all that was packed, as git knows it."""
    releases, commits = place.names_in("releases"), place.names_in("commits")
    if arguments.release or arguments.commits:
        releases, commits = arguments.release, commits if arguments.commits else []
    return [*(f"fa4-v{release}" for release in releases), *commits]


# The command line.


def parser_of() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--work", default="fa4-airgap", help="a folder to be made (default: %(default)s)")
    here = Path(__file__).resolve().parent
    joining = commands.add_parser("join", parents=[common], help="take parts as they come")
    joining.add_argument("folder", nargs="?", default=here, type=Path, help="default: beside airgap.py")
    running = argparse.ArgumentParser(add_help=False, parents=[common])
    running.add_argument("--from", dest="folder", default=here, type=Path, help="default: beside airgap.py")
    running.add_argument("--checkout", type=Path, help="use this checkout, not the packed project")
    running.add_argument(
        "--policy", default="day", help="of the toolchain, one that was packed (default: day)"
    )
    for name, text in (
        ("lay", "unpack and make the environment, run nothing"),
        ("exec", "run the command after --"),
        ("sweep", "run `fa4-asv sweep` with what stands after --"),
    ):
        each_parser = commands.add_parser(name, parents=[running], help=text)
        each_parser.add_argument(
            "-o", "--output", type=Path, help="write what was measured there, every 30 s and at the end"
        )
        each_parser.add_argument(
            "--keep", action="append", default=[], help="further files of the checkout for -o"
        )
    add_measure(commands.add_parser("measure", parents=[running], help="run asv, benchmark by benchmark"))
    return parser


def add_measure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--machine", required=True, help="the name of the results, such as h200-sxm")
    parser.add_argument("--bench", action="append", help=f"as asv's (default: {', '.join(CORE)})")
    parser.add_argument("--release", action="append", default=[], help="default: all that was packed")
    parser.add_argument("--commits", action="store_true", help="the commits that were packed")
    jobs = "runs at once, for what no clock measures, or with --pin (default: 1)"
    parser.add_argument("--jobs", type=int, default=1, help=jobs)
    parser.add_argument("--pin", action="store_true", help="each of them on a core of its own")
    parser.add_argument("--flavour", action="append", help="default: all that were packed; several times")
    parser.add_argument("-o", "--output", default="results.tar.gz", help="default: %(default)s")


def run(arguments: argparse.Namespace, command: list[str]) -> int:
    """The exit code. Raises Failure."""
    work, folder = Path(arguments.work).resolve(), Path(arguments.folder).resolve()
    if arguments.command == "join":
        return join(folder, work)
    checkout = arguments.checkout.resolve() if arguments.checkout else None
    place = Place(folder, work, checkout)
    if arguments.command == "exec" and not command:
        raise Failure("exec needs a command after --")
    place.lay()
    if arguments.command == "lay":
        tell(str(place.checkout))
        return 0
    if arguments.command == "measure":
        return measure(place, arguments)
    sweep = [str(place.python), "-m", "fa4_asv", "sweep"] if arguments.command == "sweep" else []
    output = arguments.output.resolve() if arguments.output else None
    return run_keeping(place, [*sweep, *command], arguments.policy, output, [*KEPT, *arguments.keep])


def join(folder: Path, work: Path) -> int:
    """Take what `folder` has and say what is missing."""
    if (work / "pack").is_dir():
        refuse_another(folder, work / "pack")
        tell("unpacked already")
        return 0
    with only_one(lock_file(work)):
        missing = take(folder, work)
    tell(f"missing: {', '.join(missing)}" if missing else "complete")
    return 0


def lock_file(work: Path) -> Path:
    """The lock of `work`, which is made."""
    work.mkdir(parents=True, exist_ok=True)
    return work / ".lock"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; 2 with one line for wrong input."""
    own, arguments = list(sys.argv[1:] if argv is None else argv), []
    if "--" in own:
        own, arguments = own[: own.index("--")], own[own.index("--") + 1 :]
    try:
        return run(parser_of().parse_args(own), arguments)
    except Failure as error:
        tell(f"airgap: {error}", sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
