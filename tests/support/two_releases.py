"""Two releases of invented figures between which every kind of change happens once: for whole reports of a comparison."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from fa4_asv.base.project import Project
from fa4_asv.compare.commits import Commit
from fa4_asv.record.schema import CaseRecord
from tests.support.fake_record import write_pair, write_releases
from tests.support.results import FIGURES, MEASURED

COMPILERS = ("4.5.2", "4.6.0")
# What memory.Traced keeps of a call.
PEAK, EXTRA = 1_000_000, 300_000


def kernel(**figures: int) -> CaseRecord:
    """A kernel with these figures instead of the usual ones; another digest where they differ."""
    changed = FIGURES | figures
    return replace(MEASURED, figures=changed, sha256=hashlib.sha256(repr(changed).encode()).hexdigest())


def call(peak: int, extra: int) -> CaseRecord:
    return CaseRecord("measured", figures={"peak_bytes": peak, "extra_bytes": extra})


REFUSED = CaseRecord("unsupported", "AssertionError: head_dim 256 is not supported | on <this> card")
BROKEN = CaseRecord("broken", "the compile process was killed by SIGSEGV")
NO_SPILL = {"spill_bytes": 0, "local_loads": 0, "local_stores": 0}
# case: before, after
CODEGEN: dict[str, tuple[CaseRecord | None, CaseRecord | None]] = {
    "sm_90/fwd_d64_full": (kernel(), kernel()),
    "sm_90/fwd_d64_causal": (kernel(registers=168), kernel(registers=160)),  # not judged
    "sm_90/fwd_d128_full": (kernel(instructions=1000), kernel(instructions=1005)),  # below the threshold
    "sm_90/fwd_d128_causal": (kernel(**NO_SPILL), kernel(spill_bytes=48, local_loads=12, local_stores=6)),
    "sm_90/fwd_d192_128_full": (BROKEN, kernel()),
    "sm_90/bwd_d64_full": (kernel(), BROKEN),
    "sm_90/bwd_d64_causal": (kernel(), REFUSED),
    "sm_90/bwd_d128_full": (REFUSED, kernel()),
    "sm_90/bwd_d128_causal": (BROKEN, BROKEN),
    "sm_90/bwd_d256_full": (kernel(), None),
    "sm_90/bwd_d256_causal": (None, kernel()),
    "sm_100/fwd_d64_full": (kernel(instructions=2000), kernel(instructions=1800)),
    "sm_100/fwd_d64_causal": (kernel(text_bytes=16000), kernel(text_bytes=19200)),  # not judged
    "sm_100/fwd_d128_full": (kernel(spill_bytes=112, local_loads=37, local_stores=36), kernel(**NO_SPILL)),
    "sm_100/fwd_d128_causal": (kernel(instructions=3000), kernel(instructions=3300)),
    "sm_100/bwd_d128_full": (kernel(spill_bytes=72), kernel(spill_bytes=568)),
    "sm_100/bwd_post_dq_d256": (REFUSED, REFUSED),
}
MEMORY: dict[str, tuple[CaseRecord | None, CaseRecord | None]] = {
    "sm_90/fwd_b32_s1024_h16_d128_full": (call(PEAK, EXTRA), call(PEAK, EXTRA)),
    "sm_90/bwd_b32_s1024_h16_d128_full": (call(PEAK, EXTRA), call(PEAK + 200_000, EXTRA + 200_000)),
    "sm_100/bwd_b32_s1024_h16_d128_full": (call(PEAK, EXTRA), call(PEAK - 100_000, EXTRA - 100_000)),
}


def lay(project: Project) -> tuple[Commit, Commit]:
    """Record both releases under cu13 on nogpu; the two commits."""
    releases = write_releases(project, 2)
    for side, release in enumerate(releases):
        groups = {
            name: {case: record for case, both in cases.items() if (record := both[side])}
            for name, cases in (("codegen", CODEGEN), ("memory", MEMORY))
        }
        write_pair(project, release, groups, compiler=COMPILERS[side])
    base, head = (Commit(f"fa4-v{each.version}", each.commit, each.version) for each in releases)
    return base, head
