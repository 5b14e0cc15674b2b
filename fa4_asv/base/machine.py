"""What this machine is, and the name under which exact figures are kept.

Codegen figures, traced memory and route health do not depend on the machine that made them: they stand
under one shared name, so that anybody's run extends the same series.
"""

from __future__ import annotations

import shutil
import sysconfig
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

NOGPU = "nogpu"
# Constant on purpose: every key of a machine's record is part of a series' identity in asv.
NOGPU_RECORD = {
    "machine": NOGPU,
    "os": "any",
    "arch": "any",
    "cpu": "any",
    "num_cpu": "any",
    "ram": "any",
}
# Set by a cluster's driver: the record of the machine that a node's card belongs to, as JSON. A node's user has
# no ~/.asv-machine.json that knows the name, and the nodes of a kind are to write the same.
MACHINE_VARIABLE = "FA4_ASV_MACHINE_RECORD"
# The same for the environment's Python: cubins do not depend on it.
ANY_PYTHON = "any"

_PACKAGES = {"cuobjdump": "nvidia-cuda-cuobjdump", "nvdisasm": "nvidia-cuda-nvdisasm"}


def find_tool(name: str) -> str | None:
    """Path of `cuobjdump` or `nvdisasm`: from its pinned package first, then from PATH."""
    try:
        for file in files(_PACKAGES[name]) or []:
            if file.name == name:
                path = Path(str(file.locate()))
                if path.is_file():
                    return str(path.resolve())
    except PackageNotFoundError:
        pass
    return shutil.which(name)


def python_tag() -> str:
    """Short name of this interpreter's version, as "3.11"."""
    return str(sysconfig.get_python_version())
