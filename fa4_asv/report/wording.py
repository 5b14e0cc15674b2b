"""Figures, cases and places as text; addresses that lead somewhere. No rendering, no data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

from fa4_asv.catalog.benchmarks import BY_TORCH, GROUPS
from fa4_asv.catalog.kernels import CASES, Case
from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.compare.rows import Row
from fa4_asv.history.manifest import PROJECT, Release
from fa4_asv.record.formatting import in_seconds

T = TypeVar("T")
UPSTREAM_URL = "https://github.com/Dao-AILab/flash-attention"
PACKAGE_URL = f"https://pypi.org/project/{PROJECT}"
# Released without a tag of its own upstream.
_UNTAGGED = {"4.0.0b3"}
_ROLES = {
    "pre": "preprocess of the backward",
    "post_dq": "postprocess of dQ",
    "post_dkv": "postprocess of dK, dV",
}
COMPILER = "nvidia-cutlass-dsl"
_FIRST = (COMPILER, "quack-kernels", "apache-tvm-ffi")
_STEPS = ("B", "KiB", "MiB", "GiB", "TiB")


def figure(value: float | None, unit: str = "") -> str:
    """A number for a reader: thousands apart, large bytes in binary units, seconds in three digits."""
    if value is None:
        return "–"
    if unit == "seconds":
        return seconds(value)
    if unit == "bytes" and value >= 1 << 20:
        step = min(int(value).bit_length() // 10, len(_STEPS) - 1)
        step -= value < 1 << 10 * step
        return f"{value / (1 << 10 * step):.4g}\N{NO-BREAK SPACE}{_STEPS[step]}"
    return f"{value:,.0f}" if float(value).is_integer() or value >= 100 else f"{value:,.3g}"


def seconds(value: float) -> str:
    if not value:
        return "0\N{NO-BREAK SPACE}s"
    text = in_seconds(value, ("s", "ms", "µs")) or f"{value * 1e6:.3g} µs"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def percent(before: float, after: float) -> str:
    """Such as "−20.1 %"; a change from zero is "new"."""
    if not before:
        return "new"
    return f"{after / before - 1:+.1%}".replace("-", "\N{MINUS SIGN}").replace("%", "\N{NO-BREAK SPACE}%")


def unit_of(group: str, metric: str) -> str:
    return GROUPS[group].metrics[metric][0] if metric in GROUPS[group].metrics else ""


def metric_title(group: str, metric: str) -> str:
    """ "state" where there is no metric."""
    return GROUPS[group].metrics[metric][1] if metric else "state"


def head(unit: str, title: str) -> str:
    """A column's head with the unit, such as "code size, bytes", unless the title says it."""
    return title if unit in (title, "instructions", "checks") else f"{title}, {unit}"


def change(row: Row) -> str:
    """What changed, such as "spill (stack frame) 0 → 112" or "measured → broken: killed"."""
    if row.states:
        return " → ".join(row.states) + (f": {row.whys[1]}" if row.whys[1] else "")
    unit = unit_of(row.group, row.metric)
    return f"{metric_title(row.group, row.metric)} {figure(row.base, unit)} → {figure(row.head, unit)}"


def arch_of(group: str, case: str) -> str:
    """The architecture in a case's key, which route keeps last."""
    parts = case.split("/")
    return parts[-1] if group in BY_TORCH else parts[0]


def kernel_of(group: str, case: str) -> str:
    """A case's key without its architecture."""
    parts = case.split("/")
    return "/".join(parts[:-1] if group in BY_TORCH else parts[1:]) or case


def case_title(name: str) -> str:
    """A codegen case as text; a name that is none as it is."""
    case = CASES.get(name)
    return _case_words(case) if case else name


def _case_words(case: Case) -> str:
    call, shape = case.call, case.call.shape
    parts = [_ROLES.get(case.role, "backward" if call.backward else "forward"), _dims(shape)]
    if case.role == "main":
        parts.append(_mask(shape))
    if shape.kv_heads != shape.num_heads:
        parts.append(f"GQA {shape.num_heads}:{shape.kv_heads}")
    return ", ".join(filter(None, [*parts, shape.variant, "" if call.return_lse else "without LSE"]))


def _dims(shape: SdpaShape) -> str:
    dims = [shape.head_dim, shape.head_dim_v]
    return f"head dim {'/'.join(map(str, dict.fromkeys(dims)))}"


def _mask(shape: SdpaShape) -> str:
    return f"window {shape.window}" if shape.window is not None else "causal" if shape.causal else "full"


def shape_title(shape: SdpaShape) -> str:
    """A shape without its size, such as "head dim 128, 32 heads over 8, causal"."""
    heads = f"{shape.num_heads} heads" + (
        "" if shape.kv_heads == shape.num_heads else f" over {shape.kv_heads}"
    )
    dtype = "" if shape.dtype == "bf16" else shape.dtype
    return ", ".join(filter(None, [_dims(shape), heads, _mask(shape), shape.variant, dtype]))


def day(milliseconds: int) -> str:
    """A commit's date, UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, tz=timezone.utc).date().isoformat()


def file_name(text: str) -> str:
    """`text` as a part of a file's name: everything else than letters, digits, dots and dashes is "_"."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)


def span(labels: Sequence[str]) -> str:
    """Neighbouring releases in short: "b12", or "b12 to b19 (8)"."""
    return labels[0] if len(labels) == 1 else f"{labels[0]} to {labels[-1]} ({len(labels)})"


def runs(values: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """Neighbouring releases of which the same is said, in short, and what: of (release, what), oldest first."""
    for what, run in groupby(values, key=itemgetter(1)):
        yield span([label for label, _ in run]), what


def share(value: float, digits: int) -> str:
    """Such as "12.5 %"."""
    return f"{value * 100:.{digits}f}\N{NO-BREAK SPACE}%"


def rate(value: float | None) -> str:
    """TFLOP/s; a dash where there are none."""
    return "–" if not value else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def package_page(release: Release) -> str:
    return f"{PACKAGE_URL}/{release.version}/"


def upstream_of(release: Release) -> str:
    """The tag of a release upstream, as "4.0.0b36" is tagged "fa4-v4.0.0.beta36"; the tags where there is none."""
    if release.version in _UNTAGGED:
        return f"{UPSTREAM_URL}/tags"
    return f"{UPSTREAM_URL}/tree/fa4-v{release.version.replace('b', '.beta')}"


def upstream_commit(commit: str) -> str:
    return f"{UPSTREAM_URL}/commit/{commit}"


def packages(moved: dict[str, tuple[str, str]], limit: int = 3) -> list[str]:
    """Packages that moved, the compiler and what shapes the kernels first; its parts only where it stayed."""
    names = sorted(moved, key=lambda name: (_rank(name), name))
    if COMPILER in moved:
        names = [name for name in names if name == COMPILER or not name.startswith(COMPILER)]
    moves = [f"{name} {moved[name][0] or 'absent'} → {moved[name][1] or 'absent'}" for name in names[:limit]]
    return moves + ([f"{len(names) - limit} more"] if len(names) > limit else [])


def _rank(name: str) -> int:
    return next((at for at, first in enumerate(_FIRST) if name.startswith(first)), len(_FIRST))
