"""Hold recorded figures of compiled kernels against NVIDIA's tools, asked by a shell as a person would.

    python -m tests.proofs.by_hand                                   # one kernel per group, of 4.0.0b36 under cu13
    python -m tests.proofs.by_hand 4.0.0b36 mla sm_100/mla_decode    # one case

The cubin is found by the digest that the record names, among those that this checkout has compiled (.asv/cache/cubins). Where
one is missing, its line says how to compile it. Nothing of the suite reads the tools' output. Exit code 1 where a figure differs.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU, find_tool
from fa4_asv.base.output import say
from fa4_asv.base.project import Project
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import sound_pairs

RELEASE, FLAVOUR = "4.0.0b36", "cu13"
# One kernel per group.
CASES = {
    "codegen": "sm_90/fwd_d128_full",
    "serving": "sm_90/decode_d128_gqa4_causal_page16",
    "flex": "sm_90/fwd_d64_gqa8_window_sink",
    "mla": "sm_100/mla_decode",
    "dims": "sm_90/fwd_d72_full",
    "consumer": "sm_120/fwd_d128_full",
    "ultra": "sm_103/fwd_d128_full",
}
_SASS = r"""{nvdisasm} -c {cubin} | grep -E '^[[:space:]]+/\*[0-9a-f]{{4,}}\*/[[:space:]]'"""
_USAGE = "{cuobjdump} --dump-resource-usage {cubin}"
# Figure: the command that gives it.
COMMANDS = {
    "registers": _USAGE + " | grep -o 'REG:[0-9]*' | cut -d: -f2",
    "spill_bytes": _USAGE + " | grep -o 'STACK:[0-9]*' | cut -d: -f2",
    "instructions": _SASS + " | grep -vcw NOP",
    "local_loads": _SASS + " | grep -cw LDL",
    "local_stores": _SASS + " | grep -cw STL",
    # Each instruction has 16 bytes, those that only pad included.
    "text_bytes": 'echo $((16 * $(' + _SASS + " | wc -l)))",
}  # fmt: skip


def main() -> None:
    release, *case = sys.argv[1:] or [RELEASE]
    wanted = {case[0]: case[1]} if case else CASES
    project = Project.find()
    records = recorded(project, release)
    failed = False
    for group, key in wanted.items():
        record = records.get(group, {}).get(key)
        if record is None or record.state != "measured":
            say(f"{group} {key}: {record.state if record else 'not'} recorded of {release} under {FLAVOUR}")
            continue
        failed |= not _agrees(project, release, group, key, record)
    sys.exit(1 if failed else 0)


def recorded(project: Project, release: str) -> dict[str, dict[str, CaseRecord]]:
    """The record of a release under FLAVOUR, without a GPU. Raises Fa4AsvError where there is none."""
    for pair in sound_pairs(project.results, NOGPU):
        chain = pair.sidecar.toolchain
        if (pair.sidecar.release, chain.flavour, chain.policy) == (release, FLAVOUR, "day"):
            return pair.sidecar.groups
    raise Fa4AsvError(f"{release} is not recorded under {FLAVOUR}")


def _agrees(project: Project, release: str, group: str, key: str, record: CaseRecord) -> bool:
    cubin = project.work / "cache" / "cubins" / record.sha256[:2] / f"{record.sha256}.cubin"
    if not cubin.is_file():
        arch, call = key.split("/")
        say(
            f"{group} {key}: not compiled here; asv run -b \"^{group}.Kernels.*{arch}', '{call}'\" fa4-v{release}^!"
        )
        return True
    theirs = by_hand(cubin)
    told = {name: (record.figures[name], theirs[name]) for name in COMMANDS}
    wrong = {name: pair for name, pair in told.items() if pair[0] != pair[1]}
    summary = ", ".join(f"{name} {pair[1]}" for name, pair in told.items())
    say(f"{group} {key}: {'agrees' if not wrong else f'DIFFERS {wrong} (recorded, by hand)'}: {summary}")
    return not wrong


def by_hand(cubin: Path) -> dict[str, int]:
    """Each figure by its command. Raises Fa4AsvError where a tool is missing or a command gives no number."""
    figures = {}
    for name, command in COMMANDS.items():
        done = subprocess.run(
            ["bash", "-c", shell(command, cubin)], capture_output=True, text=True, timeout=120
        )
        if not done.stdout.strip().isdigit():
            raise Fa4AsvError(f"{name} of {cubin.name}: expected one number, got {done.stdout!r:.80}")
        figures[name] = int(done.stdout)
    return figures


def shell(command: str, cubin: Path) -> str:
    """The command with the tools of the suite's pinned packages. Raises Fa4AsvError where one is missing."""
    tools = {}
    for tool in ("cuobjdump", "nvdisasm"):
        path = find_tool(tool)
        if path is None:
            raise Fa4AsvError(f"no {tool} here; `fa4-asv doctor` says how to get it")
        tools[tool] = shlex.quote(path)
    return command.format(cubin=shlex.quote(str(cubin)), **tools)


if __name__ == "__main__":
    main()
