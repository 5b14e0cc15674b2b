"""Another repository of flash-attention, a clone or a URL: what may be read from it, and how.

Nothing in it is run or trusted: no hook, no submodule, no remote helper, no lazy fetch; its names and words are
data. A person's own git configuration (credentials, proxies, trusted folders) counts here, unlike in the history.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.history.bounded_git import PATIENCE, SLOWEST, call_bounded
from fa4_asv.history.repository import git

_SCHEMES = ("https", "ssh", "git", "file")
# Of `git rev-parse --local-env-vars`: what would point git at the repository of a hook that started us.
_LOCAL = (
    *(
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    ),
    *("GIT_COMMON_DIR", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE"),
    *("GIT_IMPLICIT_WORK_TREE", "GIT_NAMESPACE"),
)


@dataclass(frozen=True)
class Remote:
    """`shown` is for messages and holds no password; `folder` is the git directory of a local clone."""

    shown: str
    address: str
    folder: Path | None = None


def find_remote(source: str) -> Remote:
    """The repository that a person named by path or URL. Raises Fa4AsvError for what cannot serve."""
    shown = _without_password(source)
    if source.startswith("-"):
        raise Fa4AsvError(f"source {shown!r} looks like an option; write ./{shown} if it is a folder")
    if re.match(r"[\w.+-]*::", source):
        raise Fa4AsvError(
            f"source {shown!r} asks for a remote helper, which may run anything; use a path or https"
        )
    url = urlsplit(source) if "://" in source else None
    if url and url.scheme not in _SCHEMES:
        raise Fa4AsvError(f"source {shown!r} is not a path and none of {', '.join(_SCHEMES)}")
    path = Path(unquote(url.path) if url and url.scheme == "file" else source).expanduser()
    if path.is_dir():
        return Remote(shown, str(path.resolve()), _git_directory(path.resolve(), shown))
    scp_like = not url and re.match(r"[\w.@-]+:", source)
    if not scp_like and not path.is_file() and (not url or url.scheme == "file"):
        raise Fa4AsvError(f"source {shown!r} does not exist")
    return Remote(shown, source)


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//", re.sub(r"[^\s/@]+:[^\s/@]+@", "", text))


def _git_directory(path: Path, shown: str) -> Path:
    """Raises Fa4AsvError where there is none that can serve, in git's own judgement of whom to trust."""
    try:
        output = _in_clone(path, "rev-parse", "--git-common-dir", ceiling=path.parent)
    except Fa4AsvError as error:
        if "not installed" in str(error):
            raise
        if re.search("dubious ownership|unsafe repository", str(error)):
            raise Fa4AsvError(
                f"{shown} belongs to another user, so git does not trust it; "
                f"if you do: git config --global --add safe.directory {path}"
            ) from None
        raise Fa4AsvError(f"{shown} is not a git repository") from None
    folder = (path / output.decode().rstrip("\n")).resolve()
    if (folder / "shallow").is_file():
        raise Fa4AsvError(_shallow(shown))
    if git(folder, "rev-parse", "--show-object-format").decode().strip() != "sha1":
        raise Fa4AsvError(
            f"{shown} names objects by another hash than sha1; flash-attention's own history does not"
        )
    return folder


def _shallow(shown: str) -> str:
    return f"{shown} is a shallow clone, and ranges need the whole history; run `git fetch --unshallow` there"


def _in_clone(path: str | Path, *arguments: str, ceiling: Path | None = None) -> bytes:
    """Output of git in somebody's clone, see `_as_the_person`. Nothing is fetched, whatever the clone is configured to."""
    return _as_the_person("-C", str(path), *arguments, ceiling=ceiling, protocols=("none",))


def _as_the_person(
    *arguments: str,
    ceiling: Path | None = None,
    protocols: Sequence[str] = _SCHEMES,
    into: Path | None = None,
) -> bytes:
    """Output of git under the person's configuration, without prompts. Raises Fa4AsvError with its last line, or where
    it goes over GitLimits; `into` is the folder that it fills."""
    environment = {
        name: value for name, value in os.environ.items() if name.removeprefix("GIT_") not in _LOCAL
    }
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_ALLOW_PROTOCOL": ":".join(protocols)}
    environment |= {"GIT_NO_LAZY_FETCH": "1"} | ({"GIT_CEILING_DIRECTORIES": str(ceiling)} if ceiling else {})
    quiet = ["-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false", "-c", "gc.auto=0"]
    quiet += ["-c", f"http.lowSpeedLimit={SLOWEST}", "-c", f"http.lowSpeedTime={PATIENCE}"]
    command = ["git", *quiet, "--no-optional-locks", *arguments]
    try:
        done = call_bounded(command, environment, into)
    except FileNotFoundError:
        raise Fa4AsvError("git is not installed; the history is a git repository") from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        message = next((line for line in lines if line.startswith(("fatal:", "ERROR:"))), lines[-1])
        raise Fa4AsvError(_without_password(one_line(message)))
    return done.stdout


