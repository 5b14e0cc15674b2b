"""Post the report of a pull request's run as a comment, or replace the last one.

    python -m tools.ci.comment      GH_TOKEN, REPOSITORY, WORKFLOW, RUN, HEAD, HEAD_REPOSITORY, HEAD_BRANCH

Runs with a token that may write, so it runs none of the pull request's code and believes nothing of it.
The report is read from the run's artifact as text; the pull request's number stands in there, too, and counts
only when GitHub says that this pull request's head is the commit the run was of.

Exit code: 0 posted or nothing to post, 2 refused.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from typing import Any

from fa4_asv.base.escape import visible
from tools.ci.artifact import answer, fetch, member
from tools.ci.steps import COMMIT, NUMBER, REPOSITORY, Refused, main, setting

ARTIFACT = "fa4-asv-report"
AUTHOR = "github-actions[bot]"
LARGEST_REPORT = 60 * 1024  # bytes; `fa4-asv compare` keeps to it
LARGEST_BODY = 65_000  # characters; GitHub takes 65,536
# A joiner that is not seen, between two characters that would otherwise do something.
JOINER = "\u2060"
_TAGS = r"/?(?:details|summary|sub|b|br)\s*>"
_ACTIVE = re.compile(
    rf"<(?!{_TAGS})"  # HTML other than the plain folds of a report
    r"|@"  # mentions and addresses
    r"|&(?!(?:amp|lt|gt|quot|nbsp|#39|#x27|#124);)(?=#?\w)"  # the same, spelled as an entity
    r"|\](?=[(\[:])|!(?=\[)"  # links, images, link definitions
    r"|:(?=//)|www(?=\.)"  # what GitHub would link by itself
    r"|GH(?=-\d)|#(?=\d)"  # a reference leaves a trace on the other issue
    r"|(?:```+|~~~+)(?=[ \t]*\w)"  # a fence whose language GitHub would draw (diagrams, maps)
    r"|^[ \t]*(?=/\w)",  # commands that other bots read
    re.MULTILINE | re.IGNORECASE,
)


def disarm(text: str) -> str:
    """`text` as Markdown that keeps its tables, code and folds and can neither link, mention nor script.

    The report comes from a job that ran the pull request's code: whatever `compare` escaped, that job
    could have written something else.
    """
    plain = visible(text.replace("\r\n", "\n"))
    return _ACTIVE.sub(lambda match: match[0] + JOINER, plain)


def mark(workflow: str) -> str:
    """The first line of the comment of one workflow, by which its next run finds it."""
    return f"<!-- fa4-asv report of {workflow} -->"


def body(report: str, head: str, run: str, repository: str, workflow: str) -> str:
    """The comment: whose words these are first, so that nothing in the report can hide it."""
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    page = f"{server}/{repository}/actions/runs/{run}"
    intro = (
        f"Made by [the run]({page}) of {head[:8]}, which ran this pull request's code; the artifact is there."
    )
    text = disarm(report)
    if len(text) > LARGEST_BODY:
        text = "The report is too long for a comment."
    return f"{mark(workflow)}\n{intro}\n\n{text}"


def pull_request(archive: zipfile.ZipFile, repository: str, head: str) -> str:
    """The number of the open pull request whose head is `head`, "" where it has moved on.

    Raises Refused where the artifact names a pull request that the run was not of.
    """
    number = member(archive, "number", 32).decode("ascii", "replace").strip()
    if not re.fullmatch(NUMBER, number, re.ASCII):
        raise Refused("the artifact names no pull request: its number is not a number")
    pull: dict[str, Any] = answer(f"repos/{repository}/pulls/{number}")
    origin = (pull["head"].get("repo") or {}).get("full_name")
    claimed = os.environ.get("HEAD_REPOSITORY"), os.environ.get("HEAD_BRANCH")
    if pull["head"]["sha"] == head and pull["state"] == "open":
        return number
    if (origin, pull["head"]["ref"]) == claimed:
        return ""
    raise Refused(f"pull request {number} is not the one this run was of; nothing is posted")


def post(repository: str, number: str, text: str) -> str:
    """Post `text`, or put it in place of the one with its first line; "posted" or "replaced"."""
    first = text.partition("\n")[0]
    pages = answer(f"repos/{repository}/issues/{number}/comments?per_page=100", "--paginate", "--slurp")
    ours = [
        each["id"]
        for page in pages
        for each in page
        if (each["user"] or {}).get("login") == AUTHOR and str(each["body"]).startswith(first)
    ]
    data = json.dumps({"body": text}).encode()
    if ours:
        where = f"repos/{repository}/issues/comments/{int(ours[0])}"
        answer(where, "--method", "PATCH", "--input", "-", body=data)
        return "replaced"
    answer(f"repos/{repository}/issues/{number}/comments", "--method", "POST", "--input", "-", body=data)
    return "posted"


def step() -> int:
    """The whole step; what it prints holds no word of the artifact."""
    repository = setting("REPOSITORY", REPOSITORY)
    run, head = setting("RUN", NUMBER), setting("HEAD", COMMIT)
    workflow = setting("WORKFLOW", r"[A-Za-z0-9]+([ ._-][A-Za-z0-9]+)*")
    archive = fetch(repository, run, ARTIFACT)
    if archive is None:
        print("the run left no report; nothing to post")
        return 0
    report = member(archive, "report.md", LARGEST_REPORT)
    number = pull_request(archive, repository, head)
    if not number:
        print("the pull request has moved on; its next run reports")
        return 0
    try:
        text = report.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("report.md in the artifact is not UTF-8") from None
    done = post(repository, number, body(text, head, run, repository, workflow))
    print(f"{done} on pull request {number}")
    return 0


if __name__ == "__main__":
    main(step)
