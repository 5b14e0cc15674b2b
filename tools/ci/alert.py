"""Open an issue for each of the newest releases that is worse than the one before it, or bring the issue up to date.

    python -m tools.ci.alert        GH_TOKEN, REPOSITORY, SITE, ALERTS

ALERTS is "off" where nobody wants them. SITE is where the published site is, without a slash at its end; empty: the
repository's Pages. Runs with a token that may write issues, on the committed record, and compiles and runs nothing of FA4.

Exit code: 0 done or switched off, 2 refused.
"""

from __future__ import annotations

import json
from typing import Any

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.report.alerts import Alert, alerts
from fa4_asv.report.events import timeline
from fa4_asv.report.sound_record import explanations, read_record
from fa4_asv.report.swept import sweeps_of
from tools.ci.artifact import answer
from tools.ci.comment import AUTHOR, disarm
from tools.ci.steps import REPOSITORY, Refused, main, setting

LAST = 2  # releases: a night brings one, seldom two
SITE = r"https://[A-Za-z0-9.-]+(/[A-Za-z0-9._-]+)*"


def mark(version: str) -> str:
    """The first line of an issue, by which the next night finds it."""
    return f"<!-- fa4-asv alert of {version} -->"


def body(alert: Alert, site: str) -> str:
    """The issue's text: nothing in it can link, mention or script but our own link to the release's page."""
    page = f"{site}/report/{alert.page}"
    return f"{mark(alert.version)}\n[The page of this release]({page})\n\n{disarm(alert.body)}\n"


def found_alerts(project: Project) -> list[Alert]:
    """From the sound part of the record. Raises Fa4AsvError."""
    record = read_record(project)
    model = record.model()
    return alerts(model, timeline(model, explanations(project, record.problems)), sweeps_of(model), LAST)


def issues_of(repository: str) -> dict[str, dict[str, Any]]:
    """The issues that this step opened, by their first line."""
    query = f"repos/{repository}/issues?state=all&per_page=100"
    pages = answer(query, "--paginate", "--slurp")
    return {
        str(each["body"]).partition("\n")[0]: each
        for page in pages
        for each in page
        if (each["user"] or {}).get("login") == AUTHOR and "pull_request" not in each
    }


def post(repository: str, alert: Alert, text: str, known: dict[str, dict[str, Any]]) -> str:
    """Open the issue, or put `text` into the one that is there; "opened", "updated" or "unchanged"."""
    there = known.get(mark(alert.version))
    if there is None:
        data = json.dumps({"title": alert.title, "body": text}).encode()
        answer(f"repos/{repository}/issues", "--method", "POST", "--input", "-", body=data)
        return "opened"
    if str(there["body"]).replace("\r\n", "\n").strip() == text.strip():
        return "unchanged"
    where = f"repos/{repository}/issues/{int(there['number'])}"
    answer(where, "--method", "PATCH", "--input", "-", body=json.dumps({"body": text}).encode())
    return "updated"


def step() -> int:
    """The whole step."""
    if setting("ALERTS", r"on|off", "on") == "off":
        print("alerts are switched off")
        return 0
    repository = setting("REPOSITORY", REPOSITORY)
    owner, _, name = repository.partition("/")
    site = setting("SITE", SITE, "") or f"https://{owner.lower()}.github.io/{name}"
    try:
        result = found_alerts(Project.find())
    except Fa4AsvError as error:
        raise Refused(str(error)) from None
    known = issues_of(repository) if result else {}
    for alert in result:
        print(f"{alert.version}: {post(repository, alert, body(alert, site), known)}")
    if not result:
        print(f"none of the newest {LAST} releases is worse than the one before it")
    return 0


if __name__ == "__main__":
    main(step)