def refs_of(remote: Remote) -> tuple[str, dict[str, str]]:
    """The default branch ("" where HEAD is detached), and the hash behind every ref. Raises Fa4AsvError."""
    if remote.folder:  # `ls-remote` would ask for trust once more, and by another name
        listed = _in_clone(remote.address, "for-each-ref", "--format=%(objectname)\t%(refname)")
        try:
            head = _in_clone(remote.address, "symbolic-ref", "--quiet", "HEAD")
        except Fa4AsvError:  # detached
            head = b""
    else:
        try:
            listed = _as_the_person("ls-remote", "--symref", "--", remote.address)
        except Fa4AsvError as error:
            raise Fa4AsvError(f"{remote.shown} cannot be read: {error}") from None
        head = next((line for line in listed.splitlines() if line.startswith(b"ref: ")), b"")
    default = re.match(r"(?:ref: )?refs/heads/(\S+)", head.decode(errors="replace"))
    rows = [line.partition("\t") for line in listed.decode(errors="replace").splitlines()]
    return default[1] if default else "", {name: tip for tip, _, name in rows if not tip.startswith("ref: ")}


def commit_in(remote: Remote, text: str) -> str:
    """The commit behind any name that a local clone knows; "" elsewhere and for an unknown one."""
    if not remote.folder:
        return ""
    try:
        output = _in_clone(remote.address, "rev-parse", "--verify", "--end-of-options", f"{text}^{{commit}}")
    except Fa4AsvError:
        return ""
    return output.decode().strip()


def lend_objects(remote: Remote, aside: Path, refs: Sequence[str]) -> None:
    """Make what `refs` reach readable in the empty repository `aside`: borrowed from a clone, fetched from a URL.

    Raises Fa4AsvError when it cannot be fetched or breaks off.
    """
    if remote.folder:
        (aside / "objects" / "info" / "alternates").write_text(f"{remote.folder / 'objects'}\n")
        return
    specs = [f"+{ref}:refs/theirs/{number}" for number, ref in enumerate(refs)]
    # No --filter: it would make later readers of `aside` fetch what they miss, one by one.
    options = ["--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
    try:
        _as_the_person("--git-dir", str(aside), "fetch", *options, "--", remote.address, *specs, into=aside)
    except Fa4AsvError as error:
        raise Fa4AsvError(f"{remote.shown} cannot be fetched: {error}") from None
    # git leaves out, with a warning, what would bring a shallow history.
    if len(git(aside, "for-each-ref").splitlines()) != len(specs):
        raise Fa4AsvError(_shallow(remote.shown))


def is_dirty(remote: Remote) -> bool:
    """Whether a clone's work tree holds changes that no commit has."""
    if not remote.folder:
        return False
    options = ["--porcelain", "--untracked-files=no", "--ignore-submodules=all"]
    try:
        settings = [word for name in _filters(remote) for word in ("-c", f"{name}=")]
        if any(word.count("=") > 1 for word in settings):  # no way to switch that filter off
            return False
        return bool(_in_clone(remote.address, *settings, "status", *options))
    except Fa4AsvError:  # a bare repository has no work tree
        return False


def _filters(remote: Remote) -> list[str]:
    """The programs that a clone's own configuration would have run on its files to compare them. A person's own, such as
    those of git-lfs, are not among them."""
    try:
        fields = (
            "config",
            "--show-scope",
            "--null",
            "--name-only",
            "--get-regexp",
            r"^filter\..*\.(clean|process|required)$",
        )
        parts = os.fsdecode(_in_clone(remote.address, *fields)).split("\0")
    except Fa4AsvError:  # there is none
        return []
    pairs = zip(parts[::2], parts[1::2], strict=False)
    return [name for scope, name in pairs if scope in ("local", "worktree")]
