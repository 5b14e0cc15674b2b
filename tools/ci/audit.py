"""A sample of the committed record made anew by a machine that did not measure it.

    python -m tools.ci.audit        MINUTES, SOURCE

FA4's releases run here, so this step holds no token that may write. It uses nothing that another job left: neither an
artifact nor a cache. SOURCE is the repository whose main branch holds the recorded commits that are no releases; without
it, or where it cannot be reached, they are left out and counted.

Exit code: 0 everything is equal, 1 something differs, 2 it could not be done.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tools.ci.steps import Refused, main, setting, summary

FA4_ASV = [sys.executable, "-m", "fa4_asv"]
_MOST = 20  # lines of a page; the log has all


def step() -> int:
    """The whole step."""
    minutes = setting("MINUTES", r"[1-9][0-9]{0,2}", "3")
    source = setting("SOURCE", r"https://[A-Za-z0-9._/-]{1,200}", "")
    if subprocess.run([*FA4_ASV, "history", "sync", "--quiet"]).returncode != 0:
        raise Refused("the history could not be synced; nothing was audited")
    if (
        source
        and subprocess.run([*FA4_ASV, "history", "sync", "--quiet", "--source", source]).returncode != 0
    ):
        print("::warning::upstream's branch could not be synced; its commits are left out")
    done = subprocess.run([*FA4_ASV, "audit", "--minutes", minutes, "--json"], stdout=subprocess.PIPE)
    if done.returncode not in (0, 1):
        raise Refused(f"the record could not be audited (exit code {done.returncode})")
    report = json.loads(done.stdout)
    print(json.dumps(report, indent=1))
    summary("\n".join(_lines(report)))
    return done.returncode


def _lines(report: dict[str, Any]) -> list[str]:
    """For the page of the run."""
    lines = [f"Audit of the record, seed {report['seed']}, {report['files']['checked']} files:", ""]
    for group, each in report["cases"].items():
        chance = each["chance_of_finding_1_percent"]
        lines.append(
            f"* {group}: {each['checked']} of {each['of']} made anew; finds 1 % of wrong ones with a chance of {chance:.2f}"
        )
    wrong = [
        f"    {each['file']}: {each['group']} {each['case']}: {each['what']}"
        for each in report["differences"]
    ]
    return [*lines, "", *(wrong[:_MOST] or ["Nothing differs."])]


if __name__ == "__main__":
    main(step)
