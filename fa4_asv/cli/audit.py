"""`fa4-asv audit`: whether what is recorded is what compiling gives."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from fa4_asv.asv_plugin.base_environments import base_here, torch_of
from fa4_asv.backfill.anew import Anew
from fa4_asv.backfill.audit import Audit, Checked, Limit
from fa4_asv.base.ending import code_of
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.output import say, say_again, say_json
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import BY_TORCH, GROUPS, TRACED_GROUPS
from fa4_asv.catalog.kernels import BEYOND
from fa4_asv.integrity.audit import EXACT, KERNELS, Draw, Finding, chance
from fa4_asv.record.formatting import counted

_SAMPLE = 20
_NOUNS = {
    **{KERNELS: "kernel", "loops": "main kernel", "memory": "call", "growth": "family", "route": "route"},
    **{group: f"{group} kernel" for group in BEYOND},
    **{f"{group}-memory": f"{group} call" for group in TRACED_GROUPS},
    **{group: f"{group.removeprefix('route-')} route" for group in BY_TORCH if group != "route"},
    "launch": "step",
}


@click.command()
@click.option(
    "--sample", type=click.IntRange(1), metavar="N", help=f"Kernels to compile. Default: {_SAMPLE}."
)
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), metavar="M", help="Instead: about so long."
)
@click.option(
    "--seed", type=click.IntRange(0), help="Draw the same sample again. Default: another each time."
)
@click.option("--machine", "-m", default=NOGPU, show_default=True, help="Machine name in results/.")
@click.option(
    "--environment", "-E", default="", metavar="SPEC", help="As asv's --environment, such as fa4:same."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def audit(
    sample: int | None, minutes: float | None, seed: int | None, machine: str, environment: str, as_json: bool
) -> None:
    """Compile a random sample of the record anew and compare: figures, digests of cubins, states.

    `verify` holds the record against itself; only this finds a file that was edited in all places at once.
    No cache of figures is used. Files are drawn by chance, in proportion to their kernels. Of each, 10 kernels
    (20 with --minutes) are compiled, so that an environment is built once for many cases. All its memory
    traces are made as well, and of the first and every fourth file the route (of the torch at hand) and the launches. Whether a toolchain is installed here plays no part in the draw.
    The first file is drawn among those that hold every benchmark; later ones among all. Commits that are not
    in the history here cannot be drawn; they are counted.

    The chances printed are those of finding one wrong case if 1 % of that benchmark's are wrong and lie
    anywhere. Wrong cases that lie together in few files are found less often: the chance that one of those
    files is drawn is printed, too.

    Exit code: 0 everything is equal, 1 something differs, 2 it could not be done, 130 interrupted.

    \b
    Examples:
      fa4-asv audit
      fa4-asv audit --minutes 3
      fa4-asv audit --sample 100 --seed 7
    """
    if sample and minutes:
        raise Fa4AsvError("--sample and --minutes are both given; choose one")
    if machine != NOGPU:
        raise Fa4AsvError(
            f"figures of machine {machine!r} are a clock's or a card's; only those of {NOGPU} can be made anew"
        )
    seed = secrets.randbits(32) if seed is None else seed
    project = Project.find()
    base = base_here(project, environment)
    maker = Anew(project, base, torch_of(str(base)), _terminal())
    found_audit = Audit.of(project, seed, maker.torch)
    limit = Limit(minutes=minutes) if minutes else Limit(kernels=sample or _SAMPLE)
    sys.exit(_Told(project, found_audit, maker, as_json).run(limit))


def _terminal() -> str:
    return os.ttyname(2) if os.isatty(2) else ""


class _Told:
    """An audit, told line by line while it runs, and summed up however it ends."""

    def __init__(self, project: Project, audit: Audit, maker: Anew, as_json: bool) -> None:
        self._project, self._audit, self._maker, self._as_json = project, audit, maker, as_json
        self._findings: list[Finding] = []
        self._failed: list[str] = []
        self._files: set[Path] = set()
        self._begin = time.monotonic()

    def run(self, limit: Limit) -> int:
        """The exit code."""
        self._say(f"seed {self._audit.draws.seed}")
        self._note(self._audit.flavours(self._project))
        interrupted = 0
        try:
            for checked in self._audit.run(self._maker, limit, self._announce):
                self._tell(checked)
        except KeyboardInterrupt as interrupt:
            interrupted = code_of(interrupt)
            self._say("interrupted: what follows is about the files above")
        self._sum_up()
        if interrupted:
            return interrupted
        return 1 if self._findings else 2 if self._failed or not self._files else 0

    def _announce(self, draw: Draw) -> None:
        if self._maker.terminal:
            say_again(f"{draw.pair.path.name} ...", last=False)

    def _tell(self, checked: Checked) -> None:
        name = checked.draw.pair.path.name
        side = checked.draw.pair.sidecar
        label = f"{side.release or side.commit[:10]} {side.toolchain.flavour} {side.toolchain.policy}"
        if self._maker.terminal:
            say_again("", last=False)
        if checked.why:
            self._failed.append(f"{name}: {one_line(checked.why)}")
            self._say(f"{label}: not checked: {one_line(checked.why)}")
            return
        self._files.add(checked.draw.pair.path)
        message = ", ".join(_counted(count, group) for group, count in checked.counts.items())
        what = counted(len(checked.findings), "difference") if checked.findings else "equal"
        self._say(f"{label}: {message} ({checked.seconds:.0f} s): {what}")
        self._note(checked.findings)

    def _note(self, findings: Sequence[Finding]) -> None:
        self._findings += findings
        for each in findings:
            path = each.path.relative_to(self._project.root)
            self._say(f"  {path}: {each.group} {one_line(each.case)}: {each.what}")

    def _say(self, message: str) -> None:
        say(message, err=self._as_json)

    def _sum_up(self) -> None:
        audit, chances = self._audit, self._audit.chances()
        if self._as_json:
            say_json(self._as_data(chances))
            return
        for group in EXACT:
            count, all_of = audit.checked[group], audit.draws.population[group]
            if GROUPS[group].on_request and not all_of:
                continue
            say(
                f"{group}: {count:,} of {_counted(all_of, group)} made anew; "
                f"1 % of wrong ones would be found with a chance of {_percent(chances[group])}"
            )
        say(f"{len(self._files)} of {counted(len(audit.pairs), 'file')} drawn; {self._together()}")
        say(
            f"{counted(len(audit.unsupported), 'file')} of flavours that a release does not have: {self._flavours()}"
        )
        if audit.absent:
            say(
                f"{counted(audit.absent, 'file')} left out: their commits are not here; "
                "`fa4-asv history sync --source` brings them"
            )
        files = sorted({each.path.relative_to(self._project.root).as_posix() for each in self._findings})
        say(
            f"wrong: {', '.join(files)}"
            if files
            else "nothing differs"
            if self._files
            else "nothing was checked"
        )

    def _together(self) -> str:
        value = chance(len(self._files), len(self._audit.pairs))
        return f"1 % of wrong files would be found with a chance of {_percent(value)}"

    def _flavours(self) -> str:
        wrong = {each.path for each in self._findings if each.group == "all"}
        return f"{len(wrong)} differ" if wrong else "as their own pyproject.toml says"

    def _as_data(self, chances: dict[str, float]) -> dict[str, object]:
        audit = self._audit
        return {
            "seed": audit.draws.seed,
            "seconds": round(time.monotonic() - self._begin, 1),
            "files": {"checked": len(self._files), "of": len(audit.pairs), "left_out": audit.absent},
            "cases": {
                group: {
                    "checked": audit.checked[group],
                    "of": audit.draws.population[group],
                    "chance_of_finding_1_percent": round(chances[group], 4),
                }
                for group in EXACT
            },
            "differences": [
                {
                    "file": each.path.relative_to(self._project.root).as_posix(),
                    "group": each.group,
                    "case": one_line(each.case),
                    "what": each.what,
                }
                for each in self._findings
            ],
            "not_checked": self._failed,
        }


def _counted(number: int, group: str) -> str:
    noun = _NOUNS[group]
    return f"{number:,} families" if noun == "family" and number != 1 else counted(number, noun)


def _percent(share: float) -> str:
    return "100 %" if share == 1 else f"{min(share, 0.99):.0%}".replace("%", " %")
