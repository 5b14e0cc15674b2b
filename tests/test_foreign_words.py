"""One hostile word in every place that other people fill: no byte of any output or page steers whoever reads it."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unicodedata import category

import pytest
from rich.table import Table
from rich.text import Text

from fa4_asv.backfill.airgap.unpack import tell
from fa4_asv.base.escape import holds_tags, one_line, visible
from fa4_asv.base.output import json_text, new_console, say, say_again
from fa4_asv.integrity.verify import verify
from fa4_asv.report.site import write_report
from tests.support import ROOT
from tests.support.foreign_words import SHOWN, output_of, steering

# Command: whether it has a foreign word to show. Those that have none are asked all the same.
COMMANDS = {
    "verify": False,
    "verify --json": False,
    "history list": True,
    "history list --json": True,
    "changes --last 3": True,
    "changes --last 3 --json": True,
    "changes --last 3 --figures": True,
    "route": True,
    "route --json": True,
    "route --markdown": True,
    "noise --machine nogpu": False,
    "backfill --dry-run --flavour cu13": False,
    "backfill --dry-run --json --flavour cu13": False,
    "compare 4.0.0b3 4.0.0b4 --no-run": True,
    "compare 4.0.0b3 4.0.0b4 --no-run --format json": True,
    "compare 4.0.0b3 4.0.0b4 --no-run --format markdown": True,
    "compare 4.0.0b4 main --no-run": True,
    "sweep --dry-run -m box": False,
    "doctor": False,
    "doctor --json": False,
    "report": False,
    "report --json": False,
}


@pytest.mark.fault(
    kind="foreign words in what a command prints",
    inputs="escape sequences, C1 controls, DEL, right-to-left marks, isolates, separators, tags, markup in refusals, "
    "subjects, branches, yanks, checks, kernels and causes; under every command that reads the record",
    happens="shown as escapes; the terminal gets no such character",
)
def test_no_foreign_word_steers_a_terminal(hostile, capfdbinary):
    assert verify(hostile) == [], "what verify refuses would not be shown"
    for arguments, shows in COMMANDS.items():
        text = output_of(capfdbinary, *arguments.split())
        assert not steering(text), arguments
        assert ("wurd" in text and r"\u202egnp" in text.replace(r"\\", "\\")) == shows, arguments


@pytest.mark.fault(
    kind="foreign words in the report",
    inputs="the same words",
    happens="shown as escapes in every page; markup is text",
)
def test_no_foreign_word_steers_a_page(hostile):
    write_report(hostile, hostile.html / "report")
    pages = {path: path.read_text(encoding="utf-8") for path in hostile.html.rglob("*") if path.is_file()}
    for path, text in pages.items():
        assert not steering(text), path
        assert "<script>alert" not in text, path
    kinds = {path.parent.name for path, text in pages.items() if SHOWN in text}
    assert {"releases", "events"} <= kinds, kinds


@pytest.mark.slow
@pytest.mark.fault(
    kind="foreign words in asv's own pages",
    inputs="the same words; of machines, parameters, units and programs `verify` refuses them",
    happens="no page or list that `fa4-asv publish` makes holds such a character",
)
def test_no_foreign_word_steers_asv_s_pages(hostile, capfdbinary):
    for name in ("fa4_asv", "benchmarks"):
        (hostile.root / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "results" / "benchmarks.json", hostile.results)
    assert not steering(output_of(capfdbinary, "publish"))
    kinds = ("*.json", "*.html", "*.xml")
    pages = [path for kind in kinds for path in hostile.html.rglob(kind)]
    assert {"index.json", "regressions.json", "index.html"} <= {path.name for path in pages}
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert not steering(text), path
        if path.suffix == ".json":
            assert not steering(json.dumps(json.loads(text), ensure_ascii=False)), path


def test_the_report_of_the_test_above_would_hold_the_words(hostile, monkeypatch):
    """Were it not for the one place that writes pages."""
    monkeypatch.setattr("fa4_asv.report.site.visible", lambda text: text)
    write_report(hostile, hostile.html / "report")
    assert any(steering(path.read_text()) for path in hostile.html.rglob("*.html"))


@pytest.mark.slow
@pytest.mark.fault(
    kind="names of files and folders that steer a terminal or are no UTF-8",
    inputs="a result file, a machine's folder, a cause and a lock, named by an escape sequence, right-to-left marks and a byte "
    "that is not UTF-8; under verify, report, publish, backfill, changes and route",
    happens="named by `verify`, shown as escapes",
)
def test_no_name_of_a_file_steers_a_terminal(hostile, capfdbinary):
    names = [b"escape\x1b[2J", b"byte\xff", "mark\u202e".encode(), b"line\n"]
    texts = [os.fsdecode(name) for name in names]
    seen = ["escape", "byte", "mark", "line"]
    for path in (
        *(hostile.results / "nogpu" / f"{text}.json" for text in texts),
        *(hostile.results / "nogpu" / f"{text}.cause" for text in texts),
        *(hostile.results / text / "x.json" for text in texts),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{")
    for arguments in (
        "verify",
        "verify --json",
        "report",
        "report --json",
        "publish",
        "changes",
        "route",
        "backfill --dry-run",
    ):
        text = output_of(capfdbinary, *arguments.split())
        assert not steering(text), arguments
        assert not [line for line in text.splitlines() if line.startswith(".")], "a name ends no line"
        if arguments.partition(" ")[0] in ("verify", "report"):
            assert all(f"nogpu/{name}" in text for name in seen), arguments
            assert "--json" not in arguments or json.JSONDecoder().raw_decode(text[text.index("{") :])
    folder = hostile.locks / "day" / "cu13"
    folder.mkdir(parents=True)
    for text in texts:
        (folder / f"{text}.txt").write_text("{")
    shown = output_of(capfdbinary, "verify")
    assert not steering(shown) and all(f"day/cu13/{name}" in shown for name in seen)


@pytest.mark.fault(
    kind="foreign words in what asv itself prints",
    inputs="an error of FA4 with escape sequences and right-to-left marks; under `asv run` and asv's other commands",
    happens="shown as escapes",
)
def test_asv_s_own_console_shows_escapes():
    """As asv does it: a process of its own that loads the plug-in and enables its log."""
    code = """
