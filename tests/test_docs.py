"""The pages: links lead somewhere, the index is whole, and every command that is shown has the options that are shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urldefrag

import click
import pytest

from fa4_asv.cli import main
from fa4_asv.history.demands import tomllib
from fa4_asv.report.glossary import WORDS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def anchor(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(text: str) -> list[str]:
    return [link for link in LINK.findall(CODE.sub("", text)) if "://" not in link]


def dead_links(page: Path) -> Iterator[str]:
    for link in links(page.read_text(encoding="utf-8")):
        name, fragment = urldefrag(link)
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            yield link
        elif fragment and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            if fragment not in map(anchor, headings):
                yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(dead_links(page)) == []


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A b\n[x](gone.md) [y](#a-b) [z](#c) [w](page.md#c)\n`[v](code.md)`\n")
    assert list(dead_links(page)) == ["gone.md", "#c", "page.md#c"]


def test_the_index_names_every_page() -> None:
    listed = {urldefrag(link)[0] for link in links((ROOT / "docs" / "index.md").read_text(encoding="utf-8"))}
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= listed


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def commands(text: str) -> list[str]:
    """What follows `fa4-asv` in every line that calls it."""
    matches = re.findall(r"\b(fa4-asv [a-z].*)$", text, re.MULTILINE)
    return [line for line in matches if "`" not in line]


def unknown(line: str) -> list[str]:
    """Words of a command line that fa4-asv does not know: a command, or an option of it."""
    arguments = shlex.split(line.rstrip("\\"), comments=True)[1:]
    end = next(
        (at for at, word in enumerate(arguments) if word in ("&&", "|", ">", "--", "...")), len(arguments)
    )
    arguments = arguments[:end]
    command: click.Command = main
    while isinstance(command, click.Group):
        name = arguments.pop(0)
        result = command.get_command(click.Context(command), name)
        if result is None:
            return [name]
        command = result
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    options = [word.partition("=")[0] for word in arguments if re.match(r"--?[a-z]", word)]
    return [option for option in options if option not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page: Path) -> None:
    lines = commands(page.read_text(encoding="utf-8"))
    assert [(line, unknown(line)) for line in lines if unknown(line)] == []


def test_an_unknown_option_is_seen() -> None:
    assert commands("    fa4-asv verify\n    X=1 fa4-asv verify -b '^a|b'\n`fa4-asv no` code\n") == [
        "fa4-asv verify",
        "fa4-asv verify -b '^a|b'",
    ]
    assert unknown("fa4-asv verify --json && fa4-asv history lst   # x") == []
    assert unknown("fa4-asv verify --jason") == ["--jason"]
    assert unknown("fa4-asv history lst") == ["lst"]
    assert unknown("fa4-asv compare a b -m x --no-run") == []


def test_where_to_find_it_names_what_is_there() -> None:
    """Each file of the table in architecture.md exists and defines the names beside it."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Where to find it")[2].partition("\n## ")[0]
    rows = [row.split("|")[2:4] for row in table.splitlines() if row.startswith("| ") and "`" in row]
    assert len(rows) >= 10
    for files, names in rows:
        paths = [ROOT / "fa4_asv" / name for name in re.findall(r"`([^`]+)`", files)]
        code = "\n".join(path.read_text(encoding="utf-8") for path in paths)
        for name in re.findall(r"`([^`]+)`", names):
            assert re.search(rf"^((def|class) {name}\b|{name} = )", code, re.MULTILINE), name


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = {path.name for path in (ROOT / "fa4_asv").iterdir() if path.is_dir()} - {"__pycache__"}
DOTTED = re.compile(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`")


def levels() -> dict[str, tuple[int, str]]:
    """The table of the packages in architecture.md: of each its level and what it holds."""
    table = ARCHITECTURE.partition("## The packages\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    return {name: (int(level), holds) for level, name, holds in rows}


def test_the_levels_of_the_packages_are_the_contract() -> None:
    """The same packages on the same levels as import-linter holds them to, the highest first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = next(
        contract["layers"]
        for contract in tomllib.loads(text)["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    told = {name: level for name, (level, _) in levels().items()}
    assert [(name, told[name]) for name in told] == [
        (name, len(layers) - at) for at, layer in enumerate(layers) for name in layer.split(" | ")
    ]
    assert told.keys() == PACKAGES


@pytest.mark.parametrize("package", ["record", "catalog", "base"])
def test_the_levels_name_every_module_of_the_lower_packages(package: str) -> None:
    modules = {path.stem for path in (ROOT / "fa4_asv" / package).glob("*.py")} - {"__init__"}
    names = set(re.findall(r"[a-z_]+", re.sub(r"\([^)]*\)", "", levels()[package][1])))
    assert modules <= names


def test_the_tables_of_measure_name_every_package_and_module() -> None:
    tables = ARCHITECTURE.partition("`measure` has one package")[2].partition("\n## ")[0]
    named = {
        name
        for line in tables.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([a-z0-9_]+)`", line.split("|")[1])
    }
    folder = ROOT / "fa4_asv" / "measure"
    assert named == {path.stem for path in folder.glob("*") if not path.stem.startswith("__")}


def test_every_dotted_name_of_the_architecture_is_there() -> None:
    """`compare.rows` is a module, `staging.take` a function of one."""
    for name in DOTTED.findall(ARCHITECTURE):
        first, *rest = name.split(".")
        if first in PACKAGES:
            path = ROOT / "fa4_asv" / Path(*name.split("."))
            assert path.is_dir() or path.with_suffix(".py").is_file(), name
        elif files := list((ROOT / "fa4_asv").rglob(f"{first}.py")):
            assert any(rest[0] in path.read_text(encoding="utf-8") for path in files), name


def test_the_table_of_tools_names_every_one() -> None:
    table = ARCHITECTURE.partition("\n## Tools")[2].partition("\n## ")[0]
    names = {name.strip("/") for name in re.findall(r"`([a-z_]+/?)`", table)}
    tools = {path.stem for path in (ROOT / "tools").iterdir()} - {"__pycache__"}
    assert tools | {"tools"} == names


def test_the_glossary_says_what_the_page_reading_says() -> None:
    """A word of both is explained by the same first sentence, and in one line."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `?([^|`]+)`? \| (.+) \|$", text, re.MULTILINE))
    both = told.keys() & WORDS.keys()
    assert len(told) >= 45 and both >= {
        "release",
        "toolchain",
        "flavour",
        "arch",
        "verdict",
        "state",
        "cause",
    }
    for word in both:
        assert told[word].startswith(re.split(r"(?<=\.) ", WORDS[word])[0]), word
