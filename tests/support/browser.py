"""Fixtures of the tests in a real browser: the system's Chromium, and packages of the npm registry.

Where either is missing, these tests alone are skipped, and say what to install. FA4_ASV_BROWSER=required makes that an
error: .ci/run sets it where it found or installed both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:  # where it is not installed, all other tests run
    from playwright.sync_api import Browser, BrowserContext, Page

# axe-core judges accessibility; uplot draws our charts; the others are what asv's own site asks a CDN for.
PACKAGES = {
    "axe-core": "4.14.1",
    "uplot": "1.6.32",
    "jquery": "3.3.1",
    "flot": "0.8.3",
    "flot-orderbars": "1.0.0",
    "stupid-table-plugin": "1.1.3",
    "blueimp-md5": "2.19.0",
    "bootstrap": "3.1.1",
}
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def lacking(what: str) -> NoReturn:
    if os.environ.get("FA4_ASV_BROWSER") == "required":
        pytest.fail(f"{what}: FA4_ASV_BROWSER says that these tests must run")
    pytest.skip(what)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Headless; as root, where a container has no user namespaces, without its sandbox."""
    if find_spec("playwright") is None:
        lacking("no playwright here; install requirements/test.txt")
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        lacking("no Chromium here; install it, as `apt-get install chromium`")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def npm(tmp_path_factory) -> Path:
    """The folder node_modules with `PACKAGES`."""
    if shutil.which("npm") is None:
        lacking("no npm here; install Node.js")
    folder = tmp_path_factory.mktemp("npm")
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    command = [
        "npm",
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefix",
        str(folder),
        *wanted,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        lacking(f"npm cannot install {' '.join(wanted)}: {done.stderr.strip()[-300:]}")
    return folder / "node_modules"


@dataclass
class Watched:
    """A page, and everything that went wrong on it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def watched(context: BrowserContext) -> Watched:
    """A new page whose errors, warnings, failed and answered requests are kept."""
    result = Watched(context.new_page())
    page = result.page
    page.set_default_timeout(180_000)
    page.on("console", lambda message: result.errors.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: result.errors.append(str(error)))
    page.on("requestfailed", lambda request: result.errors.append(f"failed: {request.url}"))
    page.on("response", lambda answer: result.missing.append(answer.url) if answer.status >= 400 else None)
    page.on("request", lambda request: result.requests.append(request.url))
    return result


def violations(page: Page, axe: str, **options: object) -> list[str]:
    """What axe-core finds serious or critical on the open page, with the first tables unfolded."""
    page.evaluate("[...document.querySelectorAll('details')].slice(0, 2).forEach(each => each.open = true)")
    page.evaluate(axe)
    # Without preload axe does not fetch style sheets again, which a page from a file may not.
    settings = {"resultTypes": ["violations"], "preload": False, **options}
    result = page.evaluate("options => axe.run(document, options)", settings)["violations"]
    return [
        f"{each['id']} ({each['impact']}): {each['help']}: {each['nodes'][0]['html'][:200]}"
        for each in result
        if each["impact"] in ("serious", "critical")
    ]
