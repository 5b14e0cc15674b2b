"""docs/history.md and docs/history-releases.md hold what the record holds: tables as made, percentages, and what is said of them."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from types import ModuleType

import pytest

from fa4_asv.base.project import Project
from fa4_asv.compare.neighbours import rows_between
from fa4_asv.compare.policy import BETTER, WORSE
from tests.support import ROOT
from tests.support.tools import tool

MARKED = re.compile(r"<!-- ([\w-]+) -->\n(.*?)\n<!-- end -->", re.S)
TEXT = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
BLOCKS = dict(MARKED.findall(TEXT))
PROSE = MARKED.sub("", TEXT)


@pytest.fixture(scope="module")
def made() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")
        yield tool("history_tables")


@pytest.fixture(scope="module")
def history(made):
    return made.load(Project(ROOT))


@pytest.mark.slow
def test_every_table_is_the_one_that_the_script_makes(made, history):
    """Where one differs: `python tools/history_tables.py --write`, then read the text again."""
    result: dict[str, str] = {}
    for page in made.PAGES:
        result |= dict(MARKED.findall((ROOT / page).read_text(encoding="utf-8")))
    assert result.keys() == made.TABLES.keys()
    for name, make in made.TABLES.items():
        assert result[name].splitlines() == make(history), name


def test_the_pages_speak_of_named_releases_only(made, history):
    """So that a release, a machine or a flavour that is recorded later changes nothing."""
    names = list(history.first.records)
    assert (names[0], names[-1], len(names)) == (made.FIRST, made.LAST, 30)
    assert list(history.second.records) == names
    plain = list(history.plain.records)
    assert (plain[0], plain[-1], len(plain)) == ("4.0.0b3", made.LAST, 33)
    assert {record.sidecar.toolchain.flavour for record in history.first.records.values()} == {"cu13"}
    cards = {key.origin.card for key in history.first.pools}
    others = {key.origin.card for key in history.second.pools}
    assert (len(cards), len(others), cards & others) == (1, 1, set())


def test_every_percentage_of_the_text_stands_in_a_table(made, history):
    """Aims and thresholds apart."""
    shown = set(re.findall(r"\d+(?:\.\d+)? %", " ".join(BLOCKS.values())))
    swept = (history.first, history.plain)
    rows = [row for sweep in swept for pair in sweep.steps for row in sweep.rows(*pair).values()]
    rows += beside(history, made.LAST).values()
    shown |= {f"{abs(row.ratio - 1) * 100:.1f} %" for row in rows if row.verdict in ("faster", "slower")}
    claim = set(re.findall(r"\d+(?:\.\d+)? %", PROSE))
    assert claim - shown <= {"5 %", "90 %", "1.4 %"}


def beside(history, release):
    """The plain libraries against [cu13] of one release."""
    rows = rows_between(history.first.records[release], history.plain.records[release], history.plain.pools)
    return {(row.group, row.case): row for row in rows}


def test_what_is_said_of_the_plain_libraries(made, history):
    def share(rows, direction, shape):
        row = rows[f"{direction}-history", f"fa4/{shape}"]
        return f"{row.ratio - 1:+.1%}" if row.verdict in ("faster", "slower") else row.verdict

    last = beside(history, made.LAST)
    assert share(last, "backward", "b1_s8192_h32kv8_d128_causal") == "+2.5%"
    assert share(last, "backward", "b4_s8192_h16_d128_causal") == "+2.3%"
    assert share(last, "forward", "b4_s8192_h16_d128_causal") == "-1.8%"
    wide, window = "b4_s8192_h16_d192v128_causal", "b4_s8192_h16_d128_w128"
    assert share(beside(history, "4.0.0b32"), "forward", wide) == "+18.0%"
    steps = {after: history.plain.rows(before, after) for before, after in history.plain.steps}
    assert [share(steps[f"4.0.0b{n}"], "forward", wide) for n in (32, 33)] == ["+9.9%", "-20.0%"]
    assert [share(steps[f"4.0.0b{n}"], "forward", window) for n in (20, 32)] == ["+3.7%", "-2.7%"]
    forwards = [share(steps["4.0.0b5"], "forward", f"b4_s8192_h32_d64_{mask}") for mask in ("causal", "full")]
    assert forwards == ["-16.0%", "-15.7%"]
    told = [
        sum(row.verdict in ("faster", "slower") for row in beside(history, release).values())
        for release in history.first.records
    ]
    assert (min(told), max(told)) == (9, 20)
    packed = ("forward-history", "fa4/b16_s2048_h16_d128_causal_varlen")
    for release in ("4.0.0b12", "4.0.0b13"):
        states = [each.case(release, packed).state for each in (history.first, history.plain)]
        assert states == ["broken", "measured"]
    older = history.plain.case("4.0.0b4", ("forward-history", "fa4/b4_s8192_h8_d256_full"))
    assert older.state == "broken" and "cudaErrorInvalidValue" in older.why


def test_no_release_is_faster_than_the_last_by_more_than_is_said(made, history):
    most: Counter[str] = Counter()
    for name in list(history.first.records)[:-1]:
        for call, row in history.first.rows(name, made.LAST).items():
            if row.verdict == "slower":
                most[made.direction(call) + " " + made.named(call)] = max(
                    most[made.direction(call) + " " + made.named(call)], row.ratio - 1
                )
    assert f"{max(most.values()) * 100:.1f} %" == "1.4 %"
    assert all(
        "_w128`" in name and name.startswith("forward") for name, share in most.items() if share > 0.01
    )


def test_what_is_said_of_counts(history):
    rows = history.first.rows("4.0.0b19", "4.0.0b20").values()
    told = Counter(row.verdict for row in rows)
    small = sum(row.verdict == "faster" and row.ratio > 0.98 for row in rows)
    assert (told["faster"], told["slower"], len(rows)) == (16, 0, 26) and small == 13
    window = history.first.rows("4.0.0b32", "4.0.0b33")["forward-history", "fa4/b1_s8192_h64kv8_d64_w128"]
    assert (window.verdict, f"{window.ratio - 1:.1%}") == ("slower", "1.4%")
    beside = [line.strip("| ").split(" | ") for line in BLOCKS["yardsticks"].splitlines()[2:]]
    slower = {(row[0], row[1]) for row in beside if float(row[7]) < 1}
    assert slower == {("forward", "`b32_s1024_h16_d128_causal`"), ("backward", "`b4_s8192_h8_d256_causal`")}
    short, long = BLOCKS["agreement"].splitlines()[2:]
    assert (short.count("`") // 2, long.count("`") // 2) == (0, 1)
    noise = [line.strip("| ").split(" | ") for line in BLOCKS["noise"].splitlines()[2:]]
    assert [row[2] for row in noise[:2]] == ["16", "10"]
    assert [row[6].partition(" of ")[0] for row in noise] == ["0", "2", "2", "1", "4", "1", "5", "0"]
    assert float(re.search(r"([\d.]+) %\)", noise[2][6])[1]) <= 1.0, "the upper end of its interval"
    assert float(re.search(r", ([\d.]+) % ", noise[6][6])[1]) <= 1.0
    assert [float(line.split(" | ")[3].rstrip(" %")) <= 1.0 for line in (short, long)] == [True, True]


def test_one_false_alarm_from_b34_on(history):
    assert history.first.steps[-3][1] == "4.0.0b34"
    told = {
        (pair[1], row.case, f"{row.ratio - 1:+.1%}")
        for pair in history.first.steps[-3:]
        for row in history.first.rows(*pair).values()
        if row.effect in (WORSE, BETTER)
    }
    assert told == {("4.0.0b35", "fa4/b4_s8192_h16_d128_w128", "+0.6%")}
    codes = [history.code(name, "fwd_d128_window").sha256 for name in ("4.0.0b34", "4.0.0b35")]
    assert codes[0] == codes[1], "the same machine code"


def test_what_codegen_shows_of_b31(history):
    roles = history.causes["4.0.0b30", "4.0.0b31"].opcodes
    for kernel in ("bwd_d256_causal", "bwd_d256_full"):
        assert (roles[f"sm_90/{kernel}"]["matrix"], roles[f"sm_90/{kernel}"]["exp2"]) == ((44, 51), (16, 12))
    sides = [history.code(name, "fwd_d192_128_causal").figures for name in ("4.0.0b30", "4.0.0b31")]
    assert sides[0]["instructions"] - sides[1]["instructions"] == 5
    assert sides[0]["registers"] == sides[1]["registers"] and not any(side["spill_bytes"] for side in sides)


def test_b33_has_about_a_hundred_instructions_fewer_in_every_causal_forward(history):
    old, new = (history.codegen[name].sidecar.groups["codegen"] for name in ("4.0.0b32", "4.0.0b33"))
    causal = [case for case in old if re.match(r"sm_90/fwd_.*causal", case)]
    fewer = [old[case].figures["instructions"] - new[case].figures["instructions"] for case in causal]
    assert len(fewer) >= 6 and 75 <= min(fewer) <= max(fewer) <= 125


def test_b12_and_b13_are_one_compiler_and_b14_another(history):
    b12, b13, b14 = (history.codegen[f"4.0.0b{number}"].sidecar.toolchain for number in (12, 13, 14))
    assert b12.digest == b13.digest
    assert [side.packages["nvidia-cutlass-dsl"] for side in (b13, b14)] == ["4.5.0", "4.5.1"]
    cases = history.causes["4.0.0b13", "4.0.0b14"].cases
    causes = {
        v.cause for case, metrics in cases.items() if case.startswith("sm_90") for v in metrics.values()
    }
    assert causes == {"toolchain"}
    spills = [history.code(f"4.0.0b{n}", "bwd_d128_causal_varlen").figures["spill_bytes"] for n in (11, 12)]
    assert spills == [272, 0]


def test_both_machines_have_the_same_states(history):
    for name in history.second.records:
        for call in history.first.calls:
            here, there = history.first.case(name, call), history.second.case(name, call)
            assert here.state == there.state, (name, call)


def test_counts_of_the_cross_check(history, made):
    """What is said under the table, from its cells."""
    rows = [line.strip("| ").split(" | ") for line in BLOCKS["crossed"].splitlines()[2:]]
    cells = {row[0]: list(map(int, row[1:])) for row in rows}
    fast, slow = cells["faster, 2 % or more"], cells["slower, 2 % or more"]
    claim = re.search(r"Of (\d+) watched steps .*, (\d+) have fewer instructions and (\d+) have more", PROSE)
    assert claim and list(map(int, claim.groups())) == [sum(fast[:6]), fast[0] + fast[1], fast[3] + fast[4]]
    assert sum(slow[:2]) == sum(slow) == 1
    far = sum(row[0] + row[4] for row in cells.values())
    moved = [side[column] for side in (fast, slow) for column in (0, 4)]
    claim = re.search(
        r"Of (\d+) steps with 2 % .*, (\d+) moved the time .*, and (\d+) of these against", PROSE
    )
    assert claim and list(map(int, claim.groups())) == [far, sum(moved), fast[4] + slow[0]]
    same_code = {
        name: cells[name][5] for name in cells if name.startswith(("faster", "slower")) and cells[name][5]
    }
    assert same_code == {"slower, below 2 %": 1}
    assert sum(row[7] + row[8] for row in cells.values()) == 2


def test_the_examples_are_python_and_call_what_the_guard_calls():
    matches = re.findall(r"(?:^ {4}.*\n|^\n)+", TEXT, re.M)
    snippets = [re.sub(r"^ {4}", "", each, flags=re.M) for each in matches if "import torch" in each]
    assert len(snippets) == 2
    for each in snippets:
        ast.parse(each)
    assert "deterministic=True" in snippets[1] and "cu_seqlens_q" in snippets[0]


def test_markers_are_filled_and_nothing_else_is_touched(made):
    """An empty one, too, with another behind it."""
    page = "a\n<!-- events -->\n<!-- end -->\nb\n<!-- steps -->\nold\n<!-- end -->\nc\n"
    text = made.filled(page, {"events": r"| \1 |", "steps": "| s |"})
    assert text == "a\n<!-- events -->\n| \\1 |\n<!-- end -->\nb\n<!-- steps -->\n| s |\n<!-- end -->\nc\n"
    assert made.filled(text, {"events": "x"}) == text.replace(r"| \1 |", "x")
