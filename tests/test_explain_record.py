"""The committed causes, and the page that tells them: the table in docs/explain.md is what the files say."""

from __future__ import annotations

import re

from fa4_asv.history.manifest import Manifest
from fa4_asv.integrity.explanations import Explanations
from fa4_asv.record.explanation import read_explanation
from tests.support import ROOT

RECORD = ROOT / "results" / "nogpu"
ROW = re.compile(
    r"\| (cu1[23]|plain) \| `(\w+)` \| (4\S+) -> (4\S+) \| (\d+) -> (\d+) \| ([a-z ]+) \| (.*?) \|$",
    re.MULTILINE,
)


def test_the_committed_causes_are_sound():
    manifest = Manifest.load(ROOT / "history" / "releases.json")
    explanations = Explanations.of(RECORD.parent)
    assert explanations.by_path
    assert list(explanations.problems(manifest)) == []


def test_the_pages_table_is_what_the_files_say():
    causes = [read_explanation(path) for path in RECORD.glob("*.cause")]
    pairs = {(each.flavour, each.base.release, each.head.release): each for each in causes}
    rows = ROW.findall((ROOT / "docs" / "explain.md").read_text(encoding="utf-8"))
    assert {flavour for flavour, *_ in rows} == {"cu12", "cu13", "plain"}
    for flavour, kernel, base, head, before, after, cause, by in rows:
        explained = pairs[flavour, base, head]
        verdict = explained.cases[f"sm_100/{kernel}"]["spill_bytes"]
        assert (verdict.base, verdict.head, verdict.cause) == (int(before), int(after), cause), (kernel, head)
        named = [c.commit[:10] or c.name for c in explained.culprits if f"sm_100/{kernel}" in c.cases]
        assert all(name in by for name in named), (kernel, head)
        assert bool(named) == (by != "not named"), (kernel, head)
