"""Take the night's results over into the repository: read as data, verified, committed, pushed.

    python -m tools.ci.accept       GH_TOKEN, REPOSITORY, RUN, BRANCH

The job that measured ran FA4's releases; this one runs none and may write. It takes pairs of `results/nogpu`
from the artifact and nothing else. Releases and toolchains it syncs and resolves itself. `integrity.acceptance`
has the rule: what arrives may add what is missing, never change what is there.

Exit code: 0 pushed or nothing new, 2 refused, with the repository as it was.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import NOGPU
from fa4_asv.base.project import Project
from fa4_asv.integrity.acceptance import accept
from fa4_asv.integrity.staging import stage
from tools.ci.artifact import fetch, member
from tools.ci.steps import NUMBER, REPOSITORY, Refused, call, main, setting, summary

FA4_ASV = [sys.executable, "-m", "fa4_asv"]
ARTIFACT = "fa4-asv-record"
_PAIR = re.compile(rf"results/{NOGPU}/[0-9a-f]{{8}}-[A-Za-z0-9_.+-]{{1,200}}\.(?:json|sidecar)")
LARGEST_FILE, MOST_FILES = 4 * 2**20, 2000  # the largest file recorded so far has 180 kB
ATTEMPTS = 3
NAME = "github-actions[bot]"
EMAIL = "41898282+github-actions[bot]@users.noreply.github.com"


def unpack(archive: zipfile.ZipFile, staged: Project) -> int:
    """Write the artifact's result files into a staged checkout; how many. Raises Refused.

    Each name is compared with a pattern without a way out of the folder; one that does not fit refuses all.
    """
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if len(names) > MOST_FILES:
        raise Refused(f"the artifact holds {len(names)} files, at most {MOST_FILES} are taken")
    if not all(_PAIR.fullmatch(name) for name in names):
        raise Refused("the artifact holds a file that is no result file of nogpu; nothing is taken")
    for name in names:
        target = staged.root / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(member(archive, name, LARGEST_FILE))
    return len(names)


def take_over(project: Project, archive: zipfile.ZipFile) -> int:
    """Move what the artifact adds into `results/`; how many files were new or changed. Raises Refused."""
    with tempfile.TemporaryDirectory(prefix="fa4-asv-accept-") as folder:
        staged = stage(project, Path(folder) / "checkout")
        if not unpack(archive, staged):
            return 0
        try:
            return len(accept(staged, project))
        except Fa4AsvError as error:
            raise Refused(f"the artifact is refused: {error}") from None


def git(project: Project, *arguments: str) -> bool:
    """Whether a git command in the checkout succeeded.

    The token reaches git by its environment, never by an argument or a file that a later step could read.
    """
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    token = base64.b64encode(f"x-access-token:{os.environ.get('GH_TOKEN', '')}".encode()).decode()
    header = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{server}/.extraheader",
        "GIT_CONFIG_VALUE_0": f"AUTHORIZATION: basic {token}",
    }
    return call(["git", "-C", str(project.root), *arguments], env={**os.environ, **header}).returncode == 0


def sync() -> None:
    """Bring releases and toolchains up to date with this job's own hands. Raises Refused.

    Releases are unpacked and resolved, never built or imported, and without the token.
    """
    env = {name: value for name, value in os.environ.items() if name != "GH_TOKEN"}
    if subprocess.run([*FA4_ASV, "history", "sync", "--quiet"], env=env).returncode != 0:
        raise Refused("the history could not be synced; nothing is taken")
    if subprocess.run([*FA4_ASV, "history", "lock"], env=env).returncode != 0:
        summary("A toolchain could not be resolved; the next night tries again.")


def commit(project: Project) -> bool:
    """Commit what changed in the record and the history; False where nothing did. Raises Refused."""
    if not git(project, "add", "--", "results", "history"):
        raise Refused("git could not add the record")
    if git(project, "diff", "--cached", "--quiet"):
        return False
    arguments = ("-c", f"user.name={NAME}", "-c", f"user.email={EMAIL}", "commit", "--quiet", "-m")
    if not git(project, *arguments, "Results of the night"):
        raise Refused("git could not commit the record")
    return True


def step() -> int:
    """The whole step; begins anew where somebody else pushed meanwhile."""
    repository, run = setting("REPOSITORY", REPOSITORY), setting("RUN", NUMBER)
    branch = setting("BRANCH", r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
    project = Project.find()
    archive = fetch(repository, run, ARTIFACT)
    for _ in range(ATTEMPTS):
        sync()
        files = take_over(project, archive) if archive else 0
        if not commit(project):
            print("nothing is new")
            return 0
        # Fast-forward only: never forced.
        if git(project, "push", "origin", f"HEAD:refs/heads/{branch}"):
            summary(f"{files} result files taken over.")
            return 0
        if not (git(project, "fetch", "origin", branch) and git(project, "reset", "--hard", "FETCH_HEAD")):
            raise Refused(f"{branch} cannot be fetched; nothing was pushed")
    raise Refused(
        f"{branch} refused the push {ATTEMPTS} times: is it protected, does the token lack contents: write?"
    )


if __name__ == "__main__":
    main(step)
