"""A record as bytes: what leaves and reaches a machine as a zip archive, and what such a thing may hold.

Result files are other people's input once they come over a network: only names that asv and the suite
write are unpacked, only as plain files, only up to a size.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError

# A machine, then a file of it. Neither can begin with a dot, so that neither leads anywhere else.
_PART = r"[A-Za-z0-9][A-Za-z0-9_.+=!,~@-]{0,250}"
_FILE = re.compile(rf"(?:{_PART}/)?{_PART}\.(?:json|sidecar)", re.ASCII)
_MOST_BYTES, _MOST_FILES = 64 << 20, 1000  # of one commit: 300 KB in four files


def pack(results: Path) -> bytes:
    """Everything below a `results/` that belongs to a record."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(results.rglob("*")):
            name = path.relative_to(results).as_posix()
            if path.is_file() and _FILE.fullmatch(name):
                archive.write(path, name)
    return packed.getvalue()


def unpack(parcel: bytes, results: Path) -> None:
    """Write the files of a parcel below `results`. Raises Fa4AsvError, with nothing written, on any other thing."""
    try:
        with zipfile.ZipFile(io.BytesIO(parcel)) as archive:
            entries = archive.infolist()
            for entry in entries:
                if not _FILE.fullmatch(entry.filename):
                    raise Fa4AsvError(
                        f"the archive holds {entry.filename[:200]!r}, which is not a file of a record; refused"
                    )
            size = sum(entry.file_size for entry in entries)
            if size > _MOST_BYTES or len(entries) > _MOST_FILES:
                raise Fa4AsvError(f"the archive unpacks to {len(entries)} files of {size} bytes; refused")
            # Read before anything is written; a reader stops at the size that the entry declares.
            contents = {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise Fa4AsvError(f"the archive cannot be read: {error}") from None
    for name, content in contents.items():
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_bytes(content)
