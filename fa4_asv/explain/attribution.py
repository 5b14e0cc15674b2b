"""One pair of commits explained whole: corners, verdicts, and the culprits of what has one cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fa4_asv.catalog.benchmarks import Case
from fa4_asv.explain.bisection import Hunt
from fa4_asv.explain.corners import Corner, Tell, corners, explanation, leading
from fa4_asv.explain.packages import Move, Walk
from fa4_asv.explain.pairs import Workshop
from fa4_asv.record.explanation import Explanation


def investigate(
    shop: Workshop, base: Corner, head: Corner, cases: Sequence[Case], tell: Tell, culprits: bool = True
) -> Explanation:
    """What changed in `cases` between two corners, and why. Without `culprits` nothing further is compiled.

    Raises Fa4AsvError when something cannot be installed or compiled at all; what was compiled is in the
    cache then.
    """
    found_explanation = explanation(
        shop.project, shop.flavour, base, head, corners(shop, base, head, cases, tell)
    )
    if not culprits:
        return found_explanation
    walked = Walk(shop, base, head, tell).run(_moves(found_explanation, "toolchain"))
    hunted = Hunt(shop, base, head, tell).run(_moves(found_explanation, "source"))
    return replace(
        found_explanation,
        culprits=(*walked.culprits, *hunted.culprits),
        notes=(*walked.notes, *hunted.notes),
    )


def _moves(found_explanation: Explanation, cause: str) -> list[Move]:
    """What the search for culprits goes by: of each kernel the first figure that `cause` moved.

    Packages are searched with the old source, from base; commits under the new toolchain, from that corner.
    """
    moves = []
    for key, metric in leading(found_explanation, cause).items():
        verdict = found_explanation.cases[key][metric]
        arch, _, name = key.partition("/")
        before = verdict.base if cause == "toolchain" else verdict.toolchain
        after = verdict.toolchain if cause == "toolchain" else verdict.head
        if before is not None and after is not None:
            moves.append(Move((arch, name), metric, before, after))
    return moves
