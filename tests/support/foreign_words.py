"""A checkout in which everything that other people fill speaks in words that would steer a terminal or a page."""

from __future__ import annotations

import json
from unicodedata import category

import pytest

from fa4_asv.cli import run
from fa4_asv.history.branches import sync_branches
from fa4_asv.history.commits import Commit, add_commits
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.explanation import Culprit, Explanation, Side, Verdict, write_explanation
from fa4_asv.record.schema import CaseRecord, toolchain_digest
from tests.support import upstream_fake
from tests.support.backfills import commits, record
from tests.support.fake_record import write_pair
from tests.support.results import FIGURES

# Sets the title of a terminal, turns the direction of text, C1 control, DEL, isolate, soft hyphen, separators, tag.
HOSTILE = "wurd \x1b]0;owned\x07\u202egnp\x9b31m\x7f\u2066\xad\u2028\U000e0041 <script>alert(1)</script>[red]"
SHOWN = r"wurd \x1b]0;owned\x07\u202egnp\x9b31m\x7f\u2066\xad\u2028\U000e0041"
CASE, OTHER = "sm_90/fwd_d128_full", "sm_100/fwd_d128_full"
PACKAGES = {"nvidia-cutlass-dsl": "4.8.1"}


def steering(text: str) -> set[str]:
    """What no output and no page may hold: everything that is not seen but line ends and tabs."""
    odd = {sign for sign in text if category(sign) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}
    return odd - {"\n", "\t"}


def side(commit: str, version: str) -> Side:
    return Side(commit, version, toolchain_digest("cu13", PACKAGES), PACKAGES)


def explain(project, base: Side, head: Side) -> None:
    """Why CASE broke, in foreign words wherever a cause has some."""
    explanation = Explanation(
        "cu13",
        base,
        head,
        (f"flash_attn/cute/{HOSTILE}.py",),
        states={CASE: Verdict("measured", "broken", "broken", "measured", "source")},
        culprits=(Culprit("commit", (CASE,), commit="e" * 40, subject=HOSTILE),),
        notes=(HOSTILE,),
        threads=(f"https://github.com/{HOSTILE}",),
    )
    write_explanation(project.results / "nogpu" / explanation.file_name, explanation)


@pytest.fixture
def hostile(history, upstream):
    """A checkout whose history, record and lists speak in HOSTILE wherever a reader lets them."""
    upstream_fake.commit(upstream, 6, HOSTILE, cute__interface="VERSION = 'third'\n")
    upstream_fake.git(upstream, "branch", "wurd-\u202egnp")
    sync_branches(history, str(upstream), every=True)
    measured = CaseRecord("measured", figures=FIGURES, kernel=HOSTILE)
    broken, refused = CaseRecord("broken", HOSTILE), CaseRecord("unsupported", HOSTILE)
    route = {
        "2.13.0/sm_90": CaseRecord(
            "measured", figures={"broken": 1, "checks": 21}, notes={"layout": HOSTILE}
        ),
        "2.13.0/sm_100": refused,
    }
    for number, release in enumerate(Manifest.load(history.manifest).releases):
        kernels = {CASE: broken if number else measured, OTHER: measured}
        write_pair(history, release, {"codegen": kernels, "route": route})
    explain(history, side(commits(history)[0], "4.0.0b3"), side(commits(history)[1], "4.0.0b4"))
    tip = upstream_fake.git(upstream, "rev-parse", "HEAD")
    add_commits(history.upstream, [Commit(tip, "2026-05-06T12:00:00Z", "wurd-\u202egnp", HOSTILE, 6)])
    record(history, tip, "", **{CASE.replace("/", "__"): refused})
    manifest = json.loads(history.manifest.read_text())
    manifest["releases"][1]["yanked"] = HOSTILE
    history.manifest.write_text(json.dumps(manifest))
    return history


def output_of(capfdbinary, *arguments: str) -> str:
    """All that a command writes, as text; whatever its exit code is."""
    capfdbinary.readouterr()
    with pytest.raises(SystemExit):
        run(list(arguments))
    out, err = capfdbinary.readouterr()
    text = (out + err).decode("utf-8")
    assert "Traceback" not in text
    return text
