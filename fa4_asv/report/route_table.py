"""The table of the routes: which torch drives which release of FA4, through SDPA and beyond it, from the record alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.markup import escape

from fa4_asv.base.escape import one_line, plain
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import REFUSED, TORCHES, key_of
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.compare.changes import recorded
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.toolchain import FLAVOURS
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.tables import markdown_head, markdown_row, print_table

SDPA = "route"
# The group of each way from torch to FA4: how a person calls it.
WAYS = {SDPA: "", "route-varlen": "packed sequences", "route-flex": "FlexAttention"}


@dataclass(frozen=True)
class Pair:
    """What is recorded of one release under one torch, for one architecture and flavour; `way` is the group of the checks."""

    release: str
    torch: str
    arch: str
    flavour: str
    record: CaseRecord
    way: str = SDPA

    @property
    def drives(self) -> str:
        """ "yes", "forward only", "partly", "no" (not one dense forward works), or a state without figures:
        "broken" where the checks never ended."""
        if self.record.state != "measured":
            return self.record.state
        notes = self.record.notes
        if not self.record.figures["broken"]:
            return "yes"
        if {"forward_full", "forward_causal"} <= notes.keys():
            return "no"
        after = {name for name in notes if name.startswith("backward") or name == "deterministic"}
        if notes.keys() == after and {"backward_full", "backward_causal"} <= after:
            return "forward only"
        return "partly"

    @property
    def verdict(self) -> str:
        """The same with how many of the checks are broken, such as "partly (1 of 21)" or "no (13 of 21)"; beyond SDPA only
        that, such as "1 broken, 2 refused of 19", for no check there stands for the others."""
        if self.way != SDPA:
            return self._counts
        if self.drives not in ("partly", "no"):
            return self.drives
        return f"{self.drives} ({self.record.figures['broken']} of {self.record.figures.get('checks', '?')})"

    @property
    def _counts(self) -> str:
        figures = self.record.figures
        told = [f"{figures[name]} {name}" for name in ("broken", "refused") if figures.get(name)]
        if self.record.state != "measured" or not told:
            return "yes" if self.record.state == "measured" else self.record.state
        return f"{', '.join(told)} of {figures.get('checks', '?')}"

    @property
    def reasons(self) -> dict[str, list[str]]:
        """The distinct messages, and the checks that gave them; what only follows from another is left out."""
        names: dict[str, list[str]] = {}
        for check, message in self.record.notes.items():
            if not message.removeprefix(REFUSED).startswith("needs "):
                names.setdefault(message, []).append(check)
        if self.record.why:
            names.setdefault(self.record.why, [])
        return names


def pair_of(
    release: str, flavour: str, cases: Mapping[str, CaseRecord], torch: str, arch: str, way: str = SDPA
) -> Pair | None:
    """What one release's cases of a way say of a torch on an architecture, None where nobody asked."""
    record = cases.get(key_of((torch, arch)))
    return Pair(release, torch, arch, flavour, record, way) if record and record.state != "not run" else None


def pairs_of(project: Project, flavours: Sequence[str], policy: str = "day") -> list[Pair]:
    """All that is recorded of all ways, oldest release first. Raises Fa4AsvError naming a file that cannot be read."""
    manifest = Manifest.load(project.manifest)
    pairs = [
        pair
        for flavour in flavours
        for entry in recorded(project.results, manifest, flavour, policy)
        for way in WAYS
        for torch in TORCHES
        for arch in ARCHES
        if (pair := pair_of(entry.release, flavour, entry.sidecar.groups.get(way, {}), torch, arch, way))
    ]
    order = {release.version: index for index, release in enumerate(manifest.releases)}
    return sorted(pairs, key=lambda pair: order.get(pair.release, -1))


@dataclass(frozen=True)
class Grid:
    """Releases by torches, for the architectures and flavours that agree in every cell."""

    title: str
    torches: list[str]
    rows: list[tuple[str, list[Pair | None]]]
    reasons: list[tuple[str, str]]


def all_grids(pairs: Sequence[Pair]) -> list[Grid]:
    """The grids of each way, SDPA first."""
    return [grid for way in WAYS for grid in grids([pair for pair in pairs if pair.way == way], WAYS[way])]


def grids(pairs: Sequence[Pair], way: str = "") -> list[Grid]:
    """A grid for each architecture and flavour of one `way`; those whose cells and reasons are equal become one.

    A release that lacks one flavour (unsupported) is no difference: its cell is the other flavour's. A pair
    that was not measured is one, so that no cell speaks for what nobody asked.
    """
    releases = list(dict.fromkeys(pair.release for pair in pairs))
    torches = [torch for torch in TORCHES if any(pair.torch == torch for pair in pairs)]
    merged: list[tuple[list[str], dict[tuple[str, str], Pair]]] = []
    for arch in ARCHES:
        for flavour in FLAVOURS:
            cells = {
                (pair.release, pair.torch): pair
                for pair in pairs
                if (pair.arch, pair.flavour) == (arch, flavour)
            }
            if not cells:
                continue
            for names, others in merged:
                if _agree(cells, others):
                    names.append(f"{arch} {flavour}")
                    others.update({key: c for key, c in cells.items() if c.record.state != "unsupported"})
                    break
            else:
                merged.append(([f"{arch} {flavour}"], cells))
    return [
        Grid(
            ", ".join(names) + (f", {way}" if way else ""),
            torches,
            [(release, [cells.get((release, torch)) for torch in torches]) for release in releases],
            _reasons(cells.values(), releases),
        )
        for names, cells in merged
    ]


