"""A tar of many folders in parts: each content once, compressed with a window of 2 GiB, listed in pack.json."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from fa4_asv.backfill.airgap.unpack import digest_of
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import write_atomic

FORMAT = 1
_WINDOW = 31  # bits: versions of a library hundreds of MB apart are still found
# Versions of a library share stretches, not blocks: looked for densely, 5 % less than by zstd's own choice.
_LONG: dict[str, Any] = {
    "enable_ldm": True,
    "ldm_min_match": 32,
    "ldm_hash_rate_log": 4,
    "ldm_hash_log": 26,
}
_BLOCK = 1 << 20
_TIME = 1_577_836_800  # of every member (2020-01-01): the same files make the same pack


@dataclass(frozen=True)
class Entry:
    """A file or an empty folder: where it goes in the pack, and where it is."""

    name: str
    path: Path


class Parts:
    """A stream that ends up in files of at most `size` bytes."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size
        self._whole, self._block = hashlib.sha256(), bytearray()
        self.parts: list[dict[str, Any]] = []

    def write(self, data: bytes) -> int:
        self._whole.update(data)
        self._block += data
        while len(self._block) >= self._size:
            self._put(bytes(self._block[: self._size]))
            del self._block[: self._size]
        return len(data)

    def flush(self, *_: object) -> None:
        """Nothing: a part is written when it is full."""

    def finish(self) -> dict[str, Any]:
        """Write the last part. What pack.json says of them all."""
        if self._block or not self.parts:
            self._put(bytes(self._block))
        size = sum(part["bytes"] for part in self.parts)
        return {"sha256": self._whole.hexdigest(), "bytes": size, "parts": self.parts}

    def _put(self, block: bytes) -> None:
        name = f"pack.part-{len(self.parts):03d}"
        (self._folder / name).write_bytes(block)
        digest = hashlib.sha256(block).hexdigest()
        self.parts.append({"name": name, "bytes": len(block), "sha256": digest})


def files_below(folder: Path, name: str) -> Iterator[Entry]:
    """Every file and empty folder of `folder`, to be found below `name` in the pack. uv's lock file is no content."""
    for path in sorted(folder.rglob("*")):
        wanted = path.is_file() or (path.is_dir() and not any(path.iterdir()))
        if wanted and path != folder / ".lock":
            yield Entry(f"{name}/{path.relative_to(folder)}", path)


def write_parts(entries: Iterable[Entry], folder: Path, size: int, level: int) -> dict[str, Any]:
    """Write `entries` to parts of `size` bytes in `folder`. What pack.json says of them. Raises Fa4AsvError."""
    import zstandard

    shape = zstandard.ZstdCompressionParameters.from_level(
        level, window_log=_WINDOW, threads=os.cpu_count() or 1, **_LONG
    )
    parts, unpacked, count = Parts(folder, size), 0, 0
    with (
        zstandard.ZstdCompressor(compression_params=shape).stream_writer(
            cast(BinaryIO, parts), closefd=False
        ) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK) as tar,
    ):
        for member, path in members(entries):
            count += 1
            if not member.isreg():
                tar.addfile(member)
                continue
            # As much as a small file takes on a disk.
            unpacked += max(member.size, 4096)
            with path.open("rb") as source:
                tar.addfile(member, source)
    return parts.finish() | {"unpacked": unpacked, "files": count}


def members(entries: Iterable[Entry]) -> Iterator[tuple[tarfile.TarInfo, Path]]:
    """A member per entry; a content that came before is a hard link to it. Similar names come side by side.

    Raises Fa4AsvError where a file is unreadable.
    """
    first: dict[tuple[str, int], str] = {}
    digests: dict[tuple[int, int], str] = {}  # by inode: uv has linked most copies already
    for entry in sorted(entries, key=_likeness):  # stable: as given where alike
        member = tarfile.TarInfo(entry.name)
        member.mtime, member.mode, member.type = _TIME, 0o755, tarfile.DIRTYPE
        if not entry.path.is_dir():
            _describe(member, entry.path, first, digests)
        yield member, entry.path


def _describe(
    member: tarfile.TarInfo,
    path: Path,
    first: dict[tuple[str, int], str],
    digests: dict[tuple[int, int], str],
) -> None:
    """A file, or a link to the `first` of that content and mode."""
    try:
        status = path.stat()
        inode = (status.st_dev, status.st_ino)
        digest = digests.get(inode) or digest_of(path)
    except OSError as error:
        raise Fa4AsvError(f"cannot read {path}: {error.strerror}") from None
    digests[inode] = digest
    member.mode = 0o755 if status.st_mode & 0o100 else 0o644
    before = first.setdefault((digest, member.mode), member.name)
    if before == member.name:
        member.type, member.size = tarfile.REGTYPE, status.st_size
    else:
        member.type, member.linkname = tarfile.LNKTYPE, before


def _likeness(entry: Entry) -> str:
    """Order in the pack: versions of one file one after another, whatever folder each is in."""
    return entry.name.rpartition("/")[2].replace(".cu12.", ".").replace(".cu13.", ".")


def write_index(folder: Path, facts: dict[str, Any]) -> None:
    """pack.json: what belongs to the pack, with sizes and digests."""
    write_atomic(folder / "pack.json", json.dumps({"format": FORMAT, **facts}, indent=1) + "\n")
