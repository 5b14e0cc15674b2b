"""Checks of a route whose torch may lack what is asked: passed, refused in words, or broken.

A check answers "" or says what is wrong; an exception breaks its own check only, unless it is a refusal: torch's signature
lacks the argument, torch's adapter calls it unsupported, or FA4 itself says no. Names are kept in records: never rename one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fa4_asv.measure.driver_stubs import Lacking, describe
from fa4_asv.measure.route.checks import plain

# How torch's adapter begins what it does not do: "FA4 flash_attention forward unsupported: paged KV ...".
_UNSUPPORTED = "unsupported: "
NEEDS = "needs "


@dataclass(frozen=True)
class Result:
    """Reasons by check; what needs a check that failed is on that check's side, with "needs NAME"."""

    broken: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


Checks = Mapping[
    str, tuple[Callable[[Any], str], Sequence[str]]
]  # name: what to run, and checks that it needs


def run_checks(checks: Checks, driver: Any) -> Result:
    """The checks in their order, each on `driver`."""
    result = Result()
    for name, (run, needs) in checks.items():
        side, reason = _asked(run, needs, driver, result)
        if reason:
            side[name] = reason
    return result


def _asked(
    run: Callable[[Any], str], needs: Sequence[str], driver: Any, result: Result
) -> tuple[dict[str, str], str]:
    """On which side a check ended, and its words ("": it passed)."""
    for side in (result.broken, result.refused):
        if missing := [need for need in needs if need in side]:
            return side, f"{NEEDS}{missing[0]}"
    try:
        return result.broken, run(driver)
    except Exception as error:
        return (result.refused if is_refusal(error) else result.broken), words_of(error)


def is_refusal(error: Exception) -> bool:
    """Whether torch or FA4 said no."""
    return bool(describe(error)["refused"]) or _UNSUPPORTED in str(error)


def words_of(error: Exception) -> str:
    """An exception in one line; of what torch lacks, only that."""
    return str(error) if isinstance(error, Lacking) else plain(error)


def attribute(module: Any, name: str, torch: str) -> Any:
    """A name of torch's that may be private. Raises Lacking where this torch has none."""
    value = getattr(module, name, None)
    if value is None:
        raise Lacking(f"torch {torch} has no {module.__name__}.{name}")
    return value


def takes(function: Any, options: Mapping[str, Any]) -> None:
    """Raises Lacking where torch's function has no such argument."""
    known = inspect.signature(function).parameters
    if lacking := sorted(options.keys() - known.keys()):
        raise Lacking(f"torch's {function.__name__} has no argument {', '.join(lacking)}")


def told(calls: Sequence[Mapping[str, Any]], expected: Mapping[str, Any]) -> str:
    """What of `expected` FA4 was not told in its one call; a tensor is expected as `...`."""
    if len(calls) != 1:
        return f"FA4 was called {len(calls)} times"
    for name, value in expected.items():
        got = calls[0].get(name)
        if value is ...:
            if got is None:
                return f"FA4 was called without {name}"
        elif got != value:
            return f"FA4 was called with {name}={got}, not {value}"
    return ""
