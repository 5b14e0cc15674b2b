"""What a pyproject.toml demands of a toolchain: requirements and a Python. Nothing else in it counts.

The file is a stranger's. It is read under limits, each requirement is written anew from what was understood of it, and
no table but [project] is looked at: not [tool.uv], which could name an index, a cache or a file to write.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# FA4's own has 2 KB, brackets two deep, 7 requirements of up to 40 characters.
MOST_BYTES, DEEPEST, MOST_REQUIREMENTS, LONGEST = 256 << 10, 32, 100, 300
# The Pythons that a toolchain may be resolved for, oldest first: one lock serves all from there on.
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# What a requirement may be written with. No $, # or line end: in a file of requirements they would mean more.
_SIGNS = re.compile(r"""[A-Za-z0-9 ._\-\[\],;<>=!~*+()'"]+""")
_BRACKETS = {"[": 1, "{": 1, "]": -1, "}": -1}


@dataclass(frozen=True)
class Demands:
    """Requirements as they are given to uv, one per line; `cu13` is what that extra adds, None where there is none.

    `python` is the oldest of PYTHONS that the project supports.
    """

    plain: tuple[str, ...]
    cu13: tuple[str, ...] | None
    python: str

    def of_flavour(self, flavour: str) -> str:
        """The text of a requirements file, of the plain package or with its cu13 extra."""
        demands = self.plain + (self.cu13 or () if flavour == "cu13" else ())
        return "".join(f"{line}\n" for line in demands)


def project_table(pyproject: str, name: str) -> dict[str, Any]:
    """The [project] table. Raises Fa4AsvError, which calls whose file it is by `name`."""
    if len(pyproject) > MOST_BYTES:
        raise _unreadable(name, f"it has more than {MOST_BYTES:,} characters")
    depth = deepest = 0
    for sign in pyproject:  # of strings and comments, too: there they come in pairs
        if sign in _BRACKETS:
            depth = max(0, depth + _BRACKETS[sign])
            deepest = max(deepest, depth)
    if deepest > DEEPEST:
        raise _unreadable(name, f"it is nested more than {DEEPEST} deep")
    try:
        result = tomllib.loads(pyproject).get("project")
    except (ValueError, OverflowError, RecursionError) as error:
        raise _unreadable(name, one_line(str(error), 200)) from None
    if not isinstance(result, dict):
        raise _unreadable(name, "it has no table [project]" if result is None else f"project is {_a(result)}")
    return result


def demands_of(pyproject: str, name: str) -> Demands:
    """What a pyproject.toml demands. Raises Fa4AsvError naming what is not a requirement that a registry can serve."""
    project = project_table(pyproject, name)
    own = project.get("name")
    own = canonicalize_name(own) if isinstance(own, str) else ""
    dynamic = _texts(project.get("dynamic", []), "dynamic", name)
    for word in ("dependencies", "optional-dependencies"):
        if word in dynamic:
            raise _unreadable(
                name, f"its {word} are dynamic: only its build, which is not run, could tell them"
            )
    extras = project.get("optional-dependencies", {})
    if not isinstance(extras, dict):
        raise _unreadable(name, f"optional-dependencies is {_a(extras)}, expected a table")
    cu13 = next((extra for extra in extras if canonicalize_name(extra) == "cu13"), None)
    return Demands(
        _requirements(project.get("dependencies", []), "dependencies", name, own),
        None if cu13 is None else _requirements(extras[cu13], "the extra cu13", name, own),
        _python(project.get("requires-python", ""), name),
    )


def _requirements(value: object, where: str, name: str, own: str) -> tuple[str, ...]:
    texts = _texts(value, where, name)
    if len(texts) > MOST_REQUIREMENTS:
        raise _unreadable(name, f"{where} has {len(texts)} entries, at most {MOST_REQUIREMENTS} are read")
    return tuple(_requirement(text, where, name, own) for text in texts)


def _requirement(text: str, where: str, name: str, own: str) -> str:
    """One requirement, written anew."""
    shown = f"{text[:80]!a} of {where}"
    if len(text) > LONGEST:
        raise _unreadable(name, f"{shown} has {len(text)} characters, at most {LONGEST} are read")
    try:
        requirement = Requirement(text)
    except (InvalidRequirement, ValueError, RecursionError):
        raise _unreadable(name, f"{shown} is not a requirement") from None
    if requirement.url is not None:
        raise _unreadable(name, f"{shown} names an address; only what the registry serves is installed")
    if canonicalize_name(requirement.name) == own:
        raise _unreadable(name, f"{shown} asks for the project itself")
    line = str(requirement)
    if not _SIGNS.fullmatch(line):
        raise _unreadable(name, f"{shown} holds a sign that a requirement of FA4 never has")
    return line


def _python(value: object, name: str) -> str:
    """The oldest Python of ours within a bound."""
    if not isinstance(value, str):
        raise _unreadable(name, f"requires-python is {_a(value)}, expected text")
    try:
        bound = SpecifierSet(value if len(value) <= LONGEST else "too long")
    except (InvalidSpecifier, ValueError):
        raise _unreadable(
            name, f"requires-python is {value[:80]!a}, which is not a bound of versions"
        ) from None
    # The newest patch of a minor version counts: ">=3.10.4" means Python 3.10.
    fitting = [python for python in PYTHONS if bound.contains(f"{python}.99") or bound.contains(python)]
    if not fitting:
        raise _unreadable(
            name, f"requires-python is {value[:80]!a}; toolchains are made for {PYTHONS[0]} to {PYTHONS[-1]}"
        )
    return fitting[0]


def _texts(value: object, where: str, name: str) -> list[str]:
    if not isinstance(value, list):
        raise _unreadable(name, f"{where} is {_a(value)}, expected a list")
    for entry in value:
        if not isinstance(entry, str):
            raise _unreadable(name, f"{where} holds {_a(entry)}, expected texts")
    return value


def _a(value: object) -> str:
    """A value of TOML by its kind; scalars with their value."""
    if isinstance(value, str):
        return f"{value[:40]!a}"
    if isinstance(value, int) and abs(value) < 1 << 63:
        return str(value)
    return {dict: "a table", list: "a list", float: "a number", int: "a number"}.get(type(value), "a date")


def _unreadable(name: str, why: str) -> Fa4AsvError:
    return Fa4AsvError(f"the pyproject.toml of {name} cannot be read: {why}")
