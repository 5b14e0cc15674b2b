"""Cubins that a compile gave before: another reading of their bytes needs no compile.

Most releases change few kernels: of 6,800 main kernels of 33 releases under three flavours 1,200 are different. Where the record has
the digest of a commit's kernel, and a cubin of this digest is kept, its loops are read from that. `fa4-asv audit` compiles anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import read_bytes, write_atomic
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.measure.context import Context
from fa4_asv.measure.kernels.cubin import read_cubin
from fa4_asv.measure.kernels.loop_records import loop_record
from fa4_asv.record.schema import CaseRecord, Records
from fa4_asv.record.spool import read_records, write_records
from fa4_asv.record.store import current_groups, series_pairs

_ONLY = "loops"  # the key in a file of one record


def keep(context: Context, cubin: Path, digest: str) -> None:
    """Keep the bytes of a cubin for later readings. A full disk costs the copy, not the figure."""
    path = _path(context, digest)
    if not path.exists():
        with suppress(Fa4AsvError):
            write_atomic(path, read_bytes(cubin, advice="it is no cubin of FA4's"))


def recorded_kernels(context: Context) -> Records:
    """What the record says of this commit's kernels under this toolchain, by case; nothing where it has another toolchain."""
    folder = Path(context.root) / "results" / context.machine
    for pair in series_pairs(folder, context.commit, context.flavour, context.policy):
        if pair.sidecar.toolchain.digest == context.digest:
            return current_groups(pair).get("codegen", {})
    return {}


def loops_of_kept(
    context: Context, keys_of: Iterable[tuple[tuple[str, ...], list[str]]]
) -> Iterator[tuple[tuple[str, ...], Records]]:
    """The calls all of whose main kernels are recorded and kept, with their loops. `keys_of`: calls, and their kernels' keys."""
    recorded = recorded_kernels(context)
    for call, keys in keys_of:
        loops = {key: _loops(context, recorded[key]) for key in keys if key in recorded}
        records = {key: record for key, record in loops.items() if record is not None}
        if records.keys() == set(keys):
            yield call, records


def _loops(context: Context, whole: CaseRecord) -> CaseRecord | None:
    """The loops of a recorded kernel; None where its cubin is not kept, or cannot be read."""
    if whole.state == "broken":
        return None
    if whole.state != "measured":
        return loop_record(whole, None)
    cubin, read = (
        _path(context, whole.sha256),
        _path(context, whole.sha256, f".loops-{GROUPS['loops'].version}.json"),
    )
    try:
        return read_records(read)[_ONLY]
    except (Fa4AsvError, KeyError):  # none, or none that can be read
        pass
    try:
        if hashlib.sha256(read_bytes(cubin, advice="it is no cubin of FA4's")).hexdigest() != whole.sha256:
            return None
        record = loop_record(whole, read_cubin(cubin, context.cuobjdump, context.nvdisasm).loops)
    except Fa4AsvError:
        return None
    write_records(read, {_ONLY: record})
    return record


def _path(context: Context, digest: str, ending: str = ".cubin") -> Path:
    return Path(context.root) / ".asv" / "cache" / "cubins" / digest[:2] / f"{digest}{ending}"
