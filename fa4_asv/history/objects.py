"""Objects of git copied between repositories: commits, trees, and of the files only those of flash_attn/cute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fa4_asv.history.repository import CUTE, git


def borrow(repository: Path, *others: Path) -> None:
    """Let `repository` read the objects of `others`, too."""
    with (repository / "objects" / "info" / "alternates").open("a", encoding="utf-8") as alternates:
        alternates.writelines(f"{other / 'objects'}\n" for other in others)


def missing_objects(repository: Path, tips: Sequence[str]) -> int:
    """How many objects of flash_attn/cute are not there, over the whole history of `tips`. Raises Fa4AsvError."""
    request = "\n".join([*tips, "--", CUTE, ""]).encode()
    listed = git(repository, "rev-list", "--objects", "--missing=print", "--stdin", stdin=request)
    return sum(line.startswith(b"?") for line in listed.splitlines())


def copy_objects(source: Path, target: Path, tips: Sequence[str], have: Sequence[str] = ()) -> None:
    """Write into `target` what `tips` reach and it lacks. `source` holds or borrows all of both repositories' objects;
    `have` are tips that `target` holds. Raises Fa4AsvError."""
    only = git(source, "hash-object", "-w", "--stdin", stdin=f"/{CUTE}/\n".encode()).decode().strip()
    options = ["--revs", "--quiet", "--stdout", f"--filter=sparse:oid={only}", "--missing=allow-any"]
    # What is new first. A file that moved into flash_attn/cute is new there, but not to git: then all.
    for known in (have, ()):
        revisions = "\n".join([*tips, *(f"^{tip}" for tip in known), ""])
        pack = git(source, "pack-objects", *options, stdin=revisions.encode())
        if any(pack[8:12]):  # the number of objects
            git(target, "index-pack", "--stdin", stdin=pack)
        if not missing_objects(target, tips):
            return
