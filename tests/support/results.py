"""Sidecars and result files of invented figures, and the files of one release."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fa4_asv.history.manifest import Release
from fa4_asv.record.schema import (
    FORMAT,
    SUITE,
    CaseRecord,
    Sidecar,
    Toolchain,
    records_to_json,
    toolchain_digest,
)
from fa4_asv.record.store import read_sidecar, sidecar_path, write_sidecar

FIGURES = {
    "spill_bytes": 16,
    "local_loads": 2,
    "local_stores": 1,
    "instructions": 900,
    "text_bytes": 14592,
    "registers": 168,
}
MEASURED = CaseRecord(
    "measured",
    "",
    FIGURES,
    "ab" * 32,
    "FlashAttentionForwardSm90",
    # They make the figures: 900 instructions, and with NOP 14,592 bytes of 16 an instruction.
    {"HGMMA.64x128x16": 8, "IMAD": 889, "LDL": 2, "NOP": 12, "STL": 1},
)
# asv's list of benchmarks, as short as one can be.
BENCHMARKS_TEXT = json.dumps(
    {
        "version": 2,
        "codegen.Kernels.track_registers": {
            "name": "codegen.Kernels.track_registers",
            "param_names": ["arch", "case"],
            "params": [["'sm_90'", "'sm_100'"], ["'x'", "'y'"]],
            "type": "track",
            "unit": "registers",
            "version": "1",
            "code": "",
        },
    }
)
REFUSED = CaseRecord("unsupported", "AssertionError: <b>head_dim</b> 256 \u2014 not on sm_100")


def make(commit="c" * 40, release="4.0.0b36", digest="", cases=None, packages=None) -> Sidecar:
    packages = packages or {"nvidia-cutlass-dsl": "4.8.1"}
    toolchain = Toolchain("day", "cu13", digest or toolchain_digest("cu13", packages), packages)
    groups = {"codegen": cases or {"sm_90/fwd_d128_full": MEASURED, "sm_100/bwd_d256_full": REFUSED}}
    return Sidecar(
        FORMAT, SUITE, "nogpu", commit, "fa4-pyany-flavourcu13-toolchainday", release, toolchain, groups
    )


def in_full(sidecar: Sidecar) -> dict[str, Any]:
    """What format 1 wrote: every state and reason, and opcodes by name; for edits, and as an older suite left it."""
    groups = {group: records_to_json(cases) for group, cases in sidecar.groups.items()}
    return {**asdict(sidecar), "format": 1, "groups": groups}


def json_of(path: Path) -> dict[str, Any]:
    """A result file, a cause, or a sidecar in full."""
    return in_full(read_sidecar(path)) if path.suffix == ".sidecar" else json.loads(path.read_text())


def result(commit="c" * 40, **changes):
    data = {
        "version": 2,
        "commit_hash": commit,
        "env_name": "fa4-pyany-flavourcu13-toolchainday",
        "date": 1,
        "python": "any",
        "params": {"machine": "nogpu"},
        "requirements": {"flavour": "cu13", "toolchain": "day"},
        "result_columns": ["result", "params", "version"],
        "results": {
            "codegen.Kernels.track_spill_bytes": [
                [16, math.nan, None, 0],
                [["'sm_90'", "'sm_100'"], ["'a'", "'b'"]],
                "1",
            ]
        },
    }
    return {**data, **changes}


def record_release(project, version: str, commit: str, cases, packages) -> Release:
    """The pair of files of a release with these cases; what the list of releases says of it."""
    path = project.results / "nogpu" / f"{commit[:8]}-fa4-pyany-flavourcu13-toolchainday.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result(commit)))
    write_sidecar(sidecar_path(path), make(commit, version, version, cases, packages))
    return Release(version, f"flash_attn_4-{version}.tar.gz", "0" * 64, "2026-03-05T17:56:13Z", commit)
