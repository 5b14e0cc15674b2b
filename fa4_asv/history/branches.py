"""`fa4-asv history sync --source`: branches of a flash-attention repository beside `releases`.

What is kept are commits, trees, and the files of flash_attn/cute: 4 MB for all of upstream's main. Objects are
written first, refs move last and at once: a kill at any time leaves the old history whole.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.history import remote as theirs
from fa4_asv.history.objects import borrow, copy_objects, missing_objects
from fa4_asv.history.remote import Remote
from fa4_asv.history.repair import damage_of, repair
from fa4_asv.history.repository import (
    CUTE,
    NO_HISTORY,
    branches,
    git,
    has_history,
    history_lock,
    move_refs,
    scratch_repository,
)

_HEADS = "refs/heads/"
# Words that asv or git read as something else than a branch.
_RESERVED = ("HEAD", "NEW", "ALL", "EXISTING", "TAGS")


@dataclass(frozen=True)
class Branch:
    """One branch after a sync: its tip before ("" when new) and now, how many commits are new, and of those how
    many touch FA4; `rewritten` where the old tip is no longer in it."""

    name: str
    old: str
    new: str
    commits: int
    touching: int
    rewritten: bool = False


@dataclass(frozen=True)
class Fetched:
    """What a sync did; `left_out` are names and reasons, of `--all` only."""

    branches: tuple[Branch, ...]
    left_out: dict[str, str]
    dirty: bool


def sync_branches(project: Project, source: str, wanted: Sequence[str] = (), every: bool = False) -> Fetched:
    """Bring branches of `source` into the history, which must have releases. Raises Fa4AsvError; then nothing
    has changed.

    `wanted` are "NAME" or "NAME:AS"; with none, and where it is not here yet, the source's default branch;
    `every` means all branches that can be had.
    """
    remote = theirs.find_remote(source)
    if not has_history(project):
        raise Fa4AsvError(NO_HISTORY)
    with history_lock(project):
        repair(project)
        if damage := damage_of(project.repository):
            raise Fa4AsvError(
                f"the history is damaged ({damage}); `fa4-asv history sync` builds it anew and keeps the branches that are whole"
            )
        chosen, left_out = _choose(project, remote, wanted, every)
        aside = scratch_repository(project)
        try:
            theirs.lend_objects(remote, aside, [ref for ref, _ in chosen.values()])
            tips = {name: tip for name, (_, tip) in chosen.items()}
            old = branches(project)
            for name in [name for name in tips if not _holds_fa4(aside, remote, tips[name])]:
                if not every:
                    raise Fa4AsvError(
                        f"branch {name!r} of {remote.shown} has no {CUTE}: nothing there is FA4's"
                    )
                left_out[name] = f"has no {CUTE}"
                del tips[name]
            _copy(project, aside, remote, list(tips.values()), list(old.values()))
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        done = tuple(_told(project, name, old.get(name, ""), tip) for name, tip in tips.items())
        move_refs(project.repository, [f"update {_HEADS}{name} {tip}" for name, tip in tips.items()])
    return Fetched(done, left_out, theirs.is_dirty(remote))


def _choose(
    project: Project, remote: Remote, wanted: Sequence[str], every: bool
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Our name -> (their ref, its hash), and what `every` leaves out with the reason."""
    default, refs = theirs.refs_of(remote)
    chosen: dict[str, tuple[str, str]] = {}
    left_out = {}
    if every:
        for ref in sorted(ref for ref in refs if ref.startswith(_HEADS)):
            name = ref.removeprefix(_HEADS)
            if reason := refusal(name):
                left_out[name] = reason
            else:
                chosen[name] = (ref, refs[ref])
    elif f"{_HEADS}{default}" in refs and _wants_default(project, default, wanted):
        wanted = [default, *(wish for wish in wanted if wish != default)]
    for wish in wanted:
        name, _, ours = wish.partition(":")
        ref = name if name.startswith("refs/") else _HEADS + name
        tip = refs.get(ref + "^{}") or refs.get(ref) or (theirs.commit_in(remote, name) if ours else "")
        if not tip:
            raise Fa4AsvError(f"{remote.shown} has no branch {name!r}")
        if reason := refusal(ours or name):
            raise Fa4AsvError(f"branch {ours or name!r} {reason}; give it another name: --branch {name}:NAME")
        chosen[ours or name] = (ref, tip)
    if not chosen:
        raise Fa4AsvError(f"{remote.shown} has no default branch; choose one with --branch")
    return chosen, left_out


def _wants_default(project: Project, default: str, wanted: Sequence[str]) -> bool:
    taken = {message.rpartition(":")[2] for message in wanted} | branches(project).keys()
    return not wanted or (default not in taken and not refusal(default))


def refusal(name: str) -> str:
    """Why a branch cannot have this name here, "" when it can."""
    if name == "releases" or name.startswith("releases/"):
        return "would hide FA4's releases"
    if name.startswith("fa4-v"):
        return "would hide the tag of a release"
    if re.fullmatch("[0-9a-f]{4,40}", name):
        return "reads as a commit's hash"
    if name in _RESERVED or name.startswith(("-", "refs/")):
        return "means something else to git or asv"
    try:
        git(Path.cwd(), "check-ref-format", _HEADS + name)
    except Fa4AsvError:
        return "is not a name of a branch"
    return ""


def _holds_fa4(aside: Path, remote: Remote, tip: str) -> bool:
    try:
        return bool(git(aside, "rev-list", "-1", tip, "--", CUTE))
    except Fa4AsvError as error:
        raise Fa4AsvError(_lacking(remote, str(error))) from None


def _copy(project: Project, aside: Path, remote: Remote, tips: Sequence[str], have: Sequence[str]) -> None:
    """Write what `tips` reach and the history lacks into it, without the files that FA4 does not need."""
    try:
        missing = missing_objects(aside, tips)
    except Fa4AsvError as error:
        raise Fa4AsvError(_lacking(remote, str(error))) from None
    if missing:
        raise Fa4AsvError(_lacking(remote, f"{missing} objects of {CUTE} are missing"))
    borrow(aside, project.repository)
    copy_objects(aside, project.repository, tips, have)


def _lacking(remote: Remote, message: str) -> str:
    partial = remote.folder and any(remote.folder.glob("objects/pack/*.promisor"))
    kind = "is a partial clone (--filter)" if partial else "is not whole"
    return f"{remote.shown} {kind}: {message}; clone it anew without --filter, or give the URL it came from"


def _told(project: Project, name: str, old: str, tip: str) -> Branch:
    def count(*parts: str) -> int:
        return int(git(project.repository, "rev-list", "--count", *parts))

    before = [f"^{old}"] if old else []
    rewritten = bool(old) and count(old, f"^{tip}") > 0
    touching = count("--first-parent", tip, *before, "--", CUTE)
    return Branch(name, old, tip, count(tip, *before), touching, rewritten)
