"""What the environment plug-in tells a benchmark process, as one JSON value in one variable."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fa4_asv.base import isolation
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import find_tool
from fa4_asv.base.processes import ask
from fa4_asv.catalog.flavours import torch_cuda

VARIABLE = "FA4_ASV_CONTEXT"


@dataclass(frozen=True)
class Context:
    """Which source, toolchain and machine stand behind the benchmarks of this process.

    `unsupported` holds the reason when the commit has no such flavour; `spool` is the folder whose
    records become the sidecar; `select` are the regular expressions of asv's `--bench`, empty for all;
    `torches` maps versions of torch to interpreters that hold this toolchain over them.
    """

    root: str
    machine: str
    environment: str
    commit: str
    tree: str
    release: str
    flavour: str
    policy: str
    digest: str
    packages: dict[str, str]
    source: str
    spool: str
    cuobjdump: str
    nvdisasm: str
    unsupported: str = ""
    terminal: str = ""
    select: list[str] = field(default_factory=list)
    torches: dict[str, str] = field(default_factory=dict)

    @property
    def torch_cuda(self) -> str:
        """The CUDA of the torch that the toolchain names; "" where the flavour says which."""
        return torch_cuda(self.packages)

    def dump(self) -> str:
        return json.dumps(asdict(self))


class _Source(Protocol):
    """As history.source has it, which this package does not know."""

    @property
    def commit(self) -> str: ...
    @property
    def tree(self) -> str: ...
    @property
    def release(self) -> str: ...
    @property
    def folder(self) -> Path: ...


class _Lock(Protocol):
    """As history.toolchain has it."""

    @property
    def digest(self) -> str: ...
    @property
    def packages(self) -> dict[str, str]: ...


def context_of(root: Path, source: _Source, lock: _Lock | None, **others: Any) -> Context:
    """Of a source and its toolchain (None: it has none of this flavour) below a checkout's `root`; `others` are fields."""
    return Context(
        root=str(root),
        commit=source.commit,
        tree=source.tree,
        release=source.release,
        source=str(source.folder),
        digest=lock.digest if lock else "",
        packages=lock.packages if lock else {},
        cuobjdump=find_tool("cuobjdump") or "cuobjdump",
        nvdisasm=find_tool("nvdisasm") or "nvdisasm",
        **others,
    )


def ask_with(
    python: Path, module: str, context: Context, checkout: Path, folder: Path, question: object
) -> tuple[str, str]:
    """What `module` answers to `question` in a process of its own, and how it ended: of an interpreter that holds the
    context's toolchain, with the context's sources; `folder` is for its temporary files."""
    path = os.pathsep.join([context.source, str(checkout)])
    variables = isolation.environment(folder, {"PYTHONPATH": path, VARIABLE: context.dump()})
    return ask([str(python), "-m", module], variables, json.dumps(question))


def current() -> Context:
    """The context of this process. Raises Fa4AsvError outside of `asv run`."""
    text = os.environ.get(VARIABLE)
    if not text:
        raise Fa4AsvError(f"{VARIABLE} is not set: benchmarks run under `asv run`, with the fa4 environment")
    return Context(**json.loads(text))