from asv.console import log
from fa4_asv.asv_plugin import hooks
hooks.setup()
hooks.setup()
log.enable()
with log.indent():
    log.error("RuntimeError: \\x1b[2J\\u202e 100 %s\\nsecond")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not steering(done.stdout)
    assert "RuntimeError: \\x1b[2J\\u202e 100 %s" in done.stdout and "second" in done.stdout


@pytest.mark.slow
@pytest.mark.fault(
    kind="a file that asv itself reads, of another kind or size",
    inputs="a pipe, a folder, 17 MB, nested 200,000 deep; in place of a result file, a machine or `benchmarks.json`",
    happens="asv ends with one line, at once",
)
@pytest.mark.parametrize("place", ["benchmarks.json", "nogpu/machine.json", "nogpu/1234abcd-x.json"])
def test_asv_is_given_no_odd_file(tmp_path, place):
    path = tmp_path / "results" / place
    path.parent.mkdir(parents=True)
    for make, reason in (
        (os.mkfifo, "it is a pipe or device"),
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: path.write_bytes(b" " * (17 << 20)), "it has more than 16,777,216 bytes"),
        (lambda path: path.write_bytes(b"[" * 200_000), "it is nested more than 32 deep"),
    ):
        make(path)
        output = one_line_of_asv(tmp_path)
        assert f"{path} cannot be read: {reason}" in output
        path.rmdir() if path.is_dir() else path.unlink()


def test_asv_is_given_no_result_file_of_another_shape(tmp_path):
    path = tmp_path / "results" / "nogpu" / "1234abcd-x.json"
    path.parent.mkdir(parents=True)
    path.write_text("[]")
    assert f"{path} is not an asv result file (TypeError" in one_line_of_asv(tmp_path)


