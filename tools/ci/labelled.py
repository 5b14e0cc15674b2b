"""Find the open pull request of a run, and whether somebody labelled it; take the label off.

    python -m tools.ci.labelled     GH_TOKEN, REPOSITORY, LABEL, HEAD, HEAD_REPOSITORY, HEAD_BRANCH

Runs before code of a pull request may reach a GPU, and asks GitHub alone: whatever files the pull request holds, only
who may label can put a label on. The label is taken off, so that it stands for one run. Only the commit that was the
head when the run started is measured; where the pull request has moved on, nothing is, and the label is off as well.

Writes number, base and head to the step's outputs; nothing where nobody asked. Exit code: 0, or 2 refused.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from tools.ci.artifact import answer, api
from tools.ci.steps import COMMIT, NUMBER, REPOSITORY, Refused, main, output, setting


def pull_requests(repository: str, owner: str, branch: str) -> list[dict[str, Any]]:
    """Every open pull request of that branch."""
    query = f"state=open&per_page=100&head={quote(f'{owner}:{branch}', safe='')}"
    pulls: list[dict[str, Any]] = answer(f"repos/{repository}/pulls?{query}")
    return pulls


def is_of(pull: dict[str, Any], origin: str, branch: str) -> bool:
    """Whether GitHub says that the pull request's head is that branch of that repository."""
    head = pull["head"]
    return ((head.get("repo") or {}).get("full_name"), head["ref"]) == (origin, branch)


def take_off(repository: str, number: str, label: str) -> None:
    """Remove the label. Raises Refused where GitHub does not: without that it would stand for later pushes."""
    api(f"repos/{repository}/issues/{number}/labels/{quote(label, safe='')}", "--method", "DELETE")


def step() -> int:
    """The whole step; what it prints holds no word of the pull request."""
    repository, head = setting("REPOSITORY", REPOSITORY), setting("HEAD", COMMIT)
    label = setting("LABEL", r"[A-Za-z0-9][A-Za-z0-9 ._:/-]{0,49}")
    origin, branch = setting("HEAD_REPOSITORY", REPOSITORY), setting("HEAD_BRANCH", r"[^\x00-\x1f]{1,250}")
    pulls = pull_requests(repository, origin.partition("/")[0], branch)
    ours = [pull for pull in pulls if is_of(pull, origin, branch)]
    asked = [pull for pull in ours if label in [each["name"] for each in pull["labels"]]]
    for pull in asked:
        take_off(repository, str(int(pull["number"])), label)
    current = [pull for pull in asked if pull["head"]["sha"] == head]
    if len(current) > 1:
        raise Refused(f"{len(current)} open pull requests of this branch have the label; put it on one")
    if not current:
        print(
            "the pull request has moved on" if asked else "no open pull request of this branch has the label"
        )
        return 0
    (pull,) = current
    values = {"number": str(pull["number"]), "base": str(pull["base"]["sha"]), "head": head}
    for name, pattern in (("number", NUMBER), ("base", COMMIT)):
        if not re.fullmatch(pattern, values[name], re.ASCII):
            raise Refused(f"GitHub's answer has a {name} that is none")
    output(values)
    print(f"pull request {values['number']}, commit {head}")
    return 0


if __name__ == "__main__":
    main(step)
