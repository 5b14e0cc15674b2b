"""Whole reports of two invented releases against golden files; other people's words stay words."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from fa4_asv.base.project import Project
from fa4_asv.compare.commits import Commit, Plan
from fa4_asv.compare.formats import MOST_BYTES, as_json, exit_code, markdown, text
from fa4_asv.compare.rows import Row
from fa4_asv.compare.sides import Comparison, held_against
from tests.support.golden import assert_golden
from tests.support.two_releases import lay

PLAN = Plan(("day",), "each with the toolchain of its release day")
# What a subject or a branch may be called: each sign that a forge, a browser or a terminal could take up.
NASTY = (
    "[red]x[/red] \x1b[31m\u202egnp <script>alert(1)</script> <img src=x onerror=y> </details> **bold** [a](javascript:x) ![i](http://e.vil/x) "
    "`tick` ``two`` | bar \\| @everyone #1 $(rm -rf ~) `id` &lt; --> www.e.vil ~~x~~"
)


Held = Callable[..., Comparison]


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> Held:
    """The comparison of the two releases, of the benchmarks that are selected."""
    project = Project(tmp_path_factory.mktemp("two"))
    commits = lay(project)
    return lambda *bench: held_against(project.results, commits, "cu13", "nogpu", PLAN, bench)


def shown(comparisons: list[Comparison], limit: int, width: int = 120, every: bool = True) -> str:
    stream = io.StringIO()
    text(comparisons, Console(file=stream, width=width), limit, every)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def test_text_of_two_releases(held):
    assert_golden("compare.txt", shown([held()], 4))


def test_the_summary_comes_first_then_what_is_worse_and_the_rest_only_with_all(held):
    few = shown([held()], 20, width=80, every=False)
    lines = few.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("8 figures of 6 cases worse, 7 better")
    assert few.index("Worse") < few.index(
        "--all shows: better (7); neither worse nor better (4); changes too small"
    )
    assert "\nBetter" not in few and "digest" not in few
    assert max(map(len, shown([held()], 20, width=80).splitlines())) <= 80


def test_markdown_of_two_releases(held):
    assert_golden("compare.md", markdown([held()]))


def test_json_of_two_releases(held):
    assert_golden("compare.json", as_json([held("codegen.*spill_bytes")]))


def test_every_kind_of_change_is_in_the_reports(held):
    """Else a golden file shows less than it is kept for."""
    kinds = {(row.verdict, row.reason.partition(":")[0]) for row in held().rows}
    assert {verdict for verdict, _ in kinds} >= {"more", "less", "equal", "new", "not comparable"}
    assert {reason for _, reason in kinds} >= {"exact", "not-judged", "below-threshold", "measured-to-broken"}


@pytest.fixture
def nasty(held) -> Comparison:
    comparison = held("codegen.*spill_bytes")
    side = replace(comparison.head, commit=Commit(NASTY, comparison.head.commit.hash, subject=NASTY))
    rows = [
        Row("codegen", f"sm_90/{NASTY}", "", "newly broken", "measured-to-broken", "worse", message=NASTY),
        Row("codegen", "sm_90/x", "", "new", "base-lacks-it", message=NASTY),
    ]
    return replace(comparison, head=side, rows=(*comparison.rows, *rows))


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
def test_other_peoples_words_are_code_and_nothing_else_in_markdown(nasty):
    page = Page()
    page.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown([nasty])))
    ours = {"h2", "h3", "p", "strong", "code", "ul", "li", "details", "summary"}
    assert page.elements == ours | {"table", "thead", "tbody", "tr", "th", "td"}
    assert page.attributes <= {"style"}, "of a table's columns only"
    for sign in ("script", "@", "#1", "onerror", "javascript", "www", "$(", "\x1b", "\u202e"):
        assert sign not in page.outside
    assert "\x1b" not in page.code and "\u202e" not in page.code
    code = r"[red]x[/red] \x1b[31m\u202egnp <script>alert(1)</script> <img src=x"
    assert code in page.code


@pytest.mark.fault(
    kind="foreign words in the terminal output of `compare`",
    inputs="escape sequences, right-to-left marks, markup of rich",
    happens="shown as escapes",
)
def test_other_peoples_words_steer_no_terminal(nasty):
    output = shown([nasty], 100)
    assert "[red]x[/red]" in output and "\x1b" not in output and "\u202e" not in output
    assert "script" in output


def test_other_peoples_words_are_strings_in_json(nasty):
    data = json.loads(as_json([nasty]))
    assert data["comparisons"][0]["head"]["subject"] == NASTY
    assert as_json([nasty]).isascii()


@pytest.mark.parametrize("most", [MOST_BYTES, 9_000])
def test_a_long_report_is_cut_and_says_what_is_left_out(held, most):
    comparison = held()
    long = replace(
        comparison,
        rows=tuple(replace(row, case=f"{row.case}/{n}") for n in range(40) for row in comparison.rows),
    )
    page = markdown([long], most)
    assert most * 0.8 < len(page.encode()) <= most
    assert page.count("<details>") == page.count("</details>") == 3
    rows = page.count("\n| `sm_")
    left_out = [
        int(line.split()[0].replace(",", "")) for line in page.splitlines() if "left out for length" in line
    ]
    told = sum(row.verdict != "equal" for row in long.rows)
    assert rows + sum(left_out) == told and left_out


def test_two_flavours_share_the_space(held):
    comparison = held()
    page = markdown([comparison, comparison], 12_000)
    assert len(page.encode()) <= 12_000 and page.count("\n## FA4:") + page.startswith("## FA4:") == 2


def test_worse_anywhere_is_exit_code_1(held):
    memory = held("^memory.*sm_100")
    assert exit_code([memory]) == 0 and not memory.worse
    assert exit_code([memory, held("^codegen")]) == 1
