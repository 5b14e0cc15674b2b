"""Files of every kind that is read, and how they are altered: for the tests of the readers and tests/proofs/fuzz_readers.py."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import read_text
from fa4_asv.history.commits import load_commits
from fa4_asv.history.demands import MOST_BYTES, demands_of
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.toolchain import read_lock
from fa4_asv.record.descriptions import read_benchmarks, read_machine
from fa4_asv.record.explanation import read_explanation, to_text
from fa4_asv.record.store import load_result, read_sidecar, write_sidecar
from tests.support import ROOT
from tests.support.results import BENCHMARKS_TEXT, in_full, make, result

Reader = Callable[[Path], object]


def _pyproject(path: Path) -> object:
    return demands_of(read_text(path, MOST_BYTES), "a commit")


READERS: dict[str, Reader] = {
    "result": load_result,
    "sidecar": read_sidecar,
    "cause": read_explanation,
    "benchmarks": read_benchmarks,
    "machine": read_machine,
    "releases": Manifest.load,
    "upstream": load_commits,
    "lock": lambda path: read_lock(path, "cu13", "day"),
    "pyproject": _pyproject,
}
TEXTS = ("lock", "pyproject")  # no JSON
PYPROJECT = """\
[build-system]
requires = ["setuptools"]
[project]
name = "flash-attn-4"
dynamic = ["version"]
requires-python = ">=3.10"
dependencies = ["nvidia-cutlass-dsl>=4.4.1", "torch", "einops; python_version < '3.13'"]
[project.optional-dependencies]
cu13 = ["nvidia-cutlass-dsl[cu13]>=4.4.1"]
[tool.uv]
index-url = "http://127.0.0.1/"
"""
LOCK = "# resolved\nnvidia-cutlass-dsl==4.8.1\nquack-kernels==0.5.3\ntorch==2.13.0+cpu\n"
LONGEST = 1000  # characters of a refusal


def machine(**changes: object) -> str:
    """asv's machine.json."""
    return json.dumps({"machine": "box", "version": 1, "cpu": "EPYC", "ram": "1"} | changes)


@cache
def examples(name: str) -> list[bytes]:
    """Sound files of a kind, the shortest first: one made here, and some of the record's smallest."""
    made = {
        "result": json.dumps(result()),
        "benchmarks": BENCHMARKS_TEXT,
        "machine": machine(),
        "lock": LOCK,
        "pyproject": PYPROJECT,
    }
    actual = [made[name].encode()] if name in made else []
    if name == "sidecar":
        with tempfile.TemporaryDirectory() as folder:
            write_sidecar(Path(folder) / "x", make())
            actual = [(Path(folder) / "x").read_bytes(), json.dumps(in_full(make())).encode()]
    if name in ("releases", "upstream"):
        data = json.loads((ROOT / "history" / f"{name}.json").read_text())
        short = {key: value[:2] if isinstance(value, list) else value for key, value in data.items()}
        actual = [json.dumps(short).encode()]
    return actual + [_smallest(folder, name) for folder in _FOLDERS.get(name, ())]


_FOLDERS = {
    "result": ("h200-sxm", "h100-sxm"),
    "sidecar": ("xeon-2c", "nogpu"),
    "cause": ("nogpu",),
}
_ENDS = {"result": "*-*.json", "sidecar": "*.sidecar", "cause": "*.cause"}


def _smallest(folder: str, name: str) -> bytes:
    """The smallest file of a kind and machine that the record holds."""
    paths = (ROOT / "results" / folder).glob(_ENDS[name])
    return min(paths, key=lambda path: (path.stat().st_size, path.name)).read_bytes()


def example(name: str) -> bytes:
    """The shortest sound file of a kind."""
    return examples(name)[0]


