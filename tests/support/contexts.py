"""The context of a benchmark process that the tests play."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fa4_asv.measure.context import Context


def a_context(root: Path, **others: Any) -> Context:
    """Of a machine with a clock, below `root`; what no test asks for is "x"."""
    names = ("environment", "tree", "release", "policy", "digest", "source", "cuobjdump", "nvdisasm")
    known = {"machine": "box", "commit": "c" * 40, "flavour": "cu13", "packages": {}}
    places = {"root": str(root), "spool": str(root / "spool")}
    return Context(**{**dict.fromkeys(names, "x"), **known, **places, **others})
