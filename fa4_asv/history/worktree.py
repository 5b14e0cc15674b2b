"""An uncommitted tree: flash_attn/cute of somebody's checkout, copied, so that edits after that change nothing.

Regular files only. A link could lead to a file that is not part of the tree, and reading a pipe could wait forever: both
are refused by name.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import read_bytes, read_text
from fa4_asv.history.demands import MOST_BYTES as MOST_PYPROJECT
from fa4_asv.history.repository import CUTE, MOST_BYTES, MOST_FILES
from fa4_asv.history.source import note_version

_NEEDED = "interface.py"


@dataclass(frozen=True)
class Tree:
    """The copy. `folder` goes on PYTHONPATH; `digest` is of every name and content; `name` is the checkout's folder."""

    name: str
    digest: str
    folder: Path

    @property
    def pyproject(self) -> str:
        """What says which toolchain it needs. Raises Fa4AsvError where there is none."""
        path = self.folder / CUTE / "pyproject.toml"
        if not path.exists():
            raise Fa4AsvError(
                f"{self.name!r} has no {CUTE}/pyproject.toml, so nothing says which toolchain it needs"
            )
        return read_text(path, MOST_PYPROJECT, "correct it in the checkout")


def copy_tree(checkout: Path, folder: Path) -> Tree:
    """Copy flash_attn/cute of `checkout` below an empty `folder`.

    Bytecode and hidden files are left out. Raises Fa4AsvError where there is no FA4, and for what is not a regular file.
    """
    _refuse_other(checkout)
    digest = hashlib.sha256()
    files = size = 0
    for path in sorted(_files(checkout / CUTE)):
        name = path.relative_to(checkout / CUTE).as_posix()
        content = _read(path, f"{CUTE}/{name}")
        files, size = files + 1, size + len(content)
        if files > MOST_FILES or size > MOST_BYTES:
            raise Fa4AsvError(
                f"{CUTE} has more than {MOST_FILES} files or {MOST_BYTES >> 20} MiB; "
                "move other files out of it"
            )
        digest.update(f"{len(name)} {name} {len(content)} ".encode() + content)
        target = folder / CUTE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    tree = Tree(checkout.resolve().name, digest.hexdigest()[:12], folder)
    note_version(folder, f"0+tree.{tree.digest}")
    return tree


def _refuse_other(checkout: Path) -> None:
    """Raises Fa4AsvError where the path is not a checkout with FA4 in it."""
    for part in (checkout / "flash_attn", checkout / CUTE):
        if part.is_symlink():
            raise Fa4AsvError(f"{part} is a link; name the checkout that it leads to")
    if not (checkout / CUTE / _NEEDED).is_file():
        raise Fa4AsvError(
            f"{checkout} has no {CUTE}/{_NEEDED}; name the root of a checkout of flash-attention"
        )


def _files(folder: Path) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise Fa4AsvError(f"cannot read {folder}: {error.strerror}") from None
    for entry in entries:
        if entry.name == "__pycache__" or entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        else:
            yield Path(entry.path)


def _read(path: Path, shown: str) -> bytes:
    """The content of a regular file, at most one byte more than may be copied."""
    try:
        # No wait for a pipe's writer, and no link: that may have come after the folder was listed.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        why = "it is a link" if path.is_symlink() else error.strerror
        raise Fa4AsvError(f"cannot copy {shown!r}: {why}; only regular files are timed") from None
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Fa4AsvError(
                f"cannot copy {shown!r}: it is not a regular file; only regular files are timed"
            )
        return stream.read(MOST_BYTES + 1)


def differing(tree: Path, other: Path) -> list[str]:
    """The Python files of FA4 that two source folders do not share, byte by byte: relative to flash_attn/cute."""
    sides = [_sources(folder / CUTE) for folder in (tree, other)]
    names = sorted(sides[0].keys() | sides[1].keys())
    return [name for name in names if sides[0].get(name) != sides[1].get(name)]


def _sources(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): read_bytes(path) for path in folder.rglob("*.py")}