def prepare(name: str, folder: Path) -> Path:
    """Where a file of a kind lies: a machine's bears the name of its folder."""
    path = folder / "box" / "machine.json" if name == "machine" else folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def holds(name: str, path: Path, content: bytes) -> bool:
    """Whether the reader takes it. Asserts that it refuses in one line that can be shown, and that what it took can
    be written again and is then the same."""
    path.write_bytes(content)
    try:
        result = READERS[name](path)
    except Fa4AsvError as error:
        message = str(error)
        assert len(message) < LONGEST and message.isprintable(), (
            f"not one line that can be shown: {message!a}"
        )
        return False
    _comes_back(name, path, result)
    return True


def _comes_back(name: str, path: Path, result: Any) -> None:
    again = path.with_name(f"{name}.again")
    if name == "sidecar":
        write_sidecar(again, result)
    elif name == "cause":
        again.write_text(to_text(result), encoding="utf-8")
    elif name == "releases":
        result.save(again)
    else:
        return
    assert READERS[name](again) == result


# How a file is altered.

TEXT = st.text(max_size=8)
ODD = st.sampled_from(
    [
        "",
        "\x1b[2J",
        "\u202eevil",
        "<img src=x onerror=alert(1)>",
        "\0",
        "a\nb",
        "../../x",
        "1e999",
        "\u2028",
        "9" * 400,
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | ODD,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | ODD, inner, max_size=4),
    max_leaves=12,
)
TOKENS = [
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"9" * 5000,
        b'"\\ud800"',
        b'"\\u0000"',
        b"\\",
        b'"',
        b"\0",
        b"\xff",
    ),
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b"[" * 50,
        b"{}",
        b":",
        b",",
        b"null",
        b"true",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\xe2\x80\xae",
    ),
    *(
        b"LDL 2",
        b" 9 ",
        b'"not run"',
    ),
    *(
        b"==",
        b"=",
        b"#",
        b"'''",
        b'"""',
        b"[[",
        b"]]",
        b"2026-01-01",
        b"inf",
        b"0x" + b"f" * 5000,
        b"-r /etc/passwd\n",
    ),
    *(
        b"[project]\n",
        b"project = 5\n",
        b"a.b.c.d = 1\n",
        b"\x1b[31m",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"@ file:///x",
        b";",
    ),
]


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Where in a JSON value something else can stand."""
    items: list = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def with_other(value: object, place: tuple, other: object) -> object:
    """A copy of a JSON value with something else in one place."""
    if not place:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)  # type: ignore[call-overload]
    copy[place[0]] = with_other(copy[place[0]], place[1:], other)
    return copy


def without(value: object, place: tuple) -> object:
    """A copy of a JSON value that lacks one place; nothing at all where that is the whole."""
    if not place:
        return None
    inner: Any = value
    for step in place[:-1]:
        inner = inner[step]
    others = dict(inner) if isinstance(inner, dict) else list(inner)
    del others[place[-1]]
    return with_other(value, place[:-1], others)


def draw_values(data: st.DataObject, content: bytes) -> bytes:
    """A JSON text in which up to three values are exchanged or gone."""
    value = json.loads(content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(value)))
        gone = data.draw(st.integers(0, 4)) == 0
        value = without(value, place) if gone else with_other(value, place, data.draw(VALUES))
    return json.dumps(value).encode()


def draw_bytes(data: st.DataObject, content: bytes) -> bytes:
    """A text of which a part is gone, and of which other bytes stand in its place."""
    first, last = sorted(data.draw(st.integers(0, len(content))) for _ in range(2))
    return content[:first] + data.draw(st.binary(max_size=30)) + content[last:]


def draw_tokens(data: st.DataObject, content: bytes) -> bytes:
    """A text with up to four words in between that mean something to a reader."""
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content = content[:at] + data.draw(st.sampled_from(TOKENS)) + content[at:]
    return content


def ways(name: str) -> list[Callable[[st.DataObject, bytes], bytes]]:
    """How a file of a kind is altered."""
    return [draw_bytes, draw_tokens] if name in TEXTS else [draw_values, draw_bytes, draw_tokens]