def _agree(cells: dict[tuple[str, str], Pair], others: dict[tuple[str, str], Pair]) -> bool:
    def equal(record: CaseRecord, other: CaseRecord) -> bool:
        return record == other or "unsupported" in (record.state, other.state)

    return cells.keys() == others.keys() and all(
        equal(cells[key].record, others[key].record) for key in cells
    )


def _reasons(pairs: Iterable[Pair], releases: Sequence[str]) -> list[tuple[str, str]]:
    """Each distinct reason, and where it was said: "torch 2.13.0: 4.0.0b19 to 4.0.0b36 (forward_full, ...)"."""
    reasons: dict[str, dict[str, set[str]]] = {}
    checks: dict[str, dict[str, None]] = {}
    for pair in pairs:
        for message, names in pair.reasons.items():
            reasons.setdefault(message, {}).setdefault(pair.torch, set()).add(pair.release)
            checks.setdefault(message, {}).update(dict.fromkeys(names))
    rows = []
    for message, torches in sorted(reasons.items()):
        places = []
        for torch, where in sorted(torches.items()):
            hit = [release for release in releases if release in where]
            places.append(f"torch {torch}: {_span(hit)}")
        tail = f" [{', '.join(checks[message])}]" if checks[message] else ""
        rows.append((message, "; ".join(places) + tail))
    return rows


def newest(grids: Sequence[Grid]) -> list[str]:
    """The newest release in a line per grid: "4.0.0b36 on sm_90 cu12: torch 2.13.0 no (13 of 21)"; beyond SDPA of the newest torch."""
    lines = []
    for grid in grids:
        release, cells = grid.rows[-1]
        known = [pair for pair in reversed(cells) if pair]
        shown = known[:1] if any(pair.way != SDPA for pair in known) else known
        told = ", ".join(f"{pair.torch} {pair.verdict}" for pair in shown)
        lines.append(f"{release} on {grid.title}: {'torch ' if told else ''}{told or 'not recorded'}")
    return lines


def spans(grid: Grid) -> list[tuple[str, str, str]]:
    """Torch, neighbouring releases with one verdict, and the verdict; the newest of a torch first."""
    found = []
    for at, torch in reversed(list(enumerate(grid.torches))):
        column = [(release, pair.verdict if (pair := cells[at]) else "") for release, cells in grid.rows]
        groups = [
            (verdict, [r for r, _ in same]) for verdict, same in groupby(column, key=lambda each: each[1])
        ]
        found += [(torch, _span(releases), verdict) for verdict, releases in reversed(groups) if verdict]
    return found


def _span(releases: Sequence[str]) -> str:
    return releases[0] + (f" to {releases[-1]} ({len(releases)})" if releases[1:] else "")


def render(grid: Grid, console: Console, every: bool = False) -> None:
    """One grid for a terminal: by spans of releases, and why not in the newest; with `every` release by release, and all
    reasons.
    """
    console.print(f"[bold]{escape(grid.title)}[/bold]")
    if every:
        print_table(console, _heads(grid), _cells(grid))
    else:
        print_table(console, ("torch", "FA4", "drives it"), spans(grid), whole=1)
    now = {text for _, cells in grid.rows[-1:] for pair in cells if pair for text in pair.reasons}
    for text, where in grid.reasons:
        if not every and text not in now:
            continue
        console.print(f"  {one_line(text, 1000)}", markup=False, highlight=False)
        console.print(f"      {where}", markup=False, highlight=False)


def _heads(grid: Grid) -> list[str]:
    return ["FA4", *(f"torch {torch}" for torch in grid.torches)]


def _cells(grid: Grid) -> list[list[str]]:
    return [[release, *(cell.verdict if cell else "" for cell in cells)] for release, cells in grid.rows]


_HEAD = """# Which PyTorch drives which FlashAttention-4

Measured without a GPU by `route.Sdpa`; `fa4-asv route --markdown` makes this page from `results/`. "yes": no check is
broken. "partly": some are; the brackets say how many of how many. "no": not even the forward works. Below each table are
the messages, with the releases and checks that gave them.

"""


def page(grids: Sequence[Grid]) -> str:
    """docs/route.md, whole."""
    return _HEAD + markdown(grids)


def markdown(grids: Sequence[Grid]) -> str:
    """The grids as Markdown; what FA4 or torch said is text there, never markup."""
    lines = []
    for grid in grids:
        lines += [f"## {plain(grid.title)}", ""]
        lines += markdown_head(_heads(grid))
        lines += [markdown_row(map(plain, cells)) for cells in _cells(grid)]
        lines.append("")
        lines += [f"- {plain(text)}<br>{plain(where)}" for text, where in grid.reasons]
        lines += [""] if grid.reasons else []
    return "\n".join(lines)