def one_line_of_asv(root: Path) -> str:
    settings = {"version": 1, "repo": ".", "plugins": [".fa4_asv.asv_plugin.plugin"]}
    (root / "asv.conf.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "asv", "show"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60)
    output = done.stdout + done.stderr
    assert done.returncode == 1 and output.count("\n") == 1, output
    return output


def test_what_is_typed_is_shown_as_it_is(hostile, capfdbinary):
    for arguments in (
        ("\x1b[2J",),
        ("verify", "--\x1b[2J"),
        ("changes", "--flavour", "\u202e"),
        ("changes", "--machine", "\x1b[2J"),
        ("compare", "\x1b[2J\u202e\udcff", "4.0.0b4", "--no-run"),
        ("history", "sync", "--source", "\x1b[2J\udcff"),
        ("report", "--output", str(hostile.root / "fa4_asv" / "\x1b[2J")),
    ):
        assert not steering(output_of(capfdbinary, *arguments)), arguments


def test_every_character_that_is_not_seen_is_an_escape():
    signs = [chr(number) for number in range(sys.maxunicode + 1)]
    odd = {sign for sign in signs if category(sign) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")} - {"\n", "\t"}
    assert {sign for sign in odd if visible(sign) == sign} == set()
    assert all(visible(sign).isascii() for sign in odd)
    shown = "a\N{NO-BREAK SPACE}b \u00e4 \u2192 \U0001f600\t\n"
    assert visible(shown) == shown
    assert one_line(" a\r\n\tb\x0b\x1b[2J\ud800 ") == r"a b \x1b[2J\ud800"
    assert one_line("x" * 400) == "x" * 299 + "\u2026"


def test_the_console_keeps_its_own_colours():
    stream = io.StringIO()
    console = new_console(50, file=stream, force_terminal=True, color_system="standard")
    table = Table("a\x1b[2J")
    table.add_row(Text("\u202e", style="red"))
    console.print(table, "\x1b]0;x\x07", Text("\ud800", style="bold"), style="green")
    text = stream.getvalue()
    assert r"a\x1b[2J" in text and r"\u202e" in text and r"\ud800" in text
    assert "\x1b[2J" not in text and "\x1b]" not in text and "\x07" not in text
    assert "\x1b[1;32m" in text, "green and bold are rich's"


def test_what_a_terminal_cannot_encode_is_an_escape():
    code = "from fa4_asv.base.output import *; show_what_cannot_be_encoded(); say('\\u2192 \\udcff'); new_console().print('\\u2192')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, capture_output=True)
    assert (done.stdout, done.stderr) == (b"\\u2192 \\udcff\n\\u2192\n", b"")


def test_lines_that_are_replaced_are_safe_too(capsys):
    say_again("a\x1b[2J", last=False)
    say("b\u202e", err=True)
    assert capsys.readouterr().err == "\ra\\x1b[2Jb\\u202e\n", (
        "click drops our own escape where stderr is not a terminal"
    )
    assert json_text("\x7f\u2028") == '"\\u007f\\u2028"'


@pytest.mark.parametrize(
    ("code", "tags"),
    [
        ("a < b -> c <= d << 2\n\t'&'", False),
        ("<b>", True),
        ("</b", True),
        ("<!--", True),
        ("\x1b", True),
        ("\u202e", True),
    ],
)
def test_a_program_holds_tags_or_none(code, tags):
    assert holds_tags(code) == tags


# The rule by construction: who may write to a terminal, and who makes a console.

OUTPUT = {"click.echo", "click.secho", "print", "Console", "sys.stdout.write", "sys.stderr.write"}
ALLOWED = {
    "fa4_asv/base/output.py": "the one place",
    "fa4_asv/measure/anew.py": "JSON for the process that asked, by a pipe",
    "fa4_asv/base/card_probe.py": "words for the process that asked, by a pipe; it stands alone, beside any torch",
    "fa4_asv/backfill/airgap/unpack.py": "stands alone, without the suite: its `tell` shows escapes",
}


def calls(path: Path) -> set[str]:
    """What of OUTPUT a file calls."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)} & OUTPUT


def test_only_one_place_writes_to_a_terminal():
    paths = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fa4_asv").rglob("*.py") if calls(path)}
    assert paths == set(ALLOWED)


def test_the_airgap_tells_in_one_place(capsys):
    source = (ROOT / "fa4_asv/backfill/airgap/unpack.py").read_text()
    assert source.count("    print(") == 1
    tell("a\x1b[2J\u202e\udcff\n\u2192")
    assert capsys.readouterr().out == "a\\x1b[2J\\u202e\\udcff\\n\\u2192\n"
