"""Whole reports against golden files made of the committed record; other people's words stay words."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from fa4_asv.base.project import Project
from fa4_asv.compare.commits import Commit, Plan
from fa4_asv.compare.formats import MOST_BYTES, as_json, exit_code, markdown, text
from fa4_asv.compare.rows import Row
from fa4_asv.compare.sides import Comparison, held_against
from tests.support import ROOT

GOLDEN = Path(__file__).parent / "golden"
COMMITS = tuple(
    Commit(f"fa4-v{version}", commit, version)
    for version, commit in (
        ("4.0.0b15", "28b648d397912d7dc534c2b55c1ae52bf656e413"),
        ("4.0.0b20", "8c78acd6e0dfae2584fca7484e2f65a367e3c937"),
    )
)
PLAN = Plan(("day",), "each with the toolchain of its release day")
# What a subject or a branch may be called: each sign that a forge, a browser or a terminal could take up.
NASTY = (
    "[red]x[/red] \x1b[31m\u202egnp <script>alert(1)</script> <img src=x onerror=y> </details> **bold** [a](javascript:x) ![i](http://e.vil/x) "
    "`tick` ``two`` | bar \\| @everyone #1 $(rm -rf ~) `id` &lt; --> www.e.vil ~~x~~"
)


def held(*bench: str) -> Comparison:
    return held_against(Project(ROOT), COMMITS, "cu13", "nogpu", PLAN, bench)


def shown(found: list[Comparison], limit: int) -> str:
    stream = io.StringIO()
    text(found, Console(file=stream, width=120), limit)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


# The record of these two releases may grow by groups, so the groups are named. To make them anew:
# fa4-asv compare fa4-v4.0.0b15 fa4-v4.0.0b20 --no-run --bench '^(codegen|memory)' with --limit 10 or --format markdown,
# --bench 'codegen.*spill_bytes' with --format json; each with -o tests/golden/compare.(txt|md|json).
def test_text_of_two_releases():
    assert shown([held("^(codegen|memory)")], 10) == (GOLDEN / "compare.txt").read_text()


def test_markdown_of_two_releases():
    assert markdown([held("^(codegen|memory)")]) == (GOLDEN / "compare.md").read_text()


def test_json_of_two_releases():
    assert as_json([held("codegen.*spill_bytes")]) == (GOLDEN / "compare.json").read_text()


def nasty() -> Comparison:
    found = held("codegen.*spill_bytes")
    side = replace(found.head, commit=Commit(NASTY, found.head.commit.hash, subject=NASTY))
    rows = [
        Row("codegen", f"sm_90/{NASTY}", "", "newly broken", "measured-to-broken", "worse", words=NASTY),
        Row("codegen", "sm_90/x", "", "new", "base-lacks-it", words=NASTY),
    ]
    return replace(found, head=side, rows=(*found.rows, *rows))


class Page(HTMLParser):
    """Every element with its attributes, and the text inside code."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.outside, self.code = "", ""
        self._in_code = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._in_code = tag == "code" or self._in_code

    def handle_endtag(self, tag: str) -> None:
        self._in_code = self._in_code and tag != "code"

    def handle_data(self, data: str) -> None:
        if self._in_code:
            self.code += data
        else:
            self.outside += data


@pytest.mark.fault(
    kind="foreign words in Markdown of `compare`",
    inputs="links, images, HTML, bars, backticks in subjects and names",
    happens="shown as they are, as code",
)
def test_other_peoples_words_are_code_and_nothing_else_in_markdown():
    page = Page()
    page.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown([nasty()])))
    ours = {"h2", "h3", "p", "strong", "code", "ul", "li", "details", "summary"}
    assert page.elements == ours | {"table", "thead", "tbody", "tr", "th", "td"}
    assert page.attributes <= {"style"}, "of a table's columns only"
    for sign in ("script", "@", "#1", "onerror", "javascript", "www", "$(", "\x1b", "\u202e"):
        assert sign not in page.outside
    assert "\x1b" not in page.code and "\u202e" not in page.code
    words = r"[red]x[/red] \x1b[31m\u202egnp <script>alert(1)</script> <img src=x"
    assert words in page.code


@pytest.mark.fault(
    kind="foreign words in the terminal output of `compare`",
    inputs="escape sequences, right-to-left marks, markup of rich",
    happens="shown as escapes",
)
def test_other_peoples_words_steer_no_terminal():
    words = shown([nasty()], 100)
    assert "[red]x[/red]" in words and "\x1b" not in words and "\u202e" not in words
    assert "script" in words


def test_other_peoples_words_are_strings_in_json():
    data = json.loads(as_json([nasty()]))
    assert data["comparisons"][0]["head"]["subject"] == NASTY
    assert as_json([nasty()]).isascii()


@pytest.mark.parametrize("most", [MOST_BYTES, 9_000])
def test_a_long_report_is_cut_and_says_what_is_left_out(most):
    found = held("^(codegen|memory)")
    long = replace(
        found, rows=tuple(replace(row, case=f"{row.case}/{n}") for n in range(8) for row in found.rows)
    )
    words = markdown([long], most)
    assert most * 0.8 < len(words.encode()) <= most
    assert words.count("<details>") == words.count("</details>") == 3
    rows = words.count("\n| `sm_")
    left_out = [
        int(line.split()[0].replace(",", "")) for line in words.splitlines() if "left out for length" in line
    ]
    told = sum(row.verdict != "equal" for row in long.rows)
    assert rows + sum(left_out) == told and left_out


def test_two_flavours_share_the_space():
    found = held("^(codegen|memory)")
    words = markdown([found, found], 12_000)
    assert len(words.encode()) <= 12_000 and words.count("\n## FA4:") + words.startswith("## FA4:") == 2


def test_worse_anywhere_is_exit_code_1():
    found = held("^memory")
    assert exit_code([found]) == 0 and not found.worse
    assert exit_code([found, held("^codegen")]) == 1
