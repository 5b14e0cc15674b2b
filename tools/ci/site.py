"""Make the site from the record as it stands; a file that is refused costs itself, and is told loudly.

    python -m tools.ci.site

Exit code: 0 there is a site, 2 there is none.
"""

from __future__ import annotations

import json
import subprocess
import sys

from tools.ci.steps import Refused, main, summary

FA4_ASV = [sys.executable, "-m", "fa4_asv"]


def step() -> int:
    """The whole step."""
    if subprocess.run([*FA4_ASV, "history", "sync", "--quiet"]).returncode != 0:
        raise Refused("the history could not be synced; the old site stays")
    done = subprocess.run([*FA4_ASV, "publish", "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        raise Refused("nothing was published; the old site stays")
    report = json.loads(done.stdout)
    summary(f"{report['published']} result files published, {report['withheld']} withheld.")
    if report["withheld"]:
        print(f"::warning::{report['withheld']} result files are refused; `fa4-asv verify` names them")
    return 0


if __name__ == "__main__":
    main(step)
