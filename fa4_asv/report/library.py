"""The one library of the pages: uPlot draws the interactive charts. Its files are copied beside the pages as they are.

They come from the npm package named here; a copy with another digest is refused, so that nobody edits one by hand.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

from fa4_asv.base.errors import Fa4AsvError

PACKAGE, VERSION, LICENCE = "uplot", "1.6.32", "MIT"
FOLDER = "lib"
# File here: its path in the npm package, and its sha256.
FILES = {
    "uPlot.iife.min.js": (
        "dist/uPlot.iife.min.js",
        "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    ),
    "uPlot.min.css": (
        "dist/uPlot.min.css",
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    ),
    "uPlot-LICENSE.txt": ("LICENSE", "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"),
}
LARGEST = 300_000  # bytes of all of them together


def library() -> dict[str, str]:
    """Each file below the report's root and its text. Raises Fa4AsvError where one is not the package's."""
    folder = files("fa4_asv.report") / "vendor"
    return {f"{FOLDER}/{name}": _checked(name, (folder / name).read_bytes()) for name in FILES}


def _checked(name: str, content: bytes) -> str:
    if hashlib.sha256(content).hexdigest() != FILES[name][1]:
        raise Fa4AsvError(
            f"fa4_asv/report/vendor/{name} is not that of {PACKAGE} {VERSION}; take it from the npm package again"
        )
    return content.decode("utf-8")
