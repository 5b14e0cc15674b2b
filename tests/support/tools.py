"""The scripts of tools/ as modules."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from tests.support import ROOT

TOOLS = ROOT / "tools"


def tool(name: str) -> ModuleType:
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
